"""The threads of connections: reused, bounded, of the wanted size, refused with 503."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from daebus import Daebus
from daebus.server.threads import connection_threads
from daebus.server.threads.connection_threads import ConnectionThreads
from daebus.server.threads.pool import join_all
from daebus.websocket.component import MIN_STACK
from tests.support.fixture_types import Connect, MakeApp
from tests.support.jobs import Gate, NoThreads, note_context
from tests.support.peer import Peer, upgrade_request
from tests.support.waiting import eventually

# --- the threads by themselves ---------------------------------------------------------


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


def test_a_job_runs_though_its_thread_cannot_be_kept_on_cores(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(cpus: frozenset[int]) -> None:
        raise RuntimeError("no cores")

    monkeypatch.setattr(connection_threads, "keep_on", fail)
    threads, ran = ConnectionThreads(affinity=frozenset((0,))), threading.Event()
    threads.run(ran.set, "daebus-ws")
    assert ran.wait(5)
    assert join_all(threads.stop(), time.monotonic() + 5) == []
    assert "no cores" in caplog.text
    assert threads.count() == (0, 0)


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

    class Seat(connection_threads._Parked):
        __slots__ = ()

        def __init__(self) -> None:
            super().__init__()
            self.door = LateDoor()  # type: ignore[assignment]
            self.door.acquire()

    monkeypatch.setattr(connection_threads, "_Parked", Seat)
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


@pytest.mark.parametrize("turn", range(20))
def test_jobs_and_stops_at_once_lose_no_job_and_no_thread(turn: int) -> None:
    threads = ConnectionThreads(idle_timeout=0.001, max_parked=2)
    together = threading.Barrier(4, timeout=10)
    lock = threading.Lock()
    some_done = threading.Event()
    accepted = done = 0

    def job() -> None:
        nonlocal done
        with lock:
            done += 1
            if done > turn:
                some_done.set()

    def giver() -> None:
        nonlocal accepted
        together.wait()
        for number in range(30):
            try:
                threads.run(job, f"daebus-ws-{number}")
            except RuntimeError:
                return
            with lock:
                accepted += 1

    givers = [threading.Thread(target=giver) for _ in range(3)]
    for thread in givers:
        thread.start()
    together.wait()
    assert some_done.wait(5)
    ending = threads.stop()
    for thread in givers:
        thread.join(10)
    for thread in [*ending, *threads.stop()]:
        thread.join(5)
        assert not thread.is_alive()
    assert eventually(lambda: done == accepted)
    assert eventually(lambda: threads.count() == (0, 0))


# --- under an app -----------------------------------------------------------------------


def parked() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "daebus-ws-parked"]


def test_the_next_connection_runs_in_the_thread_of_the_last(app: Daebus, connect: Connect) -> None:
    app.socket("thread")(lambda req: [threading.get_ident(), threading.current_thread().name])
    app.start()
    idents, names = set(), set()
    for _ in range(10):
        peer = Peer.joined(connect(app.http.port))
        peer.say("thread")
        ident, name = peer.message()["data"]
        (client_id,) = app.websocket.get_clients()
        assert name == f"daebus-ws-{client_id}"
        idents.add(ident)
        names.add(name)
        peer.close()
        assert eventually(parked)
        assert app.stats()["threads"]["parked"] == 1
    assert len(idents) == 1
    assert len(names) == 10
    app.stop()
    assert eventually(lambda: not parked())


def test_a_stop_ends_the_parked_ones_at_once(app: Daebus, connect: Connect) -> None:
    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(5)]
    for peer in peers:
        peer.close()
    assert eventually(lambda: len(parked()) == 5)
    threads = parked()
    assert app.stop(timeout=2) == []
    assert not [thread for thread in threads if thread.is_alive()]


def depth(limit: int) -> int:
    """Return how much stack a thread has, in calls of a C function that calls back."""

    def fall(left: int) -> int:
        return 1 + max(map(fall, [left - 1])) if left else 1

    return fall(limit)


def test_stack_size_is_that_of_connection_threads_alone(
    make_app: MakeApp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[str, int] = {}
    start = threading.Thread.start

    def noting(self: threading.Thread) -> None:
        size = threading.stack_size()
        sizes[self.name.split("-")[1] if "-" in self.name else self.name] = size
        start(self)

    monkeypatch.setattr(threading.Thread, "start", noting)
    app = make_app(stack_size=MIN_STACK)
    app.socket("work")(lambda req: depth(20))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("work")
    assert peer.message()["data"] == 21
    assert Peer(connect(app.http.port)).ask(b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n").status == 404
    assert sizes["ws"] == MIN_STACK
    assert sizes["http"] == sizes["accept"] == sizes["minder"] == 0
    assert threading.stack_size() == 0
    peer.close()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_affinity_is_that_of_connection_threads_alone(make_app: MakeApp, connect: Connect) -> None:
    everywhere = os.sched_getaffinity(0)
    cpu = max(everywhere)
    app = make_app(affinity={cpu})
    app.socket("where")(lambda req: sorted(os.sched_getaffinity(0)))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("where")
    assert peer.message()["data"] == [cpu]
    assert os.sched_getaffinity(0) == everywhere
    peer.close()


@pytest.mark.parametrize("size", [0, -1, 1000, 32768, MIN_STACK - 1])
def test_a_stack_that_is_too_small_is_refused(make_app: MakeApp, size: int) -> None:
    with pytest.raises(ValueError, match=f"at least {MIN_STACK} bytes"):
        make_app(stack_size=size)


def test_no_thread_to_be_had_is_503_and_the_server_goes_on(
    app: Daebus,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app.start()
    start = threading.Thread.start

    def refusing(self: threading.Thread) -> None:
        if self.name.startswith("daebus-ws"):
            raise RuntimeError("can't start new thread")
        start(self)

    # The kernel's limit does not bind root, so the fault is made here.
    monkeypatch.setattr(threading.Thread, "start", refusing)
    for count in (1, 2):
        answer = Peer(connect(app.http.port)).ask(upgrade_request())
        assert answer.status == 503
        assert answer.json["code"] == "no_thread"
        assert answer.headers["retry-after"]
        assert app.websocket.stats()["refused"] == {"no_thread": count}
    assert app.websocket.get_client_count() == 0
    monkeypatch.undo()
    peer = Peer.joined(connect(app.http.port))
    peer.say("echo", 1)
    assert peer.message()["data"] == 1
    peer.close()
    warnings = [text for text in caplog.messages if "no thread" in text]
    assert len(warnings) == 1  # a crowd must not flood the log


def test_a_place_is_given_back_when_there_was_no_thread(
    make_app: MakeApp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(max_clients=1)
    app.start()
    start = threading.Thread.start

    def refusing(self: threading.Thread) -> None:
        if self.name.startswith("daebus-ws"):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    for _ in range(5):
        assert Peer(connect(app.http.port)).ask(upgrade_request()).json["code"] == "no_thread"
    monkeypatch.undo()
    Peer.joined(connect(app.http.port)).close()
