"""App and blueprint have every decorator of the components, with the same signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from daebus import AttachError, Blueprint, Daebus, DaebusHttp, DaebusWebSocket, Request
from daebus.http.site.decorators import HttpDecorators
from daebus.scaffold import Scaffold
from daebus.tasks.registry import Tasks
from daebus.websocket.api.access import Access
from daebus.websocket.api.decorators import Decorators
from daebus.websocket.api.presence import PresenceMethods
from daebus.websocket.api.rooms import Rooms
from daebus.websocket.api.topics import TopicMethods


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


OF_COMPONENTS: dict[str, Any] = {
    **public(Decorators),
    **public(HttpDecorators),
    "authenticate": Access.authenticate,
    "on_join": Rooms.on_join,
    "on_presence": PresenceMethods.on_presence,
    "on_subscribe": TopicMethods.on_subscribe,
    "background": Tasks.background,
    "thread": Tasks.thread,
}

# How each is used, with something that may be decorated.
USES: dict[str, Callable[[Scaffold], object]] = {
    "socket": lambda it: it.socket("x")(lambda req: None),
    "raw": lambda it: it.raw("/x")(lambda connection: None),
    "authenticate": lambda it: it.authenticate(lambda req: "guest"),
    "on_join": lambda it: it.on_join("x")(lambda client_id, room: True),
    "on_presence": lambda it: it.on_presence("x")(lambda room, user, joined: None),
    "on_backplane": lambda it: it.on_backplane(lambda event, info: None),
    "on_subscribe": lambda it: it.on_subscribe("x")(lambda client_id, topic: True),
    "on_connect": lambda it: it.on_connect(lambda client_id: None),
    "on_disconnect": lambda it: it.on_disconnect(lambda client_id: None),
    "on_slow_consumer": lambda it: it.on_slow_consumer(lambda client_id: None),
    "on_slow_handler": lambda it: it.on_slow_handler(lambda client_id: None),
    "on_error": lambda it: it.on_error(lambda req, exc: None),
    "on_binary": lambda it: it.on_binary(lambda req: None),
    "middleware": lambda it: it.middleware(lambda req, next: next(req)),
    "route": lambda it: it.route("/x")(lambda req: "x"),
    "before_request": lambda it: it.before_request(lambda req: None),
    "after_request": lambda it: it.after_request(lambda req, response: None),
    "error_handler": lambda it: it.error_handler(404)(lambda req, exc: "x"),
    "mount": lambda it: it.mount("/old", lambda environ, start_response: []),
    "background": lambda it: it.background("x", 1)(lambda: None),
    "thread": lambda it: it.thread("x")(lambda running: None),
}


def test_the_signatures_are_those_of_the_components() -> None:
    assert set(public(Scaffold)) == set(OF_COMPONENTS) == set(USES)
    for name, decorator in OF_COMPONENTS.items():
        assert inspect.signature(getattr(Scaffold, name)) == inspect.signature(decorator), name


@pytest.mark.parametrize("name", USES)
def test_an_app_takes_it_at_once_or_says_what_is_missing(name: str) -> None:
    app = Daebus("test")
    if name not in ("background", "thread"):
        with pytest.raises(AttachError, match=r"write app\.attach\(Daebus(Http|WebSocket)\("):
            USES[name](app)
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    USES[name](app)


@pytest.mark.parametrize("name", USES)
def test_a_blueprint_has_it_registered_with_the_app(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    owner = next(
        kind
        for kind in (
            Decorators,
            HttpDecorators,
            Access,
            Rooms,
            TopicMethods,
            PresenceMethods,
            Tasks,
        )
        if name in vars(kind)
    )
    real = getattr(owner, name)

    def noting(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return real(*args, **options)

    monkeypatch.setattr(owner, name, noting)
    part = Blueprint("part")
    USES[name](part)
    assert calls == [name]  # it is tried at once, on components that never start
    app = Daebus("test")
    app.register(part)
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    assert calls == [name, name]


def test_what_is_decorated_stays_what_it_was() -> None:
    def view(req: Request) -> str:
        return "x"

    def hook(client_id: str) -> None: ...

    app, part = Daebus("test"), Blueprint("part")
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    for it in (app, part):
        assert it.route("/x")(view) is view
        assert it.before_request(view) is view
        assert it.on_connect(hook) is hook


def test_a_blueprint_asks_who_clients_are() -> None:
    part = Blueprint("part")
    part.authenticate(lambda req: {"name": req.args["name"]})
    part.socket("who")(lambda req: req.identity)
    app = Daebus("test")
    app.register(part)
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    with app.test_client("/?name=ada") as client:
        assert client.request("who") == {"name": "ada"}
