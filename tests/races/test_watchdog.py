"""The moments in which the minder begins or ceases to read for a busy handler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

from daebus import Connection, Daebus, WebSocketRequest
from daebus.websocket.clients.registry import Registry
from daebus.websocket.connection.link import Link
from tests.support.fixture_types import Connect
from tests.support.handlers import waiting_handler
from tests.support.inside import connections, hub_of
from tests.support.peer import CLOSE, PING, PONG, Peer, envelope, frame
from tests.support.slow_clients import reset
from tests.support.waiting import eventually


class SlowLook:
    """A registry whose look at the last connection takes until something happened."""

    def __init__(self, registry: Registry, after: Callable[[], None]) -> None:
        self._registry = registry
        self._after = after

    def snapshot(self) -> Iterator[Link]:
        yield from self._registry.snapshot()
        self._after()


def test_a_message_that_comes_as_the_watch_dozes_off_is_watched(
    app: Daebus, connect: Connect
) -> None:
    begun, release = waiting_handler(app)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("echo", 1)
    peer.message()
    hub = hub_of(app)
    assert hub is not None
    once = threading.Event()

    def a_message_comes() -> None:
        if not once.is_set():
            once.set()
            peer.say("wait")
            assert begun.wait(5)

    hub._watchdog._registry = cast(Registry, SlowLook(hub.registry, a_message_comes))
    assert once.wait(5)
    peer.send(PING, b"there?")
    assert peer.frame() == (PONG, b"there?")
    release.set()
    assert peer.message()["data"] == "waited"


def test_the_first_message_of_a_quiet_app_is_watched_if_it_comes_with_the_upgrade(
    app: Daebus, connect: Connect
) -> None:
    begun, release = waiting_handler(app)
    app.start()
    peer = Peer.joined(connect(app.http.port), behind=envelope("wait"))
    assert begun.wait(5)
    peer.send(PING, b"there?")
    assert peer.frame() == (PONG, b"there?")
    release.set()


def test_a_client_that_leaves_during_on_connect_is_noticed(app: Daebus, connect: Connect) -> None:
    begun, release = threading.Event(), threading.Event()
    order: list[str] = []
    parted = threading.Event()

    @app.websocket.on_connect
    def came(client_id: str) -> None:
        begun.set()
        assert release.wait(10)
        order.append("came")

    @app.websocket.on_disconnect
    def went(client_id: str) -> None:
        order.append("went")
        parted.set()

    app.start()
    peer = Peer.joined(connect(app.http.port))
    assert begun.wait(5)
    reset(peer)
    assert eventually(lambda: app.websocket.get_client_count() == 0)
    assert order == []
    release.set()
    assert parted.wait(5)
    assert order == ["came", "went"]


def test_a_raw_handler_that_never_reads_is_watched(app: Daebus, connect: Connect) -> None:
    stop = threading.Event()

    @app.websocket.raw("/ticker")
    def ticker(ws: Connection) -> None:
        assert ws.cancelled.wait(10)
        stop.set()

    app.start()
    peer = Peer.joined(connect(app.http.port), "/ticker")
    peer.send(PING, b"there?")
    assert peer.frame() == (PONG, b"there?")
    peer.send(CLOSE, (1000).to_bytes(2, "big"))
    assert peer.close_frame() == (1000, "")
    assert stop.wait(5)


def test_a_close_in_the_same_segment_as_the_message_cancels_its_handler(
    app: Daebus, connect: Connect
) -> None:
    outcome = threading.Event()

    @app.socket("work")
    def work(req: WebSocketRequest) -> None:
        if req.cancelled.wait(5):
            outcome.set()

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.sock.sendall(envelope("work") + frame(CLOSE, (1000).to_bytes(2, "big")))
    assert peer.close_frame() == (1000, "")
    assert outcome.wait(5)
    assert eventually(lambda: app.websocket.get_client_count() == 0)


def test_a_reset_found_by_flushing_a_held_reply_leaves_the_registry(
    app: Daebus, connect: Connect
) -> None:
    begun, release = waiting_handler(app)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    # The reply to the first waits for that of the second: they came together.
    peer.sock.sendall(envelope("echo", 1) + envelope("wait"))
    assert begun.wait(5)
    reset(peer)
    assert eventually(lambda: app.websocket.get_client_count() == 0)
    release.set()


def test_reading_goes_on_when_a_long_read_ahead_has_been_worked_off(
    app: Daebus, connect: Connect
) -> None:
    begun, release = waiting_handler(app)
    last = threading.Event()

    @app.socket("last")
    def the_last(req: WebSocketRequest) -> None:
        last.set()
        assert req.cancelled.wait(10)

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("wait")
    assert begun.wait(5)
    (connection,) = connections(app)
    # More than is read ahead, so the minder stops; then less than that remains.
    peer.sock.sendall(b"".join(envelope("echo", n) for n in range(200)) + envelope("last"))
    assert eventually(lambda: len(connection.reader.inbox) >= 64)
    release.set()
    assert last.wait(5)
    peer.send(PING, b"there?")
    while (answer := peer.frame())[0] != PONG:
        pass
    assert answer == (PONG, b"there?")
    peer.send(CLOSE, (1000).to_bytes(2, "big"))
    assert peer.close_frame() == (1000, "")


def test_a_handler_that_ends_as_the_minder_begins_to_read_loses_no_message(
    app: Daebus, connect: Connect
) -> None:
    """Every order of the two, many times: lend, read and take back."""
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("echo", -1)
    assert peer.message()["data"] == -1
    (connection,) = connections(app)
    gate = threading.Barrier(2, timeout=10)
    done = threading.Event()

    @app.socket("race")
    def race(req: Any) -> Any:
        gate.wait()
        return req.data

    def lender() -> None:
        while True:
            try:
                gate.wait()
            except threading.BrokenBarrierError:
                done.set()
                return
            connection.reader.lend(connection.reader.turn)

    thread = threading.Thread(target=lender)
    thread.start()
    rounds = 300
    try:
        for number in range(rounds):
            peer.sock.sendall(envelope("race", number) + frame(PING, b"%d" % number))
            peer.say("echo", number)
            seen = [peer.frame() for _ in range(3)]
            assert sorted(opcode for opcode, _ in seen) == [1, 1, PONG], seen
            assert [data for opcode, data in seen if opcode == PONG] == [b"%d" % number]
            texts = [data for opcode, data in seen if opcode == 1]
            assert all(b":%d}" % number in text for text in texts), seen
    finally:
        gate.abort()
        thread.join(10)
    assert done.is_set()
    assert app.websocket.stats()["messages_in"] == 2 * rounds + 1
