"""The minder: deadlines, unfinished writes, and what it survives."""

from __future__ import annotations

import functools
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from daebus.server.threads.minder import Minder
from tests.support.clock import ManualMinder
from tests.support.waiting import eventually


@pytest.fixture
def minder() -> Iterator[Minder]:
    made = Minder()
    made.start()
    yield made
    made.stop()
    made.thread.join(5)
    assert not made.thread.is_alive()


class Target:
    """A watched socket; what happens to it is written down."""

    def __init__(self, sock: socket.socket, events: int = 0) -> None:
        self.sock = sock
        self.events = events
        self.ready_events: list[int] = []
        self.on_ready: Callable[[int], None] | None = None
        self.called = threading.Event()
        self.done = threading.Event()
        self.released = threading.Event()
        self.thread = ""

    def fileno(self) -> int:
        return self.sock.fileno()

    def interest(self) -> int:
        return self.events

    def ready(self, events: int) -> None:
        self.thread = threading.current_thread().name
        self.ready_events.append(events)
        if self.on_ready is not None:
            self.on_ready(events)
        self.called.set()

    def release(self) -> None:
        self.sock.close()
        self.released.set()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


Pair = tuple[socket.socket, socket.socket]


# --- deadlines ----------------------------------------------------------------------


@pytest.fixture
def manual() -> Iterator[ManualMinder]:
    with ManualMinder() as made:
        yield made


def test_a_call_comes_when_it_is_due(manual: ManualMinder) -> None:
    calls: list[float] = []
    due = manual.clock.now + 30
    manual.call_later(30, lambda: calls.append(manual.clock.now))
    manual.advance(29.9)
    assert calls == []
    manual.advance(60)
    assert calls == [due]


def test_a_call_comes_on_the_thread_of_the_minder(minder: Minder) -> None:
    came = threading.Event()
    where: list[str] = []

    def callback() -> None:
        where.append(threading.current_thread().name)
        came.set()

    minder.call_later(0, callback)
    assert came.wait(5)
    assert where == ["daebus-minder"]


def test_a_crowd_of_calls_lets_sockets_have_their_turn(manual: ManualMinder, pair: Pair) -> None:
    order: list[str] = []
    target = Target(pair[0], selectors.EVENT_READ)

    def on_ready(events: int) -> None:
        order.append("socket")
        pair[0].recv(1)

    target.on_ready = on_ready
    manual.attend(target)
    for _ in range(1000):
        manual.call_later(1, lambda: order.append("call"))
    manual.advance()
    pair[1].send(b"x")
    manual.advance(1)
    assert order.count("call") == 1000
    assert order.index("socket") <= 64


def test_the_thread_sleeps_until_a_call_is_due(minder: Minder) -> None:
    came = threading.Event()
    due = time.monotonic() + 0.01
    minder.call_later(0.01, came.set)
    assert came.wait(5)
    assert time.monotonic() >= due - 0.001


def test_calls_come_in_the_order_of_their_deadlines(manual: ManualMinder) -> None:
    order: list[int] = []
    for number in (3, 1, 2):
        manual.call_later(number, functools.partial(order.append, number))
    manual.advance(3)
    assert order == [1, 2, 3]


def test_equal_deadlines_keep_their_order(manual: ManualMinder) -> None:
    order: list[int] = []
    for number in range(20):
        manual.call_later(1, functools.partial(order.append, number))
    manual.advance(1)
    assert order == list(range(20))


def test_it_sleeps_until_the_next_call_and_a_minute_at_most(manual: ManualMinder) -> None:
    assert manual.run_due() == 60
    manual.call_later(3600, lambda: None)
    assert manual.run_due() == 60
    manual.call_later(7, lambda: None)
    assert manual.run_due() == 7


def test_an_earlier_deadline_wakes_it(minder: Minder) -> None:
    minder.call_later(3600, lambda: None)
    came = threading.Event()
    minder.call_later(0, came.set)
    assert came.wait(5)


def test_a_call_may_ask_for_the_next(manual: ManualMinder) -> None:
    moments: list[float] = []
    start = manual.clock.now

    def again() -> None:
        moments.append(manual.clock.now - start)
        manual.call_later(10, again)

    manual.call_later(10, again)
    manual.advance(35)
    assert moments == [10, 20, 30]


def test_a_cancelled_call_does_not_come(manual: ManualMinder) -> None:
    calls: list[str] = []
    timer = manual.call_later(1, lambda: calls.append("cancelled"))
    manual.call_later(1, lambda: calls.append("kept"))
    timer.cancel()
    timer.cancel()
    manual.advance(2)
    assert calls == ["kept"]


def test_a_cancelled_call_is_forgotten(minder: Minder) -> None:
    timer = minder.call_later(3600, lambda: None)
    timer.cancel()
    assert timer.callback is None


def test_cancelled_calls_do_not_pile_up(minder: Minder) -> None:
    came = threading.Event()
    for _ in range(20_000):
        minder.call_later(3600, lambda: None).cancel()
    assert eventually(lambda: len(minder._timers) < 5000)
    minder.call_later(0, came.set)
    assert came.wait(5)


