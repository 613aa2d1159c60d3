"""WSGI apps of others below a prefix."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request as WerkzeugRequest
from werkzeug.wrappers import Response

from daebus import DaebusHttp, DuplicateHandlerError, Request
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import Raw

WSGI = Callable[[dict[str, Any], Any], Any]


def echo(environ: dict[str, Any], start_response: Any) -> Any:
    """Tell where it was called and with what."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    parts = [environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["QUERY_STRING"]]
    text = "|".join(parts).encode("latin-1") + b"|" + body
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]


class Legacy:
    """An app on Werkzeug as people wrote them: a map, views by name, links that it builds."""

    def __init__(self) -> None:
        self.map = Map(
            [
                Rule("/", endpoint="index"),
                Rule("/items/<int:number>", endpoint="item"),
                Rule("/login", endpoint="login", methods=["POST"]),
                Rule("/folder/", endpoint="index"),
            ]
        )

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = WerkzeugRequest(environ)
        adapter = self.map.bind_to_environ(environ)
        try:
            endpoint, values = adapter.match()
            response = getattr(self, endpoint)(request, adapter, **values)
        except HTTPException as exc:
            response = exc
        return response(environ, start_response)

    def index(self, request: WerkzeugRequest, adapter: Any) -> Response:
        return Response(adapter.build("item", {"number": 7}))

    def item(self, request: WerkzeugRequest, adapter: Any, number: int) -> Response:
        return Response(f"item {number} of {request.cookies.get('user')} at {request.root_path}")

    def login(self, request: WerkzeugRequest, adapter: Any) -> Any:
        response = redirect(adapter.build("index"))
        response.set_cookie("user", request.form["user"], path=request.root_path)
        return response


@pytest.fixture
def mount(serve: Serve, raw: OpenRaw) -> Callable[[WSGI], Raw]:
    def start(wsgi_app: WSGI) -> Raw:
        app = serve()
        app.mount("/old", wsgi_app)
        app.start()
        return raw(app)

    return start


def test_a_whole_app(mount: Callable[[WSGI], Raw]) -> None:
    client = mount(Legacy())
    assert client.get("/old/").body == b"/old/items/7"
    kind = "Content-Type: application/x-www-form-urlencoded"
    answer = client.post("/old/login", b"user=Ada", kind)
    assert (answer.status, answer.header("location")) == (302, "/old/")
    assert answer.header("set-cookie") == "user=Ada; Path=/old"
    assert client.get("/old/items/7", "Cookie: user=Ada").body == b"item 7 of Ada at /old"
    assert client.get("/old/folder").header("location") == "http://x/old/folder/"
    assert client.get("/old/nope").header("content-type") == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("/old", b"/old|||"),
        ("/old/", b"/old|/||"),
        ("/old/a%20b/%C3%BC?q=%20", "/old|/a b/ü|q=%20|".encode()),
        ("/old//a", b"/old|//a||"),
        ("/old/deep/er", b"/old/deep|/er||"),
        ("/old/deeper", b"/old|/deeper||"),
        ("/%C3%A4lter/x", "/älter|/x||".encode()),
        ("http://x/old/x", b"/old|/x||"),
    ],
)
def test_the_longest_prefix_wins(serve: Serve, raw: OpenRaw, target: str, answer: bytes) -> None:
    app = serve()
    for prefix in ("/old", "/old/deep", "/älter"):
        app.mount(prefix, echo)
    app.route("/old/<path:rest>")(lambda req, rest: "hidden")
    app.start()
    assert raw(app).get(target).body == answer


def test_what_is_beside_a_mount_is_the_routers(serve: Serve, raw: OpenRaw, tmp_path: Path) -> None:
    (tmp_path / "older").write_text("file")
    app = serve(static=tmp_path)
    app.http.mount("/old", echo)
    app.route("/view")(lambda req: "view")
    app.start()
    client = raw(app)
    assert client.get("/view").body == b"view"
    assert client.get("/older").body == b"file"
    assert client.get("/Old").status == 404


def test_bodies_and_methods(mount: Callable[[WSGI], Raw]) -> None:
    client = mount(echo)
    for body in (b"", b"small", bytes(200_000)):
        assert client.post("/old/p", body).body == b"/old|/p||" + body
        assert client.post("/old/p", body, method="PATCH").body.endswith(body)
    client.send("POST /old/p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send("5\r\nabcde\r\n0\r\n\r\n")
    assert client.answer().body == b"/old|/p||abcde"
    length = client.get("/old/p", method="HEAD").header("content-length")
    assert length == str(len(b"/old|/p||"))
    assert client.get("/old/p").status == 200


def test_the_environment_is_that_of_wsgi(mount: Callable[[WSGI], Raw]) -> None:
    def strict(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]

    client = mount(validator(strict))
    assert client.get("/old/x?y").body == b"/x"
    assert client.post("/old", b"abc", "Content-Type: text/plain").body == b""


# --- ways to answer -----------------------------------------------------------------


def test_the_write_callable_sends_at_once(mount: Callable[[WSGI], Raw]) -> None:
    seen = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"one")
        assert seen.wait(5)  # the client has it already
        write(b"two")
        return [b"three"]

    client = mount(app)
    client.ask("/old")
    assert client.head().status == 200
    assert client.chunk() == b"one"
    seen.set()
    assert [client.chunk() for _ in range(3)] == [b"two", b"three", b""]
    assert client.get("/nope").status == 404


class Parts:
    def __init__(self, *parts: bytes, error: BaseException | None = None) -> None:
        self.parts = parts
        self.error = error
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        yield from self.parts
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed.set()


