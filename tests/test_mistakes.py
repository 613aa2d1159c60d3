"""Every mistake of a beginner that daebus can see, with the exact sentence that is shown.

Those of registering are made on an app, on its components and on a blueprint, and are told at
once everywhere; the sentence is the same.
"""

from __future__ import annotations

import datetime
import functools
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.test import Client

from daebus import (
    Blueprint,
    ClientError,
    Daebus,
    DaebusHttp,
    DaebusWebSocket,
    Reject,
    WebSocketRequest,
)
from daebus.testing import RequestError
from tests.support.fixture_types import MakeApp
from tests.support.logs import records

HERE = __name__


def nothing() -> None: ...


def one(req: Any) -> Any: ...


def two(first: Any, second: Any) -> Any: ...


async def later(req: Any) -> Any: ...


async def later_two(first: Any, second: Any) -> Any: ...


def yields(req: Any) -> Iterator[Any]:
    yield req


# Untyped on purpose: the type checkers see most of these mistakes as well.
Use = Callable[[Any], Any]

REGISTERING: dict[str, tuple[Use, str]] = {
    # --- parentheses
    "socket without parentheses": (
        lambda it: it.socket(one),
        "@app.socket stands above one without parentheses; write @app.socket('my_type')",
    ),
    "route without parentheses": (
        lambda it: it.route(one),
        "@app.route stands above one without parentheses; write @app.route('/path')",
    ),
    "raw without parentheses": (
        lambda it: it.raw(one),
        "@app.raw stands above one without parentheses; write @app.raw('/path')",
    ),
    "on_join without parentheses": (
        lambda it: it.on_join(two),
        "@app.on_join stands above two without parentheses; write @app.on_join('team-*')",
    ),
    "error_handler without parentheses": (
        lambda it: it.error_handler(two),
        "@app.error_handler stands above two without parentheses; write @app.error_handler(404)",
    ),
    "background without parentheses": (
        lambda it: it.background(nothing),
        "@app.background stands above nothing without parentheses; "
        "write @app.background('my_name', 1.0)",
    ),
    "thread without parentheses": (
        lambda it: it.thread(one),
        "@app.thread stands above one without parentheses; write @app.thread('my_name')",
    ),
    **{
        f"{name} with parentheses": (
            lambda it, name=name: getattr(it, name)(),  # type: ignore[misc]  # no lambda is typed
            f"{name} takes no parentheses and no options; write @app.{name} above the function",
        )
        for name in (
            *("on_connect", "on_disconnect", "on_slow_consumer", "on_slow_handler", "on_error"),
            *("on_binary", "middleware", "authenticate", "before_request", "after_request"),
        )
    },
    "a hook that is no function": (
        lambda it: it.on_connect("came"),
        "on_connect decorates a function, not 'came'; write @app.on_connect above the function",
    ),
    "socket with empty parentheses": (
        lambda it: it.socket()(one),
        "socket needs message_type; write @app.socket('my_type')",
    ),
    # --- options
    "a misspelt option": (
        lambda it: it.socket("say", tiemout=5)(one),
        "socket has no option 'tiemout'; did you mean 'timeout'?",
    ),
    "method in place of methods": (
        lambda it: it.route("/", method=["POST"])(one),
        "route has no option 'method'; did you mean 'methods'?",
    ),
    "an unknown option": (
        lambda it: it.thread("reader", colour="red")(one),
        "thread has no option 'colour'; known are name, auto_start",
    ),
    "an option by position": (
        lambda it: it.socket("say", 5)(one),
        "socket takes 1 by position, and got 2; write the others by name, such as timeout=...",
    ),
    "methods as one string": (
        lambda it: it.route("/", methods="GET")(one),
        "methods must be a list; write methods=['GET']",
    ),
    "a misspelt method": (
        lambda it: it.route("/", methods=["PSOT"])(one),
        "'PSOT' is not an HTTP method; did you mean 'POST'?",
    ),
    "no methods": (
        lambda it: it.route("/", methods=[])(one),
        "/ has no methods; write methods=['GET'], or leave them out",
    ),
    "a message type that is a number": (
        lambda it: it.socket(5)(one),
        "message_type must be a string, not 5; write message_type='my_type'",
    ),
    "an interval as a string": (
        lambda it: it.background("b", "1")(nothing),
        "interval must be a number, not '1'; write interval=1",
    ),
    "an interval as a timedelta": (
        lambda it: it.background("b", datetime.timedelta(minutes=1))(nothing),
        "interval must be a number, not datetime.timedelta(seconds=60); write interval=60.0",
    ),
    "a timeout with a unit": (
        lambda it: it.socket("say", timeout="500ms")(one),
        "timeout must be a number or None, not '500ms'; write timeout=0.5",
    ),
    "a timeout that is negative": (
        lambda it: it.socket("say", timeout=-5)(one),
        "timeout must be greater than 0, not -5",
    ),
    "a rate as a number": (
        lambda it: it.socket("say", rate=5)(one),
        "rate must be a string or None, not 5; write rate='10/s'",
    ),
    "run_in that does not exist": (
        lambda it: it.socket("say", run_in="nope")(one),
        "run_in is 'nope'; write 'connection', 'pool' or 'main'",
    ),
    "a path that cannot be parsed": (
        lambda it: it.route("/items/<id")(one),
        "path '/items/<id' cannot be routed: malformed url rule: '/items/<id'; "
        "write '/items/<int:id>'",
    ),
    "a path without a slash": (
        lambda it: it.route("items")(one),
        "path 'items' has no leading slash; write '/items'",
    ),
    "a raw path without a slash": (
        lambda it: it.raw("raw")(one),
        "path 'raw' has no leading slash; write '/raw'",
    ),
    "a path with a query": (
        lambda it: it.route("/items/<any('a?','b'):kind>?page=1")(one),
        "path \"/items/<any('a?','b'):kind>?page=1\" holds a query, which no path does; "
        "write \"/items/<any('a?','b'):kind>\"",
    ),
    "a raw path with a query": (
        lambda it: it.raw("/device?name=x")(one),
        "path '/device?name=x' holds a query, which no path does; write '/device'",
    ),
    "a prefix with a fragment": (
        lambda it: it.mount("/old#top", two),
        "path '/old#top' holds a fragment, which no path does; write '/old'",
    ),
    # --- functions
    "a view without req": (
        lambda it: it.route("/")(nothing),
        f"the view of '/' is called with req, and {HERE}.nothing takes (); write def nothing(req)",
    ),
    "a view without its path argument": (
        lambda it: it.route("/items/<id>")(one),
        f"the view of '/items/<id>' is called with req and id, and {HERE}.one takes (req); "
        f"write def one(req, id)",
    ),
    "a handler without req": (
        lambda it: it.socket("say")(nothing),
        f"the handler of 'say' must take a request, and {HERE}.nothing takes (); "
        f"write def nothing(req), or def nothing(data, client_id)",
    ),
    "on_connect without a parameter": (
        lambda it: it.on_connect(nothing),
        f"an on_connect hook is called with client_id, and {HERE}.nothing takes (); "
        f"write def nothing(client_id)",
    ),
    "on_disconnect without a parameter": (
        lambda it: it.on_disconnect(nothing),
        f"an on_disconnect hook is called with client_id, and {HERE}.nothing takes (); "
        f"write def nothing(client_id)",
    ),
    "on_error with one parameter": (
        lambda it: it.on_error(one),
        f"an on_error hook is called with req and exc, and {HERE}.one takes (req); "
        f"write def one(req, exc)",
    ),
    "authenticate without a parameter": (
        lambda it: it.authenticate(nothing),
        f"an authenticate function is called with req, and {HERE}.nothing takes (); "
        f"write def nothing(req)",
    ),
    "before_request without a parameter": (
        lambda it: it.before_request(nothing),
        f"a before_request hook is called with req, and {HERE}.nothing takes (); "
        f"write def nothing(req)",
    ),
    "after_request with one parameter": (
        lambda it: it.after_request(one),
        f"an after_request hook is called with req and response, and {HERE}.one takes (req); "
        f"write def one(req, response)",
    ),
    "a background function with a parameter": (
        lambda it: it.background("tick", 1)(one),
        f"the function of background 'tick' is called with no arguments, and {HERE}.one takes "
        f"(req); write def one()",
    ),
    "allow without a parameter": (
        lambda it: it.socket("say", allow=nothing)(one),
        f"allow is called with req, and {HERE}.nothing takes (); write def nothing(req)",
    ),
    "a raw handler without a parameter": (
        lambda it: it.raw("/raw")(nothing),
        f"the raw handler of '/raw' is called with connection, and {HERE}.nothing takes (); "
        f"write def nothing(connection)",
    ),
    # --- what nothing awaits or iterates over
    "on_join that is async": (
        lambda it: it.on_join("*")(later_two),
        f"{HERE}.later_two is async, which an on_join hook must not be; write def, not async def",
    ),
    "a raw handler that is async": (
        lambda it: it.raw("/raw")(later),
        f"{HERE}.later is async, which the raw handler of '/raw' must not be; "
        f"write def, not async def",
    ),
    "an ASGI app": (
        lambda it: it.mount("/old", later_two),
        f"{HERE}.later_two is async, which a WSGI app must not be; write def, not async def",
    ),
    "run_in='main' for what is async": (
        lambda it: it.socket("say", run_in="main")(later),
        f"{HERE}.later is async, so it runs on the loop; write it with def, or leave out "
        f"run_in='main'",
    ),
    "authenticate that yields": (
        lambda it: it.authenticate(yields),
        f"{HERE}.yields is a generator, which an authenticate function must not be; "
        f"write return, not yield",
    ),
    "a before_request hook that yields": (
        lambda it: it.before_request(yields),
        f"{HERE}.yields is a generator, which a before_request hook must not be; "
        f"write return, not yield",
    ),
    "a hook that yields": (
        lambda it: it.on_connect(yields),
        f"{HERE}.yields is a generator, which an on_connect hook must not be; "
        f"write return, not yield",
    ),
}

