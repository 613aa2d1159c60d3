"""Async handlers: on the loop's thread, one message of a client at a time."""

from __future__ import annotations

import asyncio
import functools
import queue
import threading
import time

import pytest

from daebus import Daebus, WebSocketRequest
from tests.support.fixture_types import Connect, MakeApp
from tests.support.peer import Peer, envelope


def loop_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "daebus-loop"]


def test_the_loop_thread_starts_when_a_coroutine_needs_it(app: Daebus) -> None:
    names = queue.Queue[str]()

    @app.socket("async")
    async def handler(req: WebSocketRequest) -> None:
        names.put(threading.current_thread().name)

    with app.test_client() as client:
        assert client.request("echo", 1) == 1
        assert loop_threads() == []
        for _ in range(2):
            client.send("async")
            assert names.get(timeout=5) == "daebus-loop"
        assert len(loop_threads()) == 1
    assert loop_threads() == []


def test_send_after_an_await_reaches_the_own_client(app: Daebus) -> None:
    """The waits of the clients overlap, so a global or a thread-local would mix them up."""
    arrived: list[str] = []
    everybody = asyncio.Event()

    @app.socket("hello")
    async def hello(req: WebSocketRequest) -> str:
        app.websocket.send(req.data, "before")
        arrived.append(req.data)
        if len(arrived) == 5:
            everybody.set()
        await everybody.wait()
        app.websocket.send(req.data, "after")
        await asyncio.sleep(0)
        await asyncio.gather(say(f"{req.data} in a task"), asyncio.sleep(0))
        return str(req.data)

    async def say(text: str) -> None:
        await asyncio.sleep(0)
        app.websocket.send(text, "task")

    with (
        app.test_client() as a,
        app.test_client() as b,
        app.test_client() as c,
        app.test_client() as d,
        app.test_client() as e,
    ):
        clients = {"a": a, "b": b, "c": c, "d": d, "e": e}
        for name, client in clients.items():
            client.send("hello", name)
        for name, client in clients.items():
            assert [client.receive() for _ in range(4)] == [
                {"type": "before", "data": name},
                {"type": "after", "data": name},
                {"type": "task", "data": f"{name} in a task"},
                {"type": "response", "data": name},
            ]


@pytest.mark.parametrize("value", [0, False, "", [], None], ids=repr)
def test_returned_values_count_as_those_of_sync_handlers(app: Daebus, value: object) -> None:
    @app.socket("give")
    async def give(req: WebSocketRequest) -> object:
        return value

    with app.test_client() as client:
        client.send("give")
        client.send("echo", "next")
        expected = ["next"] if value is None else [value, "next"]
        assert [client.receive()["data"] for _ in expected] == expected


def test_the_messages_of_a_client_are_handled_one_at_a_time_in_order(
    app: Daebus, connect: Connect
) -> None:
    running = 0
    most = 0

    @app.socket("async")
    async def handler(req: WebSocketRequest) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3):
            await asyncio.sleep(0)
        running -= 1
        return req.data

    app.start()
    peer = Peer.joined(connect(app.http.port))
    kinds = ["async", "echo", "async", "async", "echo", "async"]
    peer.sock.sendall(b"".join(envelope(kind, n) for n, kind in enumerate(kinds)))
    assert [peer.message()["data"] for _ in kinds] == list(range(len(kinds)))
    assert most == 1


def test_a_sync_handler_that_waits_does_not_hold_up_async_ones(app: Daebus) -> None:
    release = threading.Event()
    app.socket("wait")(lambda req: release.wait(5))

    @app.socket("async")
    async def handler(req: WebSocketRequest) -> str:
        release.set()
        return "free"

    with app.test_client() as one, app.test_client() as two:
        one.send("wait")
        assert two.request("async") == "free"
        assert one.receive()["data"] is True


def test_other_awaitables_than_coroutine_functions_work(app: Daebus) -> None:
    async def add(summand: int, req: WebSocketRequest) -> int:
        await asyncio.sleep(0)
        return int(req.data) + summand

    class Doubler:
        async def __call__(self, req: WebSocketRequest) -> int:
            return int(req.data) * 2

    app.socket("partial")(functools.partial(add, 5))
    app.socket("object")(Doubler())
    app.socket("lambda")(lambda req: add(7, req))
    with app.test_client() as client:
        assert client.request("partial", 1) == 6
        assert client.request("object", 4) == 8
        assert client.request("lambda", 1) == 8


def test_a_task_may_go_on_sending_after_its_handler_returned(app: Daebus) -> None:
    go_on = asyncio.Event()
    tasks = []

    @app.socket("start")
    async def start(req: WebSocketRequest) -> str:
        tasks.append(asyncio.create_task(later()))
        return "started"

    async def later() -> None:
        await go_on.wait()
        app.websocket.send("later", "late")

    @app.socket("go_on")
    async def let_go_on(req: WebSocketRequest) -> None:
        go_on.set()

    with app.test_client() as one, app.test_client() as two:
        assert one.request("start") == "started"
        two.send("go_on")
        assert one.receive() == {"type": "late", "data": "later"}


@pytest.mark.parametrize(
    "exc",
    [ValueError("x"), asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt()],
    ids=lambda exc: type(exc).__name__,
)
def test_base_exceptions_of_async_handlers_end_nothing(app: Daebus, exc: BaseException) -> None:
    @app.socket("fail")
    async def fail(req: WebSocketRequest) -> None:
        await asyncio.sleep(0)
        raise exc

    @app.socket("work")
    async def work(req: WebSocketRequest) -> str:
        return "works"

    with app.test_client() as client, app.test_client() as other:
        client.send("fail")
        message = client.receive()
        assert message["type"] == "error"
        assert message["data"]["code"] == "handler_error"
        assert client.request("work") == "works"
        assert other.request("work") == "works"


def test_an_async_handler_that_waits_for_ever_is_cancelled_at_the_stop(
    make_app: MakeApp,
) -> None:
    app = make_app(close_timeout=0.1)
    begun, cancelled = threading.Event(), threading.Event()

    @app.socket("hang")
    async def hang(req: WebSocketRequest) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with app.test_client() as client:
        client.send("hang")
        assert begun.wait(5)
        before = time.monotonic()
        assert app.stop(timeout=60) == []
        assert time.monotonic() - before < 10, "it waits no longer than for a client's close"
        assert cancelled.is_set()
