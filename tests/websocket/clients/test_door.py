"""The one door through which everything is sent, over transports without sockets."""

from __future__ import annotations

import json
import pickle

import pytest

from daebus.websocket.clients.broadcast import ALL, Door, Policy, SendResult, Target
from daebus.websocket.clients.registry import Registry
from daebus.websocket.connection.limits import Limits
from daebus.websocket.protocol.codec import TEXT, frame
from tests.support.links import FakeTransport, make_link

FRAME = frame(TEXT, b"hi")


class House:
    """A registry of open connections, by name, and its door."""

    def __init__(self, *names: str, limits: Limits | None = None) -> None:
        self.registry = Registry(100)
        self.door = Door(self.registry, deflate=False)
        self.transports: dict[str, FakeTransport] = {}
        for name in names:
            transport = self.transports[name] = FakeTransport()
            link = make_link(name, transport, limits)
            assert link.writer.begin(b"101")
            transport.sent.clear()
            assert self.registry.reserve()
            self.registry.add(link)

    def got(self) -> list[str]:
        """Return who got the frame, once and whole; forget it."""
        got = [name for name, transport in self.transports.items() if transport.sent == FRAME]
        assert all(t.sent in (b"", FRAME) for t in self.transports.values())
        for transport in self.transports.values():
            transport.sent.clear()
        return got


@pytest.mark.parametrize(
    "target", [ALL, Target("room", "hall"), Target("user", "ann"), Target("client", "1")], ids=str
)
def test_a_target_can_cross_a_wire(target: Target) -> None:
    assert Target(*json.loads(json.dumps(target))) == target
    assert pickle.loads(pickle.dumps(target)) == target
    with pytest.raises(AttributeError):
        target.name = "other"  # type: ignore[misc]  # that is what is tried


def test_each_target_reaches_those_it_names() -> None:
    house = House("1", "2", "3")
    house.registry.rooms.join("1", "hall")
    house.registry.rooms.join("3", "hall")
    house.registry.identify("2", "ann")
    for target, expected in (
        (ALL, ["1", "2", "3"]),
        (Target("room", "hall"), ["1", "3"]),
        (Target("user", "ann"), ["2"]),
        (Target("client", "3"), ["3"]),
        (Target("room", "nowhere"), []),
        (Target("user", "nobody"), []),
        (Target("client", "9"), []),
    ):
        assert house.door.deliver(target, b"hi") == len(expected)
        assert house.got() == expected


@pytest.mark.parametrize(
    "target", [ALL, Target("room", "hall"), Target("client", "1")], ids=lambda target: target.kind
)
def test_the_excluded_do_not_get_it(target: Target) -> None:
    house = House("1", "2")
    for name in ("1", "2"):
        house.registry.rooms.join(name, "hall")
    policy = Policy(exclude=("1", "nobody"))
    expected = [] if target.kind == "client" else ["2"]
    assert house.door.deliver(target, b"hi", policy) == len(expected)
    assert house.got() == expected


def test_a_result_says_what_became_of_it() -> None:
    house = House("fast", "slow", "full", limits=Limits(max_outbox_messages=1))
    house.transports["slow"].room = 1
    house.transports["full"].room = 0
    full = house.registry.get("full")
    assert full is not None
    full.writer.offer(FRAME)
    result = house.door.deliver(ALL, b"hi", Policy(droppable=True))
    assert (int(result), result.queued, result.dropped) == (2, 1, 1)


def test_the_policy_reaches_a_single_client_too() -> None:
    house = House("1", limits=Limits(max_outbox_messages=1))
    house.transports["1"].room = 0
    assert house.door.deliver(Target("client", "1"), b"hi").queued == 1
    for target in (Target("client", "1"), ALL):
        assert house.door.deliver(target, b"hi", Policy(droppable=True)).dropped == 1
    replaced = house.door.deliver(ALL, b"newer", Policy(conflate="key"))
    assert replaced == 0  # the one that was begun cannot be replaced, and the outbox is full


def test_several_clients_are_told_apart() -> None:
    house = House("1", "2", "3")
    results = house.door.deliver_each(["3", "nobody", "1", "3"], b"hi")
    assert results == {"3": SendResult(1), "nobody": SendResult(), "1": SendResult(1)}
    assert house.got() == ["1", "3"]


def test_a_policy_can_cross_a_wire() -> None:
    policy = Policy(droppable=True, conflate="key", exclude=("1", "2"))
    droppable, conflate, exclude = json.loads(json.dumps(policy))
    assert Policy(droppable, conflate, tuple(exclude)) == policy


def test_a_target_of_an_unknown_kind_reaches_nobody() -> None:
    house = House("1")
    with pytest.raises(ValueError, match="'planet' is not a kind of target"):
        house.door.deliver(Target("planet", "x"), b"hi")  # type: ignore[arg-type]  # the mistake
    assert house.got() == []