def test_generators_and_close(mount: Callable[[WSGI], Raw]) -> None:
    parts = Parts(b"a", b"", b"b")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return parts

    client = mount(app)
    assert client.get("/old").body == b"ab"
    assert client.chunks == [b"a", b"b"]
    assert parts.closed.wait(5)


def test_an_answer_that_starts_with_its_first_part(mount: Callable[[WSGI], Raw]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("201 Made", [("Content-Length", "1")])
        yield b"x"

    answer = mount(app).get("/old")
    assert (answer.status, answer.body) == (201, b"x")


def test_a_file(mount: Callable[[WSGI], Raw]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "500000")])
        return environ["wsgi.file_wrapper"](io.BytesIO(bytes(500_000)))

    assert mount(app).get("/old").body == bytes(500_000)


# --- failures -----------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(1), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["before", "after", "iterating"])
def test_an_app_that_raises_is_500(
    mount: Callable[[WSGI], Raw],
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    when: str,
) -> None:
    parts = Parts(error=error)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if when != "before":
            start_response("200 OK", [("X-Mine", "1")])
        if when == "iterating":
            return parts
        raise error

    client = mount(app)
    with caplog.at_level(logging.ERROR, "daebus.http"):
        answer = client.get("/old/x")
    assert (answer.status, answer.code) == (500, "internal_server_error")
    assert answer.header("x-mine") is None
    assert b"secret" not in answer.body
    assert [r.exc_info is not None for r in caplog.records] == [True]
    if when == "iterating":
        assert parts.closed.wait(5)
    else:
        assert client.get("/nope").status == 404  # the connection goes on


def test_an_app_that_raises_when_it_has_written(
    mount: Callable[[WSGI], Raw], caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])(b"begun")
        raise ValueError("secret")

    client = mount(app)
    with caplog.at_level(logging.ERROR, "daebus.http"):
        client.ask("/old")
        assert client.head().status == 200
        assert client.rest() == b"5\r\nbegun\r\n"  # no last chunk: it does not look complete
    assert [r.exc_info is not None for r in caplog.records] == [True]


# --- hooks --------------------------------------------------------------------------


def test_hooks_guard_a_mounted_app_and_leave_its_answers_alone(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.mount("/old", echo)

    @app.before_request
    def guard(req: Request) -> Any:
        if req.headers.get("X-Key") != "right":
            return "closed", 403
        assert req.get_data() == b"body"  # the app gets it all the same
        return None

    @app.after_request
    def after(req: Request, response: Any) -> Any:
        response.headers["X-After"] = "1"

    app.start()
    client = raw(app)
    answer = client.post("/old/x", b"body")
    assert (answer.status, answer.header("x-after")) == (403, "1")
    answer = client.post("/old/x", b"body", "X-Key: right")
    assert (answer.body, answer.header("x-after")) == (b"/old|/x||body", None)


def test_mounting_what_makes_no_sense() -> None:
    http = DaebusHttp(port=0)
    http.mount("/old", echo)
    with pytest.raises(DuplicateHandlerError, match="mounted at /old already"):
        http.mount("/old", echo)
    for prefix, proper in (("", "/old"), ("//", "/old"), ("new", "/new"), ("/new/", "/new")):
        with pytest.raises(ValueError, match=rf"write app.mount\('{proper}', wsgi_app\)"):
            http.mount(prefix, echo)
    with pytest.raises(TypeError, match="a WSGI app must be a function, not None"):
        http.mount("/new", None)  # type: ignore[arg-type]


# --- at the root ---------------------------------------------------------------------


def test_an_app_at_the_root_gets_what_nobody_else_answers(
    serve: Serve, raw: OpenRaw, tmp_path: Path
) -> None:
    (tmp_path / "page.txt").write_text("page")
    app = serve(static=tmp_path)
    app.mount("/", echo)
    app.mount("/old", lambda environ, start: echo({**environ, "QUERY_STRING": "old"}, start))
    app.route("/view")(lambda req: "view")
    seen: list[str] = []
    app.before_request(lambda req: seen.append(req.path))
    app.start()
    client = raw(app)
    bodies = {
        path: client.get(path).body
        for path in ("/", "/x?q=1", "/view", "/page.txt", "/old/y", "/_daebus/health")
    }
    assert bodies == {
        "/": b"|/||",
        "/x?q=1": b"|/x|q=1|",
        "/view": b"view",
        "/page.txt": b"page",
        "/old/y": b"/old|/y|old|",
        "/_daebus/health": b'{"status": "ok"}',
    }
    assert seen == ["/", "/x", "/view", "/page.txt", "/old/y"]
    assert client.post("/page.txt", b"body").body == b"|/page.txt||body"
    large = client.post("/upload", b"x" * 100_000)  # kept on the disk meanwhile
    assert large.body == b"|/upload||" + b"x" * 100_000
    assert client.get("/view", method="PUT").status == 405


def test_one_app_may_be_at_the_root() -> None:
    http = DaebusHttp()
    http.mount("/", echo)
    with pytest.raises(DuplicateHandlerError, match="mounted at / already"):
        http.mount("/", echo)
    with pytest.raises(ValueError, match=r"write app\.mount\('/old', wsgi_app\)"):
        http.mount("/old/", echo)


def test_an_app_at_the_root_that_raises_is_answered_500(
    serve: Serve, raw: OpenRaw, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(environ: Any, start_response: Any) -> Any:
        raise RuntimeError("no")

    app = serve()
    app.mount("/", broken)
    app.start()
    assert raw(app).get("/x").code == "internal_server_error"
    assert "the app at / failed on '/x'" in caplog.text
