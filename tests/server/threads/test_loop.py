"""The private loop thread: there when needed, gone when stopped, blocked by nobody's client."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import inspect
import logging
import threading
import time
import weakref
from collections.abc import Generator, Iterator

import pytest

from daebus import StateError
from daebus.server.threads import loop as module
from daebus.server.threads.loop import LoopThread
from tests.support.builds import freed


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    assert made.stop(time.monotonic() + 5) == []


async def name_of_thread() -> str:
    return threading.current_thread().name


def thread_of(loop: LoopThread) -> threading.Thread:
    thread = loop.thread
    assert thread is not None
    return thread


def test_no_thread_before_it_is_needed(loop: LoopThread) -> None:
    assert loop.thread is None
    assert not loop.is_current()
    assert loop.submit(name_of_thread()).result(5) == "daebus-loop"
    assert thread_of(loop).daemon
    assert not loop.is_current()


def test_all_coroutines_share_one_thread(loop: LoopThread) -> None:
    async def identity() -> int:
        await asyncio.sleep(0)
        assert loop.is_current()
        return threading.get_ident()

    futures = [loop.submit(identity()) for _ in range(20)]
    assert len({future.result(5) for future in futures}) == 1


def test_what_a_coroutine_raises_reaches_its_caller(loop: LoopThread) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        loop.submit(fail()).result(5)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


def test_run_waits_for_anything_that_can_be_awaited(loop: LoopThread) -> None:
    class Later:
        def __await__(self) -> Generator[None, None, None]:
            yield
            result.append(threading.current_thread().name)

    result: list[str] = []
    assert loop.run(name_of_thread()) == "daebus-loop"
    loop.run(Later())
    assert result == ["daebus-loop"]


def test_run_after_the_stop_leaves_no_coroutine_behind(loop: LoopThread) -> None:
    loop.stop(time.monotonic() + 5)
    with pytest.raises(StateError):  # a coroutine that nobody awaits would be a warning
        loop.run(name_of_thread())
    gc.collect()


def test_context_variables_go_along(loop: LoopThread) -> None:
    async def read() -> str:
        before = variable.get()
        await asyncio.sleep(0)
        assert variable.get() == before
        return before

    def ask(value: str) -> concurrent.futures.Future[str]:
        variable.set(value)
        return loop.submit(read())

    futures = [contextvars.copy_context().run(ask, str(n)) for n in range(5)]
    assert [future.result(5) for future in futures] == ["0", "1", "2", "3", "4"]
    assert loop.submit(read()).result(5) == "none"


def test_the_loop_keeps_nothing_of_the_context_that_needed_it_first(loop: LoopThread) -> None:
    class Kept:
        pass

    def ask() -> weakref.ref[Kept]:
        kept = Kept()
        held.set(kept)
        loop.submit(asyncio.sleep(0)).result(5)
        return weakref.ref(kept)

    held = contextvars.ContextVar[Kept]("held")
    kept = contextvars.Context().run(ask)
    loop.submit(asyncio.sleep(0)).result(5)
    assert freed(lambda: kept() is None)


def test_many_threads_need_it_first_at_once(loop: LoopThread) -> None:
    barrier = threading.Barrier(8)

    def ask(_: int) -> str:
        barrier.wait(5)
        return loop.submit(name_of_thread()).result(5)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"daebus-loop"}
    assert sum(t.name == "daebus-loop" for t in threading.enumerate()) == 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_coroutine_cannot_end_the_thread(
    loop: LoopThread, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        raise error

    with caplog.at_level(logging.CRITICAL):
        with pytest.raises(error):
            loop.submit(leave()).result(5)
        assert loop.submit(name_of_thread()).result(5) == "daebus-loop"


async def forever(started: threading.Event) -> None:
    started.set()
    await asyncio.Event().wait()


def test_cancel_all(loop: LoopThread) -> None:
    started = threading.Event()
    future = loop.submit(forever(started))
    assert started.wait(5)
    loop.cancel_all()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(5)
    assert loop.submit(name_of_thread()).result(5) == "daebus-loop"


def test_a_caller_that_gives_up_cancels_its_coroutine(loop: LoopThread) -> None:
    started, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        try:
            await forever(started)
        finally:
            ended.set()

    future = loop.submit(wait())
    assert started.wait(5)
    future.cancel()
    assert ended.wait(5)


def test_stop_cancels_and_ends_the_thread() -> None:
    loop = LoopThread()
    started = threading.Event()
    future = loop.submit(forever(started))
    assert started.wait(5)
    assert loop.stop(time.monotonic() + 5) == []
    assert not thread_of(loop).is_alive()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(5)


def test_stop_lets_coroutines_clean_up() -> None:
    loop = LoopThread()
    started, cleaned = threading.Event(), threading.Event()

    async def tidy() -> None:
        try:
            await forever(started)
        finally:
            await asyncio.sleep(0.01)
            cleaned.set()

    loop.submit(tidy())
    assert started.wait(5)
    assert loop.stop(time.monotonic() + 5) == []
    assert cleaned.is_set()


def test_a_coroutine_that_will_not_end_lets_its_caller_go(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIDY_TIMEOUT", 0.05)
    loop = LoopThread()
    started, release = threading.Event(), threading.Event()

    async def stubborn() -> None:
        started.set()
        while not release.is_set():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    with caplog.at_level(logging.CRITICAL, "asyncio"):
        future = loop.submit(stubborn())
        assert started.wait(5)
        assert loop.stop(time.monotonic() + 5) == []
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(2)
        release.set()
        del future
        gc.collect()  # asyncio complains about the task that is dropped now, not later


def test_stop_reports_a_thread_that_is_blocked() -> None:
    loop = LoopThread()
    started, release = threading.Event(), threading.Event()

    async def block() -> None:
        started.set()
        release.wait(10)

    loop.submit(block())
    assert started.wait(5)
    left = loop.stop(time.monotonic() + 0.05)
    assert [thread.name for thread in left] == ["daebus-loop"]
    release.set()
    left[0].join(5)
    assert not left[0].is_alive()


def test_stop_without_a_thread() -> None:
    loop = LoopThread()
    assert loop.stop(time.monotonic()) == []
    assert loop.stop(time.monotonic()) == []
    loop.cancel_all()
    assert loop.probe() == 0.0


def test_nothing_is_taken_after_the_stop() -> None:
    loop = LoopThread()
    loop.submit(name_of_thread()).result(5)
    assert loop.stop(time.monotonic() + 5) == []
    coroutine = name_of_thread()
    with pytest.raises(StateError, match="stopping"):
        loop.submit(coroutine)
    assert (
        inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    )  # closed, so Python does not warn of it
    assert loop.stop(time.monotonic() + 5) == []
    loop.cancel_all()
    loop.probe()


def test_stop_from_a_coroutine() -> None:
    loop = LoopThread()

    async def end() -> list[threading.Thread]:
        return loop.stop(time.monotonic() + 5)

    assert loop.submit(end()).result(5) == []
    thread_of(loop).join(5)
    assert not thread_of(loop).is_alive()


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch, loop: LoopThread) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    coroutine = name_of_thread()
    with monkeypatch.context() as patch:
        patch.setattr("daebus.server.threads.loop.threading.Thread", NoThread)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            loop.submit(coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert loop.submit(name_of_thread()).result(5) == "daebus-loop"


def test_probe_tells_for_how_long_the_loop_is_blocked(loop: LoopThread) -> None:
    started, release = threading.Event(), threading.Event()

    async def block() -> None:
        started.set()
        release.wait(10)

    future = loop.submit(block())
    assert started.wait(5)
    assert loop.probe() == 0.0  # asked now
    first = loop.probe()
    second = loop.probe()
    assert 0.0 <= first <= second
    assert second > 0.0
    release.set()
    future.result(5)
    loop.submit(name_of_thread()).result(5)  # behind the answer to the probe
    assert loop.probe() == 0.0
