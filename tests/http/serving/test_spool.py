"""Bodies on the disk: only those that somebody wants, within bounds, and a full disk is said."""

from __future__ import annotations

import resource
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import Client

from daebus import Daebus, Request
from daebus.http.component import serving_of
from tests.support.child import Child
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.logs import records
from tests.support.peer import upgrade_request
from tests.support.waiting import eventually

BODY = bytes(200_000)


def head(path: str, size: int = len(BODY), *headers: str) -> str:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {size}", *headers]
    return "\r\n".join(lines) + "\r\n\r\n"


def files(app: Daebus) -> int:
    return serving_of(app.http)._router.spool.files


@pytest.fixture
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that is opened from now on finds the disk full."""

    def full(buffering: int = -1) -> Any:
        return open("/dev/full", "r+b", buffering=buffering)

    monkeypatch.setattr(tempfile, "TemporaryFile", full)


# --- bodies that nobody wants -------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"), [("/nowhere", 404), ("/get", 405), ("/_daebus/health", 405)]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_for_nobody_is_not_read(
    serve: Serve, raw: OpenRaw, path: str, status: int, chunked: bool
) -> None:
    app = serve()
    app.route("/get")(lambda req: "got")
    app.error_handler(404)(lambda req, exc: ("nothing here", 404))
    app.start()
    client = raw(app)
    if chunked:
        client.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"a000\r\n" + bytes(0xA000) + b"\r\n")  # and more to come
    else:
        client.send(head(path) + "a")
    answer = client.answer()
    assert (answer.status, answer.header("connection")) == (status, "close")
    if status == 404:
        assert answer.body == b"nothing here"
    assert client.ended()
    assert files(app) == 0


def test_nobody_is_asked_to_send_it(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.route("/post", methods=["POST"])(lambda req: str(len(req.get_data())))
    app.start()
    client = raw(app)
    client.send(head("/nowhere", len(BODY), "Expect: 100-continue"))
    assert client.answer().status == 404
    client = raw(app)
    client.send(head("/post", len(BODY), "Expect: 100-continue"))
    assert client.head().status == 100
    client.send(BODY)
    assert client.answer().body == b"200000"
    assert client.get("/nowhere").status == 404  # the connection goes on


def test_a_mounted_app_gets_its_bodies(serve: Serve, raw: OpenRaw) -> None:
    app = serve()

    def mounted(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [str(len(environ["wsgi.input"].read())).encode()]

    app.mount("/other", mounted)
    app.start()
    assert raw(app).post("/other/place", BODY).body == b"200000"


# --- bounds -------------------------------------------------------------------------


def test_all_bodies_share_one_bound(serve: Serve, raw: OpenRaw) -> None:
    app = serve(max_spool=500_000, workers=4)
    inside, leave = threading.Semaphore(0), threading.Event()

    @app.route("/", methods=["POST"])
    def view(req: Request) -> str:
        inside.release()
        leave.wait(10)
        return str(len(req.get_data()))

    app.start()
    holders = [raw(app), raw(app)]
    for client in holders:
        client.send(head("/"))
        client.send(BODY)
        assert inside.acquire(timeout=5)
    assert files(app) == 2
    third = raw(app)
    with records() as logged:
        third.send(head("/"))
        third.send(BODY)
        answer = third.answer()
    assert logged.wait_for("500000 bytes").endswith("write DaebusHttp(max_spool=...) with more")
    assert (answer.status, answer.code) == (503, "service_unavailable")
    leave.set()
    for client in holders:
        assert client.answer().body == b"200000"
    assert eventually(lambda: files(app) == 0)
    assert raw(app).post("/", BODY).body == b"200000"  # what was taken is given back


def test_uploads_count_as_well(serve: Serve, raw: OpenRaw) -> None:
    app = serve(max_spool=2_500_000)
    app.route("/", methods=["POST"])(lambda req: str(len(req.files["f"].read())))
    app.start()
    kind = "Content-Type: multipart/form-data; boundary=B"

    def form(size: int) -> bytes:
        start = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        return start + bytes(size) + b"\r\n--B--\r\n"

    assert raw(app).post("/", form(1_000_000), kind).body == b"1000000"
    answer = raw(app).post("/", form(2_000_000), kind)
    assert (answer.status, answer.code) == (503, "service_unavailable")
    assert eventually(lambda: files(app) == 0)


# --- a full disk --------------------------------------------------------------------


@pytest.mark.usefixtures("no_disk")
@pytest.mark.parametrize("size", [65_537, 70_000, 200_000])
def test_a_full_disk_is_said(serve: Serve, raw: OpenRaw, size: int) -> None:
    app = serve()
    app.route("/", methods=["POST"])(lambda req: str(len(req.get_data())))
    app.start()
    with records() as logged:
        answer = raw(app).post("/", bytes(size))
        raw(app).post("/", bytes(size))
    [text] = logged.texts  # the second is a repeat
    assert text.startswith(f"cannot store a body or an upload in {tempfile.gettempdir()}: ")
    assert "No space left on device; make room there, or set TMPDIR" in text
    assert (answer.status, answer.code) == (503, "service_unavailable")
    assert files(app) == 0
    assert raw(app).post("/", b"small").body == b"5"


@pytest.mark.usefixtures("no_disk")
def test_a_full_disk_is_said_of_uploads_too(make_app: Callable[..., Daebus]) -> None:
    app = make_app(http={"max_body": 1 << 24})
    app.route("/", methods=["POST"])(lambda req: str(len(req.files)))
    app.start()
    # The body itself is in memory, as another server may have it, so that the form is reached.
    body = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    body += bytes(600_000) + b"\r\n--B--\r\n"

    def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
        return serving_of(app.http).answer(environ, start_response)

    kind = "multipart/form-data; boundary=B"
    with Client(wsgi).post("/", data=body, content_type=kind) as response:
        assert response.status_code == 503


# --- descriptors --------------------------------------------------------------------

CROWDED = """
import resource, socket
from daebus import Daebus, DaebusHttp, DaebusWebSocket
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
app = Daebus("child")
app.attach(DaebusHttp(port=0))
app.attach(DaebusWebSocket())
app.socket("echo")(lambda req: req.data)
app.start()
print("port", app.http.port, flush=True)
sys.stdin.readline()
files = [open(os.devnull) for _ in range(128)]
print("opened", len(files), app.websocket.get_client_count(), flush=True)
sys.stdin.readline()
app.stop()
"""


def test_websockets_and_idle_connections_leave_descriptors_to_the_host() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this process may not open enough descriptors")
    child = Child(CROWDED, preamble="import os, sys\n")
    clients: list[socket.socket] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    try:
        port = child.port()

        def connect() -> socket.socket:
            clients.append(socket.create_connection(("127.0.0.1", port), timeout=20))
            return clients[-1]

        for _ in range(300):
            sock = connect()
            sock.sendall(upgrade_request())
            assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
        refused = 0
        for _ in range(1000):
            sock = connect()
            sock.sendall(b"GET /_daebus/health HTTP/1.1\r\nHost: x\r\n\r\n")
            refused += not sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert refused > 300
        assert child.process.stdin is not None
        child.process.stdin.write("\n")
        child.process.stdin.flush()
        assert child.line() == "opened 128 300", child.stderr()
    finally:
        for sock in clients:
            sock.close()
        child.end()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
