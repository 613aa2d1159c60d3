"""Large bodies that hooks may refuse: asked first, spooled only if the request goes on."""

from __future__ import annotations

import tempfile
import threading
from typing import Any

import pytest

from daebus import Daebus, Request
from daebus.http.component import serving_of
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import server_of
from tests.support.tls import client_context, server_context
from tests.support.waiting import eventually

BODY = bytes(range(256)) * 800  # 204,800 bytes, more than stays in memory
CHUNKED = "POST /put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
FIRST = b"a000\r\n" + bytes(0xA000) + b"\r\n"


def head(path: str, *headers: str, size: int = len(BODY)) -> str:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {size}", *headers]
    return "\r\n".join(lines) + "\r\n\r\n"


def files(app: Daebus) -> int:
    return serving_of(app.http)._router.spool.files


@pytest.fixture
def never_spooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for a body would fail the test."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("a body goes to the disk")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


def guarded(serve: Serve, **options: Any) -> Daebus:
    """An app whose hook lets in who says ``Token: yes``."""
    app = serve(**options)

    @app.before_request
    def guard(req: Request) -> Any:
        return None if req.headers.get("Token") == "yes" else ("who are you?", 401)

    @app.route("/put", methods=["POST"])
    def put(req: Request) -> str:
        return f"{len(req.get_data())} {req.content_length}"

    app.mount("/other", other)
    app.start()
    return app


def other(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    size = environ["CONTENT_LENGTH"]
    return [f"{len(environ['wsgi.input'].read())} {size}".encode()]


# --- refused ------------------------------------------------------------------------


@pytest.mark.usefixtures("never_spooled")
@pytest.mark.parametrize("path", ["/put", "/other/x"])
@pytest.mark.parametrize("way", ["head", "part", "chunked", "continue"])
def test_a_body_that_a_hook_refuses_is_not_stored(
    serve: Serve, raw: OpenRaw, path: str, way: str
) -> None:
    app = guarded(serve)
    client = raw(app)
    if way == "chunked":
        client.send(CHUNKED.replace("/put", path) + "\r\n")
        client.send(FIRST)  # and more to come
    elif way == "continue":
        client.send(head(path, "Expect: 100-continue"))
    else:
        client.send(head(path))
        client.send(BODY[:50_000] if way == "part" else b"")
    answer = client.answer()
    assert (answer.status, answer.body) == (401, b"who are you?")
    assert answer.header("connection") == "close"
    assert client.ended()
    assert files(app) == 0


@pytest.mark.usefixtures("never_spooled")
def test_all_of_a_refused_body_may_come_and_the_answer_is_read(serve: Serve, raw: OpenRaw) -> None:
    app = guarded(serve)
    client = raw(app)
    assert client.post("/put", BODY).status == 401
    assert client.ended()


@pytest.mark.usefixtures("never_spooled")
def test_a_body_from_a_page_of_another_site_is_not_stored(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.route("/put", methods=["POST"])(lambda req: "put")
    app.start()
    client = raw(app)
    client.send(head("/put", "Origin: http://evil.example"))
    answer = client.answer()
    assert (answer.status, answer.code) == (403, "cross_site_request")
    assert client.ended()


# --- let in -------------------------------------------------------------------------


def test_what_hooks_let_in_is_whole_for_the_view(serve: Serve, raw: OpenRaw) -> None:
    app = guarded(serve)
    client = raw(app)
    for path in ("/put", "/other/x"):
        assert client.post(path, BODY, "Token: yes").body == b"204800 204800"
        client.send(head(path, "Token: yes", "Expect: 100-continue"))
        assert client.head().status == 100
        client.send(BODY)
        assert client.answer().body == b"204800 204800"
        client.send(CHUNKED.replace("/put", path) + "Token: yes\r\n\r\n")
        client.send(FIRST + FIRST + b"0\r\n\r\n")
        assert client.answer().body == b"81920 81920"
        # What comes behind a body is the next request.
        client.send(head(path, "Token: yes").encode() + BODY + head(path).encode() + b"a")
        assert client.answer().status == 200
        assert client.answer().status == 401
        client = raw(app)
    assert eventually(lambda: files(app) == 0)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_hook_may_read_the_body(serve: Serve, raw: OpenRaw, kind: str) -> None:
    app = serve()
    seen: list[int] = []

    def check(req: Request) -> Any:
        seen.append(len(req.get_data()))
        return ("too plain", 400) if req.get_data()[:1] == b"x" else None

    async def check_later(req: Request) -> Any:
        return check(req)

    app.before_request(check if kind == "sync" else check_later)
    app.route("/put", methods=["POST"])(lambda req: str(len(req.get_data())))
    app.mount("/other", other)
    app.start()
    client = raw(app)
    assert client.post("/put", BODY).body == b"204800"
    assert client.post("/other", BODY).body == b"204800 204800"
    answer = client.post("/put", b"x" * 100_000)
    assert (answer.status, answer.header("connection")) == (400, None)
    assert client.post("/put", b"small").body == b"5"
    assert seen == [204800, 204800, 100_000, 5]


def test_a_hook_may_read_a_form_or_json(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.before_request(lambda req: None if req.payload["a"] else ("empty", 400))
    app.route("/put", methods=["POST"])(lambda req: str(len(req.payload["a"])))
    app.start()
    client = raw(app)
    body = b'{"a": "' + b"y" * 100_000 + b'"}'
    assert client.post("/put", body, "Content-Type: application/json").body == b"100000"
    form = b"a=" + b"y" * 100_000
    kind = "Content-Type: application/x-www-form-urlencoded"
    assert client.post("/put", form, kind).body == b"100000"


def test_tls_is_the_same(serve: Serve, raw: OpenRaw) -> None:
    client = raw(guarded(serve, ssl_context=server_context()))
    client.sock = client_context().wrap_socket(client.sock, server_hostname="127.0.0.1")
    assert client.post("/put", BODY, "Token: yes").body == b"204800 204800"
    assert client.post("/put", BODY).status == 401


# --- what does not come -------------------------------------------------------------


def test_slow_bodies_hold_no_worker(serve: Serve, raw: OpenRaw) -> None:
    app = guarded(serve, workers=1)
    slow = [raw(app) for _ in range(65)]
    for client in slow[:64]:
        client.send(head("/put", "Token: yes", "Expect: 100-continue"))
        assert client.head().status == 100
    assert raw(app).post("/put", b"small", "Token: yes").body == b"5 5"
    # One more than may wait at once.
    assert eventually(lambda: len(server_of(app)._pool._aside) == 64)
    slow[64].send(head("/put", "Token: yes"))
    answer = slow[64].answer()
    assert (answer.status, answer.code) == (503, "service_unavailable")
    for client in slow[:64]:
        client.send(BODY)
        assert client.answer().body == b"204800 204800"


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"broken\r\n", 400),
        (b"ffffffff\r\n", 413),
    ],
)
def test_a_broken_body_ends_the_connection(
    serve: Serve, raw: OpenRaw, rest: bytes, status: int
) -> None:
    client = raw(guarded(serve))
    client.send(CHUNKED + "Token: yes\r\n\r\n")
    client.send(FIRST)
    client.send(rest)
    answer = client.answer()
    assert (answer.status, answer.header("connection")) == (status, "close")
    assert client.ended()


