"""What a host sets for its whole process does not matter to daebus."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

from daebus import Daebus
from tests.support.child import PREAMBLE, Child
from tests.support.waiting import eventually

HOST = (
    PREAMBLE
    + """
import signal, socket
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
socket.setdefaulttimeout(0.3)
"""
)


def test_sigpipe_ends_nobody() -> None:
    program = Child(
        """
        import pathlib, tempfile
        folder = tempfile.mkdtemp()
        pathlib.Path(folder, "large").write_bytes(bytes(8 << 20))
        served = Daebus("served")
        served.attach(DaebusHttp(port=0, static=folder))
        served.attach(DaebusWebSocket())

        @served.route("/stream")
        def stream(req):
            for _ in range(1000):
                yield "x" * 10000

        served.start()
        for path in ("/large", "/stream", "/_daebus/health"):
            for _ in range(5):
                sock = socket.create_connection(("127.0.0.1", served.http.port))
                sock.sendall(b"GET %b HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" % path.encode())
                sock.recv(100)
                sock.close()
        with served.test_client() as gone:
            gone.websocket.sock.close()
            for _ in range(200):
                served.websocket.broadcast_to_all("x", "y" * 10000)
        served.stop()
        print("alive", flush=True)
        """,
        preamble=HOST,
    )
    try:
        assert program.line() == "alive"
        assert program.exit_code() == 0, program.stderr()
    finally:
        program.end()


def test_a_default_timeout_ends_no_connection() -> None:
    program = Child(
        """
        with app, app.test_client() as client:
            threading.Event().wait(1)  # longer than the timeout
            print(client.request("echo", "still here"), flush=True)
        """,
        preamble=HOST,
    )
    try:
        assert program.line() == "still here"
        assert program.exit_code() == 0, program.stderr()
    finally:
        program.end()


def test_nothing_of_a_client_is_there_for_the_next_but_thread_locals(
    make_app: Callable[..., Daebus],
) -> None:
    app = make_app()
    local, variable = threading.local(), contextvars.ContextVar("variable", default="")

    @app.socket("take")
    def take(req: Any) -> list[Any]:
        found = [
            threading.get_ident(),
            getattr(local, "name", ""),
            variable.get(),
            req.session.get("name", ""),
        ]
        local.name = req.session["name"] = req.data
        variable.set(req.data)
        return found

    app.start()
    with app.test_client() as client:
        thread = client.request("take", "ada")[0]
        assert client.request("take", "ada") == [thread, "ada", "ada", "ada"]
    assert eventually(lambda: [t for t in threading.enumerate() if t.name == "daebus-ws-parked"])
    with app.test_client() as client:
        # The thread is the same one, which is why the guide warns of thread-locals.
        assert client.request("take", "bob") == [thread, "ada", "", ""]
