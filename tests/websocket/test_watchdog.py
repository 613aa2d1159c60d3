"""A handler that takes long is reported with the place where it is."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading

import pytest

from daebus import Daebus, SlowHandlerInfo, WebSocketRequest
from tests.support.fixture_types import Connect, MakeApp
from tests.support.logs import records
from tests.support.peer import PING, PONG, Peer
from tests.support.slow_clients import narrow


class Slow:
    """An app that says after 0.3 s that a handler is slow, and such handlers."""

    def __init__(self, app: Daebus) -> None:
        self.app = app
        self.release = threading.Event()
        self.told = queue.Queue[tuple[str, SlowHandlerInfo]]()
        app.websocket.on_slow_handler(lambda client_id, info: self.told.put((client_id, info)))
        app.socket("slow")(self.a_slow_handler)
        app.socket("async")(self.an_async_handler)
        app.socket("blocking")(self.a_blocking_coroutine)
        app.socket("quick")(lambda req: "quick")
        app.start()

    def a_slow_handler(self, req: WebSocketRequest) -> str:
        self.inner_function()
        return "done"

    def inner_function(self) -> None:
        assert self.release.wait(10)

    async def an_async_handler(self, req: WebSocketRequest) -> str:
        await self.inner_coroutine()
        return "done"

    async def inner_coroutine(self) -> None:
        while not self.release.is_set():
            await asyncio.sleep(0.01)

    async def a_blocking_coroutine(self, req: WebSocketRequest) -> str:
        assert self.release.wait(10)
        return "done"


@pytest.fixture
def slow(make_app: MakeApp) -> Slow:
    return Slow(make_app(slow_handler=0.3))


def test_a_slow_handler_is_logged_with_client_type_seconds_and_stack(
    slow: Slow, connect: Connect
) -> None:
    peer = Peer.joined(connect(slow.app.http.port))
    with records() as log:
        peer.say("slow")
        client_id, info = slow.told.get(timeout=5)
        assert [client_id] == slow.app.websocket.get_clients()
        text = log.wait_for("has run for")
        assert client_id in text
        assert "'slow'" in text
        assert f"{info.seconds:.1f} s" in text
        assert "a_slow_handler" in text
        assert "inner_function" in text
        assert info.message_type == "slow"
        assert 0.3 <= info.seconds < 2
        assert "inner_function" in info.stack
        slow.release.set()
        assert peer.message()["data"] == "done"
    assert len([text for text in log.texts if "has run for" in text]) == 1, "once is enough"
    assert slow.told.empty()


def test_an_async_handler_is_reported_with_its_coroutines_stack(
    slow: Slow, connect: Connect
) -> None:
    peer = Peer.joined(connect(slow.app.http.port))
    peer.say("async")
    client_id, info = slow.told.get(timeout=5)
    assert [client_id] == slow.app.websocket.get_clients()
    assert info.message_type == "async"
    assert "an_async_handler" in info.stack
    assert "inner_coroutine" in info.stack
    assert info.stack.index("an_async_handler") < info.stack.index("inner_coroutine")
    slow.release.set()


def test_a_blocked_loop_thread_is_reported(slow: Slow, connect: Connect) -> None:
    peer = Peer.joined(connect(slow.app.http.port))
    peer.say("blocking")
    told = dict(slow.told.get(timeout=5) for _ in range(2))
    assert set(told) == {"", *slow.app.websocket.get_clients()}
    assert "loop" in told[""].message_type
    assert "a_blocking_coroutine" in told[""].stack
    slow.release.set()
    assert peer.message()["data"] == "done"


def test_each_slow_message_is_reported_anew(slow: Slow, connect: Connect) -> None:
    peer = Peer.joined(connect(slow.app.http.port))
    for _ in range(2):
        slow.release.clear()
        peer.say("slow")
        assert slow.told.get(timeout=5)[1].message_type == "slow"
        slow.release.set()
        assert peer.message()["data"] == "done"


@pytest.mark.slow
@pytest.mark.timeout(30)
def test_quick_handlers_and_idle_clients_are_not_reported(slow: Slow, connect: Connect) -> None:
    peer = Peer.joined(connect(slow.app.http.port))
    with records() as log:
        for _ in range(60):
            peer.say("quick")
            assert peer.message()["data"] == "quick"
            threading.Event().wait(0.006)
        with pytest.raises(queue.Empty):
            slow.told.get(timeout=0.5)
    assert log.texts == []


def test_a_slow_hook_is_reported(make_app: MakeApp) -> None:
    app = make_app(slow_handler=0.2)
    told = queue.Queue[SlowHandlerInfo]()
    release = threading.Event()

    @app.websocket.on_connect
    def a_slow_hook(client_id: str) -> None:
        assert release.wait(10)

    app.websocket.on_slow_handler(lambda client_id, info: told.put(info))
    app.start()
    with narrow(app):
        info = told.get(timeout=5)
        assert info.message_type == "on_connect"
        assert "a_slow_hook" in info.stack
        release.set()


@pytest.mark.slow
@pytest.mark.timeout(30)
def test_none_reports_nothing(make_app: MakeApp, connect: Connect) -> None:
    slow = Slow(make_app(slow_handler=None))
    peer = Peer.joined(connect(slow.app.http.port))
    peer.say("slow")
    with pytest.raises(queue.Empty):
        slow.told.get(timeout=0.8)
    slow.release.set()


def test_a_hook_that_hangs_does_not_hang_the_watch(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(slow_handler=0.2)
    release = threading.Event()
    calls = queue.Queue[str]()

    @app.websocket.on_slow_handler
    def hanging_hook(client_id: str) -> None:
        calls.put(client_id)
        assert release.wait(10)

    app.socket("slow")(lambda req: release.wait(10))
    app.start()
    with records() as log:
        peer = Peer.joined(connect(app.http.port))
        peer.say("slow")
        assert calls.get(timeout=5)
        other = Peer.joined(connect(app.http.port))
        other.say("slow")
        other.send(PING, b"there?")
        assert other.frame() == (PONG, b"there?")
        log.wait_for(app.websocket.get_clients()[1])
        release.set()


class Broken(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if "has run for" in record.getMessage():
            raise RuntimeError("a filter of the host's own")
        return True


def test_logging_that_fails_does_not_end_the_watch(slow: Slow, connect: Connect) -> None:
    logger = logging.getLogger("daebus.websocket")
    broken = Broken()
    logger.addFilter(broken)
    try:
        peer = Peer.joined(connect(slow.app.http.port))
        peer.say("slow")
        assert slow.told.get(timeout=5)[1].message_type == "slow"  # the hook runs all the same
        peer.send(PING, b"there?")
        assert peer.frame() == (PONG, b"there?")
        logger.removeFilter(broken)
        other = Peer.joined(connect(slow.app.http.port))
        other.say("slow")
        assert slow.told.get(timeout=5)[1].message_type == "slow"
        slow.release.set()
    finally:
        logger.removeFilter(broken)


class Hanging(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "has run for" in record.getMessage():
            self.reached.set()
            assert self.go_on.wait(10)


def test_logging_that_hangs_does_not_stop_the_minder(slow: Slow, connect: Connect) -> None:
    """What a slow consumer waits for, pings and deadlines go on."""
    logger, hanging = logging.getLogger("daebus.websocket"), Hanging()
    logger.addHandler(hanging)
    try:
        peer = Peer.joined(connect(slow.app.http.port))
        peer.say("slow")
        assert hanging.reached.wait(5)
        peer.send(PING, b"there?")
        assert peer.frame() == (PONG, b"there?")
    finally:
        hanging.go_on.set()
        slow.release.set()
        logger.removeHandler(hanging)
