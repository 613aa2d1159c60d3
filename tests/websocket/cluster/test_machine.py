"""Three nodes over a backplane that loses, delays, repeats and cuts: what holds whatever happens.

Of one sender's frames none comes twice or out of order; and once it has been quiet for a while,
those that came and those that were counted as missed are all that were sent.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from daebus.backplane.names import Names
from tests.support.nodes import Member, World

PLACES = st.integers(0, 2)
QUIET = 15  # seconds: all numbers are told within ten beats


def rooms(partitions: int) -> list[str]:
    """Return a room of each partition."""
    names = Names("test", partitions)
    found: dict[int, str] = {}
    for number in range(1000):
        found.setdefault(names.partition(f"room {number}"), f"room {number}")
    return [found[partition] for partition in range(partitions)]


class Machine(RuleBasedStateMachine):
    """Nodes that send to rooms of all partitions, which all of them hear."""

    partitions = 1

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.rooms = rooms(self.partitions)
        self.members: list[Member] = []
        self.begun: dict[tuple[str, str], int] = {}  # by receiver and sender: sent before
        self.before: Counter[tuple[str, str]] = Counter()  # got or counted as missed before

    @initialize()
    def begin(self) -> None:
        for _ in range(3):
            self.add()
        self.world.advance(QUIET)
        self.note()

    def add(self) -> Member:
        member = self.world.add(partitions=self.partitions, queue_bytes=2000)
        for room in self.rooms:
            member.node.listen(room)
        self.members.append(member)
        return member

    def teardown(self) -> None:
        self.rest()
        self.world.__exit__()

    # --- what may happen ------------------------------------------------------------

    @rule(place=PLACES, count=st.integers(1, 20), room=st.integers(0, 7))
    def say(self, place: int, count: int, room: int) -> None:
        self.members[place].say(count, self.rooms[room % self.partitions])

    @rule(place=PLACES, frames=st.integers(1, 5))
    def lose(self, place: int, frames: int) -> None:
        self.members[place].end.lose(frames)

    @rule(place=PLACES, unsure=st.integers(0, 5))
    def cut(self, place: int, unsure: int) -> None:
        self.members[place].end.cut(unsure)

    @rule(place=PLACES)
    def restore(self, place: int) -> None:
        self.members[place].end.restore()

    @rule(unsure=st.integers(0, 5))
    def cut_all(self, unsure: int) -> None:
        for member in self.members:
            member.end.cut(unsure)

    @rule(place=PLACES)
    def deafen(self, place: int) -> None:
        self.members[place].end.deafen()

    @rule(place=PLACES, count=st.integers(1, 10), seed=st.integers(0, 99))
    def deliver(self, place: int, count: int, seed: int) -> None:
        """Deliver a little at one node; the others wait."""
        self.members[place].end.overtake(lambda channel: random.Random(f"{seed}{channel}").random())
        self.members[place].end.deliver(count)

    @rule(seconds=st.sampled_from((0.1, 0.5, 1, 3, 12)))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(seconds=st.sampled_from((0.1, 1, 4)))
    def stall(self, seconds: float) -> None:
        """Let time pass, and deliver nothing."""
        self.world.minder.advance(seconds)

    @rule(place=PLACES, polite=st.booleans())
    def replace(self, place: int, polite: bool) -> None:
        """End a node, and begin another one in its place."""
        self.rest()
        member = self.members.pop(place)
        self.world.members.remove(member)
        if polite:
            member.node.stop(0)
        else:
            member.die()
        self.add()
        self.world.advance(QUIET)
        assert all(member.node.stats()["nodes"] == 3 for member in self.members)
        self.note()

    # --- what holds -------------------------------------------------------------------

    @invariant()
    def in_order_and_once(self) -> None:
        for member in self.members:
            for payloads in member.by_room.values():
                numbers = [*map(int, payloads)]
                assert numbers == sorted({*numbers})

    @rule()
    def rest(self) -> None:
        """Let it be quiet for a while, and count."""
        for member in self.members:
            member.end.restore()
            member.end.renew()
        self.world.advance(QUIET)
        for member in self.members:
            assert member.node.stats()["up"]
            for other in self.members:
                if other is not member:
                    key = (member.node.name, other.node.name)
                    known = self.known(member, other) - self.before[key]
                    assert known == other.sent - self.begun[key]

    @staticmethod
    def known(member: Member, other: Member) -> int:
        name = other.node.name
        told = sum(i.missed for e, i in member.events if e == "gap" and i.node == name)
        return len(member.from_(other)) + told

    def note(self) -> None:
        """Count from here on; what came before somebody was there does not count."""
        for member in self.members:
            for other in self.members:
                key = (member.node.name, other.node.name)
                self.begun[key] = other.sent
                self.before[key] = self.known(member, other)


class Partitioned(Machine):
    """The same in a cluster, where channels overtake each other."""

    partitions = 4


Machine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[*HealthCheck],
    phases=[phase for phase in Phase if phase is not Phase.shrink],
)
Partitioned.TestCase.settings = Machine.TestCase.settings
TestOneServer = pytest.mark.slow(Machine.TestCase)
TestCluster = Partitioned.TestCase
