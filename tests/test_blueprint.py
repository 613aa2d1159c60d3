"""Blueprints: parts of an app in modules of their own."""

from __future__ import annotations

import asyncio
import queue
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.wrappers import Response

from daebus import (
    AttachError,
    Blueprint,
    Daebus,
    DaebusHttp,
    DaebusWebSocket,
    DuplicateHandlerError,
    Request,
    StateError,
    StopToken,
    WebSocketRequest,
)
from tests.support.fixture_types import Connect
from tests.support.peer import Peer


def say(req: WebSocketRequest) -> Any:
    return req.data


def say_too(req: WebSocketRequest) -> Any:
    return req.data


def page(req: Request) -> dict[str, str]:
    return {"path": req.path}


def page_too(req: Request) -> str:
    return "too"


def get(app: Daebus, path: str) -> str:
    url = f"http://127.0.0.1:{app.http.port}{path}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def attach(app: Daebus) -> None:
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_everything_of_a_blueprint_works(when: str) -> None:
    events = queue.Queue[str]()
    chat = Blueprint("chat")
    chat.socket("say")(say)
    chat.route("/page")(page)
    chat.route("/page", methods=(method for method in ("POST",)))(page_too)

    @chat.socket("async")
    async def later(req: WebSocketRequest) -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    @chat.raw("/raw")
    def raw(connection: Any) -> None:
        connection.send("raw")

    @chat.on_connect
    def came(client_id: str) -> None:
        events.put("came")

    @chat.on_disconnect
    def left(client_id: str, info: Any) -> None:
        events.put(f"left: {info.reason}")

    @chat.background("tick", 0.01)
    def tick() -> None:
        app.websocket.broadcast_to_all("tick", message_type="tick")

    @chat.thread("reader")
    def reader(running: StopToken) -> None:
        events.put("reading")
        running.wait(3600)

    app = Daebus("test")
    if when == "before":
        app.register(chat)
        attach(app)
    elif when == "between":
        app.attach(DaebusHttp(port=0))
        app.register(chat)
        app.attach(DaebusWebSocket())
    else:
        attach(app)
        app.register(chat)
    with app:
        assert events.get(timeout=5) == "reading"
        with app.test_client() as ada, app.test_client() as bob:
            assert ada.request("say", "hello") == "hello"
            assert bob.request("async") == "daebus-loop"
            assert ada.receive("tick")["data"] == "tick"
        assert [events.get(timeout=5) for _ in range(4)] == ["came", "came"] + 2 * ["left: client"]
        with app.test_client("/raw") as client:
            assert client.websocket.receive(timeout=5) == "raw"
        assert get(app, "/page") == '{"path":"/page"}'


def test_prefixes_go_before_types_and_paths() -> None:
    app = Daebus("test")
    attach(app)
    chat = Blueprint("chat", prefix="chat", url_prefix="/chat")
    chat.socket("say")(say)
    chat.route("/")(page)
    chat.route("/<name>")(lambda req, name: {"name": name})
    chat.raw("/raw")(lambda connection: connection.send("raw"))
    app.register(chat)
    app.socket("say")(say_too)
    with app.test_client() as client, app.test_client("/chat/raw") as raw:
        assert client.request("chat.say", 1) == 1
        assert client.request("say", 2) == 2
        assert get(app, "/chat/") == '{"path":"/chat/"}'
        assert get(app, "/chat/ada") == '{"name":"ada"}'
        assert raw.websocket.receive(timeout=5) == "raw"


def test_one_blueprint_serves_two_apps() -> None:
    chat = Blueprint("chat")
    chat.socket("say")(say)
    apps = [Daebus("one"), Daebus("two")]
    for app in apps:
        attach(app)
        app.register(chat)
    with apps[0].test_client() as ada, apps[1].test_client() as bob:
        assert ada.request("say", "one") == "one"
        assert bob.request("say", "two") == "two"


def test_registered_while_clients_are_there(app: Daebus) -> None:
    chat = Blueprint("chat")
    chat.socket("say")(say)
    with app.test_client() as ada, app.test_client() as bob:
        assert ada.request("echo", 1) == 1
        app.register(chat)
        assert ada.request("say", 2) == 2
        assert bob.request("say", 3) == 3


def test_a_missing_component_is_told_at_the_start() -> None:
    app = Daebus("test")
    chat = Blueprint("chat")
    chat.socket("say")(say)
    app.register(chat)
    app.attach(DaebusHttp(port=0))
    with pytest.raises(
        AttachError,
        match=r"^blueprint 'chat' needs a DaebusWebSocket for .*\.say; attach it before the "
        r"start: app\.attach\(DaebusWebSocket\(\)\)$",
    ):
        app.start()
    assert not app.running
    app.attach(DaebusWebSocket())
    with app.test_client() as client:
        assert client.request("say", "there") == "there"


