"""Nodes in one process, on a clock that a test sets and a backplane that it drives."""

from __future__ import annotations

from typing import Any

from daebus.backplane.frames import Header
from daebus.backplane.memory import MemoryBackplane
from daebus.websocket.cluster.info import BackplaneEvent, BackplaneInfo
from daebus.websocket.cluster.node import Node
from tests.support.clock import ManualMinder

__all__ = ["Member", "World"]


class Member:
    """A node, and what it was given.

    Attributes:
        node: the node.
        end: its backplane.
        got: the payloads that came, with their senders.
        by_room: the same, by sender and room.
        events: what happened.
        gone: nodes that are gone.
        sent: how often it has said something.
    """

    def __init__(self, world: World, app: str, **options: Any) -> None:
        joined: MemoryBackplane | None = world.members[0].end if world.members else None
        self.end: MemoryBackplane = MemoryBackplane(
            joined, clock=world.minder.clock, threaded=False, **options
        )
        self.got: list[tuple[str, bytes]] = []
        self.events: list[tuple[BackplaneEvent, BackplaneInfo]] = []
        self.gone: list[str] = []
        self.by_room: dict[tuple[str, str], list[bytes]] = {}
        self.sent = 0
        self.node = Node(
            app, self.end, world.minder, clients=lambda: 3, version="1.2", tell=self.tell
        )
        self.node.gone.append(self.gone.append)
        for kind in ("room", "all", "client"):
            self.node.on(kind, self.take)
        self.node.begin()

    def take(self, header: Header, payload: bytes) -> None:
        self.got.append((header.node, payload))
        self.by_room.setdefault((header.node, header.to), []).append(payload)

    def tell(self, event: BackplaneEvent, info: BackplaneInfo) -> None:
        self.events.append((event, info))

    def die(self) -> None:
        """End without a word, as a process that is killed."""
        self.end.cut()
        self.end.stop(0)

    def say(self, count: int = 1, to: str = "floor 3") -> None:
        """Post frames to a room."""
        for _ in range(count):
            self.sent += 1
            self.node.post("room", to, b"%d" % self.sent)

    def from_(self, other: Member) -> list[int]:
        """Return the numbers that came from another, as ``say`` counts them."""
        return [int(payload) for name, payload in self.got if name == other.node.name]

    def names(self) -> list[str]:
        """Return what happened, without details, and forget it."""
        names: list[str] = [event for event, _ in self.events]
        self.events.clear()
        return names

    @property
    def missed(self) -> int:
        return self.node.stats()["missed"]


class World:
    """Some nodes; use it as a context manager."""

    def __init__(self) -> None:
        self.minder = ManualMinder()
        self.members: list[Member] = []

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for member in self.members:
            member.node.stop(0)
        self.minder.stop()

    def add(self, app: str = "test", **options: Any) -> Member:
        """Add a node, and let it join."""
        member = Member(self, app, **options)
        self.members.append(member)
        self.settle()
        return member

    def settle(self) -> None:
        """Deliver until nothing is underway."""
        while sum(member.end.deliver() for member in self.members):
            self.minder.advance()

    def advance(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass, with everything delivered on the way."""
        while seconds > 0:
            self.minder.advance(min(step, seconds))
            self.settle()
            seconds -= step
