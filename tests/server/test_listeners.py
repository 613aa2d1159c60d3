"""An app on several hosts, on socket files, on sockets of others and under systemd."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import daebus
from daebus import AddressInUseError, Daebus, DaebusHttp, DaebusWebSocket, Request, StateError
from tests.support.fixture_types import MakeApp
from tests.support.peer import Answer, Peer
from tests.support.waiting import eventually

REQUEST = b"GET /me HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def start() -> Iterator[MakeApp]:
    """Start apps with both components; keyword arguments go to ``DaebusHttp``."""
    apps: list[Daebus] = []

    def new(websocket: DaebusWebSocket | None = None, **options: Any) -> Daebus:
        app = Daebus("places")
        app.attach(DaebusHttp(**options))
        app.attach(websocket or DaebusWebSocket())
        app.socket("me")(lambda req: req.websocket.remote_address)

        @app.route("/me")
        def me(req: Request) -> dict[str, Any]:
            names = ("REMOTE_ADDR", "SERVER_NAME", "SERVER_PORT")
            return {name: req.environ[name] for name in names}

        apps.append(app)
        app.start()
        return app

    yield new
    for app in apps:
        app.stop(timeout=5)


@contextmanager
def to(address: Any) -> Iterator[Peer]:
    """Connect to a socket file, or to host and port."""
    if isinstance(address, tuple):
        sock = socket.create_connection(address, timeout=5)
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(str(address))
    with sock:
        yield Peer(sock)


def ask(address: Any) -> Answer:
    with to(address) as peer:
        return peer.ask(REQUEST)


# --- ports --------------------------------------------------------------------------


def test_several_hosts(start: MakeApp, ipv6: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "daebus")
    app = start(host=["127.0.0.1", "::1"], port=0)
    port = app.http.port
    assert app.http.addresses == (f"127.0.0.1:{port}", f"[::1]:{port}")
    assert f"places listens on 127.0.0.1:{port}, [::1]:{port}" in caplog.messages
    for host in ("127.0.0.1", "::1"):
        assert ask((host, port)).json == {
            "REMOTE_ADDR": host,
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
        }
    app.stop()
    assert not app.http.addresses


def test_ipv6_alone_and_its_test_client(start: MakeApp, ipv6: None) -> None:
    app = start(host="::1", port=0)
    with app.test_client() as client:
        assert client.request("me") == "::1"


def test_an_ipv4_peer_of_a_socket_for_both(start: MakeApp, ipv6: None) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this system has no sockets for IPv4 and IPv6 at once")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        app = start(sock=sock)
        answer = ask(("127.0.0.1", app.http.port))
    assert answer.json["REMOTE_ADDR"] == "127.0.0.1"


def test_two_apps_share_a_port(start: MakeApp) -> None:
    one = start(port=0, reuse_port=True)
    two = start(port=one.http.port, reuse_port=True)
    assert two.http.port == one.http.port
    one.stop()
    assert ask(("127.0.0.1", two.http.port)).status == 200


# --- socket files -------------------------------------------------------------------


def test_a_socket_file(start: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "x.sock"
    app = start(unix=path)
    assert app.http.port == app.websocket.port == 0
    assert app.http.addresses == (f"unix:{path}",)
    assert f"places listens on unix:{path}" in caplog.messages
    assert ask(path).json == {"REMOTE_ADDR": "", "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    with to(path) as peer:
        Peer.joined(peer.sock)
        peer.say("me")
        assert peer.message() == {"type": "response", "data": ""}
        assert any(text.endswith("connected from a Unix socket") for text in caplog.messages)
        assert app.stats()["websocket"]["connections"] == 1
    app.stop()
    assert not path.exists()
    app.start()
    assert ask(path).status == 200


def test_a_dump_names_clients_of_a_socket_file(
    start: MakeApp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = start(unix=tmp_path / "x.sock")
    with to(tmp_path / "x.sock") as peer:
        Peer.joined(peer.sock)
        eventually(app.websocket.get_client_count)
        app.dump()
    assert " from a Unix socket / " in capsys.readouterr().err


def test_a_file_beside_a_port(start: MakeApp, tmp_path: Path) -> None:
    app = start(port=0, unix=tmp_path / "x.sock")
    assert ask(("127.0.0.1", app.http.port)).status == 200
    assert ask(tmp_path / "x.sock").status == 200


def test_a_start_that_fails_releases_everything(start: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        app = Daebus("places")
        app.attach(DaebusHttp(port=0, unix=path))
        app.attach(DaebusWebSocket(port=taken.getsockname()[1]))
        with pytest.raises(AddressInUseError):
            app.start()
        assert not path.exists()
        assert not app.http.addresses
    start(unix=path)
    other = Daebus("second")
    other.attach(DaebusHttp(unix=path))
    with pytest.raises(AddressInUseError, match=str(path)):
        other.start()
    assert ask(path).status == 200


def test_websockets_on_a_port_of_their_own(
    start: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "daebus")
    path = tmp_path / "x.sock"
    app = start(DaebusWebSocket(port=0), unix=path)
    port = app.websocket.port
    assert port
    assert f"places takes WebSockets on port {port}" in caplog.messages
    with app.test_client() as client:
        assert client.request("me") == "127.0.0.1"
    with to(path) as peer:
        answer = peer.ask(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert (answer.status, answer.json["error"]) == (
            404,
            f"WebSockets are on port {port} of this server",
        )
    assert ask(("127.0.0.1", port)).status == 426


def test_a_test_client_needs_a_port(start: MakeApp, tmp_path: Path) -> None:
    app = start(unix=tmp_path / "x.sock")
    with pytest.raises(StateError, match="test clients need a port"), app.test_client():
        pass
    app.stop()
    with app.test_client() as client:  # which starts it, on a port alone
        assert not (tmp_path / "x.sock").exists()
        assert client.request("me") == "127.0.0.1"


FORK = """
import os, sys
from daebus import Daebus, DaebusHttp
app = Daebus("fork")
app.attach(DaebusHttp(unix=sys.argv[1]))
app.start()
child = os.fork()
if not child:
    app.stop()
    sys.exit()
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), os.path.exists(sys.argv[1]))
app.stop()
print("parent", os.path.exists(sys.argv[1]))
"""


def test_a_forked_child_leaves_the_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path / "x.sock")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.splitlines() == ["child 0 True", "parent False"], done.stderr


# --- sockets of others --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sock", "fd"])
def test_a_socket_of_the_caller(start: MakeApp, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        app = start(**{kind: sock if kind == "sock" else sock.fileno()})
        assert (app.http.host, app.http.port) == address
        assert ask(address).status == 200
        app.stop()
        with to(address) as waiting:  # the socket still listens: this one is served later
            waiting.sock.sendall(REQUEST)
            app.start()
            assert waiting.ask(b"").status == 200


# --- systemd ------------------------------------------------------------------------

SERVICE = """
import sys
from daebus import Daebus, DaebusHttp

