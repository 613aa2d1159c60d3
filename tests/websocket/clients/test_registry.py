"""Who is connected, and how many may be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from daebus.server.sockets.transport import Transport
from daebus.server.threads.loop import LoopThread
from daebus.server.threads.minder import Minder
from daebus.websocket.clients.registry import Registry
from daebus.websocket.component import DaebusWebSocket
from daebus.websocket.connection.connection import Connection
from daebus.websocket.connection.limits import Limits
from daebus.websocket.protocol.codec import Codec

Make = Callable[[str], Connection]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make connections that nobody runs."""
    minder = Minder()
    hub = DaebusWebSocket().start(minder, LoopThread())
    sockets: list[socket.socket] = []

    def make(client_id: str) -> Connection:
        ours, theirs = socket.socketpair()
        sockets.extend((ours, theirs))
        codec = Codec(max_message_size=100, max_fragments=10)
        return Connection(client_id, Transport(ours), codec, Limits(), hub)

    yield make
    for sock in sockets:
        sock.close()
    minder.stop()


def enter(registry: Registry, connection: Connection) -> None:
    assert registry.reserve()
    registry.add(connection)


def test_an_empty_registry() -> None:
    registry = Registry(10)
    assert len(registry) == 0
    assert registry.snapshot() == ()
    assert registry.get("nobody") is None


def test_who_is_in_it(make: Make) -> None:
    registry = Registry(10)
    ann, bob = make("ann"), make("bob")
    enter(registry, ann)
    enter(registry, bob)
    assert len(registry) == 2
    assert registry.get("ann") is ann
    assert registry.snapshot() == (ann, bob)
    assert registry.remove(ann)
    assert len(registry) == 1
    assert registry.get("ann") is None
    assert registry.snapshot() == (bob,)


def test_removing_twice(make: Make) -> None:
    registry = Registry(10)
    ann = make("ann")
    enter(registry, ann)
    assert registry.remove(ann)
    assert not registry.remove(ann)
    assert len(registry) == 0


def test_removing_what_was_never_in(make: Make) -> None:
    registry = Registry(10)
    ann, impostor = make("ann"), make("ann")
    enter(registry, ann)
    assert not registry.remove(impostor)
    assert registry.get("ann") is ann


def test_a_reserved_place_is_not_a_client() -> None:
    registry = Registry(2)
    assert registry.reserve()
    assert len(registry) == 0
    assert registry.snapshot() == ()


def test_the_limit_counts_reserved_places(make: Make) -> None:
    registry = Registry(2)
    enter(registry, make("ann"))
    assert registry.reserve()
    assert not registry.reserve()
    registry.cancel()
    assert registry.reserve()
    registry.add(make("bob"))
    assert not registry.reserve()


def test_a_client_that_leaves_makes_room(make: Make) -> None:
    registry = Registry(1)
    ann = make("ann")
    enter(registry, ann)
    assert not registry.reserve()
    registry.remove(ann)
    assert registry.reserve()


def test_a_snapshot_stays_as_it_was(make: Make) -> None:
    registry = Registry(10)
    ann, bob = make("ann"), make("bob")
    enter(registry, ann)
    before = registry.snapshot()
    assert registry.snapshot() is before  # made once for many broadcasts
    enter(registry, bob)
    registry.remove(ann)
    assert before == (ann,)
    assert registry.snapshot() == (bob,)


def test_a_burst_does_not_pass_the_limit() -> None:
    registry = Registry(50)
    barrier = threading.Barrier(8)

    def burst(_: int) -> int:
        barrier.wait(5)
        return sum(registry.reserve() for _ in range(100))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(burst, range(8))) == 50


def test_threads_come_and_go_at_once(make: Make) -> None:
    registry = Registry(1000)
    connections = [[make(f"{thread}-{i}") for i in range(20)] for thread in range(4)]
    barrier = threading.Barrier(4)

    def come_and_go(mine: list[Connection]) -> None:
        barrier.wait(5)
        for connection in mine:
            enter(registry, connection)
            assert connection in registry.snapshot()
        for connection in mine[::2]:
            assert registry.remove(connection)
            assert connection not in registry.snapshot()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, connections))
    assert len(registry) == 40
    assert set(registry.snapshot()) == {c for mine in connections for c in mine[1::2]}
