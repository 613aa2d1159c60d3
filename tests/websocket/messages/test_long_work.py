"""Long work: many answers, progress, and requests that are told to end."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from daebus import Cancelled, ClientError, Daebus, WebSocketRequest
from daebus.websocket.messages.options import RunIn
from tests.support.fixture_types import Connect, MakeApp
from tests.support.inside import activity_of, connections, kept_by
from tests.support.peer import TEXT, Peer, frame
from tests.support.waiting import eventually

FLAVOURS = ["sync", "async", "generator", "async generator", "job", "async job"]


class Long:
    """An app with a handler ``work`` that goes on until it is told to end."""

    def __init__(self, app: Daebus, flavour: str, **options: Any) -> None:
        self.app = app
        self.begun = threading.Semaphore(0)
        self.release = threading.Event()
        self.ended = queue.Queue[str]()
        options["run_in"] = "pool" if flavour.endswith("job") else "connection"
        handlers: dict[str, Callable[[WebSocketRequest], Any]] = {
            "sync": self.work,
            "job": self.work,
            "async": self.work_async,
            "async job": self.work_async,
            "generator": self.work_generator,
            "async generator": self.work_async_generator,
        }
        app.socket("echo")(lambda req: req.data)
        app.socket("work", **options)(handlers[flavour])

    def work(self, req: WebSocketRequest) -> str:
        self.begun.release()
        try:
            while not self.release.is_set():
                req.check()
                req.cancelled.wait(0.005)
        except Cancelled as exc:
            self.ended.put(exc.code)
            raise
        self.ended.put("released")
        return "worked"

    async def work_async(self, req: WebSocketRequest) -> str:
        self.begun.release()
        try:
            while not self.release.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.ended.put("cancelled")
            raise
        self.ended.put("released")
        return "worked"

    def work_generator(self, req: WebSocketRequest) -> Iterator[int]:
        self.begun.release()
        number = 0
        try:
            while not self.release.is_set():
                yield number
                number += 1
                req.cancelled.wait(0.005)
        except GeneratorExit:
            self.ended.put("cancelled")
            raise
        self.ended.put("released")

    async def work_async_generator(self, req: WebSocketRequest) -> AsyncIterator[int]:
        self.begun.release()
        number = 0
        try:
            while not self.release.is_set():
                yield number
                number += 1
                await asyncio.sleep(0.005)
        except (asyncio.CancelledError, GeneratorExit):
            self.ended.put("cancelled")
            raise
        self.ended.put("released")


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is an error for the log: ending early is no failure."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def say(client: Any, kind: str, data: Any = None, ident: Any = None) -> None:
    message = {"type": kind, "data": data, **({} if ident is None else {"id": ident})}
    client.send_raw(json.dumps(message))


# --- many answers -------------------------------------------------------------------


@pytest.mark.parametrize("run_in", ["connection", "pool"])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_each_item_is_a_response(app: Daebus, mode: str, run_in: RunIn) -> None:
    if mode == "sync":

        @app.socket("lines", run_in=run_in)
        def lines(req: WebSocketRequest) -> Iterator[Any]:
            for line in req.data:
                app.websocket.send(line, "note")
                yield line

    else:

        @app.socket("lines", run_in=run_in)
        async def lines_async(req: WebSocketRequest) -> AsyncIterator[Any]:
            for line in req.data:
                app.websocket.send(line, "note")
                await asyncio.sleep(0)
                yield line

    items = [1, None, "two", [3]]
    with app.test_client() as client:
        say(client, "lines", items, "x")
        for item in items:
            assert client.receive() == {"type": "note", "data": item}
            assert client.receive() == {"type": "response", "data": item, "id": "x"}
        say(client, "lines", [])
        assert client.request("echo", "next") == "next"


def test_what_a_generator_returns_is_the_last_response(app: Daebus) -> None:
    @app.socket("sum")
    def total(req: WebSocketRequest) -> Generator[int, None, int]:
        yield from req.data
        return int(sum(req.data))

    with app.test_client() as client:
        say(client, "sum", [1, 2], 5)
        assert [client.receive()["data"] for _ in range(3)] == [1, 2, 3]
        assert client.request("echo", "next") == "next"


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_item_that_json_cannot_carry_ends_a_generator(app: Daebus, mode: str) -> None:
    ended = queue.Queue[str]()

    def items(req: WebSocketRequest) -> Iterator[Any]:
        try:
            yield 1
            yield object()
            yield 2
        finally:
            ended.put("ended")

    async def items_async(req: WebSocketRequest) -> AsyncIterator[Any]:
        try:
            yield 1
            yield object()
            yield 2
        finally:
            ended.put("ended")

    app.socket("items")(items if mode == "sync" else items_async)
    with app.test_client() as client:
        say(client, "items", None, 1)
        assert client.receive() == {"type": "response", "data": 1, "id": 1}
        assert client.receive()["data"]["code"] == "handler_error"
        assert ended.get(timeout=5) == "ended"
        assert client.request("echo", "next") == "next"


@pytest.mark.parametrize("flavour", ["generator", "async generator"])
def test_a_generator_that_raises_is_answered(app: Daebus, flavour: str) -> None:
    def fail(req: WebSocketRequest) -> Iterator[int]:
        yield 1
        raise ClientError("no", "mine")

    async def fail_async(req: WebSocketRequest) -> AsyncIterator[int]:
        yield 1
        raise ClientError("no", "mine")

    app.socket("fail")(fail if flavour == "generator" else fail_async)
    with app.test_client() as client:
        say(client, "fail", None, 1)
        assert client.receive()["data"] == 1
        assert client.receive()["data"]["code"] == "mine"


@pytest.mark.parametrize("run_in", ["connection", "pool"])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_generator_waits_for_a_client_that_reads_slowly(
    make_app: MakeApp, connect: Connect, mode: str, run_in: RunIn
) -> None:
    """It would end as a slow consumer otherwise: it is given far more than its outbox takes."""
    app = make_app(max_outbox=100_000)
    size, count = 50_000, 200

    @app.socket("much", run_in=run_in)
    def much(req: WebSocketRequest) -> Any:
        async def items() -> AsyncIterator[str]:
            for _ in range(count):
                yield "x" * size

        def iter_items() -> Iterator[str]:
            for _ in range(count):
                yield "x" * size

        return items() if mode == "async" else iter_items()

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("much")
    assert eventually(lambda: [c for c in connections(app) if c.writer.outlet.queued()[0]])
    for _ in range(count):
        assert len(peer.message()["data"]) == size
    peer.close()


# --- told to end --------------------------------------------------------------------


def test_a_cancel_is_noticed_while_the_handler_runs(
    app: Daebus, make_app: MakeApp, flavour: str, quiet: None
) -> None:
    long = Long(make_app(), flavour)
    with long.app.test_client() as client:
        say(client, "work", None, "w")
        assert long.begun.acquire(timeout=5)
        say(client, "cancel", None, "w")
        assert long.ended.get(timeout=5) == "cancelled"
        message = client.receive("error")
        assert (message["id"], message["data"]["code"]) == ("w", "cancelled")
        assert message["data"]["message_type"] == "work"
        assert client.request("echo", "on") == "on"


def test_a_cancel_that_came_in_one_read_with_its_request(
    make_app: MakeApp, connect: Connect, flavour: str
) -> None:
    long = Long(make_app(), flavour)
    long.app.start()
    peer = Peer.joined(connect(long.app.http.port))
    messages = [{"type": "work", "id": 1}, {"type": "echo", "data": 2}, {"type": "cancel", "id": 1}]
    peer.sock.sendall(b"".join(frame(TEXT, json.dumps(message)) for message in messages))
    answers: list[Any] = []
    while not any(m["type"] == "error" for m in answers) or not any(
        m["data"] == 2 and "id" not in m for m in answers
    ):
        answers.append(peer.message())
    (error,) = [m for m in answers if m["type"] == "error"]
    assert (error["id"], error["data"]["code"]) == (1, "cancelled")
    peer.close()


def test_a_client_that_leaves_ends_its_work(make_app: MakeApp, flavour: str, quiet: None) -> None:
    long = Long(make_app(), flavour)
    with long.app.test_client() as stays:
        with long.app.test_client() as client:
            say(client, "work")
            assert long.begun.acquire(timeout=5)
        assert long.ended.get(timeout=5) == "cancelled"
        assert stays.request("echo", "on") == "on"


def test_a_stop_ends_work(make_app: MakeApp, flavour: str, quiet: None) -> None:
    long = Long(make_app(), flavour)
    with long.app.test_client() as client:
        say(client, "work")
        assert long.begun.acquire(timeout=5)
        assert long.app.stop(timeout=5) == []
        assert long.ended.get(timeout=5) == "cancelled"


def test_a_timeout_ends_work(make_app: MakeApp, flavour: str, quiet: None) -> None:
    long = Long(make_app(), flavour, timeout=0.05)
    with long.app.test_client() as client:
        say(client, "work", None, "w")
        message = client.receive("error")
        assert (message["id"], message["data"]["code"]) == ("w", "timeout")
        assert long.ended.get(timeout=5) in ("cancelled", "timeout")
        assert client.request("echo", "on") == "on"


def test_a_handler_that_ends_in_time_is_answered(make_app: MakeApp, flavour: str) -> None:
    long = Long(make_app(), flavour, timeout=5.0)
    long.release.set()
    with long.app.test_client() as client:
        say(client, "work", None, "w")
        assert long.ended.get(timeout=5) == "released"
        if "generator" not in flavour:
            assert client.receive() == {"type": "response", "data": "worked", "id": "w"}
        assert client.request("echo", "on") == "on"
    assert long.ended.empty()


def test_only_the_named_request_ends(make_app: MakeApp) -> None:
    long = Long(make_app(), "job")
    with long.app.test_client() as a, long.app.test_client() as b:
        for client, ident in ((a, 1), (a, 2), (b, 1)):
            say(client, "work", None, ident)
            assert long.begun.acquire(timeout=5)
        strangers: list[Any] = [3, "1", True, [1]]
        for ident in strangers:
            say(a, "cancel", None, ident)
        say(a, "cancel", None, 1)
        say(a, "cancel", None, 1)  # too late
        message = a.receive()
        assert (message["id"], message["data"]["code"]) == (1, "cancelled")
        long.release.set()
        assert a.receive() == {"type": "response", "data": "worked", "id": 2}
        assert b.receive() == {"type": "response", "data": "worked", "id": 1}
        assert a.request("echo", "on") == "on"
        assert not kept_by(a), "a cancel was answered"


def test_a_job_that_waits_for_a_thread_can_be_cancelled(make_app: MakeApp) -> None:
    long = Long(make_app(background_workers=1), "job")
    with long.app.test_client() as client:
        say(client, "work", None, 1)
        assert long.begun.acquire(timeout=5)
        say(client, "work", None, 2)
        say(client, "cancel", None, 2)
        assert client.request("echo", "on") == "on"
        long.release.set()
        assert client.receive() == {"type": "response", "data": "worked", "id": 1}
        message = client.receive()
        assert (message["id"], message["data"]["code"]) == (2, "cancelled")
    assert not long.begun.acquire(blocking=False)


def test_cancels_that_race_with_the_end_leave_one_answer_each(make_app: MakeApp) -> None:
    app = make_app(background_queue=500)
    app.socket("echo")(lambda req: req.data)

    @app.socket("quick", run_in="pool")
    async def quick(req: WebSocketRequest) -> str:
        await asyncio.sleep(0)
        return "done"

    with app.test_client() as client:
        for ident in range(100):
            say(client, "quick", None, ident)
            say(client, "cancel", None, ident)
        answers = [client.receive() for _ in range(100)]
        assert sorted(m["id"] for m in answers) == list(range(100))
        codes = {m["data"] if m["type"] == "response" else m["data"]["code"] for m in answers}
        assert codes <= {"done", "cancelled"}
        assert client.request("echo", "on") == "on"
        assert not kept_by(client)


def test_a_handler_may_clean_up_and_answer_all_the_same(app: Daebus) -> None:
    begun = threading.Event()

    @app.socket("work")
    async def work(req: WebSocketRequest) -> str:
        begun.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "half of it"
        return "all of it"

    with app.test_client() as client:
        say(client, "work", None, 1)
        assert begun.wait(5)
        say(client, "cancel", None, 1)
        assert client.receive() == {"type": "response", "data": "half of it", "id": 1}


@pytest.mark.parametrize("ident", [None, "w"])
def test_a_client_that_leaves_before_its_coroutine_begins(
    make_app: MakeApp, ident: str | None, quiet: None
) -> None:
    long = Long(make_app(), "async")
    blocked, go = threading.Event(), threading.Event()

    @long.app.socket("block")
    async def block(req: WebSocketRequest) -> str:
        blocked.set()
        assert go.wait(10)
        return "blocked"

    with long.app.test_client() as stays:
        stays.send("block")
        assert blocked.wait(5)
        with long.app.test_client() as leaves:
            say(leaves, "work", None, ident)
        assert eventually(lambda: long.app.websocket.get_client_count() == 1)
        go.set()
        assert long.ended.get(timeout=5) == "cancelled"
        assert stays.receive()["data"] == "blocked"


def test_an_async_handler_that_closes_its_connection_goes_on(app: Daebus) -> None:
    done = threading.Event()

    @app.socket("leave")
    async def leave(req: WebSocketRequest) -> None:
        req.websocket.close(4000, "bye")
        await asyncio.sleep(0)
        done.set()

    with app.test_client() as client:
        client.send("leave")
        assert done.wait(5)


def test_a_thread_that_outlives_its_handler_hears_of_the_end(app: Daebus) -> None:
    events = queue.Queue[threading.Event]()

    @app.socket("spawn")
    def spawn(req: WebSocketRequest) -> str:
        events.put(req.cancelled)
        return "spawned"

    with app.test_client() as client:
        client.request("spawn")
        cancelled = events.get(timeout=5)
        assert not cancelled.is_set()
    assert cancelled.wait(5)


def test_a_request_that_has_ended_takes_no_cancel_of_a_later_one(
    app: Daebus, connect: Connect
) -> None:
    begun, ended = list[WebSocketRequest](), threading.Event()

    @app.socket("quick")
    def quick(req: WebSocketRequest) -> bool:
        begun.append(req)  # it outlives its handler
        return req.cancelled.is_set()

    @app.socket("count")
    def count(req: WebSocketRequest) -> Iterator[int]:
        yield from range(1000)
        ended.set()

    app.start()
    peer = Peer.joined(connect(app.http.port))
    quickly, slowly, cancel = (
        frame(TEXT, json.dumps({"type": kind, "id": "same"}))
        for kind in ("quick", "count", "cancel")
    )
    peer.sock.sendall(quickly)
    assert peer.message()["data"] is False
    peer.sock.sendall(slowly + cancel)
    while (message := peer.message())["type"] == "response":
        assert message["data"] < 999
    assert message["data"]["code"] == "cancelled"
    assert not ended.is_set()
    assert begun[0].cancelled.is_set()  # a thread that it left would hear of it too
    peer.close()


def test_nothing_is_kept_of_requests_that_have_ended(app: Daebus) -> None:
    @app.socket("look")
    def look(req: WebSocketRequest) -> bool:
        return req.cancelled.is_set()

    with app.test_client() as client:
        for _ in range(50):
            assert client.request("look") is False
        (connection,) = connections(app)
        activity = activity_of(connection)
        assert len(activity.pending._tokens) < 50
        # The last answer leaves an instant before its request is let go.
        pending = activity.pending

        def alive() -> bool:
            with pending._lock:
                return bool(pending._alive_locked())

        assert eventually(lambda: not alive())


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_a_timeout_must_be_one(app: Daebus, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be greater than 0"):
        app.socket("work", timeout=timeout)(lambda req: None)


# --- progress -----------------------------------------------------------------------


@pytest.mark.parametrize("run_in", ["connection", "pool"])
def test_progress_goes_to_the_client_that_asked(app: Daebus, run_in: RunIn) -> None:
    @app.socket("work", run_in=run_in)
    def work(req: WebSocketRequest) -> str:
        assert req.progress(done=3, total=10, note="reading")
        assert req.progress(0.5)
        assert req.progress()
        return "worked"

    with app.test_client() as client, app.test_client() as other:
        say(client, "work", None, "w")
        assert [client.receive() for _ in range(4)] == [
            {"type": "progress", "data": {"done": 3, "total": 10, "note": "reading"}, "id": "w"},
            {"type": "progress", "data": {"done": 0.5}, "id": "w"},
            {"type": "progress", "data": {}, "id": "w"},
            {"type": "response", "data": "worked", "id": "w"},
        ]
        assert other.request("echo", "on") == "on"
        assert not kept_by(other)


def test_progress_does_not_pile_up_for_a_client_that_does_not_read(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app(max_outbox=100_000)
    ready, go = threading.Event(), threading.Event()

    @app.socket("work")
    def work(req: WebSocketRequest) -> str:
        while not connections(app)[0].writer.outlet.queued()[1]:
            app.websocket.send("x" * 50_000, "fill")
        for number in range(10_000):
            req.progress(number, 10_000)
        ready.set()
        assert go.wait(5)
        return "worked"

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("work")
    assert ready.wait(10)
    go.set()
    seen = []
    while (message := peer.message())["type"] != "response":
        if message["type"] == "progress":
            seen.append(message["data"]["done"])
    assert seen == [9999]
    peer.close()
