"""After a fork the child's copy of an app is dead, and says so."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from tests.support.child import Child
from tests.support.fixture_types import Connect
from tests.support.peer import Peer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_is_told_and_the_parent_goes_on(child: Callable[..., Child]) -> None:
    program = child("""
        from daebus import ForkedError

        def attempt(name, call):
            try:
                return f"{name}: {call()}"
            except ForkedError as exc:
                return f"{name}: ForkedError {exc}"

        with app, app.test_client() as client:
            assert client.request("echo", "before") == "before"
            lines, out = os.pipe()
            pid = os.fork()
            if pid == 0:
                report = [
                    attempt("start", app.start),
                    attempt("broadcast", lambda: app.websocket.broadcast_to_all("x")),
                    attempt("send", lambda: app.websocket.send("x")),
                    attempt("to one", lambda: app.websocket.send_to_client("id", "x")),
                    attempt("to some", lambda: app.websocket.broadcast_to_clients(["id"], "x")),
                    attempt("to a room", lambda: app.websocket.broadcast_to_room("hall", "x")),
                    attempt("to a user", lambda: app.websocket.send_to_user("ann", "x")),
                    attempt("join", lambda: app.websocket.join("id", "hall")),
                    attempt("leave", lambda: app.websocket.leave("id", "hall")),
                    attempt("identify", lambda: app.websocket.identify("id", "ann")),
                    attempt("note", lambda: app.websocket.set_client_metadata("id", name="ann")),
                    attempt("away", lambda: app.websocket.disconnect_client("id")),
                    attempt("all away", app.websocket.disconnect_all_clients),
                    attempt("stop", app.stop),
                    attempt("metadata", lambda: app.websocket.get_client_metadata("id")),
                    attempt("count", app.websocket.get_client_count),
                    attempt("running", lambda: app.running),
                ]
                own = Daebus("of the child")
                own.attach(DaebusHttp(port=0))
                own.attach(DaebusWebSocket())
                own.socket("echo")(lambda req: req.data)
                with own.test_client() as other:
                    report.append(attempt("own", lambda: other.request("echo", "works")))
                os.write(out, "\\n".join(report).encode())
                os._exit(0)
            os.close(out)
            assert os.waitpid(pid, 0)[1] == 0
            with open(lines) as report:
                print(report.read())
            assert client.request("echo", "after") == "after"
            assert app.websocket.broadcast_to_all("x") == 1
            assert client.receive("broadcast")["data"] == "x"
        print("parent goes on")
        """)
    assert program.exit_code() == 0, program.stderr()
    report = [program.line() for _ in range(19)]
    told = "ForkedError this process was forked after the app was started"
    assert report[0].startswith(f"start: {told}")
    assert "make a new app in the child" in report[0]
    assert all(f": {told}" in line for line in report[:13])
    assert report[13:] == [
        "stop: []",
        "metadata: None",
        "count: 0",
        "running: False",
        "own: works",
        "parent goes on",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_does_not_keep_the_ports(child: Callable[..., Child]) -> None:
    program = child("""
        import socket
        ports = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                ports.append(probe.getsockname()[1])
        app = Daebus("parent")
        app.attach(DaebusHttp(port=ports[0]))
        app.attach(DaebusWebSocket(port=ports[1]))
        app.start()
        end, hold = os.pipe()
        alive, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(hold)
            os.write(tell, b"!")
            os.read(end, 1)  # until the parent is done
            os._exit(0)
        os.read(alive, 1)
        app.stop()
        app.start()  # on the same ports
        app.stop()
        os.close(hold)
        assert os.waitpid(pid, 0)[1] == 0
        print("both ports were free")
        """)
    assert program.exit_code() == 0, program.stderr()
    assert program.line() == "both ports were free"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_an_app_that_was_not_started_survives_a_fork(child: Callable[..., Child]) -> None:
    program = child("""
        pid = os.fork()
        with app.test_client() as client:
            assert client.request("echo", 1) == 1
        if pid == 0:
            os._exit(0)
        print(os.waitpid(pid, 0)[1])
        """)
    assert program.exit_code() == 0, program.stderr()
    assert program.line() == "0"


FORKED = """
    app.route("/")(lambda req: "here")
    app.start()
    tell_port()
    sys.stdin.readline()
    end, hold = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hold)
        os.close(1)
        os.close(2)
        os.read(end, 1)  # until the parent is gone or the test has closed it
        threading.Event().wait(8)
        os._exit(0)
    print("forked", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_child_keeps_no_connection_open(child: Callable[..., Child], connect: Connect) -> None:
    program = child(FORKED)
    port = program.port()

    def go_on() -> None:
        assert program.process.stdin is not None
        program.process.stdin.write("\n")
        program.process.stdin.flush()

    clients = [Peer.joined(connect(port)), Peer.joined(connect(port))]
    idle = connect(port)
    idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert idle.recv(4096).startswith(b"HTTP/1.1 200")
    go_on()
    assert program.line() == "forked"
    began = time.monotonic()
    clients[0].close()
    assert time.monotonic() - began < 2
    go_on()  # it is killed
    assert clients[1].ended()  # no close frame: nobody is left to send one
    assert idle.recv(1) == b""
    assert time.monotonic() - began < 4
