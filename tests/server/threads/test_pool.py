"""Threads that do the work: bounded, named, reused, and not ended by what they run."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from daebus.server.threads import pool as workers
from daebus.server.threads.pool import ConnectionThreads, WorkerPool, join_all
from tests.support.waiting import eventually


class Gate:
    """A job that says when it runs, and ends when it is told to."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.open = threading.Event()
        self.done = threading.Event()
        self.thread: threading.Thread | None = None
        self.name = ""

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.name = self.thread.name
        self.running.set()
        self.open.wait(10)
        self.done.set()

    def pass_through(self) -> None:
        self.open.set()
        assert self.done.wait(5)


def alive(name: str) -> list[str]:
    return sorted(t.name for t in threading.enumerate() if t.name.startswith(name))


def note_context(seen: list[str], value: str) -> None:
    """A job that leaves something in a context variable."""
    seen.append(_VARIABLE.get())
    _VARIABLE.set(value)


_VARIABLE = contextvars.ContextVar("_VARIABLE", default="clean")


# --- the pool of workers ------------------------------------------------------------


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


class NoThreads(threading.Thread):
    """A thread that the system has no room for."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


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


# --- threads of connections ---------------------------------------------------------


@pytest.fixture
def make_threads() -> Iterator[Callable[..., ConnectionThreads]]:
    made: list[ConnectionThreads] = []

    def make(idle_timeout: float = 30.0, max_parked: int = 64) -> ConnectionThreads:
        made.append(ConnectionThreads(idle_timeout, max_parked))
        return made[-1]

    yield make
    for threads in made:
        assert join_all(threads.stop(), time.monotonic() + 5) == []
        assert threads.count() == (0, 0)


MakeThreads = Callable[..., ConnectionThreads]


def test_a_connection_leaves_nothing_in_the_context_of_the_next(make_threads: MakeThreads) -> None:
    threads, seen = make_threads(), list[str]()
    for value in "ab":
        threads.run(partial(note_context, seen, value), "daebus-ws")
        settled(threads, 1)
    assert seen == ["clean", "clean"]


def settled(threads: ConnectionThreads, count: int) -> None:
    """Wait until that many threads are left, all of them parked: what they do after a job."""
    assert eventually(lambda: threads.count() == (count, count)), threads.count()


def test_a_job_runs_in_a_thread_of_that_name(make_threads: MakeThreads) -> None:
    threads, gate = make_threads(), Gate()
    assert threads.count() == (0, 0)
    threads.run(gate, "daebus-ws-ann")
    assert gate.running.wait(5)
    assert gate.name == "daebus-ws-ann"
    assert gate.thread is not None
    assert gate.thread.daemon
    assert threads.count() == (1, 0)
    gate.pass_through()


def test_a_parked_thread_serves_the_next(make_threads: MakeThreads) -> None:
    threads = make_threads()
    used = []
    for name in ("daebus-ws-ann", "daebus-ws-bob", "daebus-ws-cid"):
        gate = Gate()
        threads.run(gate, name)
        assert gate.running.wait(5)
        assert gate.name == name
        assert gate.thread is not None
        used.append(gate.thread)
        gate.pass_through()
        settled(threads, 1)
        assert gate.thread.name == "daebus-ws-parked"
    assert used == [used[0]] * 3
    assert threads.count() == (1, 1)


def test_running_threads_are_not_reused(make_threads: MakeThreads) -> None:
    threads = make_threads()
    gates = [Gate() for _ in range(5)]
    for number, gate in enumerate(gates):
        threads.run(gate, f"daebus-ws-{number}")
        assert gate.running.wait(5)
    assert len({gate.thread for gate in gates}) == 5
    assert threads.count() == (5, 0)
    for gate in gates:
        gate.pass_through()
    settled(threads, 5)


def test_no_more_than_so_many_are_parked(make_threads: MakeThreads) -> None:
    threads = make_threads(max_parked=2)
    gates = [Gate() for _ in range(5)]
    for gate in gates:
        threads.run(gate, "daebus-ws-x")
        assert gate.running.wait(5)
    for gate in gates:
        gate.pass_through()
    settled(threads, 2)


def test_an_idle_thread_ends(make_threads: MakeThreads) -> None:
    threads, gate = make_threads(idle_timeout=0.01), Gate()
    threads.run(gate, "daebus-ws-x")
    gate.pass_through()
    assert gate.thread is not None
    gate.thread.join(5)
    assert not gate.thread.is_alive()
    assert threads.count() == (0, 0)


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_job_that_raises_leaves_the_thread_usable(
    make_threads: MakeThreads, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    threads, gate = make_threads(), Gate()

    def fail() -> None:
        raise error("on purpose")

    with caplog.at_level(logging.ERROR, "daebus.server"):
        threads.run(fail, "daebus-ws-bad")
        settled(threads, 1)
    assert "daebus-ws-bad failed" in caplog.text
    threads.run(gate, "daebus-ws-good")
    assert gate.running.wait(5)
    assert threads.count() == (1, 0)
    gate.pass_through()


def test_the_time_runs_out_while_the_seat_is_taken(
    make_threads: MakeThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed_out, taken = threading.Event(), threading.Event()

    class LateDoor:
        """A lock whose time runs out, and who tells of it only once somebody took the seat."""

        def __init__(self) -> None:
            self._lock = threading.Lock()
            self.release = self._lock.release

        def acquire(self, timeout: float = -1) -> bool:
            if timeout < 0:
                return self._lock.acquire(timeout=5)
            timed_out.set()
            assert taken.wait(5)
            return False

    class Seat(workers._Parked):
        __slots__ = ()

        def __init__(self) -> None:
            super().__init__()
            self.door = LateDoor()  # type: ignore[assignment]
            self.door.acquire()

    monkeypatch.setattr(workers, "_Parked", Seat)
    threads = make_threads(max_parked=1)
    first, second = Gate(), Gate()
    threads.run(first, "daebus-ws-first")
    first.pass_through()
    assert timed_out.wait(5)
    threads.run(second, "daebus-ws-second")
    taken.set()
    assert second.running.wait(5)
    assert second.thread is first.thread
    assert second.name == "daebus-ws-second"
    assert threads.count() == (1, 0)
    second.pass_through()


def test_stop_sends_parked_threads_home(make_threads: MakeThreads) -> None:
    threads, gate = make_threads(), Gate()
    threads.run(gate, "daebus-ws-x")
    gate.pass_through()
    settled(threads, 1)
    assert join_all(threads.stop(), time.monotonic() + 5) == []
    assert threads.count() == (0, 0)


def test_stop_waits_for_no_job(make_threads: MakeThreads) -> None:
    threads, gate = make_threads(), Gate()
    threads.run(gate, "daebus-ws-x")
    assert gate.running.wait(5)
    assert threads.stop() == [gate.thread]
    gate.pass_through()
    assert gate.thread is not None
    gate.thread.join(5)
    assert not gate.thread.is_alive()


def test_nothing_runs_after_the_stop(make_threads: MakeThreads) -> None:
    threads = make_threads()
    threads.stop()
    with pytest.raises(RuntimeError, match="stopping"):
        threads.run(lambda: pytest.fail("ran after the stop"), "daebus-ws-x")


def test_a_stop_amid_run_misses_no_thread(
    make_threads: MakeThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = make_threads()
    returned: list[list[threading.Thread]] = []
    stopper = threading.Thread(target=lambda: returned.append(threads.stop()))

    class Interrupted(threading.Thread):
        """A thread in the midst of whose making somebody stops them all."""

        def __init__(self, **options: object) -> None:
            super().__init__(**options)  # type: ignore[arg-type]
            stopper.start()
            stopper.join(0.2)  # it may have to wait for a lock that our caller holds

    started: list[threading.Thread] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Interrupted)
        try:
            threads.run(lambda: started.append(threading.current_thread()), "daebus-ws-late")
        except RuntimeError:
            pass  # refused: as good as being told of it
    stopper.join(5)
    assert join_all(returned[0], time.monotonic() + 5) == []
    assert threads.count() == (0, 0)
    assert set(started) <= set(returned[0])


def test_a_thread_that_cannot_start_is_told(
    make_threads: MakeThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = make_threads()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", NoThreads)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threads.run(lambda: None, "daebus-ws-x")
    assert threads.count() == (0, 0)


def test_jobs_from_many_threads(make_threads: MakeThreads) -> None:
    threads = make_threads(max_parked=4)
    done = threading.Semaphore(0)
    barrier = threading.Barrier(4)

    def submit() -> None:
        barrier.wait(5)
        for _ in range(50):
            threads.run(done.release, "daebus-ws-x")

    submitters = [threading.Thread(target=submit) for _ in range(4)]
    for thread in submitters:
        thread.start()
    for _ in range(200):
        assert done.acquire(timeout=5)
    join_all(submitters, time.monotonic() + 5)
    assert threads.count()[1] <= 4


def test_the_stack_size_is_that_of_these_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.stack_size()
    seen: list[int] = []

    class Watching(threading.Thread):
        def start(self) -> None:
            seen.append(threading.stack_size())
            super().start()

    threads = ConnectionThreads(stack_size=256 * 1024)
    gate = Gate()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Watching)
        threads.run(gate, "daebus-ws-x")
    assert gate.running.wait(5)
    assert seen == [256 * 1024]
    assert threading.stack_size() == before
    gate.pass_through()
    assert join_all(threads.stop(), time.monotonic() + 5) == []