app = Daebus("service")
http = app.attach(DaebusHttp(fd="systemd"))


@app.route("/me")
def me(req):
    return {"addresses": http.addresses}


if "twice" in sys.argv:
    app.start()
    app.stop()
    print("again", flush=True)
app.run()
print("ended", flush=True)
"""

# Passes sockets as systemd does: from descriptor 3 on, with the number of the process.
EXEC = """
import os, socket, sys
kept = [socket.socket(fileno=int(fd)) for fd in sys.argv[2:]]
for target, sock in enumerate(kept, 3):
    os.dup2(sock.fileno(), target)
os.environ.update(LISTEN_FDS=str(len(kept)), LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], "twice"])
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(daebus.__file__).parents[1])}


def finish(process: subprocess.Popen[str]) -> None:
    """Have a service end in good order."""
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.read() == "ended\n"
    assert process.wait(10) == 0


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, text=True, **options
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_sockets_from_systemd(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as port,
        socket.socket(socket.AF_UNIX) as file,
    ):
        file.bind(str(tmp_path / "x.sock"))
        fds = [port.fileno(), file.fileno()]
        # High numbers, which dup2 in the child does not overwrite.
        high = [os.dup(fd) for fd in fds]
        command = [sys.executable, "-c", EXEC, SERVICE, *map(str, high)]
        try:
            with running(command, pass_fds=high) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "again\n"
                addresses = {
                    "addresses": [f"127.0.0.1:{port.getsockname()[1]}", f"unix:{tmp_path}/x.sock"]
                }
                assert ask(port.getsockname()).json == addresses
                assert ask(tmp_path / "x.sock").json == addresses
                finish(process)
        finally:
            for fd in high:
                os.close(fd)
        assert (tmp_path / "x.sock").is_socket()


def test_systemd_socket_activate(tmp_path: Path) -> None:
    tool = shutil.which("systemd-socket-activate")
    if tool is None:
        pytest.skip("there is no systemd-socket-activate on this machine")
    path = tmp_path / "x.sock"
    command = [tool, "-l", str(path), "-E", "PYTHONPATH", sys.executable, "-c", SERVICE]
    with running(command, stderr=subprocess.DEVNULL) as process:
        assert eventually(path.is_socket)
        # The program is started by the first client, and answers it.
        assert ask(path).json == {"addresses": [f"unix:{path}"]}
        finish(process)


def test_no_sockets_from_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    app = Daebus("alone")
    app.attach(DaebusHttp(fd="systemd"))
    with pytest.raises(OSError, match="systemd has passed no socket"):
        app.start()
    assert not app.http.addresses
