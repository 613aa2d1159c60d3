"""Clients of topics without sockets: what each is sent is taken as a page would take it."""

from __future__ import annotations

import json
import selectors
from collections import deque
from typing import Any, cast

from daebus.server.threads.minder import Minder
from daebus.websocket.clients.broadcast import Door
from daebus.websocket.clients.registry import Registry
from daebus.websocket.connection.limits import Limits
from daebus.websocket.connection.states import OPEN
from daebus.websocket.protocol import envelope
from daebus.websocket.topics.live import Live
from daebus.websocket.topics.position import Position
from daebus.websocket.topics.spec import Spec
from daebus.websocket.topics.state import State
from daebus.websocket.topics.table import Topics
from daebus.websocket.topics.topic import Topic
from tests.support.links import FakeMinder, FakeTransport, make_link

__all__ = ["Hall", "Seat", "Told"]

# Outboxes that hold next to nothing: a topic must not need them.
LIMITS = Limits(ping_interval=None, max_outbox=64, max_outbox_messages=2)


class Told:
    """What a page knows of one topic: its position, and what it has."""

    def __init__(self) -> None:
        self.epoch = ""
        self.offset = -1
        self.asked: deque[Position | None] = deque()  # with which it asked
        self.seen: list[tuple[str, int]] = []
        self.missed = 0
        self.state: dict[str, Any] = {}
        self.answered = False
        self.left = False
        self.synced = False
        self.position: Position | None = None  # to come back with
        self.kept: dict[str, Any] = {}  # the state there

    def take(self, message: dict[str, Any]) -> None:
        """Take one message, which must follow the last."""
        kind, data = message["type"], message["data"]
        if kind == "unsubscribed":
            self.left = True
            return
        if kind in ("response", "subscribed"):
            self._take_answer(data)
            return
        assert not self.left, message
        if kind == "gap":
            assert self.answered, "a gap before the answer"
            assert data["offset"] - self.offset == data["missed"] or data["reason"] == "epoch"
            assert data["reason"] != "epoch" or data["epoch"] != self.epoch
            self.missed += data["missed"] or 0
            self.epoch, self.offset = data["epoch"], data["offset"]
            self.position = Position(self.epoch, self.offset)
        elif "set" in data:
            self._take_change(message["offset"], data)
        else:
            assert message["offset"] == self.offset + 1, message
            self.offset = message["offset"]
            self.seen.append((self.epoch, self.offset))
            self.position = Position(self.epoch, self.offset)

    def _take_answer(self, data: dict[str, Any]) -> None:
        since = self.asked.popleft()
        self.answered, self.left, self.epoch = True, False, data["epoch"]
        assert data["recovered"] is (data["reason"] is None)
        if data["kind"] == "state":
            self.offset, self.synced = -1, False
            return
        self.offset = data["offset"] - data["replay"]
        if data["recovered"]:
            assert since == Position(self.epoch, self.offset)
        if data["reason"] in ("expired", "limit"):
            assert since is not None
            assert data["missed"] == self.offset - since.offset > 0
            self.missed += data["missed"]
        self.position = Position(self.epoch, self.offset)

    def _take_change(self, offset: int, data: dict[str, Any]) -> None:
        assert self.answered, "a change before the answer"
        assert offset >= self.offset
        self.offset = offset
        if data.get("snapshot"):
            self.state, self.synced = {}, False
        self.state |= data["set"]
        for key in data["removed"]:
            self.state.pop(key, None)
        self.synced |= data.get("synced", False)
        if self.synced:
            self.position = Position(self.epoch, offset)
            self.kept = dict(self.state)


class Seat:
    """One connection of a client; ``transport.room`` says how much it still reads."""

    def __init__(self, hall: Hall, client_id: str) -> None:
        self.transport = FakeTransport()
        self.link = make_link(client_id, self.transport, LIMITS, hall.minder)
        self.link.writer.state = OPEN
        self.told: dict[str, Told] = {}
        hall.registry.reserve()
        hall.registry.add(self.link)

    def drain(self, room: int | None = None) -> None:
        """Read so much, as the minder lets a slow client."""
        self.transport.room = room
        while self.link.interest() & selectors.EVENT_WRITE:
            before = len(self.transport.sent)
            self.link.ready(selectors.EVENT_WRITE)
            if self.transport.room == 0 or len(self.transport.sent) == before:
                break

    def take(self) -> list[dict[str, Any]]:
        """Take what has come whole."""
        sent, messages = self.transport.sent, []
        while len(sent) >= 2:
            size, start = sent[1], 2
            if size == 126:
                size, start = int.from_bytes(sent[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(sent[2:10], "big"), 10
            if len(sent) < start + size:
                break
            messages.append(json.loads(sent[start : start + size]))
            del sent[: start + size]
        for message in messages:
            topic = message.get("topic") or message["data"]["topic"]
            self.told[topic].take(message)
        return messages


class Hall:
    """Topics, a registry and a door; the minder is driven by hand."""

    def __init__(self) -> None:
        self.minder = FakeMinder()
        self.registry = Registry(100)
        self.topics = Topics()
        door = Door(self.registry, deflate=False)
        minder = cast(Minder, self.minder)
        self.topics.begin(Live(minder, self.registry.subscribers, door.publish, 100))

    def topic(self, name: str, **options: Any) -> Topic:
        made = self.topics.declare(Spec("history", name, **options))
        assert isinstance(made, Topic)
        return made

    def state(self, name: str, **options: Any) -> State:
        made = self.topics.declare(Spec("state", name, message_type="state", **options))
        assert isinstance(made, State)
        return made

    def subscribe(
        self, seat: Seat, topic: str, since: Position | None = None, last: int = 0
    ) -> bool:
        """Subscribe a client as its message does."""
        told = seat.told.setdefault(topic, Told())
        told.asked.append(since)
        return self.topics.subscribe(
            seat.link,
            topic,
            lambda answer: envelope.encode("response", answer.as_dict()),
            since,
            last,
            counted=True,
        )

    def unsubscribe(self, seat: Seat, topic: str) -> bool:
        """End a subscription as its message does."""
        payload = envelope.encode("unsubscribed", {"topic": topic})
        return self.topics.unsubscribe(seat.link, topic, payload)