CALLING: dict[str, tuple[Callable[[Daebus], Any], str]] = {
    "a port as a string": (
        lambda app: DaebusHttp(port="8080"),  # type: ignore[arg-type]  # the mistake, as below
        "port must be a whole number or None, not '8080'; write port=8080",
    ),
    "a port that is True": (
        lambda app: DaebusHttp(port=True),
        "port must be a whole number or None, not True; write port=8080",
    ),
    "a port that is no whole number": (
        lambda app: DaebusHttp(port=8080.5),  # type: ignore[arg-type]
        "port must be a whole number or None, not 8080.5; write port=8080",
    ),
    "a port as a string at the start": (
        lambda app: app.start(port="8080"),  # type: ignore[arg-type]
        "port must be a whole number or None, not '8080'; write port=8080",
    ),
    "a path of WebSockets with a query": (
        lambda app: DaebusWebSocket(path="/live?room=1"),
        "path '/live?room=1' holds a query, which no path does; write path='/live'",
    ),
    "a path of the health check without a slash": (
        lambda app: DaebusHttp(health="alive"),
        "path 'alive' has no leading slash; write health='/alive'",
    ),
    "a prefix of a blueprint with a query": (
        lambda app: Blueprint("x", url_prefix="/x?y"),
        "path '/x?y' holds a query, which no path does; write url_prefix='/x'",
    ),
    "a time to stop as a string, before the loop": (
        lambda app: app.serve(timeout="10"),  # type: ignore[arg-type]
        "timeout must be a number, not '10'; write timeout=10",
    ),
    "a port of serve": (
        lambda app: app.serve(port=8080),  # type: ignore[call-arg]
        "serve has no option 'port'; known are timeout, notify",
    ),
    "a time to stop as a string": (
        lambda app: app.stop("3"),  # type: ignore[arg-type]
        "a time to wait must be a number of seconds, not '3'; write 5.0, or math.inf for ever",
    ),
    "no host": (
        lambda app: DaebusHttp(host=None),  # type: ignore[arg-type]
        "host must be a string or a list, each a string, not None; write host='0.0.0.0' for every "
        "address of IPv4, or leave it out for this machine alone",
    ),
    "the host first": (
        lambda app: DaebusHttp("0.0.0.0", 8080),  # type: ignore[call-arg, arg-type]
        "DaebusHttp takes 1 by position, and got 2; write the others by name, such as host=...",
    ),
    "bytes with a unit": (
        lambda app: DaebusHttp(max_body="16M"),  # type: ignore[arg-type]
        "max_body must be a whole number, not '16M'; write max_body=16777216",
    ),
    "subprotocols as one string": (
        lambda app: DaebusWebSocket(subprotocols="x"),
        "subprotocols must be a list; write subprotocols=['x']",
    ),
    "a misspelt option of a component": (
        lambda app: DaebusHttp(workes=4),  # type: ignore[call-arg]
        "DaebusHttp has no option 'workes'; did you mean 'workers'?",
    ),
    "a misspelt option of the app": (
        lambda app: Daebus("x", debgu=True),  # type: ignore[call-arg]
        "Daebus has no option 'debgu'; did you mean 'debug'?",
    ),
    "a misspelt option of a blueprint": (
        lambda app: Blueprint("x", url_prefx="/x"),  # type: ignore[call-arg]
        "Blueprint has no option 'url_prefx'; did you mean 'url_prefix'?",
    ),
    "a class in place of a component": (
        lambda app: app.attach(DaebusHttp),  # type: ignore[call-overload]
        "<class 'daebus.http.component.DaebusHttp'> is not a component; attach DaebusHttp() or "
        "DaebusWebSocket()",
    ),
    "swapped arguments": (
        lambda app: app.websocket.send_to_client({"a": 1}, "abc"),  # type: ignore[arg-type]
        "a client id is a string, not {'a': 1}; it comes first, as in "
        "send_to_client(client_id, data)",
    ),
    "a room in place of a client": (
        lambda app: app.websocket.join(5, "lobby"),  # type: ignore[arg-type]
        "a client id is a string, not 5; it comes first, as in send_to_client(client_id, data)",
    ),
    "ids that are none": (
        lambda app: app.websocket.broadcast_to_clients([5], "x"),  # type: ignore[list-item]
        "a client id is a string, not 5; it comes first, as in send_to_client(client_id, data)",
    ),
    "a misspelt option of a send": (
        lambda app: app.websocket.send_to_client("x", 1, colour="red"),  # type: ignore[call-arg]
        "DaebusWebSocket.send_to_client() got an unexpected keyword argument 'colour'",
    ),
    "an id generator that is async": (
        lambda app: app.websocket.set_client_id_generator(later_two),  # type: ignore[arg-type]
        f"{HERE}.later_two is async, which a client id generator must not be; "
        f"write def, not async def",
    ),
    "a filter that is async": (
        lambda app: app.websocket.get_clients_by_filter(later_two),
        f"{HERE}.later_two is async, which a filter must not be; write def, not async def",
    ),
    "data as the text of an error": (
        lambda app: ClientError({"a": 1}),  # type: ignore[arg-type]
        "the text of a ClientError is a string, not {'a': 1}; "
        "write ClientError('what went wrong', data={...})",
    ),
    "a number as the code of an error": (
        lambda app: ClientError("no", 403),  # type: ignore[arg-type]
        "the code of a ClientError is a string, not 403; write ClientError(text, 'my_code')",
    ),
    "a status as a string": (
        lambda app: Reject("403", "no"),  # type: ignore[arg-type]
        "a refusal has a status from 400 to 599, not '403'; write 403",
    ),
    "permissions as a string": (
        lambda app: DaebusHttp(unix="/run/x", unix_mode="660"),  # type: ignore[arg-type]
        "unix_mode must be a whole number, not '660'; write unix_mode=0o660",
    ),
    "permissions that are True": (
        lambda app: DaebusHttp(unix="/run/x", unix_mode=True),
        "unix_mode must be a whole number, not True; write unix_mode=0o660",
    ),
    "json_default without a parameter": (
        lambda app: Daebus("x", json_default=nothing),  # type: ignore[arg-type]
        f"json_default is called with value, and {HERE}.nothing takes (); write def nothing(value)",
    ),
    "json_default that is async": (
        lambda app: Daebus("x", json_default=later),
        f"{HERE}.later is async, which json_default must not be; write def, not async def",
    ),
    "a close code as a string": (
        lambda app: app.websocket.disconnect_client("x", "bye"),  # type: ignore[arg-type]
        "a close code is a whole number, not 'bye'; write 1000",
    ),
    "a close code that is no whole number": (
        lambda app: app.websocket.disconnect_client("x", 1000.0),  # type: ignore[arg-type]
        "a close code is a whole number, not 1000.0; write 1000",
    ),
    "a number as the reason of a close": (
        lambda app: app.websocket.disconnect_all_clients(1000, 5),  # type: ignore[arg-type]
        "the reason of a close is a string, not 5; write '5'",
    ),
    "headers of a refusal as a list": (
        lambda app: Reject(401, "no", headers=[("A", "b")]),  # type: ignore[arg-type]
        "the headers of a Reject are a dict, not [('A', 'b')]; "
        "write headers={'WWW-Authenticate': 'Basic'}",
    ),
    "a header that is a number": (
        lambda app: Reject(429, "no", headers={"Retry-After": 5}),  # type: ignore[dict-item]
        "the value of Retry-After is a string, not 5; write '5'",
    ),
    "swapped arguments to a room": (
        lambda app: app.websocket.broadcast_to_room({"a": 1}, "lobby"),  # type: ignore[arg-type]
        "a name is a string, not {'a': 1}; write broadcast_to_room('my_name', data)",
    ),
    "a room that is a number": (
        lambda app: app.websocket.leave("x", 5),  # type: ignore[arg-type]
        "a name is a string, not 5; write leave(client_id, '5')",
    ),
    "a question about a room that is a number": (
        lambda app: app.websocket.get_room_clients(5),  # type: ignore[arg-type]
        "a name is a string, not 5; write get_room_clients('5')",
    ),
    "a question about a user that is none": (
        lambda app: app.websocket.get_user_clients(None),  # type: ignore[arg-type]
        "a name is a string, not None; write get_user_clients('my_name')",
    ),
    "a question about a client that is a number": (
        lambda app: app.websocket.get_client_rooms(5),  # type: ignore[arg-type]
        "a client id is a string, not 5; it comes first, as in send_to_client(client_id, data)",
    ),
    "subprotocols of a test client as one string": (
        lambda app: app.test_client(subprotocols="x"),  # type: ignore[arg-type]
        "subprotocols must be a list; write subprotocols=['x']",
    ),
    "a time in place of a message type": (
        lambda app: app.test_client().receive(0.1),  # type: ignore[arg-type]
        "a message type is a string, not 0.1; a time has its name, as in "
        "client.receive('my_type', timeout=1.0)",
    ),
    "swapped arguments of a test client": (
        lambda app: app.test_client().request({"a": 1}, "say"),  # type: ignore[arg-type]
        "a message type is a string, not {'a': 1}; a time has its name, as in "
        "client.receive('my_type', timeout=1.0)",
    ),
    "an object as a raw message": (
        lambda app: app.test_client().send_raw({"type": "say"}),  # type: ignore[arg-type]
        "a raw message is text or bytes, not {'type': 'say'}; write send_raw(json.dumps(message))",
    ),
    "a test client of a path without a slash": (
        lambda app: app.test_client("ws"),
        "path 'ws' has no leading slash; write '/ws'",
    ),
}


