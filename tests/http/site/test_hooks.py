"""What an app has done before views, after them, and when they fail; the health check."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from werkzeug.exceptions import Forbidden, HTTPException, NotFound, abort
from werkzeug.test import create_environ, run_wsgi_app
from werkzeug.wrappers import Response

from daebus import AttachError, Daebus, DaebusHttp, DuplicateHandlerError, Request
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import Answer


@pytest.fixture
def app(serve: Serve, tmp_path: Path) -> Daebus:
    (tmp_path / "file.txt").write_text("file")
    app = serve(static=tmp_path)

    @app.route("/view", methods=["GET", "POST"])
    def view(req: Request) -> Any:
        return "view"

    @app.route("/raises/<name>")
    def raises(req: Request, name: str) -> Any:
        if name == "exit":
            raise SystemExit(3)
        raise {"key": KeyError, "index": IndexError, "value": ValueError, "no": Forbidden}[name]

    @app.route("/abort/<int:status>")
    def aborts(req: Request, status: int) -> Any:
        abort(status)

    @app.route("/abort-response")
    def aborts_with(req: Request) -> Any:
        abort(Response("mine", 404))

    @app.route("/slash/")
    def slash(req: Request) -> Any:
        return "slash"

    return app


def get(raw: OpenRaw, app: Daebus, *arguments: str, **options: Any) -> Answer:
    if not app.running:
        app.start()
    return raw(app).get(*arguments, **options)


# --- before -------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/view", "/nope", "/file.txt", "/raises/key", "/slash"])
def test_a_hook_answers_in_place_of_everything(app: Daebus, raw: OpenRaw, path: str) -> None:
    later: list[str] = []

    @app.before_request
    def guard(req: Request) -> Any:
        if req.headers.get("X-Key") != "right":
            return {"error": "no key"}, 401
        return None

    @app.http.before_request
    def second(req: Request) -> None:
        later.append(req.path)

    assert get(raw, app, path).json == {"error": "no key"}
    assert later == []
    assert get(raw, app, "/view", "X-Key: right").body == b"view"
    assert later == ["/view"]


def test_hooks_run_in_order_around_the_view(app: Daebus, raw: OpenRaw) -> None:
    order: list[str] = []

    def note(name: str, *register: Callable[..., Any]) -> None:
        def hook(*args: Any) -> None:
            order.append(name)

        register[0](hook)

    note("before 1", app.before_request)
    note("after 1", app.after_request)
    note("before 2", app.before_request)
    note("after 2", app.after_request)

    @app.route("/order")
    def view(req: Request) -> Any:
        order.append("view")
        return ""

    assert get(raw, app, "/order").status == 200
    assert order == ["before 1", "before 2", "view", "after 2", "after 1"]


def test_async_hooks_run_on_the_loop(app: Daebus, raw: OpenRaw) -> None:
    threads: list[str] = []

    @app.before_request
    async def before(req: Request) -> None:
        threads.append(threading.current_thread().name)

    @app.after_request
    async def after(req: Request, response: Response) -> None:
        threads.append(threading.current_thread().name)

    @app.error_handler(404)
    async def missing(req: Request, exc: NotFound) -> Any:
        threads.append(threading.current_thread().name)
        return "async 404"

    assert get(raw, app, "/nope").body == b"async 404"
    assert threads == ["daebus-loop"] * 3


@pytest.mark.parametrize(
    ("error", "status"), [(Forbidden("stay out"), 403), (ValueError("x"), 500), (SystemExit(), 500)]
)
def test_a_before_hook_that_raises_is_like_a_view(
    app: Daebus, raw: OpenRaw, caplog: pytest.LogCaptureFixture, error: BaseException, status: int
) -> None:
    @app.before_request
    def hook(req: Request) -> Any:
        raise error

    with caplog.at_level(logging.CRITICAL, "daebus.http"):
        assert get(raw, app, "/view").status == status
    app.error_handler(status)(lambda req, exc: f"handled {type(exc).__name__}")
    with caplog.at_level(logging.CRITICAL, "daebus.http"):
        answer = get(raw, app, "/view")
    assert (answer.status, answer.body) == (status, b"handled %b" % type(error).__name__.encode())


# --- after --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/view", 200),
        ("/file.txt", 200),
        ("/nope", 404),
        ("/raises/no", 403),
        ("/raises/key", 500),
        ("/abort-response", 404),
        ("/slash", 308),
    ],
)
def test_after_hooks_see_every_answer(
    app: Daebus, raw: OpenRaw, caplog: pytest.LogCaptureFixture, path: str, status: int
) -> None:
    @app.after_request
    def frame(req: Request, response: Response) -> Response:
        response.headers["X-Frame-Options"] = f"DENY {req.path} {response.status_code}"
        return response

    with caplog.at_level(logging.CRITICAL, "daebus.http"):
        answer = get(raw, app, path)
    assert answer.status == status
    assert answer.header("x-frame-options") == f"DENY {path} {status}"
    assert get(raw, app, path, method="HEAD").header("x-frame-options")


def test_an_after_hook_replaces_the_answer(app: Daebus, raw: OpenRaw) -> None:
    closed = threading.Event()

    @app.route("/stream")
    def view(req: Request) -> Any:
        response = Response(iter([b"a"]))
        response.call_on_close(closed.set)
        return response

    @app.after_request
    def hook(req: Request, response: Response) -> Any:
        return {"was": response.status_code}, 418

    answer = get(raw, app, "/stream")
    assert (answer.status, answer.json) == (418, {"was": 200})
    assert closed.wait(5)


def test_an_after_hook_that_raises_is_a_plain_500(
    app: Daebus, raw: OpenRaw, caplog: pytest.LogCaptureFixture
) -> None:
    closed = threading.Event()

    @app.route("/stream")
    def view(req: Request) -> Any:
        response = Response(iter([b"a"]))
        response.call_on_close(closed.set)
        return response

    @app.error_handler(500)
    def never(req: Request, exc: Exception) -> Any:
        raise AssertionError("the hook comes after the handlers")

    @app.after_request
    def hook(req: Request, response: Response) -> Any:
        raise KeyError("secret")

    with caplog.at_level(logging.ERROR, "daebus.http"):
        answer = get(raw, app, "/stream")
    assert (answer.status, answer.code) == (500, "internal_server_error")
    assert b"secret" not in answer.body
    assert closed.wait(5)
    assert ["after_request hook" in r.getMessage() for r in caplog.records] == [True]


# --- errors -------------------------------------------------------------------------


def test_handlers_by_status_and_by_class(
    app: Daebus, raw: OpenRaw, caplog: pytest.LogCaptureFixture
) -> None:
    @app.error_handler(404)
    def missing(req: Request, exc: NotFound) -> Any:
        return f"<h1>no {req.path}</h1>"

    @app.error_handler(LookupError)
    def lookup(req: Request, exc: LookupError) -> Any:
        return {"lookup": type(exc).__name__}, 410

    @app.error_handler(IndexError)
    def index(req: Request, exc: IndexError) -> Any:
        return {"index": True}

    @app.http.error_handler(Forbidden)
    def forbidden(req: Request, exc: Forbidden) -> Any:
        return "closed"

    @app.error_handler(HTTPException)
    def any_http(req: Request, exc: HTTPException) -> Any:
        return Response(f"http {exc.code}", exc.code)

    @app.error_handler(500)
    def broken(req: Request, exc: Exception) -> Any:
        return f"sorry, {type(exc).__name__}"

    app.start()
    client = raw(app)
    with caplog.at_level(logging.ERROR, "daebus.http"):
        for path in ("/nope", "/abort/404"):
            answer = client.get(path)
            assert (answer.status, answer.body) == (404, f"<h1>no {path}</h1>".encode())
        assert client.get("/raises/key").json == {"lookup": "KeyError"}
        answer = client.get("/raises/index")  # the nearest class; its status is 500
        assert (answer.status, answer.json) == (500, {"index": True})
        answer = client.get("/raises/no")
        assert (answer.status, answer.body) == (403, b"closed")
        assert client.get("/abort/409").body == b"http 409"
        answer = client.post("/slash/", b"")
        assert (answer.status, answer.body) == (405, b"http 405")
        assert set((answer.header("allow") or "").split(", ")) == {"GET", "HEAD", "OPTIONS"}
        assert caplog.records == []  # all that is what the app expects
        for name, kind in (("value", "ValueError"), ("exit", "SystemExit")):
            answer = client.get(f"/raises/{name}")
            assert (answer.status, answer.body) == (500, f"sorry, {kind}".encode())
        assert [r.exc_info is not None for r in caplog.records] == [True, True]
    # These are answers, not errors.
    assert client.get("/abort-response").body == b"mine"
    assert client.get("/slash").status == 308
    assert client.get("/view").body == b"view"


@pytest.mark.parametrize("result", [ValueError("secret"), Forbidden(), SystemExit(1), None, 5])
def test_a_handler_that_fails_is_a_plain_500(
    app: Daebus, raw: OpenRaw, caplog: pytest.LogCaptureFixture, result: Any
) -> None:
    @app.error_handler(404)
    def handler(req: Request, exc: NotFound) -> Any:
        if isinstance(result, BaseException):
            raise result
        return result

    with caplog.at_level(logging.ERROR, "daebus.http"):
        answer = get(raw, app, "/nope")
    assert (answer.status, answer.code) == (500, "internal_server_error")
    assert b"secret" not in answer.body
    assert ["error handler" in r.getMessage() for r in caplog.records] == [True]
    assert get(raw, app, "/view").status == 200


def test_debug_shows_what_failed(caplog: pytest.LogCaptureFixture, raw: OpenRaw) -> None:
    app = Daebus("test", debug=True)
    app.attach(DaebusHttp(port=0))

    @app.error_handler(404)
    def handler(req: Request, exc: NotFound) -> Any:
        raise ValueError("why")

    with app, caplog.at_level(logging.CRITICAL, "daebus.http"):
        answer = raw(app).get("/nope")
    assert answer.status == 500
    assert answer.json["error"] == "the view failed"  # the text that pages show
    assert answer.json["traceback"].endswith("ValueError: why")


def test_registering_what_makes_no_sense() -> None:
    http = DaebusHttp(port=0)
    http.error_handler(404)(lambda req, exc: "")
    http.error_handler(KeyError)(lambda req, exc: "")
    for error, name in ((404, "404"), (KeyError, "KeyError")):
        with pytest.raises(DuplicateHandlerError, match=f"{name} has an error handler already"):
            http.error_handler(error)(lambda req, exc: "")
    for wrong in (200, 600, "404", True, KeyError("x"), SystemExit):
        with pytest.raises(ValueError, match=r"write @app.error_handler\(404\)"):
            http.error_handler(wrong)(lambda req, exc: "")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"write @app.before_request above the function"):
        http.before_request(None)  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"write @app.after_request above the function"):
        http.after_request("x")  # type: ignore[type-var]
    with pytest.raises(AttachError):
        Daebus("empty").before_request(lambda req: None)


# --- health -------------------------------------------------------------------------


def test_the_health_check_is_not_in_the_way_of_hooks(serve: Serve, raw: OpenRaw) -> None:
    app = serve()

    @app.before_request
    def hook(req: Request) -> Any:
        return "closed", 503

    app.route("/<path:anything>")(lambda req, anything: "view")
    app.mount("/_daebus", lambda environ, start_response: [])
    client = raw(get_started(app))
    answer = client.get("/_daebus/health?x=1")
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert answer.header("cache-control") == "no-store"
    assert client.get("/_daebus/health", method="HEAD").status == 200
    answer = client.post("/_daebus/health", b"")
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD, OPTIONS")


def test_the_health_check_moves_or_goes(serve: Serve, raw: OpenRaw, tmp_path: Path) -> None:
    (tmp_path / "_daebus").mkdir()
    (tmp_path / "_daebus" / "health").write_text("file")
    assert raw(get_started(serve(static=tmp_path))).get("/_daebus/health").json["status"] == "ok"
    app = get_started(serve(static=tmp_path, health="/alive"))
    assert raw(app).get("/alive").json == {"status": "ok"}
    assert raw(app).get("/_daebus/health").body == b"file"
    app = get_started(serve(health=None))
    assert raw(app).get("/_daebus/health").status == 404


def test_the_health_check_inside_another_server() -> None:
    app = Daebus("guest")
    app.attach(DaebusHttp(port=0))
    app.start()
    app.stop()
    try:
        body, status, _ = run_wsgi_app(app.wsgi, create_environ("/_daebus/health"))
        assert (status, b"".join(body)) == ("200 OK", b'{"status": "ok"}')
    finally:
        app.stop()
    assert run_wsgi_app(app.wsgi, create_environ("/_daebus/health"))[1][:3] == "503"


def test_health_paths_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="write health='/alive'"):
        DaebusHttp(health="alive")
    with pytest.raises(DuplicateHandlerError, match="is answered by daebus itself"):
        DaebusHttp().route("/_daebus/health")(lambda req: "")


def get_started(app: Daebus) -> Daebus:
    app.start()
    return app
