"""A handler that takes long is reported with the place where it is."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from daebus import Daebus, SlowHandlerInfo, WebSocketRequest
from daebus.server.threads.loop import LoopThread
from daebus.server.threads.safelog import forget_repeats
from daebus.websocket.clients.registry import Registry
from daebus.websocket.watchdog import TICK, Watchdog
from tests.support.builds import shows
from tests.support.clock import ManualMinder
from tests.support.fixture_types import Connect, MakeApp
from tests.support.logs import records
from tests.support.peer import PING, PONG, Peer
from tests.support.slow_clients import narrow

# Shorter than the time between two looks: the second finds a handler slow.
SOON = 0.05


class Busy:
    """A connection as the watch sees it; ``next`` makes it handle another message."""

    def __init__(self, message_type: str | None = "work") -> None:
        self.busy = True
        self.reader = self
        self.writer = SimpleNamespace(owner=threading.get_ident())
        self.activity = SimpleNamespace(running=message_type, task=None)
        self.turn = self.messages_in = 0
        self.lent: list[int] = []

    def next(self) -> None:
        self.turn += 1
        self.messages_in += 1

    def lend(self, turn: int) -> None:
        self.lent.append(turn)


class Clients:
    """A registry; ``meanwhile`` is called after each look at all of them."""

    def __init__(self) -> None:
        self.links: list[Busy] = []
        self.looks = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def snapshot(self) -> Iterator[Busy]:
        self.looks += 1
        yield from list(self.links)
        self.meanwhile()


class Loop:
    """A loop that has been blocked for so many seconds."""

    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.blocked = 0.0

    def probe(self) -> float:
        return self.blocked


class Watch:
    """A watch on a clock that the test sets, with all that it looks at and what it tells."""

    def __init__(self, slow_handler: float | None = 5.0) -> None:
        self.minder, self.clients, self.loop = ManualMinder(), Clients(), Loop()
        self.told: list[tuple[object, SlowHandlerInfo]] = []
        self.watchdog = Watchdog(
            cast(Registry, self.clients),
            self.minder,
            cast(LoopThread, self.loop),
            slow_handler,
            self.report,
        )

    def report(self, link: object, info: SlowHandlerInfo) -> None:
        self.told.append((link, info))

    def busy(self, message_type: str | None = "work") -> Busy:
        """Have a client that is busy from now on."""
        link = Busy(message_type)
        self.clients.links.append(link)
        self.watchdog.rouse()
        return link


@pytest.fixture
def make_watch() -> Iterator[Callable[..., Watch]]:
    made: list[Watch] = []

    def make(slow_handler: float | None = 5.0) -> Watch:
        made.append(Watch(slow_handler))
        return made[-1]

    yield make
    for watch in made:
        watch.minder.stop()


@pytest.fixture
def watch(make_watch: Callable[..., Watch]) -> Watch:
    return make_watch()


def test_a_handler_that_takes_long_is_reported_once(watch: Watch) -> None:
    link = watch.busy()
    watch.minder.advance(5)
    assert watch.told == []
    watch.minder.advance(100)
    ((who, info),) = watch.told
    assert who is link
    assert info.message_type == "work"
    assert 5 <= info.seconds <= 5 + 2 * TICK
    assert "test_a_handler_that_takes_long_is_reported_once" in info.stack


def test_each_message_is_reported_anew(watch: Watch) -> None:
    link = watch.busy()
    for count in range(1, 4):
        watch.minder.advance(6)
        assert len(watch.told) == count
        link.next()


def test_quick_handlers_and_idle_clients_are_not_reported(watch: Watch) -> None:
    link, idle = watch.busy(), watch.busy()
    idle.busy = False
    for _ in range(200):
        watch.minder.advance(4.9)
        link.next()
    assert watch.told == []
    assert idle.lent == []


def test_none_reports_nothing_but_the_minder_reads_all_the_same(
    make_watch: Callable[..., Watch],
) -> None:
    watch = make_watch(None)
    link, watch.loop.blocked = watch.busy(), 1000.0
    watch.minder.advance(100)
    assert watch.told == []
    assert set(link.lent) == {0}


def test_the_minder_reads_after_two_looks_at_the_same_message(watch: Watch) -> None:
    link = watch.busy()
    watch.minder.advance(1.5 * TICK)
    assert link.lent == []
    link.next()
    watch.minder.advance(TICK)
    assert link.lent == [], "another message: the owner makes progress"
    watch.minder.advance(TICK)
    assert link.lent == [1]


def test_a_thread_between_two_messages_is_not_reported(watch: Watch) -> None:
    link = watch.busy(None)
    watch.minder.advance(100)
    assert watch.told == []
    assert link.lent


def test_a_blocked_loop_is_reported_once_and_anew_after_it_went_on(watch: Watch) -> None:
    link = watch.busy()
    for _ in range(2):
        watch.loop.blocked = 6.0
        watch.minder.advance(4)
        link.next()
        ((who, info),) = watch.told
        assert who is None
        assert "loop" in info.message_type
        assert info.seconds == 6.0
        watch.told.clear()
        watch.loop.blocked = 0.0
        watch.minder.advance(4)
        link.next()
        assert watch.told == []


def test_it_dozes_while_nobody_is_busy(watch: Watch) -> None:
    link = watch.busy()
    watch.minder.advance(1)
    awake = not watch.watchdog.dozing
    assert awake
    link.busy = False
    watch.minder.advance(4 * TICK)  # with the last look
    assert watch.watchdog.dozing
    looks = watch.clients.looks
    watch.minder.advance(100)
    assert watch.clients.looks == looks
    link.busy = True
    watch.watchdog.rouse()
    watch.minder.advance(10)
    assert len(watch.told) == 1


def test_roused_twice_it_ticks_once(watch: Watch) -> None:
    watch.busy()
    watch.busy()
    watch.minder.advance(10.5 * TICK)
    assert watch.clients.looks == 10


def test_a_client_that_becomes_busy_as_it_dozes_off_is_watched(watch: Watch) -> None:
    """It was looked at before, and finds the watch awake, so it does not rouse it."""
    link = watch.busy()
    link.busy = False
    watch.clients.meanwhile = lambda: setattr(link, "busy", True)
    watch.minder.advance(10)
    assert [who for who, _ in watch.told] == [link]


def test_a_client_that_did_not_see_it_doze_off_is_watched(watch: Watch) -> None:
    """It is busy before it looks whether the watch dozes, and is told of that too late."""
    link = watch.busy()
    link.busy = False
    watch.minder.advance(1.5 * TICK)
    assert watch.watchdog.dozing
    link.busy = True
    watch.minder.advance(10)
    assert [who for who, _ in watch.told] == [link]


@pytest.mark.parametrize("moment", [0.0, 3.0], ids=["dozing", "awake"])
def test_it_looks_no_more_after_a_stop(watch: Watch, moment: float) -> None:
    if moment:
        watch.busy()
        watch.minder.advance(moment)
    watch.watchdog.stop()
    looks = watch.clients.looks
    watch.busy()
    watch.minder.advance(100)
    assert watch.told == []
    assert watch.clients.looks <= looks + 1


def test_a_report_that_fails_does_not_end_the_watch(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(link: object, info: SlowHandlerInfo) -> None:
        monkeypatch.undo()
        raise RuntimeError("on purpose")

    monkeypatch.setattr(watch.watchdog, "_report", fails)
    link = watch.busy()
    watch.minder.advance(6)
    assert "on purpose" in caplog.text
    link.next()
    watch.minder.advance(6)
    assert len(watch.told) == 1


# --- with sockets -------------------------------------------------------------------


class Slow:
    """An app that says soon that a handler is slow, and such handlers."""

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
    return Slow(make_app(slow_handler=SOON))


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
        assert shows(text, "a_slow_handler", "inner_function")
        assert info.message_type == "slow"
        assert info.seconds >= SOON
        assert shows(info.stack, "inner_function")
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
    assert shows(info.stack, "an_async_handler", "inner_coroutine")
    slow.release.set()


def test_a_blocked_loop_thread_is_reported(slow: Slow, connect: Connect) -> None:
    peer = Peer.joined(connect(slow.app.http.port))
    peer.say("blocking")
    told = dict(slow.told.get(timeout=5) for _ in range(2))
    assert set(told) == {"", *slow.app.websocket.get_clients()}
    assert "loop" in told[""].message_type
    assert shows(told[""].stack, "a_blocking_coroutine")
    slow.release.set()
    assert peer.message()["data"] == "done"


def test_a_slow_hook_is_reported(make_app: MakeApp) -> None:
    app = make_app(slow_handler=SOON)
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
        assert shows(info.stack, "a_slow_hook")
        release.set()


def test_a_hook_that_hangs_does_not_hang_the_watch(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(slow_handler=SOON)
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
        forget_repeats()  # or its report would be counted with the first one's
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