def duplicate_type(one: Blueprint, two: Blueprint) -> None:
    one.socket("say")(say)
    two.socket("say")(say_too)


def duplicate_path(one: Blueprint, two: Blueprint) -> None:
    one.route("/page")(page)
    two.route("/page")(page_too)


@pytest.mark.parametrize(
    ("fill", "names"), [(duplicate_type, (say, say_too)), (duplicate_path, (page, page_too))]
)
@pytest.mark.parametrize("attached", [True, False])
def test_duplicates_name_both(
    fill: Callable[[Blueprint, Blueprint], None],
    names: tuple[Callable[..., Any], Callable[..., Any]],
    attached: bool,
) -> None:
    app = Daebus("test")
    one, two = Blueprint("one"), Blueprint("two")
    fill(one, two)
    first, second = [f"{function.__module__}.{function.__qualname__}" for function in names]
    if attached:
        attach(app)
    app.register(one)
    clash = pytest.raises(
        DuplicateHandlerError,
        match=rf"^blueprint 'two': .* has a (handler|view) already: {first}; .* for {second}$",
    )
    if attached:
        with clash:
            app.register(two)
    else:
        app.register(two)
        with clash:
            attach(app)


def test_a_blueprint_is_registered_once() -> None:
    app = Daebus("test")
    chat = Blueprint("chat")
    app.register(chat)
    with pytest.raises(DuplicateHandlerError, match="<Blueprint 'chat'> is registered already"):
        app.register(chat)
    with pytest.raises(DuplicateHandlerError, match="two blueprints are named 'chat'; give one"):
        app.register(Blueprint("chat"))
    with pytest.raises(StateError, match=r"decorate its functions before app\.register"):
        chat.socket("late")(say)


def test_wrong_arguments_are_told_where_they_are_written() -> None:
    wrong: Any
    with pytest.raises(TypeError, match=r"a blueprint needs a name, not .*Blueprint\('chat'\)"):
        Blueprint("")
    for wrong in (None, 3):
        with pytest.raises(TypeError, match=r"name must be a string, not .*; write name='my_name'"):
            Blueprint(wrong)
    for wrong in ("chat", "/chat/", "/"):
        with pytest.raises(ValueError, match=r"write url_prefix='/(chat)?'"):
            Blueprint("chat", url_prefix=wrong)
    with pytest.raises(ValueError, match="needs no dot at its end; write prefix='chat'"):
        Blueprint("chat", prefix="chat.")
    chat = Blueprint("chat", prefix="chat")
    with pytest.raises(ValueError, match="has no leading slash; write '/page'"):
        chat.route("page")
    with pytest.raises(TypeError, match="socket has no option 'colour'"):
        chat.socket("say", colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="message_type must be a string, not None"):
        chat.socket(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'\*' takes every type, not those of 'chat\.' alone"):
        chat.socket("*")
    with pytest.raises(TypeError, match="on_connect decorates a function, not 'say'"):
        chat.on_connect("say")  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"is not a blueprint; write app\.register"):
        Daebus("test").register("chat")  # type: ignore[arg-type]


def test_requests_pass_its_hooks_error_handlers_and_mounted_apps(
    app: Daebus, connect: Connect
) -> None:
    blueprint = Blueprint("shop", url_prefix="/shop")
    blueprint.route("/broken")(lambda req: req.args.to_dict()["missing"])
    blueprint.before_request(lambda req: ("closed", 403) if req.args.get("closed") else None)

    @blueprint.after_request
    def mark(req: Request, response: Response) -> None:
        response.headers["X-Shop"] = "open"

    @blueprint.error_handler(KeyError)
    def no_such_thing(req: Request, exc: KeyError) -> tuple[str, int]:
        return f"no {exc.args[0]}", 404

    def old(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["SCRIPT_NAME"].encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    blueprint.mount("/old", old)
    app.register(blueprint)
    app.start()
    peer = Peer(connect(app.http.port))
    answers = [
        peer.ask(f"GET /shop/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        for path in ("broken", "broken?closed=1", "old/x")
    ]
    assert [(answer.status, answer.body) for answer in answers] == [
        (404, b"no missing"),
        (403, b"closed"),
        (200, b"/shop/old"),
    ]
    assert [answer.headers.get("x-shop") for answer in answers] == ["open", "open", None]