def test_a_late_body_is_refused(serve: Serve, raw: OpenRaw) -> None:
    app = guarded(serve, body_timeout=0.2)
    client = raw(app)
    client.send(head("/put", "Token: yes"))
    answer = client.answer()
    assert (answer.status, answer.header("connection")) == (408, "close")
    assert client.ended()


def test_a_full_spool_is_said(serve: Serve, raw: OpenRaw) -> None:
    app = guarded(serve, max_spool=100_000)
    answer = raw(app).post("/put", BODY, "Token: yes")
    assert (answer.status, answer.code) == (503, "service_unavailable")
    assert eventually(lambda: files(app) == 0)


def test_a_client_that_leaves_is_forgotten(serve: Serve, raw: OpenRaw) -> None:
    app = guarded(serve)
    ended = threading.Event()

    @app.after_request
    def note(req: Request, response: Any) -> None:
        ended.set()

    client = raw(app)
    client.send(head("/put", "Token: yes"))
    client.send(BODY[:100_000])
    client.sock.close()
    assert ended.wait(5)
    assert eventually(lambda: files(app) == 0)


def test_a_stop_does_not_wait_for_a_body(serve: Serve, raw: OpenRaw) -> None:
    app = guarded(serve)
    client = raw(app)
    client.send(head("/put", "Token: yes", "Expect: 100-continue"))
    assert client.head().status == 100
    assert app.stop(timeout=2) == []
