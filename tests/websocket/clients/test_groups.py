"""Rooms and users without sockets: the limits, races, and a plain model to compare with."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from daebus import RoomLimitError
from daebus.websocket.clients.groups import Change, Groups
from daebus.websocket.clients.registry import Registry
from daebus.websocket.connection.link import Link
from daebus.websocket.connection.writer import Writer


@dataclass(eq=False)
class Stub:
    """As much of a connection as the registry looks at."""

    client_id: str
    user: str | None = None

    @property
    def writer(self) -> Stub:
        return self


def stub(client_id: str) -> Link:
    return cast(Link, Stub(client_id))


def ids(writers: tuple[Writer, ...]) -> list[str]:
    return [cast(Stub, writer).client_id for writer in writers]


def filled(*client_ids: str, max_rooms: int = 100) -> Registry:
    registry = Registry(100, max_rooms)
    for client_id in client_ids:
        assert registry.reserve()
        registry.add(stub(client_id))
    return registry


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run each call in a thread of its own, all released together; return what came of them."""
    gate = threading.Barrier(len(calls), timeout=5)

    def run(call: Callable[[], Any]) -> Any:
        gate.wait()
        try:
            return call()
        except RoomLimitError as exc:
            return exc

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def nothing_is_left(registry: Registry) -> bool:
    groups = (registry.rooms, registry.users)
    return not any(g._members or g._groups or g._snapshots for g in groups)


def test_who_is_in_a_room_in_the_order_of_joining() -> None:
    registry = filled("ann", "bob", "eve")
    for client_id in ("eve", "ann"):
        assert registry.rooms.join(client_id, "hall")
    assert registry.rooms.join("eve", "attic")
    assert registry.rooms.members("hall") == ["eve", "ann"]
    assert ids(registry.rooms.writers("hall")) == ["eve", "ann"]
    assert registry.rooms.names() == ["hall", "attic"]
    assert registry.rooms.of("eve") == ["hall", "attic"]
    assert registry.rooms.of("bob") == []


def test_joining_twice_is_being_in_once() -> None:
    registry = filled("ann")
    assert registry.rooms.join("ann", "hall")
    assert registry.rooms.join("ann", "hall")
    assert registry.rooms.members("hall") == ["ann"]
    assert registry.rooms.leave("ann", "hall")
    assert not registry.rooms.leave("ann", "hall")
    assert nothing_is_left(registry)


def test_who_is_not_connected_is_refused() -> None:
    registry = filled("ann")
    ann = registry.get("ann")
    assert ann is not None
    assert registry.remove(ann)
    assert not registry.rooms.join("ann", "hall")
    assert not registry.identify("ann", "Ann")
    assert not registry.rooms.leave("ann", "hall")
    assert registry.rooms.writers("hall") == ()
    assert nothing_is_left(registry)


def test_a_snapshot_is_made_once_until_the_room_changes() -> None:
    registry = filled("ann", "bob")
    registry.rooms.join("ann", "hall")
    registry.rooms.join("bob", "attic")
    hall, attic = registry.rooms.writers("hall"), registry.rooms.writers("attic")
    assert registry.rooms.writers("hall") is hall
    registry.rooms.join("bob", "hall")
    assert len(registry.rooms.writers("hall")) == 2
    assert registry.rooms.writers("attic") is attic


def test_the_limit_of_rooms_counts_rooms_and_not_joins() -> None:
    registry = filled("ann", max_rooms=2)
    for room in ("one", "two", "one", "two"):
        assert registry.rooms.join("ann", room)
    with pytest.raises(RoomLimitError, match=r"in 2 rooms.*max_rooms=4"):
        registry.rooms.join("ann", "three")
    assert registry.rooms.names() == ["one", "two"]
    registry.rooms.leave("ann", "one")
    assert registry.rooms.join("ann", "three")


def test_a_user_replaces_the_one_before() -> None:
    registry = filled("tab 1", "tab 2")
    for client_id in ("tab 1", "tab 2", "tab 1"):
        assert registry.identify(client_id, "ann")
    assert registry.users.members("ann") == ["tab 1", "tab 2"]
    assert registry.identify("tab 1", "bob")
    assert registry.users.members("ann") == ["tab 2"]
    assert registry.users.of("tab 1") == ["bob"]
    assert registry.identify("tab 1", None)
    assert registry.identify("tab 2", None)
    assert nothing_is_left(registry)


class Gate(dict[str, Link]):
    """The open connections; a look holds up its thread until another has had its chance."""

    def __init__(self, connections: dict[str, Link]) -> None:
        super().__init__(connections)
        self.looked, self.passed = threading.Event(), threading.Event()

    def __contains__(self, client_id: object) -> bool:
        found = super().__contains__(client_id)
        if not self.looked.is_set():
            self.looked.set()
            self.passed.wait(0.1)  # in vain if the others are locked out, as they should be
        return found


def gated(registry: Registry) -> Gate:
    gate = registry._open = Gate(registry._open)
    registry.rooms = Groups(registry._lock, gate, registry.rooms._max_groups, itertools.count())
    registry.users = Groups(registry._lock, gate, 1, itertools.count())
    return gate