@pytest.fixture(scope="module")
def shared() -> Daebus:
    """Return an app that never starts; a mistake leaves nothing behind in it."""
    app = Daebus("test")
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    return app


def told(what: Callable[[], object]) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        what()
    return str(caught.value)


@pytest.mark.parametrize("name", REGISTERING)
def test_registering_it_is_told_at_once_everywhere(shared: Daebus, name: str) -> None:
    use, sentence = REGISTERING[name]

    parts = [shared, Blueprint("part")]
    # What the components have not, they do not get wrong.
    parts += [it for it in (shared.http, shared.websocket) if hasattr(it, _method(use))]  # type: ignore[misc]
    assert [told(functools.partial(use, it)) for it in parts] == [sentence] * len(parts)
    assert len(parts) == 2 + (_method(use) not in ("background", "thread"))


def _method(use: Use) -> str:
    """Return the name of the decorator that is used wrongly."""

    class Spy:
        name = ""

        def __getattr__(self, name: str) -> Any:
            self.name = name
            raise LookupError

    spy = Spy()
    with pytest.raises(LookupError):
        use(spy)
    return spy.name


@pytest.mark.parametrize("name", CALLING)
def test_calling_it_is_told(shared: Daebus, name: str) -> None:
    call, sentence = CALLING[name]
    assert told(lambda: call(shared)) == sentence


