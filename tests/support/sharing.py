"""Nodes of one process that share topics, on a clock and a backplane that the test drives."""

from __future__ import annotations

import json
import threading
from functools import partial
from typing import Any

from daebus.backplane.memory import MemoryBackplane
from daebus.backplane.names import Names, random_name
from daebus.websocket.topics.cursor import Watcher
from daebus.websocket.topics.live import Live, Offered
from daebus.websocket.topics.shared.line import Line
from daebus.websocket.topics.shared.sharing import Sharing
from daebus.websocket.topics.spec import Spec
from daebus.websocket.topics.state import State
from daebus.websocket.topics.subscribers import Subscribers
from daebus.websocket.topics.table import Topics
from daebus.websocket.topics.topic import Topic
from tests.support.clock import ManualMinder

__all__ = ["Reader", "SharingNode", "SharingWorld"]


class Reader:
    """Reads a topic of a node, as a client does.

    Attributes:
        answer: what it was told as it began.
        got: the messages, as they came.
    """

    def __init__(self, topics: Topics, name: str, **options: Any) -> None:
        self.got: list[dict[str, Any]] = []
        since, last = options.get("since"), options.get("last", 0)
        self._watcher: Watcher
        self.answer, self._watcher = topics.watch(name, since, last, bool)

    def read(self) -> list[dict[str, Any]]:
        """Take what there is; return what is new."""
        fresh = []
        while events := self._watcher.take(1 << 16):
            fresh += [json.loads(event.payload) for event in events]
        self.got += fresh
        return fresh

    def data(self) -> list[Any]:
        """Take what there is; return the data of what is new, and the reasons of gaps."""
        return [
            message["data"]["reason"] if message["type"] == "gap" else message["data"]
            for message in self.read()
        ]

    def state(self) -> dict[str, Any]:
        """Return what a page holds after all that came."""
        self.read()
        values: dict[str, Any] = {}
        for message in self.got:
            if message["type"] != "state":
                continue
            data = message["data"]
            if data.get("snapshot"):
                values = {}
            values |= data["set"]
            for key in data["removed"]:
                values.pop(key, None)
        return values


class SharingNode:
    """A node with a history topic ``log`` and a state ``now``."""

    def __init__(self, world: SharingWorld, number: int) -> None:
        joined: MemoryBackplane | None = world.nodes[0].end if world.nodes else None
        self.end: MemoryBackplane = MemoryBackplane(
            joined, clock=world.minder.clock, threaded=False, partitions=world.partitions
        )
        self.minder = world.minder
        self.topics = Topics()
        self.name = f"n{number}"
        self.channels: dict[str, Any] = {}
        log = self.topics.declare(Spec("history", "log", count=world.count))
        now = self.topics.declare(Spec("state", "now", message_type="state"))
        assert isinstance(log, Topic)
        assert isinstance(now, State)
        self.log: Topic = log
        self.now: State = now
        self.sharing = Sharing(self.topics)

    def start(self) -> None:
        """Begin, as an app does."""
        names = Names("test", self.end.partitions)
        self.end.start(names, self._receive, self.sharing.reconnected)
        lock = threading.Lock()
        nobody = lambda cursors, payload, span: Offered(0, 0, [])  # noqa: E731  has no name
        self.topics.begin(Live(self.minder, Subscribers(lock, {}), nobody, 100))
        refused: list[str] = []
        line = Line(self.end, self.name, random_name(8), self.channels, self.minder, refused.append)
        self.sharing.begin(line, wait=0)

    def stop(self) -> None:
        """End, as an app does."""
        self.sharing.end(0)
        self.topics.end()
        self.end.stop(0)

    def _receive(self, channel: str, frame: bytes) -> None:
        handler = self.channels.get(channel)
        if handler is not None:
            handler(channel, frame)

    def read(self, name: str = "log", **options: Any) -> Reader:
        """Have a client of this node begin to read."""
        return Reader(self.topics, name, **options)


class SharingWorld:
    """Some of them; use it as a context manager."""

    def __init__(self, nodes: int = 2, *, count: int = 100, partitions: int = 1) -> None:
        self.minder = ManualMinder()
        self.count = count
        self.partitions = partitions
        self.nodes: list[SharingNode] = []
        for number in range(nodes):
            self.add(number)

    def add(self, number: int) -> SharingNode:
        """Add one that has not begun."""
        node = SharingNode(self, number)
        self.nodes.append(node)
        return node

    def __enter__(self) -> SharingWorld:
        for node in self.nodes:
            node.start()
        self.settle()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for node in self.nodes:
            node.stop()
        self.minder.stop()

    def settle(self) -> None:
        """Deliver until nothing is underway."""
        while sum(node.end.deliver() for node in self.nodes):
            self.minder.advance()

    def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass, with everything delivered on the way."""
        while seconds > 0:
            self.minder.advance(min(step, seconds))
            self.settle()
            seconds -= step

    def save(self) -> Any:
        """Return what the store holds."""
        return self._topics().save()

    def lose(self, how: str, saved: Any = None) -> None:
        """Have the store flushed, restarted, or rewound."""
        topics = self._topics()
        call = {"flush": topics.flush, "restart": partial(topics.restart, saved)}.get(how)
        (call or partial(topics.rewind, saved))()

    def _topics(self) -> Any:
        return self.nodes[0].end.topics