@pytest.mark.parametrize("what", ["rooms", "users"])
def test_who_leaves_amid_a_join_is_in_no_room(what: str) -> None:
    registry = filled("ann")
    ann = registry.get("ann")
    assert ann is not None
    gate = gated(registry)

    def enter() -> bool:
        if what == "rooms":
            return registry.rooms.join("ann", "hall")
        return registry.identify("ann", "Ann")

    def leave() -> bool:
        assert gate.looked.wait(5)
        removed = registry.remove(ann)
        gate.passed.set()
        return removed

    assert at_once(enter, leave) == [True, True]
    assert nothing_is_left(registry)


def test_of_two_threads_one_gets_the_last_place() -> None:
    registry = filled("ann", max_rooms=1)
    gate = gated(registry)
    rooms = registry.rooms

    def second() -> bool:
        assert gate.looked.wait(5)
        try:
            return rooms.join("ann", "two")
        finally:
            gate.passed.set()

    first, other = at_once(lambda: rooms.join("ann", "one"), second)
    assert first is True
    assert isinstance(other, RoomLimitError)
    assert rooms.names() == ["one"]


@pytest.fixture
def restless() -> Iterator[None]:
    """Have the interpreter change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_many_threads_that_join_leave_and_remove_leave_nothing_behind() -> None:
    for _ in range(20):
        registry = filled("ann", "bob")
        rooms = registry.rooms
        ann, bob = registry.snapshot()

        def come_and_go(name: str, rooms: Groups = rooms) -> None:
            for number in range(30):
                rooms.join(name, f"room {number % 3}")
                rooms.writers(f"room {number % 3}")
                rooms.leave(name, f"room {number % 2}")

        at_once(
            *[lambda name=name: come_and_go(name) for name in ("ann", "ann", "bob")],
            lambda: registry.remove(ann),  # noqa: B023
        )
        assert not registry.remove(ann)
        assert all(rooms.members(name) == ["bob"] for name in rooms.names())
        registry.remove(bob)
        assert nothing_is_left(registry)


MAX_CLIENTS, MAX_ROOMS = 4, 3
CLIENTS = st.sampled_from([f"client {number}" for number in range(6)])
ROOMS = st.sampled_from([f"room {number}" for number in range(5)])
USERS = st.sampled_from(["ann", "bob", None])


class RegistryMachine(RuleBasedStateMachine):
    """The registry against lists of pairs, with clients that come, go and come again."""

    @initialize()
    def begin(self) -> None:
        self.registry = Registry(MAX_CLIENTS, MAX_ROOMS)
        self.connected: list[Link] = []
        self.reserved = 0
        self.rooms: list[tuple[str, str]] = []  # room, client
        self.users: list[tuple[str, str]] = []  # user, client

    def ids(self) -> list[str]:
        return [connection.client_id for connection in self.connected]

    @rule(client_id=CLIENTS)
    def come(self, client_id: str) -> None:
        free = len(self.connected) + self.reserved < MAX_CLIENTS
        if client_id in self.ids():
            return
        assert self.registry.reserve() == free
        if free:
            connection = stub(client_id)
            self.registry.add(connection)
            self.connected.append(connection)

    @rule()
    def reserve(self) -> None:
        free = len(self.connected) + self.reserved < MAX_CLIENTS
        assert self.registry.reserve() == free
        self.reserved += free

    @rule()
    def cancel(self) -> None:
        if self.reserved:
            self.registry.cancel()
            self.reserved -= 1

    @rule(client_id=CLIENTS)
    def go(self, client_id: str) -> None:
        for connection in list(self.connected):
            if connection.client_id == client_id:
                assert self.registry.remove(connection)
                assert not self.registry.remove(connection)
                self.connected.remove(connection)
        self.rooms = [pair for pair in self.rooms if pair[1] != client_id]
        self.users = [pair for pair in self.users if pair[1] != client_id]

    @rule(client_id=CLIENTS)
    def another_of_that_name_goes(self, client_id: str) -> None:
        assert not self.registry.remove(stub(client_id))

    @rule(client_id=CLIENTS, room=ROOMS)
    def join(self, client_id: str, room: str) -> None:
        if client_id not in self.ids():
            assert not self.registry.rooms.join(client_id, room)
        elif (room, client_id) in self.rooms:
            assert self.registry.rooms.join(client_id, room)
        elif sum(who == client_id for _, who in self.rooms) >= MAX_ROOMS:
            with pytest.raises(RoomLimitError):
                self.registry.rooms.join(client_id, room)
        else:
            assert self.registry.rooms.join(client_id, room)
            self.rooms.append((room, client_id))

    @rule(client_id=CLIENTS, room=ROOMS)
    def leave(self, client_id: str, room: str) -> None:
        was_in = (room, client_id) in self.rooms
        assert self.registry.rooms.leave(client_id, room) == was_in
        if was_in:
            self.rooms.remove((room, client_id))

    @rule(client_id=CLIENTS, user=USERS)
    def identify(self, client_id: str, user: str | None) -> None:
        known = client_id in self.ids()
        assert self.registry.identify(client_id, user) == known
        if known and (user, client_id) not in self.users:
            self.users = [pair for pair in self.users if pair[1] != client_id]
            if user is not None:
                self.users.append((user, client_id))

    @invariant()
    def same(self) -> None:
        assert [c.client_id for c in self.registry.snapshot()] == self.ids()
        assert len(self.registry) == len(self.connected)
        for groups, pairs in ((self.registry.rooms, self.rooms), (self.registry.users, self.users)):
            assert sorted(groups.names()) == sorted({group for group, _ in pairs})
            for group in groups.names():
                members = [who for name, who in pairs if name == group]
                assert groups.members(group) == members
                snapshot = groups.writers(group)
                assert ids(snapshot) == members
                assert set(snapshot) <= set(self.connected)
            for client_id in self.ids():
                assert groups.of(client_id) == [name for name, who in pairs if who == client_id]
        if not self.rooms and not self.users:
            assert nothing_is_left(self.registry)


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- what a call has changed --------------------------------------------------------


class Heard:
    """Listens to announcements; the registry's lock must be free by then."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.rooms: list[tuple[str, str, bool]] = []
        self.users: list[tuple[str, str, bool]] = []
        registry.rooms.listeners.append(lambda changes: self._hear(self.rooms, changes))
        registry.users.listeners.append(lambda changes: self._hear(self.users, changes))

    def _hear(self, heard: list[tuple[str, str, bool]], changes: tuple[Change, ...]) -> None:
        assert len(self._registry) >= 0  # takes the lock
        numbers = [change.number for change in changes]
        assert numbers == sorted(numbers)
        heard += [change[1:] for change in changes]


