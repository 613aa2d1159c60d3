"""The threads of connections: reused, bounded, of the wanted size, refused with 503."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable

import pytest

from daebus import Daebus
from daebus.server.threads.pool import ConnectionThreads
from tests.support.peer import Peer, upgrade_request
from tests.support.waiting import eventually

MakeApp = Callable[..., Daebus]
Connect = Callable[[int], socket.socket]


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


def run_at_once(threads: ConnectionThreads, count: int) -> list[int]:
    """Run that many jobs, which all run at the same time; return their threads."""
    together = threading.Barrier(count + 1, timeout=10)
    idents = queue.Queue[int]()

    def job() -> None:
        idents.put(threading.get_ident())
        together.wait()

    for number in range(count):
        threads.run(job, f"daebus-ws-{number}")
    together.wait()
    return [idents.get(timeout=5) for _ in range(count)]


def test_no_more_than_so_many_are_kept() -> None:
    threads = ConnectionThreads(max_parked=3)
    assert len(set(run_at_once(threads, 10))) == 10
    assert eventually(lambda: threads.count() == (3, 3))
    for thread in threads.stop():
        thread.join(5)
    assert threads.count() == (0, 0)


def test_a_parked_thread_ends_when_nobody_comes() -> None:
    threads = ConnectionThreads(idle_timeout=0.05)
    run_at_once(threads, 4)
    assert eventually(lambda: threads.count() == (0, 0))
    assert threads.stop() == []


def test_a_job_that_fails_does_not_cost_the_thread() -> None:
    threads = ConnectionThreads()
    failed = threading.Event()

    def job() -> None:
        failed.set()
        raise SystemExit(3)

    threads.run(job, "daebus-ws-fails")
    assert failed.wait(5)
    assert eventually(lambda: threads.count() == (1, 1))
    run_at_once(threads, 1)
    assert eventually(lambda: threads.count() == (1, 1))
    for thread in threads.stop():
        thread.join(5)


def test_after_a_stop_there_are_no_threads_to_be_had() -> None:
    threads = ConnectionThreads()
    threads.stop()
    with pytest.raises(RuntimeError, match="stopping"):
        threads.run(lambda: None, "late")


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
    app = make_app(stack_size=256 * 1024)
    app.socket("work")(lambda req: depth(20))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("work")
    assert peer.message()["data"] == 21
    assert Peer(connect(app.http.port)).ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").status == 404
    assert sizes["ws"] == 256 * 1024
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


@pytest.mark.parametrize("size", [0, -1, 1000])
def test_a_stack_that_is_too_small_is_refused(make_app: MakeApp, size: int) -> None:
    with pytest.raises(ValueError, match="stack_size must be at least 32768"):
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


# --- park and unpark ----------------------------------------------------------------


def test_a_seat_taken_as_its_time_runs_out_gets_its_job() -> None:
    """The thread gives up waiting, and before it says so somebody takes its seat."""
    threads = ConnectionThreads(idle_timeout=0.05)
    ran = threading.Event()
    run_at_once(threads, 1)
    assert eventually(lambda: threads.count() == (1, 1))
    with threads._lock:  # the thread wants it to leave its seat, and waits for it
        seat = threads._parked.pop()
        threading.Event().wait(0.2)
        seat.job, seat.name = ran.set, "daebus-ws-late"
    seat.door.release()
    assert ran.wait(5)
    for thread in threads.stop():
        thread.join(5)
    assert threads.count()[0] == 0


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
