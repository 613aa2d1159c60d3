"""OPTIONS, which some proxies ask to see whether a server is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daebus import Daebus, Request
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import Answer, Raw


def allow(answer: Answer) -> tuple[int, str | None, bytes]:
    return answer.status, answer.header("allow"), answer.body


@pytest.fixture
def app(serve: Serve, tmp_path: Path) -> Daebus:
    (tmp_path / "page.html").write_text("page")
    app = serve(static=tmp_path)

    @app.route("/item")
    def item(req: Request) -> str:
        return "item"

    @app.route("/item", methods=["POST"])
    def post(req: Request) -> str:
        return "post"

    @app.route("/own", methods=["GET", "OPTIONS"])
    def own(req: Request) -> str:
        return "own"

    return app


def test_it_is_answered_with_what_there_is(app: Daebus, raw: OpenRaw) -> None:
    app.start()
    client = raw(app)
    answers = {
        path: allow(client.get(path, method="OPTIONS"))
        for path in ("/item", "/page.html", "/_daebus/health", "/_daebus/check", "*")
    }
    assert answers == {
        "/item": (200, "GET, HEAD, OPTIONS, POST", b""),
        "/page.html": (200, "GET, HEAD, OPTIONS", b""),
        "/_daebus/health": (200, "GET, HEAD, OPTIONS", b""),
        "/_daebus/check": (200, "GET, HEAD, OPTIONS", b""),
        "*": (200, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", b""),
    }
    assert client.get("/own", method="OPTIONS").body == b"own"
    assert client.get("/nothing", method="OPTIONS").status == 404
    put = client.get("/item", method="PUT")
    assert (put.status, put.header("allow")) == (405, "GET, HEAD, OPTIONS, POST")


@pytest.mark.parametrize("has_view", [False, True])
def test_the_check_of_haproxy_succeeds(serve: Serve, raw: OpenRaw, has_view: bool) -> None:
    app = serve()
    if has_view:
        app.route("/")(lambda req: "home")
    app.start()
    client = raw(app)
    client.send("OPTIONS / HTTP/1.0\r\n\r\n")
    answer = client.answer()
    assert (answer.status, answer.header("connection")) == (200, "close")
    assert answer.header("allow") == ("GET, HEAD, OPTIONS" if has_view else "OPTIONS")
    assert client.ended()


def test_hooks_see_it_as_any_request(app: Daebus, raw: OpenRaw) -> None:
    app.before_request(lambda req: ("no", 401) if req.path == "/item" else None)

    @app.after_request
    def mark(req: Any, response: Any) -> None:
        response.headers["X-Seen"] = "yes"

    app.start()
    client = raw(app)
    assert client.get("/item", method="OPTIONS").status == 401
    assert client.get("/page.html", method="OPTIONS").header("x-seen") == "yes"


def test_a_mounted_app_answers_for_itself(serve: Serve, raw: OpenRaw) -> None:
    def mine(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Allow", "BREW"), ("Content-Length", "0")])
        return []

    app = serve()
    app.mount("/", mine)
    app.start()
    client: Raw = raw(app)
    assert client.get("/", method="OPTIONS").header("allow") == "BREW"
    assert client.get("/x", method="OPTIONS").header("allow") == "BREW"