def test_a_call_that_raises_does_not_end_it(
    manual: ManualMinder, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def fail() -> None:
        raise RuntimeError("on purpose")

    with caplog.at_level(logging.ERROR, "daebus.server"):
        manual.call_later(1, fail)
        manual.call_later(1, lambda: calls.append("next"))
        manual.advance(1)
    assert calls == ["next"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "on purpose" in str(record.exc_info[1])


def test_calls_from_many_threads(minder: Minder) -> None:
    done = threading.Semaphore(0)
    barrier = threading.Barrier(4)

    def ask() -> None:
        barrier.wait(5)
        for number in range(250):
            minder.call_later(number / 10_000, done.release)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    for _ in range(1000):
        assert done.acquire(timeout=5)


# --- sockets ------------------------------------------------------------------------


def test_a_socket_that_can_be_read(minder: Minder, pair: Pair) -> None:
    ours, theirs = pair
    target = Target(ours, selectors.EVENT_READ)
    target.on_ready = swallow(ours)
    minder.attend(target)
    theirs.send(b"x")
    assert target.called.wait(5)
    assert target.ready_events == [selectors.EVENT_READ]
    assert target.thread == "daebus-minder"
    release(minder, target)


def swallow(sock: socket.socket) -> Callable[[int], None]:
    """Make an ``on_ready`` that reads what has come."""

    def read(events: int) -> None:
        sock.recv(10)

    return read


def release(minder: Minder, target: Target) -> None:
    minder.release(target)
    assert target.released.wait(5)


def test_a_socket_that_takes_more_again(minder: Minder, pair: Pair) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    rest = bytearray(b"z" * 300_000)

    def write(events: int) -> None:
        assert events == selectors.EVENT_WRITE
        del rest[: ours.send(rest)]
        if not rest:
            target.events = 0
            target.done.set()

    target = Target(ours, selectors.EVENT_WRITE)
    target.on_ready = write
    minder.attend(target)
    got = 0
    theirs.settimeout(5)
    while got < 300_000:
        got += len(theirs.recv(65536))
    assert target.done.wait(5)
    assert len(target.ready_events) > 1
    release(minder, target)


def test_interest_is_asked_again_after_each_event(minder: Minder, pair: Pair) -> None:
    ours, theirs = pair
    target = Target(ours, selectors.EVENT_READ)

    def look_away(events: int) -> None:
        target.events = 0

    target.on_ready = look_away
    minder.attend(target)
    theirs.send(b"x")  # never read: with interest left, this would be reported again and again
    assert target.called.wait(5)
    settle(minder)
    assert target.ready_events == [selectors.EVENT_READ]
    target.events = selectors.EVENT_READ | selectors.EVENT_WRITE
    target.called.clear()
    minder.attend(target)
    assert target.called.wait(5)
    assert target.ready_events[1] == selectors.EVENT_READ | selectors.EVENT_WRITE
    release(minder, target)


def settle(minder: Minder, rounds: int = 3) -> None:
    """Wait until the minder has gone through its loop a few times."""
    for _ in range(rounds):
        came = threading.Event()
        minder.call_later(0, came.set)
        assert came.wait(5)


def test_attend_without_interest_watches_nothing(minder: Minder, pair: Pair) -> None:
    ours, theirs = pair
    target = Target(ours, 0)
    minder.attend(target)
    theirs.send(b"x")
    settle(minder)
    assert target.ready_events == []
    release(minder, target)


def test_a_target_that_raises_does_not_end_it(
    minder: Minder, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = pair
    target = Target(ours, selectors.EVENT_READ)

    def fail(events: int) -> None:
        target.events = 0
        target.called.set()
        raise RuntimeError("on purpose")

    target.on_ready = fail
    with caplog.at_level(logging.CRITICAL, "daebus.server"):
        minder.attend(target)
        theirs.send(b"x")
        assert target.called.wait(5)
        release(minder, target)
        settle(minder)


def test_release_closes_after_the_selector_let_go(minder: Minder, pair: Pair) -> None:
    ours, _ = pair
    target = Target(ours, selectors.EVENT_READ)
    minder.attend(target)
    settle(minder)
    release(minder, target)
    assert ours.fileno() == -1


def test_release_of_a_socket_it_never_saw(minder: Minder, pair: Pair) -> None:
    target = Target(pair[0])
    release(minder, target)
    assert pair[0].fileno() == -1


def test_a_reused_descriptor_is_not_mistaken(minder: Minder) -> None:
    # The first socket is closed without a word; its number then belongs to another one.
    first, peer = socket.socketpair()
    stale = Target(first, selectors.EVENT_READ)
    minder.attend(stale)
    settle(minder)
    number = first.fileno()
    first.close()
    peer.close()
    ours, theirs = socket.socketpair()
    if ours.fileno() != number:
        ours, theirs = theirs, ours
    assert ours.fileno() == number
    target = Target(ours, selectors.EVENT_READ)
    target.on_ready = swallow(ours)
    minder.attend(target)
    theirs.send(b"x")
    assert target.called.wait(5)
    assert stale.ready_events == []
    minder.release(stale)
    assert stale.released.wait(5)
    target.called.clear()
    theirs.send(b"y")
    assert target.called.wait(5)
    release(minder, target)
    theirs.close()


# --- the end ------------------------------------------------------------------------


def test_release_after_the_stop_closes_at_once(pair: Pair) -> None:
    minder = Minder()
    minder.start()
    minder.stop()
    minder.thread.join(5)
    target = Target(pair[0])
    minder.release(target)
    assert target.released.is_set()


def test_stop_releases_what_was_handed_over(pair: Pair) -> None:
    minder = Minder()
    target = Target(pair[0])
    minder.release(target)  # it has not started yet
    assert not target.released.is_set()
    minder.stop()
    assert target.released.is_set()


def test_calls_after_the_stop_do_nothing() -> None:
    minder = Minder()
    minder.start()
    minder.stop()
    minder.thread.join(5)
    minder.call_later(0, lambda: pytest.fail("called after the stop")).cancel()
    minder.stop()


def test_a_minder_that_never_started_leaves_nothing_open() -> None:
    minder = Minder()
    minder.stop()
    minder.stop()
    assert minder.thread.ident is None