def test_a_decorator_that_supplies_an_argument_is_taken(app: Daebus) -> None:
    """The signature that counts is that of what is called."""

    def with_database(function: Callable[..., Any]) -> Callable[[Any], Any]:
        @functools.wraps(function)
        def wrapper(req: Any) -> Any:
            return function(req, "database")

        return wrapper

    def passing(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **options: Any) -> Any:
            return function(*args, **options)

        return wrapper

    came = queue.Queue[object]()

    def ask(req: Any, database: str) -> Any:
        return [req.data, database]

    def named(data: Any, client_id: str) -> Any:
        return [data, len(client_id)]

    app.socket("ask")(with_database(ask))
    app.socket("named")(passing(named))
    app.route("/ask")(with_database(ask))
    app.on_connect(with_database(lambda client_id, database: came.put(database)))
    app.on_disconnect(passing(lambda client_id: came.put("left")))
    with app.test_client() as client:
        assert client.request("ask", 1) == [1, "database"]
        assert client.request("named", 1) == [1, 32]
    assert [came.get(timeout=5), came.get(timeout=5)] == ["database", "left"]


def test_awaiting_what_does_not_wait_says_what_to_write(make_app: MakeApp) -> None:
    app = make_app(debug=True)
    sends: dict[str, Callable[[WebSocketRequest], Any]] = {
        "send": lambda req: app.websocket.send("x", "note"),
        "connection": lambda req: req.websocket.ping(),
        "progress": lambda req: req.progress(1),
    }

    @app.socket("*")
    async def handler(req: WebSocketRequest) -> None:
        await sends[req.message_type](req)

    with app.test_client() as client:
        for name in sends:
            with pytest.raises(RequestError) as caught:
                client.request(name)
            assert (
                caught.value.data["traceback"]
                .rstrip()
                .endswith(
                    "the methods of daebus do not wait, but for those that end in _async; write "
                    "websocket.send(...), not await websocket.send(...)"
                )
            )


