"""Who is connected, and how many may be."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from daebus.websocket.clients.registry import Registry
from daebus.websocket.connection.link import Link
from tests.support.links import make_link as make


def enter(registry: Registry, link: Link) -> None:
    assert registry.reserve()
    registry.add(link)


def test_an_empty_registry() -> None:
    registry = Registry(10)
    assert len(registry) == 0
    assert registry.snapshot() == ()
    assert registry.get("nobody") is None


def test_who_is_in_it() -> None:
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


def test_removing_twice() -> None:
    registry = Registry(10)
    ann = make("ann")
    enter(registry, ann)
    assert registry.remove(ann)
    assert not registry.remove(ann)
    assert len(registry) == 0


def test_removing_what_was_never_in() -> None:
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


def test_the_limit_counts_reserved_places() -> None:
    registry = Registry(2)
    enter(registry, make("ann"))
    assert registry.reserve()
    assert not registry.reserve()
    registry.cancel()
    assert registry.reserve()
    registry.add(make("bob"))
    assert not registry.reserve()


def test_a_client_that_leaves_makes_room() -> None:
    registry = Registry(1)
    ann = make("ann")
    enter(registry, ann)
    assert not registry.reserve()
    registry.remove(ann)
    assert registry.reserve()


def test_a_snapshot_stays_as_it_was() -> None:
    registry = Registry(10)
    ann, bob = make("ann"), make("bob")
    enter(registry, ann)
    before = registry.snapshot()
    assert registry.snapshot() is before  # made once for many broadcasts
    enter(registry, bob)
    registry.remove(ann)
    assert before == (ann,)
    assert registry.snapshot() == (bob,)


def test_broadcasts_walk_sending_halves_that_are_made_once() -> None:
    registry = Registry(10)
    ann, bob = make("ann"), make("bob")
    enter(registry, ann)
    before = registry.writers()
    assert before == (ann.writer,)
    assert registry.writers() is before
    enter(registry, bob)
    assert registry.writers() == (ann.writer, bob.writer)
    registry.remove(ann)
    assert registry.writers() == (bob.writer,)


def test_a_burst_does_not_pass_the_limit() -> None:
    registry = Registry(50)
    barrier = threading.Barrier(8)

    def burst(_: int) -> int:
        barrier.wait(5)
        return sum(registry.reserve() for _ in range(100))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(burst, range(8))) == 50


def test_threads_come_and_go_at_once() -> None:
    registry = Registry(1000)
    links = [[make(f"{thread}-{i}") for i in range(20)] for thread in range(4)]
    barrier = threading.Barrier(4)

    def come_and_go(mine: list[Link]) -> None:
        barrier.wait(5)
        for link in mine:
            enter(registry, link)
            assert link in registry.snapshot()
            assert link.writer in registry.writers()
        for link in mine[::2]:
            assert registry.remove(link)
            assert link not in registry.snapshot()
            assert link.writer not in registry.writers()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, links))
    assert len(registry) == 40
    assert set(registry.snapshot()) == {c for mine in links for c in mine[1::2]}
