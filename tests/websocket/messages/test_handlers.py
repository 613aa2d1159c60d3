"""What stands around handlers: ``"*"``, middleware, ``on_error``, ``on_binary``, signatures."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from daebus import (
    Blueprint,
    ClientError,
    Daebus,
    DuplicateHandlerError,
    WebSocketRequest,
)
from daebus.testing import RequestError
from daebus.websocket.messages.handlers import HandlerTable
from daebus.websocket.messages.options import RunIn
from tests.support.fixture_types import Connect
from tests.support.peer import BINARY, TEXT, Peer, frame
from tests.support.waiting import eventually

Next = Callable[[WebSocketRequest], Any]


# --- the catch-all ------------------------------------------------------------------


def test_catch_all_gets_every_type_without_a_handler(app: Daebus) -> None:
    @app.socket("*")
    def rest(req: WebSocketRequest) -> list[Any]:
        return [req.message_type, req.data]

    with app.test_client() as ada, app.test_client() as bob:
        assert ada.request("echo", 1) == 1
        assert ada.request("whatever", 2) == ["whatever", 2]
        assert bob.request("*", 3) == ["*", 3]
        app.socket("whatever")(lambda req: "a handler of its own")
        assert bob.request("whatever") == "a handler of its own"


def test_catch_all_counts_as_one_type_and_errors_name_the_real_one(app: Daebus) -> None:
    """A client that invents types must not fill the memory of the counts."""

    @app.socket("*")
    def rest(req: WebSocketRequest) -> None:
        raise ValueError

    app.socket("job", run_in="pool")(lambda req: "done")
    app.start()
    with app.test_client() as client:
        for number in range(3):
            with pytest.raises(RequestError) as error:
                client.request(f"invented {number}")
            assert error.value.code == "handler_error"
        assert client.request("job") == "done"
        assert eventually(lambda: "job" in app.websocket.stats()["handlers"])
    assert set(app.websocket.stats()["handlers"]) == {"*", "job"}


def test_a_background_catch_all_counts_as_one_type_too(app: Daebus) -> None:
    app.socket("*", run_in="pool")(lambda req: req.message_type)
    with app.test_client() as client:
        assert client.request("one") == "one"
        assert client.request("two") == "two"
        assert eventually(lambda: set(app.websocket.stats()["handlers"]) == {"*"})


def test_without_a_catch_all_the_type_is_unknown(app: Daebus) -> None:
    with (
        app.test_client() as client,
        pytest.raises(RequestError, match=r"unknown_type: .*did you mean 'echo'"),
    ):
        client.request("ecko")


def test_long_types_are_cut_in_what_operators_see(
    app: Daebus, caplog: pytest.LogCaptureFixture
) -> None:
    app.socket("*")(lambda req: 1 / 0)
    with app.test_client() as client, pytest.raises(RequestError):
        client.request("x" * 100_000)
    assert max(map(len, caplog.messages)) < 300


# --- middleware ---------------------------------------------------------------------


def test_middleware_is_around_every_handler_the_first_outermost(app: Daebus) -> None:
    app.socket("before")(lambda req: ["before", req.data])

    @app.websocket.middleware
    def outer(req: WebSocketRequest, next: Next) -> Any:
        return ["outer", next(req)]

    @app.websocket.middleware
    def inner(req: WebSocketRequest, next: Next) -> Any:
        return ["inner", next(req)]

    app.socket("after")(lambda req: ["after", req.data])
    app.socket("*")(lambda req: ["any", req.data])
    app.socket("job", run_in="pool")(lambda req: threading.current_thread().name[:10])
    with app.test_client() as ada, app.test_client() as bob:
        for client in (ada, bob):
            for kind, name in (("before", "before"), ("after", "after"), ("x", "any")):
                assert client.request(kind, 1) == ["outer", ["inner", [name, 1]]]
            assert client.request("job") == ["outer", ["inner", "daebus-job"]]


def test_middleware_may_answer_refuse_and_catch(app: Daebus) -> None:
    calls = queue.Queue[str]()

    @app.websocket.middleware
    def guard(req: WebSocketRequest, next: Next) -> Any:
        if req.message_type == "secret":
            raise ClientError("not for you", code="forbidden")
        if req.message_type == "cached":
            return "from the cache"
        try:
            return next(req)
        except ZeroDivisionError:
            return "infinite"

    @app.socket("*")
    def rest(req: WebSocketRequest) -> float:
        calls.put(req.message_type)
        return 1 / req.data  # type: ignore[no-any-return]

    with app.test_client() as client:
        with pytest.raises(RequestError, match="forbidden: not for you"):
            client.request("secret", 1)
        assert client.request("cached") == "from the cache"
        assert calls.empty()
        assert client.request("divide", 0) == "infinite"
        assert client.request("divide", 2) == 0.5


def test_a_broken_middleware_is_a_failed_handler(
    app: Daebus, caplog: pytest.LogCaptureFixture
) -> None:
    @app.websocket.middleware
    def broken(req: WebSocketRequest, next: Next) -> Any:
        raise SystemExit

    with app.test_client() as client:
        for _ in range(2):
            with pytest.raises(RequestError, match="handler_error"):
                client.request("echo")
    assert "handler for 'echo' failed" in caplog.text


def test_middleware_around_async_handlers_passes_or_awaits(make_app: Any) -> None:
    app: Daebus = make_app()
    lines = queue.Queue[str]()

    @app.websocket.middleware
    def passes(req: WebSocketRequest, next: Next) -> Any:
        result = next(req)
        assert inspect.isawaitable(result)
        return result

    @app.websocket.middleware
    async def awaits(req: WebSocketRequest, next: Next) -> Any:
        lines.put("before")
        result = await next(req)
        lines.put("after")
        return [result]

    @app.socket("async")
    async def handler(req: WebSocketRequest) -> str:
        await asyncio.sleep(0)
        lines.put("handler")
        return threading.current_thread().name

    with app.test_client() as ada, app.test_client() as bob:
        assert ada.request("async") == ["daebus-loop"]
        assert bob.request("async") == ["daebus-loop"]
    assert [lines.get(timeout=5) for _ in range(6)] == 2 * ["before", "handler", "after"]


@pytest.mark.parametrize("awaits", [True, False])
def test_an_async_middleware_around_what_yields(make_app: Any, awaits: bool) -> None:
    app: Daebus = make_app()

    @app.websocket.middleware
    async def middleware(req: WebSocketRequest, next: Next) -> Any:
        return await next(req) if awaits else next(req)

    @app.websocket.middleware
    async def inner(req: WebSocketRequest, next: Next) -> Any:
        return await next(req)

    @app.socket("count")
    async def count(req: WebSocketRequest) -> AsyncIterator[int]:
        for number in range(req.data):
            yield number

    @app.socket("async")
    async def handler(req: WebSocketRequest) -> str:
        return "returned"

    with app.test_client() as client:
        client.send("count", 3)
        client.send("async")
        assert [client.receive()["data"] for _ in range(4)] == [0, 1, 2, "returned"]


def test_an_async_middleware_needs_async_handlers(app: Daebus) -> None:
    async def middleware(req: WebSocketRequest, next: Next) -> Any:
        return await next(req)

    with pytest.raises(
        TypeError, match=r"middleware is async and .*lambda.* is not, so .*block the loop"
    ):
        app.websocket.middleware(middleware)
    with app.test_client() as client:
        assert client.request("echo", 1) == 1  # nothing has changed


def test_a_sync_handler_behind_an_async_middleware_is_refused(make_app: Any) -> None:
    app: Daebus = make_app()

    @app.websocket.middleware
    async def middleware(req: WebSocketRequest, next: Next) -> Any:
        return await next(req)

    with pytest.raises(TypeError, match=r"the handler with async def"):
        app.socket("sync")(lambda req: None)
    app.socket("async")(functools.partial(_async_handler, extra="x"))
    with app.test_client() as client:
        assert client.request("async", 1) == [1, "x"]


async def _async_handler(req: WebSocketRequest, extra: str) -> list[Any]:
    return [req.data, extra]


def print_nothing() -> None: ...


def test_middleware_that_could_not_be_called_is_refused(app: Daebus) -> None:
    for wrong in (lambda req: None, print_nothing):
        with pytest.raises(TypeError, match=r"write (lambda |def print_nothing\()req, next"):
            app.websocket.middleware(wrong)  # type: ignore[type-var]


def test_without_middleware_the_handler_is_the_users_function() -> None:
    handlers = HandlerTable(run=lambda req, handler: None)
    function = lambda req: None  # noqa: E731
    handlers.add("x", function)
    assert handlers.by_type["x"] is function


def test_middleware_comes_while_clients_talk(app: Daebus) -> None:
    stop = threading.Event()
    answers: list[Any] = []
    problems: list[BaseException] = []
    app.start()

    def talk() -> None:
        try:
            with app.test_client() as client:
                while not stop.is_set():
                    answers.append(client.request("echo", 1))
                answers.append(client.request("echo", 1))
        except BaseException as exc:
            problems.append(exc)

    talkers = [threading.Thread(target=talk) for _ in range(2)]
    for thread in talkers:
        thread.start()
    assert eventually(lambda: len(answers) > 20)
    app.websocket.middleware(lambda req, next: next(req) + 1)
    stop.set()
    for thread in talkers:
        thread.join(10)
    assert not problems
    assert answers[-1] == 2
    assert set(answers) == {1, 2}


# --- on_error -----------------------------------------------------------------------


def test_on_error_hears_what_handlers_raise(app: Daebus) -> None:
    heard = queue.Queue[tuple[str, str]]()

    @app.websocket.on_error
    def report(req: WebSocketRequest, exception: BaseException) -> dict[str, Any] | None:
        heard.put((req.message_type, repr(exception)))
        return {"ticket": 7, "code": "mine", "error": "mine"} if req.data else None

    @app.websocket.on_error
    async def second(req: WebSocketRequest, exception: BaseException) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"ticket": 8, "second": True}

    @app.socket("fail")
    def fail(req: WebSocketRequest) -> None:
        raise ValueError("secret")

    app.socket("job", run_in="pool")(fail)
    app.socket("odd")(lambda req: object())

    @app.socket("refuse")
    def refuse(req: WebSocketRequest) -> None:
        raise ClientError("no", code="no")

    with app.test_client() as ada, app.test_client() as bob:
        for client, kind, data, ticket in (
            (ada, "fail", 1, 7),
            (bob, "fail", 0, 8),
            (ada, "job", 1, 7),
        ):
            client.send(kind, data)
            assert client.receive("error")["data"] == {
                "error": "the handler failed",
                "code": "handler_error",
                "message_type": kind,
                "ticket": ticket,
                "second": True,
            }
            assert heard.get(timeout=5) == (kind, "ValueError('secret')")
        bob.send("odd")
        assert bob.receive("error")["data"]["second"] is True
        assert heard.get(timeout=5)[1].startswith("EncodeError(")
        with pytest.raises(RequestError, match="no: no"):
            ada.request("refuse")
    assert heard.empty()


@pytest.mark.parametrize("wrong", ["text", {"x": object()}, None])
def test_a_broken_on_error_hook_is_logged_and_the_client_has_its_answer(
    app: Daebus, caplog: pytest.LogCaptureFixture, wrong: Any
) -> None:
    @app.websocket.on_error
    def broken(req: WebSocketRequest, exception: BaseException) -> Any:
        if wrong is None:
            raise SystemExit
        return wrong

    app.socket("fail")(lambda req: 1 / 0)
    with app.test_client() as client:
        client.send("fail")
        assert client.receive("error")["data"] == {
            "error": "the handler failed",
            "code": "handler_error",
            "message_type": "fail",
        }
        assert client.request("echo", 1) == 1
    assert "on_error hook failed" in caplog.text or "cannot be sent" in caplog.text


# --- on_binary ----------------------------------------------------------------------


def test_binary_messages_have_a_handler(app: Daebus, connect: Connect) -> None:
    @app.websocket.on_binary
    def binary(req: WebSocketRequest) -> Any:
        assert isinstance(req.data, bytes)
        if req.data == b"json":
            return {"type": req.message_type, "id": req.id}
        if req.data == b"none":
            return None
        if req.data == b"fail":
            raise ValueError
        return bytearray(req.data[::-1])

    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(2)]
    for peer in peers:
        peer.send(BINARY, b"abc")
        assert peer.frame() == (BINARY, b"cba")
        peer.send(BINARY, b"json")
        assert peer.message() == {"type": "response", "data": {"type": "<binary>", "id": None}}
        peer.send(BINARY, b"none")
        peer.send(BINARY, b"fail")
        assert peer.message()["data"]["code"] == "handler_error"
        peer.say("<binary>", "no way in")
        assert peer.message()["data"]["code"] == "unknown_type"
        peer.close()
    assert app.websocket.stats()["handlers"]["<binary>"]["count"] == 8


def test_binary_answers_keep_their_place_among_the_others(app: Daebus, connect: Connect) -> None:
    app.websocket.on_binary(lambda req: req.data)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    text = json.dumps({"type": "echo", "data": 1})
    peer.sock.sendall(3 * (frame(TEXT, text) + frame(BINARY, b"x")))
    assert [peer.frame()[0] for _ in range(6)] == 3 * [TEXT, BINARY]
    peer.close()


def test_an_async_binary_handler_with_middleware(make_app: Any, connect: Connect) -> None:
    app: Daebus = make_app()

    @app.websocket.on_binary
    async def binary(req: WebSocketRequest) -> bytes:
        await asyncio.sleep(0)
        return bytes(req.data)

    @app.websocket.middleware
    async def twice(req: WebSocketRequest, next: Next) -> Any:
        req.data *= 2
        return await next(req)

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.send(BINARY, b"ab")
    assert peer.frame() == (BINARY, b"abab")
    peer.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_binary_handler_may_be_a_generator(app: Daebus, connect: Connect, kind: str) -> None:
    def sync(req: WebSocketRequest) -> Iterator[Any]:
        yield req.data
        yield {"half": True}
        yield req.data[::-1]

    async def asynchronous(req: WebSocketRequest) -> AsyncIterator[Any]:
        for item in sync(req):
            yield item

    app.websocket.on_binary(sync if kind == "sync" else asynchronous)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.send(BINARY, b"abc")
    assert peer.frame() == (BINARY, b"abc")
    assert peer.message()["data"] == {"half": True}
    assert peer.frame() == (BINARY, b"cba")
    peer.close()


def test_the_types_of_the_protocol_pass_by_a_catch_all(app: Daebus) -> None:
    app.socket("*")(lambda req: req.message_type)
    with app.test_client() as client:
        for kind in ("cancel", "response", "error"):
            client.send(kind)
        assert client.request("other") == "other"


def test_there_is_one_binary_handler(app: Daebus) -> None:
    app.websocket.on_binary(by_request)
    with pytest.raises(DuplicateHandlerError, match=r"already: .*by_request; .* call .*by_other"):
        app.websocket.on_binary(by_other)


# --- signatures ---------------------------------------------------------------------


def by_request(req: WebSocketRequest) -> list[Any]:
    return [req.data, req.client_id]


def by_other(anything: WebSocketRequest, more: int = 1) -> list[Any]:
    return [anything.data, anything.client_id]


def by_data(data: Any, client_id: str) -> list[Any]:
    return [data, client_id]


def by_data_and_more(data: Any, client_id: str | None = None, more: int = 1) -> list[Any]:
    return [data, client_id]


async def by_data_async(data: Any, client_id: str) -> list[Any]:
    return [data, client_id]


class Chat:
    def say(self, data: Any, client_id: str) -> list[Any]:
        return [data, client_id]

    def __call__(self, req: WebSocketRequest) -> list[Any]:
        return [req.data, req.client_id]


@pytest.mark.parametrize(
    "handler",
    [by_request, by_other, by_data, by_data_and_more, by_data_async, Chat().say, Chat()],
)
@pytest.mark.parametrize("run_in", ["connection", "pool"])
def test_handlers_take_a_request_or_data_and_client_id(
    app: Daebus, handler: Callable[..., Any], run_in: RunIn
) -> None:
    app.socket("say", run_in=run_in)(handler)
    with app.test_client() as ada, app.test_client() as bob:
        answers = [ada.request("say", 1), bob.request("say", 2)]
        assert [data for data, client_id in answers] == [1, 2]
        assert {client_id for data, client_id in answers} == set(app.websocket.get_clients())


@pytest.mark.parametrize(
    "handler",
    [lambda: None, lambda req, sid: None, lambda client_id, data: None, lambda *, req: None],
)
def test_other_signatures_are_refused_with_what_to_type(app: Daebus, handler: Any) -> None:
    with pytest.raises(
        TypeError,
        match=r"the handler of 'say' must take a request, and .*lambda.* takes \(.*\); write "
        r"def .*\(req\), or def .*\(data, client_id\)$",
    ):
        app.socket("say")(handler)
    app.socket("say")(by_request)  # the type is still free


def test_a_blueprint_has_all_of_it(make_app: Any, connect: Connect) -> None:
    app: Daebus = make_app()
    part = Blueprint("part")
    part.socket("fail")(lambda req: 1 / 0)
    part.on_binary(lambda req: req.data)
    part.on_error(lambda req, exception: {"ticket": 7})

    @part.middleware
    def double(req: WebSocketRequest, next: Next) -> Any:
        return 2 * next(req)

    app.register(part)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("fail")
    assert peer.message()["data"]["ticket"] == 7
    peer.close()