def test_a_join_and_a_leave_are_announced_once_and_after_the_lock() -> None:
    registry = filled("ann")
    heard = Heard(registry)
    assert registry.rooms.join("ann", "hall")
    assert registry.rooms.join("ann", "hall")
    assert registry.rooms.leave("ann", "hall")
    assert not registry.rooms.leave("ann", "hall")
    assert heard.rooms == [("ann", "hall", True), ("ann", "hall", False)]
    assert heard.users == []


def test_a_disconnect_announces_every_group_that_was_left() -> None:
    registry = filled("ann")
    for room in ("hall", "attic"):
        registry.rooms.join("ann", room)
    registry.identify("ann", "Ann")
    heard = Heard(registry)
    ann = registry.get("ann")
    assert ann is not None
    assert registry.remove(ann)
    assert not registry.remove(ann)
    assert heard.rooms == [("ann", "hall", False), ("ann", "attic", False)]
    assert heard.users == [("ann", "Ann", False)]


def test_another_name_is_announced_as_a_leave_and_a_join() -> None:
    registry = filled("tab")
    heard = Heard(registry)
    for user in ("ann", "ann", "bob", None, None):
        assert registry.identify("tab", user)
    assert heard.users == [
        ("tab", "ann", True),
        ("tab", "ann", False),
        ("tab", "bob", True),
        ("tab", "bob", False),
    ]


def test_a_refused_join_announces_nothing() -> None:
    registry = filled("ann", max_rooms=1)
    registry.rooms.join("ann", "one")
    heard = Heard(registry)
    with pytest.raises(RoomLimitError):
        registry.rooms.join("ann", "two")
    assert not registry.rooms.join("nobody", "one")
    assert heard.rooms == []


def test_a_change_is_numbered_in_the_order_in_which_it_was_made() -> None:
    registry = filled("ann", "bob")
    numbers: list[int] = []
    registry.rooms.listeners.append(lambda changes: numbers.extend(c.number for c in changes))
    for client_id in ("ann", "bob"):
        registry.rooms.join(client_id, "hall")
    registry.rooms.leave("ann", "hall")
    assert numbers == [1, 2, 3]


def test_rooms_and_users_are_numbered_together() -> None:
    registry = filled("ann")
    numbers: list[int] = []
    for groups in (registry.rooms, registry.users):
        groups.listeners.append(lambda changes: numbers.extend(c.number for c in changes))
    registry.rooms.join("ann", "hall")
    registry.identify("ann", "Ann")
    ann = registry.get("ann")
    assert ann is not None
    registry.remove(ann)
    assert numbers == [1, 2, 3, 4]


def test_a_listener_that_raises_is_logged_and_the_client_leaves_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = filled("ann")
    registry.rooms.join("ann", "hall")
    registry.identify("ann", "Ann")
    heard = Heard(registry)

    def fail(changes: tuple[Change, ...]) -> None:
        raise OSError("no room for the change")

    registry.rooms.listeners[:] = [fail, *registry.rooms.listeners]
    ann = registry.get("ann")
    assert ann is not None
    assert registry.remove(ann)
    assert heard.users == [("ann", "Ann", False)]
    assert [record.getMessage() for record in caplog.records] == [
        "a change of groups could not be announced"
    ]
    assert nothing_is_left(registry)
