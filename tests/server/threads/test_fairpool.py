"""Fairness: clients take turns, none fills the queue or the threads, and jobs leave with theirs."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Iterator

import pytest

from daebus.server.threads.fairpool import FairPool
from tests.support.jobs import Gate, NoThreads
from tests.support.waiting import eventually


@pytest.fixture
def pools() -> Iterator[list[FairPool]]:
    made: list[FairPool] = []
    yield made
    for pool in made:
        for thread in pool.stop():
            thread.join(5)
            assert not thread.is_alive()


def blocked(pools: list[FairPool], size: int, backlog: int) -> tuple[FairPool, list[Gate]]:
    """Return a pool all of whose threads are in jobs of others."""
    pool, gates = FairPool("daebus-job", size, backlog), [Gate() for _ in range(size)]
    pools.append(pool)
    for gate in gates:
        assert pool.submit(f"other {id(gate)}", gate)
        assert gate.running.wait(5)
    return pool, gates


def test_clients_take_turns(pools: list[FairPool]) -> None:
    pool, (gate,) = blocked(pools, 1, 64)
    done = queue.Queue[str]()
    for client, count in (("a", 20), ("b", 2), ("c", 3)):
        for number in range(count):
            assert pool.submit(client, functools.partial(done.put, f"{client}{number}"))
    gate.pass_through()
    order = [done.get(timeout=5) for _ in range(25)]
    assert order[:8] == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "c2"]
    assert order[8:] == [f"a{number}" for number in range(3, 20)]


def test_one_client_cannot_fill_the_queue(pools: list[FairPool]) -> None:
    pool, gates = blocked(pools, 1, 64)
    taken = [pool.submit("hog", lambda: None) for _ in range(80)]
    assert 32 <= sum(taken) < 50
    assert all(pool.submit("polite", lambda: None) for _ in range(8))
    gates[0].pass_through()


@pytest.mark.parametrize("hogs", [1, 2, 5, 10])
def test_however_many_fill_it_there_is_room_for_one_more(pools: list[FairPool], hogs: int) -> None:
    pool, gates = blocked(pools, 1, 64)
    for _ in range(100):
        for hog in range(hogs):
            pool.submit(hog, lambda: None)
    assert pool.submit("polite", lambda: None)
    gates[0].pass_through()


def test_all_together_are_bounded(pools: list[FairPool]) -> None:
    pool, gates = blocked(pools, 1, 64)
    assert sum(pool.submit(client, lambda: None) for client in range(1000)) == 64
    gates[0].pass_through()


def test_a_quarter_of_the_threads_is_kept_from_any_single_client(pools: list[FairPool]) -> None:
    pool = FairPool("daebus-job", 8, 64)
    pools.append(pool)
    hogs, polite = [Gate() for _ in range(10)], [Gate() for _ in range(2)]
    for gate in hogs:
        assert pool.submit("hog", gate)
    for gate in hogs[:6]:
        assert gate.running.wait(5)
    for gate in polite:
        assert pool.submit("polite", gate)
        assert gate.running.wait(5)
    assert not any(gate.running.is_set() for gate in hogs[6:])
    for gate in polite + hogs:
        gate.pass_through()


def test_jobs_that_have_not_begun_leave_with_their_client(pools: list[FairPool]) -> None:
    pool, (gate,) = blocked(pools, 1, 64)
    done = queue.Queue[str]()
    for number in range(10):
        assert pool.submit("leaves", functools.partial(done.put, f"leaves {number}"))
    assert pool.submit("stays", lambda: done.put("stays"))
    pool.forget("leaves")
    pool.forget("leaves")
    pool.forget("never came")
    assert sum(pool.submit("next", lambda: None) for _ in range(100)) > 40
    gate.pass_through()
    assert done.get(timeout=5) == "stays"
    assert eventually(lambda: not pool._shares)
    assert done.empty()
    assert not pool._turns
    assert pool._waiting == pool._workers == 0


def test_a_job_that_raises_ends_no_turn(pools: list[FairPool]) -> None:
    pool = FairPool("daebus-job", 1, 64)
    pools.append(pool)
    done = threading.Event()
    assert pool.submit("a", lambda: 1 / 0)
    assert pool.submit("a", done.set)
    assert done.wait(5)


def test_where_no_thread_can_be_started_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", NoThreads)
    pool = FairPool("daebus-job", 2, 64)
    assert not pool.submit("a", lambda: None)
    assert not pool._shares
    assert pool._waiting == pool._workers == 0


def test_a_stop_does_what_was_taken_and_takes_no_more() -> None:
    pool, gate, done = FairPool("daebus-job", 1, 64), Gate(), threading.Event()
    assert pool.submit("a", gate)
    assert gate.running.wait(5)
    assert pool.submit("a", done.set)
    (thread,) = pool.stop()
    assert not pool.submit("a", done.set)
    gate.pass_through()
    thread.join(5)
    assert done.is_set()
    assert not pool.submit("a", done.set)


def test_nothing_is_lost_or_done_twice(pools: list[FairPool]) -> None:
    pool, done = FairPool("daebus-job", 4, 1000), queue.Queue[tuple[int, int]]()
    pools.append(pool)

    def submit(client: int) -> None:
        for number in range(200):
            while not pool.submit(client, functools.partial(done.put, (client, number))):
                pass

    threads = [threading.Thread(target=submit, args=(client,)) for client in range(6)]
    for thread in threads:
        thread.start()
    found = [done.get(timeout=10) for _ in range(1200)]
    for thread in threads:
        thread.join()
    assert sorted(found) == [(client, number) for client in range(6) for number in range(200)]