def test_main_that_nobody_pumps_is_logged_once(make_app: MakeApp) -> None:
    app = make_app(main_timeout=0.05)
    app.socket("draw", run_in="main")(lambda req: "drawn")
    with records() as log, app.test_client() as client:
        for _ in range(2):
            with pytest.raises(RequestError, match="busy"):
                client.request("draw")
        sentence = (
            "a handler with run_in='main' waited 0.05 s in vain, since nobody calls app.pump(); "
            "write while app.running: app.pump(0.1) in the main thread, or leave out run_in='main'"
        )
        assert [text for text in log.texts if "pump" in text] == [sentence]


def test_several_processes_are_warned_of_once() -> None:
    app = Daebus("meter")
    app.attach(DaebusHttp(allowed_hosts="*"))
    app.attach(DaebusWebSocket())
    app.route("/")(lambda req: "hello")
    try:
        with records() as log:
            for _ in range(2):
                assert Client(app.wsgi).get("/", multiprocess=True).text == "hello"
    finally:
        app.stop()
    assert log.texts == [
        "meter: the server runs several processes, and each knows its own clients alone: no "
        "broadcast, room or client id reaches those of another; join them with "
        "app.attach(DaebusRedis('redis://127.0.0.1:6379/0')), or run one process with more "
        "threads, such as gunicorn --workers 1 --threads 100"
    ]


def test_a_shared_port_is_warned_of_where_nothing_joins_the_processes() -> None:
    app = Daebus("meter")
    app.attach(DaebusHttp(port=0, reuse_port=True))
    app.attach(DaebusWebSocket())
    with records() as log, app:
        pass
    assert log.texts == [
        "meter: reuse_port=True shares the port with other processes, and each knows its own "
        "clients alone: no broadcast, room or client id reaches those of another; join them with "
        "app.attach(DaebusRedis('redis://127.0.0.1:6379/0')), or leave out reuse_port"
    ]
