"""What handlers see of the request with which their client connected, and where paths lead."""

from __future__ import annotations

from typing import Any

import pytest

from daebus import Connection, Daebus, DuplicateHandlerError, WebSocketRequest
from tests.support.fixture_types import Connect, MakeApp
from tests.support.peer import TEXT, Peer, upgrade_request


def seen(req: WebSocketRequest) -> dict[str, Any]:
    return {
        "agent": req.headers["User-Agent"],
        "both": req.headers.getlist("x-both"),
        "query": dict(req.query),
        "cookies": req.cookies,
        "path": req.path,
        "params": {name: str(value) for name, value in req.path_params.items()},
    }


def test_handlers_see_headers_query_cookies_and_path(app: Daebus, connect: Connect) -> None:
    app.socket("seen")(seen)
    app.start()
    peer = Peer(connect(app.http.port))
    more: dict[str, str | None] = {
        "User-Agent": "meter/1",
        "X-Both": "1\r\nX-Both: 2",
        "Cookie": "sid=abc; theme=dark",
    }
    request = upgrade_request("/live/%C3%BC?room=4&room=5&x=", more)
    assert peer.ask(request).status == 101
    peer.say("seen")
    assert peer.message()["data"] == {
        "agent": "meter/1",
        "both": ["1", "2"],
        "query": {"room": "4", "x": ""},
        "cookies": {"sid": "abc", "theme": "dark"},
        "path": "/live/ü",
        "params": {},
    }


def test_raw_handlers_get_the_parameters_of_their_path(app: Daebus, connect: Connect) -> None:
    @app.websocket.raw("/device/<name>/<int:channel>")
    def device(connection: Connection, name: str, channel: int) -> None:
        assert connection.path_params == {"name": name, "channel": channel}
        connection.send(f"{name} {channel + 1} {connection.query['q']}")

    @app.websocket.raw("/device/new/1")
    def new(connection: Connection) -> None:
        connection.send(f"new {dict(connection.path_params)}")

    app.start()
    peer = Peer.joined(connect(app.http.port), "/device/boiler/7?q=1")
    assert peer.frame() == (TEXT, b"boiler 8 1")
    peer = Peer.joined(connect(app.http.port), "/device/new/1")
    assert peer.frame() == (TEXT, b"new {}")


def test_what_begins_like_a_raw_path_is_not_taken_for_json(app: Daebus, connect: Connect) -> None:
    app.websocket.raw("/device/<name>")(lambda connection, name: connection.send(name))
    app.start()
    for path in ("/device", "/device/", "/device/a/b"):
        answer = Peer(connect(app.http.port)).ask(upgrade_request(path))
        assert (answer.status, answer.json["code"]) == (404, "not_found"), path
    for path in ("/", "/devices", "/other/device/x"):
        peer = Peer.joined(connect(app.http.port), path)
        peer.say("echo", 1)
        assert peer.message()["data"] == 1


def test_a_json_path_may_have_parameters(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(path="/house/<int:number>")
    app.socket("seen")(seen)
    app.start()
    peer = Peer(connect(app.http.port))
    assert peer.ask(upgrade_request("/house/7", {"User-Agent": "a"})).status == 101
    peer.say("seen")
    assert peer.message()["data"]["params"] == {"number": "7"}
    for path in ("/", "/house/x", "/house/7/", "/house"):
        assert Peer(connect(app.http.port)).ask(upgrade_request(path)).status == 404, path


def test_raw_handlers_must_take_their_parameters(app: Daebus) -> None:
    websocket = app.websocket
    with pytest.raises(TypeError, match=r"write lambda connection, name: ...$"):
        websocket.raw("/device/<name>")(lambda connection: None)
    with pytest.raises(TypeError, match=r"write lambda connection: ...$"):
        websocket.raw("/device")(lambda: None)  # type: ignore[type-var]  # the mistake itself
    websocket.raw("/device/<name>")(lambda connection, name: None)
    with pytest.raises(DuplicateHandlerError, match="'/device/<name>' has a raw handler already"):
        websocket.raw("/device/<other>")(lambda connection, other: None)
