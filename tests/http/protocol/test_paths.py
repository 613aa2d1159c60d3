"""A path means one thing to hooks, mounts, routes, files and WebSockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daebus import Connection, Daebus, Request
from daebus.http.protocol.paths import fault_in_decoded_path, fault_in_path
from tests.support.fixture_types import MakeApp, OpenRaw, Serve
from tests.support.peer import Peer, upgrade_request

# Ways around a guard of ``/private``.
DETOURS = [
    "/x/../private/secret.txt",
    "/./private/secret.txt",
    "/public/%2e%2e/private/secret.txt",
    "/public/.%2E/private/secret.txt",
    "/%2e/private/secret.txt",
    "/public%2f..%2fprivate/secret.txt",
    "/public/..%2Fprivate/secret.txt",
    "/private%2fsecret.txt",
    "/x%5c..%5cprivate%5csecret.txt",
    "/x\\..\\private\\secret.txt",
    "/private/secret.txt%00",
    "/private/..",
    "/private/.",
    "http://x/x/../private/secret.txt",
]


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Path) -> Daebus:
    """An app whose hook lets nobody into ``/private``."""
    (tmp_path / "private").mkdir()
    (tmp_path / "public").mkdir()
    (tmp_path / "private" / "secret.txt").write_text("secret")
    app = make_app(http={"static": tmp_path})

    @app.before_request
    def guard(req: Request) -> Any:
        return ("no", 403) if req.path.startswith("/private") else None

    def mounted(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"secret": environ["PATH_INFO"]}).encode()]

    app.mount("/mounted", mounted)
    app.start()
    return app


@pytest.mark.parametrize("path", DETOURS)
def test_no_detour_passes_a_guard(app: Daebus, raw: OpenRaw, path: str) -> None:
    assert raw(app).get("/private/secret.txt").status == 403
    answer = raw(app).get(path)
    assert (answer.status, answer.code) == (400, "bad_request")


@pytest.mark.parametrize("path", DETOURS)
def test_no_detour_reaches_a_mounted_app(app: Daebus, raw: OpenRaw, path: str) -> None:
    answer = raw(app).get("/mounted" + path.removeprefix("http://x"))
    assert (answer.status, answer.code) == (400, "bad_request")


@pytest.mark.parametrize("path", ["/raw/../raw", "/x/%2e%2e/raw", "/x%2f..%2fraw"])
def test_no_detour_reaches_a_websocket(
    make_app: MakeApp, connect: Callable[[int], socket.socket], path: str
) -> None:
    app = make_app()

    @app.raw("/raw")
    def echo(connection: Connection) -> None:
        connection.recv()

    app.start()
    assert Peer(connect(app.http.port)).ask(upgrade_request("/raw")).status == 101
    answer = Peer(connect(app.http.port)).ask(upgrade_request(path))
    assert (answer.status, answer.json["code"]) == (400, "bad_request")


def test_a_path_is_decoded_once(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.route("/<path:rest>")(lambda req, rest: {"rest": rest, "path": req.path})
    app.start()
    seen = raw(app).get("/x/%252e%252e/private%252fsecret%2500").json
    assert seen == {"rest": "x/%2e%2e/private%2fsecret%00", "path": "/" + seen["rest"]}


@pytest.mark.parametrize(
    "path", ["/", "/a.b", "/.env", "/a/..b", "/a/b..", "/...", "/a%20b", "/%252e", "*", "/a?.."]
)
def test_ordinary_paths_pass(path: str) -> None:
    assert fault_in_path(path) is None
    assert fault_in_decoded_path(path) is None


def test_dots_in_a_query_are_text(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.route("/a")(lambda req: req.args["next"])
    app.start()
    assert raw(app).get("/a?next=/../%2fb%5c").body == b"/../%2fb%5c".replace(b"%2f", b"/").replace(
        b"%5c", b"\\"
    )


@pytest.mark.parametrize("path", ["/x/../y", "/..", "/./y", "/a\\b", "/a\0b"])
def test_decoded_paths_of_other_servers_are_judged(path: str) -> None:
    assert fault_in_decoded_path(path)
