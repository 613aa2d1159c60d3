"""One task: when it is called, what it may raise, how it ends."""

from __future__ import annotations

import asyncio
import queue
import threading
import time

import pytest

from daebus import Daebus, NoClientError, StateError, StopToken
from daebus.tasks import task
from tests.support.waiting import eventually


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_background_is_called_again_and_again_after_one_interval(app: Daebus) -> None:
    moments = queue.Queue[float]()

    @app.background("tick", 0.02)
    def tick() -> None:
        assert threading.current_thread().name == "daebus-background-tick"
        moments.put(time.monotonic())

    assert not threads_named("daebus-background-tick")  # nothing runs before the start
    before = time.monotonic()
    app.start()
    assert app.http.port
    for number in range(1, 4):
        assert moments.get(timeout=5) >= before + number * 0.02


def test_background_reaches_the_clients_and_has_none_of_its_own(app: Daebus) -> None:
    outcome = queue.Queue[str]()

    @app.background("news", 0.01)
    def news() -> None:
        app.websocket.broadcast_to_all("lunch")
        try:
            app.websocket.send("nobody")
        except NoClientError:
            outcome.put("no client")

    with app.test_client() as ada, app.test_client() as bob:
        assert ada.receive("broadcast")["data"] == "lunch"
        assert bob.receive("broadcast")["data"] == "lunch"
        assert outcome.get(timeout=5) == "no client"


@pytest.mark.parametrize(
    ("late", "steps"), [(0.0, 1), (0.4, 1), (1.0, 1), (1.5, 2), (2.0, 2), (99.1, 100)]
)
def test_calls_keep_to_their_moments_and_leave_out_what_was_missed(late: float, steps: int) -> None:
    assert task.steps_to_next(late, 1.0) == steps


def test_long_calls_do_not_overlap_and_the_missed_ones_are_counted(app: Daebus) -> None:
    entered, leave = threading.Semaphore(0), threading.Semaphore(0)
    inside: list[int] = []

    @app.background("slow", 0.001)
    def slow() -> None:
        inside.append(1)
        assert len(inside) == 1
        entered.release()
        assert leave.acquire(timeout=5)
        inside.pop()

    app.start()
    assert entered.acquire(timeout=5)
    assert not entered.acquire(timeout=0.02)  # twenty intervals without a second call
    leave.release()
    assert entered.acquire(timeout=5)
    counts = app.stats()["tasks"]["background"]["slow"]
    assert (counts["calls"], counts["errors"], counts["alive"]) == (2, 0, True)
    assert counts["missed"] >= 10
    leave.release(1000)


def test_calls_that_were_missed_are_not_made_up_for(app: Daebus) -> None:
    moments = queue.Queue[float]()
    late = threading.Event()

    @app.background("late", 0.05)
    def call() -> None:
        if moments.empty():
            late.wait(0.2)
        moments.put(time.monotonic())

    app.start()
    _first, *others, last = [moments.get(timeout=5) for _ in range(4)]
    assert last - others[0] >= 0.05  # two intervals, less what the clock of the test is late
    assert app.stats()["tasks"]["background"]["late"]["missed"] >= 3


def test_what_background_raises_is_logged_and_the_next_call_comes(
    app: Daebus, caplog: pytest.LogCaptureFixture
) -> None:
    calls = queue.Queue[None]()

    @app.background("broken", 0.01)
    def broken() -> None:
        calls.put(None)
        raise SystemExit("not the end")

    app.start()
    for _ in range(3):
        calls.get(timeout=5)
    app.stop(5)
    assert "background 'broken' failed" in caplog.messages
    assert app.stats()["tasks"]["background"]["broken"]["errors"] >= 2


def test_async_background_runs_on_the_loop(app: Daebus) -> None:
    names = queue.Queue[str]()

    @app.background("async", 0.01)
    async def run() -> None:
        await asyncio.sleep(0)
        names.put(threading.current_thread().name)

    app.start()
    assert [names.get(timeout=5) for _ in range(2)] == ["daebus-loop", "daebus-loop"]


def test_thread_runs_from_start_to_stop_and_again(app: Daebus) -> None:
    seen = queue.Queue[str]()

    @app.thread("reader")
    def reader(running: StopToken) -> None:
        assert app.running
        assert running()
        seen.put(threading.current_thread().name)
        while running.wait(0.01):
            pass
        assert not running()
        seen.put("ended")

    for _ in range(2):
        app.start()
        assert seen.get(timeout=5) == "daebus-thread-reader"
        assert app.stop(5) == []
        assert seen.get(timeout=5) == "ended"
        assert not threads_named("daebus-thread-reader")


def test_stop_ends_a_long_wait_at_once(app: Daebus) -> None:
    waiting = threading.Event()
    outcome = queue.Queue[bool]()

    @app.thread("sleeper")
    def sleeper(running: StopToken) -> None:
        waiting.set()
        outcome.put(running.wait(3600))

    app.start()
    assert waiting.wait(5)
    assert app.stop(5) == []
    assert outcome.get(timeout=5) is False


def test_a_thread_that_raises_is_called_again(
    app: Daebus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "FIRST_PAUSE", 0.01)
    lives = queue.Queue[int]()

    @app.thread("serial")
    def serial(running: StopToken) -> None:
        lives.put(lives.qsize() + 1)
        if lives.qsize() < 3:
            raise OSError("the cable is out")
        running.wait(3600)

    app.start()
    assert eventually(lambda: lives.qsize() == 3)
    assert app.stop(5) == []
    first, repeats = caplog.messages
    assert first == "thread 'serial' failed"
    assert repeats.startswith("1 more like this")


def test_the_pause_after_a_failure_ends_with_the_app(app: Daebus) -> None:
    failed = threading.Event()

    @app.thread("serial")
    def serial(running: StopToken) -> None:
        failed.set()
        raise OSError("the cable is out")

    app.start()
    assert failed.wait(5)
    before = time.monotonic()
    assert app.stop(5) == []
    assert time.monotonic() - before < task.FIRST_PAUSE


def test_a_thread_that_returns_is_done_and_can_be_started_again(app: Daebus) -> None:
    calls = queue.Queue[None]()
    app.thread("once")(lambda running: calls.put(None))
    app.start()
    calls.get(timeout=5)
    assert eventually(lambda: not app.stats()["tasks"]["thread"]["once"]["alive"])
    assert app.start_thread("once") is True
    calls.get(timeout=5)
    assert calls.empty()


def test_async_thread_is_cancelled_and_its_end_is_waited_for(app: Daebus) -> None:
    began = threading.Event()
    events = queue.Queue[str]()

    @app.thread("async")
    async def run(running: StopToken) -> None:
        with pytest.raises(StateError, match=r"write await asyncio\.sleep\(seconds\)"):
            running.wait(1)
        began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            events.put(f"cancelled, running: {running()}")
            raise

    app.start()
    assert began.wait(5)
    began.clear()
    assert app.stop_thread("async") is True
    assert events.get_nowait() == "cancelled, running: False"
    assert app.start_thread("async") is True
    assert began.wait(5)
    assert app.stop(5) == []
    assert events.get_nowait() == "cancelled, running: False"
