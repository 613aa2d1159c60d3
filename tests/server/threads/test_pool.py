"""The worker pool: bounded, named threads, which no job ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from daebus.server.threads.pool import WorkerPool, join_all
from tests.support.jobs import Gate, NoThreads, note_context
from tests.support.waiting import eventually


def alive(name: str) -> list[str]:
    return sorted(t.name for t in threading.enumerate() if t.name.startswith(name))


@pytest.fixture
def make_pool() -> Iterator[Callable[[int, int], WorkerPool]]:
    pools: list[WorkerPool] = []

    def make(size: int, backlog: int) -> WorkerPool:
        pools.append(WorkerPool("daebus-work", size, backlog))
        return pools[-1]

    yield make
    for pool in pools:
        assert join_all(pool.stop(), time.monotonic() + 5) == []


MakePool = Callable[[int, int], WorkerPool]


def test_a_job_leaves_nothing_in_the_context_of_the_next(make_pool: MakePool) -> None:
    pool, seen = make_pool(1, 2), list[str]()
    for value in "ab":
        assert pool.submit(partial(note_context, seen, value))
    assert eventually(lambda: len(seen) == 2)
    assert seen == ["clean", "clean"]


def test_no_thread_before_there_is_a_job(make_pool: MakePool) -> None:
    pool = make_pool(4, 4)
    assert alive("daebus-work") == []
    gate = Gate()
    assert pool.submit(gate)
    assert gate.running.wait(5)
    assert alive("daebus-work") == ["daebus-work-1"]
    gate.pass_through()


def test_threads_are_daemons_with_names(make_pool: MakePool) -> None:
    pool = make_pool(3, 3)
    gates = [Gate() for _ in range(3)]
    for gate in gates:
        assert pool.submit(gate)
        assert gate.running.wait(5)
    assert sorted(gate.name for gate in gates) == [f"daebus-work-{n}" for n in (1, 2, 3)]
    assert all(gate.thread is not None and gate.thread.daemon for gate in gates)
    for gate in gates:
        gate.pass_through()


def test_an_idle_thread_takes_the_next_job(make_pool: MakePool) -> None:
    pool = make_pool(4, 4)
    # That a thread is idle again shows in nothing but its taking the next job; until then
    # a second one may be started, never a third.
    for _ in range(20):
        done = threading.Event()
        pool.submit(done.set)
        assert done.wait(5)
    assert len(alive("daebus-work")) <= 2


def test_no_more_threads_than_its_size(make_pool: MakePool) -> None:
    pool = make_pool(2, 10)
    gates = [Gate() for _ in range(5)]
    for gate in gates:
        assert pool.submit(gate)
    assert gates[0].running.wait(5)
    assert gates[1].running.wait(5)
    assert alive("daebus-work") == ["daebus-work-1", "daebus-work-2"]
    assert not gates[2].running.is_set()
    for gate in gates:
        gate.pass_through()
    assert len(alive("daebus-work")) == 2


def test_a_burst_reaches_every_idle_thread(make_pool: MakePool) -> None:
    # One is woken at a time, and wakes the next: no job may wait for another one's end.
    pool = make_pool(4, 10)
    for _ in range(50):
        together = threading.Barrier(5)
        for _ in range(4):
            assert pool.submit(lambda meet=together: meet.wait(5))  # type: ignore[misc]
        together.wait(5)


def test_a_full_queue_refuses(make_pool: MakePool) -> None:
    pool = make_pool(1, 2)
    gates = [Gate() for _ in range(3)]
    assert pool.submit(gates[0])
    assert gates[0].running.wait(5)
    assert pool.submit(gates[1])
    assert pool.submit(gates[2])
    assert not pool.submit(lambda: pytest.fail("refused jobs must not run"))
    gates[0].pass_through()
    assert gates[1].running.wait(5)
    again = Gate()
    assert pool.submit(again)
    for gate in (*gates[1:], again):
        gate.pass_through()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_job_that_raises_does_not_end_its_thread(
    make_pool: MakePool, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(1, 4)
    done = threading.Event()

    def fail() -> None:
        raise error("on purpose")

    with caplog.at_level(logging.ERROR, "daebus.server"):
        pool.submit(fail)
        pool.submit(done.set)
        assert done.wait(5)
    assert alive("daebus-work") == ["daebus-work-1"]
    (record,) = caplog.records
    assert "daebus-work-1 failed" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is error


def test_jobs_start_in_order(make_pool: MakePool) -> None:
    pool = make_pool(1, 100)
    ran: list[int] = []
    done = threading.Event()
    for number in range(50):
        assert pool.submit(lambda number=number: ran.append(number))  # type: ignore[misc]
    pool.submit(done.set)
    assert done.wait(5)
    assert ran == list(range(50))


def test_stop_lets_jobs_end_that_were_taken(make_pool: MakePool) -> None:
    pool = make_pool(1, 4)
    gate, done = Gate(), threading.Event()
    pool.submit(gate)
    assert gate.running.wait(5)
    pool.submit(done.set)
    threads = pool.stop()
    assert not pool.submit(lambda: None)
    assert not done.is_set()
    gate.pass_through()
    assert join_all(threads, time.monotonic() + 5) == []
    assert done.is_set()


def test_stop_ends_idle_threads(make_pool: MakePool) -> None:
    pool = make_pool(2, 2)
    done = threading.Event()
    pool.submit(done.set)
    assert done.wait(5)
    threads = pool.stop()
    assert len(threads) == 1
    assert join_all(threads, time.monotonic() + 5) == []
    assert pool.stop() == threads


def test_without_any_thread_it_refuses(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(2, 2)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "daebus.server"):
        patch.setattr(threading, "Thread", NoThreads)
        assert not pool.submit(lambda: None)
    assert "cannot start daebus-work-1" in caplog.text
    done = threading.Event()
    assert pool.submit(done.set)
    assert done.wait(5)


def test_a_crowd_without_threads_is_one_line_in_the_log(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(2, 2)
    locked = []

    class Watching(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            locked.append(pool._lock.locked())

    monkeypatch.setattr(logging.getLogger("daebus.server"), "handlers", [Watching()])
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", NoThreads)
        assert not any(pool.submit(lambda: None) for _ in range(5))
    assert locked == [False]


def test_without_another_thread_the_ones_there_go_on(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(2, 2)
    gate, done = Gate(), threading.Event()
    pool.submit(gate)
    assert gate.running.wait(5)
    with monkeypatch.context() as patch, caplog.at_level(logging.CRITICAL, "daebus.server"):
        patch.setattr(threading, "Thread", NoThreads)
        assert pool.submit(done.set)
    gate.pass_through()
    assert done.wait(5)


# --- join_all -----------------------------------------------------------------------


def test_join_all_keeps_its_deadline() -> None:
    gates = [Gate() for _ in range(3)]
    threads = [threading.Thread(target=gate) for gate in gates]
    for thread in threads:
        thread.start()
    gates[1].open.set()
    started = time.monotonic()
    left = join_all(threads, started + 0.05)
    assert time.monotonic() - started < 5
    assert left == [threads[0], threads[2]]
    for gate in gates:
        gate.pass_through()
    assert join_all(threads, time.monotonic() + 5) == []


def test_join_all_does_not_wait_for_its_caller_nor_for_what_never_started() -> None:
    never = threading.Thread(target=lambda: None)
    assert join_all([threading.current_thread(), never], time.monotonic() + 5) == []


def test_a_job_that_may_last_steps_aside_when_another_needs_its_thread() -> None:
    pool = WorkerPool("daebus-work", 2, 10, max_aside=1)
    gates, noted = [Gate() for _ in range(4)], list[bool]()

    def last(gate: Gate) -> None:
        noted.append(pool.may_last())
        gate()

    for number in (0, 1):
        assert pool.submit(partial(last, gates[number]))
        assert gates[number].running.wait(5)
    assert noted == [True, True]
    assert len(alive("daebus-work")) == 2  # nobody needs a third one yet
    assert pool.submit(gates[2])
    assert gates[2].running.wait(5)
    assert pool.submit(partial(last, gates[3]))  # it waits: one may be aside, not two
    assert not gates[3].running.is_set()
    gates[0].pass_through()  # the one aside: its place is that of the other one now
    assert gates[3].running.wait(5)
    for gate in gates[1:]:
        gate.pass_through()
    assert join_all(pool.stop(), time.monotonic() + 5) == []
    assert noted == [True, True, True]
