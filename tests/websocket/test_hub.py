"""Who is let in when something fails, and what a hub can do no more."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from daebus import Daebus
from daebus.server.sockets.transport import Transport
from daebus.websocket import hub as module
from daebus.websocket.connection import link as link_module
from tests.support.fixture_types import Connect, MakeApp
from tests.support.inside import hub_of
from tests.support.logs import records
from tests.support.peer import Peer, upgrade_request
from tests.support.slow_clients import KILOBYTES_16, narrow
from tests.support.waiting import eventually


def test_a_connection_that_cannot_be_made_gives_its_places_back(
    make_app: MakeApp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = threading.Event()
    fails.set()

    def wrap(sock: socket.socket) -> Transport:
        if fails.is_set():
            raise OSError(9, "Bad file descriptor")  # as when it has closed meanwhile
        return Transport(sock)

    monkeypatch.setattr(module, "Transport", wrap)
    app = make_app(max_clients=1, max_clients_per_ip=1)
    app.socket("echo")(lambda req: req.data)
    app.start()
    for _ in range(3):
        peer = Peer(connect(app.http.port))
        peer.sock.sendall(upgrade_request())
        assert peer.ended()
    fails.clear()
    peer = Peer.joined(connect(app.http.port))
    peer.say("echo", 1)
    assert peer.message()["data"] == 1


def test_a_connection_that_cannot_begin_gives_its_places_back(
    make_app: MakeApp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 101 is out, and then no timer can be made: nobody entered the registry."""
    app = make_app(max_clients=1, max_clients_per_ip=1)
    app.start()
    with monkeypatch.context() as patched:
        patched.setattr(link_module, "Keepalive", failing)
        for _ in range(3):
            peer = Peer(connect(app.http.port))
            assert peer.ask(upgrade_request()).status == 101
            assert peer.ended()
            peer.sock.close()
    hub = hub_of(app)
    counts = hub._admission._per_address._clients
    assert eventually(lambda: hub.registry._reserved == 0 and counts == {})
    Peer.joined(connect(app.http.port)).close()


def failing(*args: object) -> object:
    raise MemoryError("no timer")


def test_handshakes_are_bounded_by_their_threads(make_app: MakeApp, connect: Connect) -> None:
    """Those that close have a thread each, and no place in the registry any more."""
    app = make_app(max_clients=1)
    app.start()
    threads = hub_of(app).threads
    begun, release = threading.Semaphore(0), threading.Event()

    def close_slowly() -> None:
        begun.release()
        assert release.wait(10)

    for _ in range(2 * 1 + 8):
        threads.run(close_slowly, "daebus-ws-closing")
        assert begun.acquire(timeout=5)
    answer = Peer(connect(app.http.port)).ask(upgrade_request())
    assert (answer.status, answer.json["code"]) == (503, "too_many_clients")
    release.set()


@pytest.mark.parametrize("stopping", [False, True])
def test_a_thread_that_cannot_start_is_told_and_logged_unless_the_app_stops(
    app: Daebus, connect: Connect, monkeypatch: pytest.MonkeyPatch, stopping: bool
) -> None:
    app.start()
    hub = hub_of(app)

    def no_thread(job: object, name: str) -> None:
        if stopping:
            hub.begin_stop()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(hub.threads, "run", no_thread)
    with records() as log:
        answer = Peer(connect(app.http.port)).ask(upgrade_request())
        assert (answer.status, answer.json["code"]) == (
            503, "stopping" if stopping else "no_thread",
        )  # fmt: skip
    assert bool(log.texts) is not stopping
    assert app.websocket.stats()["refused"] == {answer.json["code"]: 1}


def test_notices_that_find_no_room_are_counted(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hang in their hooks, and one waits: there is no room for the fourth."""
    monkeypatch.setattr(module, "MAX_NOTICES", 1)
    app = make_app(max_outbox=20_000)
    begun, release = threading.Semaphore(0), threading.Event()

    @app.websocket.on_slow_consumer
    def hangs(client_id: str) -> None:
        begun.release()
        assert release.wait(10)

    app.start()

    def cut_one() -> None:
        with narrow(app):
            while app.websocket.broadcast_to_all(KILOBYTES_16):
                pass

    try:
        for _ in range(2):
            cut_one()
            assert begun.acquire(timeout=5)
        assert app.websocket.stats()["lost_notices"] == 0
        with ThreadPoolExecutor(1) as pool:
            for _ in range(2):
                pool.submit(cut_one).result(10)
        # The minder hands notices over, and may not have come to it.
        assert eventually(lambda: app.websocket.stats()["lost_notices"] >= 1)
    finally:
        release.set()
