"""The topics of one client: subscribed to anew on each connection, from where they were."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import RequestError, StateError
from ..interrupts.stack import check_outside
from ..server.threads.safelog import get_logger
from .message import Message, encode
from .requests import Requests
from .wire import Lost, Wire

__all__ = ["Gap", "Position", "Subscriber", "Subscriptions", "integer", "position_in"]

logger = get_logger("daebus.client")


# A place in a topic as JSON carries it, ``{"epoch": ..., "offset": ...}``.
Position = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of a topic that will not come.

    Attributes:
        topic: its name.
        reason: ``slow``, ``expired``, ``epoch``, ``ahead``, ``limit`` or ``backplane``.
        missed: how many; None if nobody knows.
        position: of the last one missed.
    """

    topic: str
    reason: str
    missed: int | None
    position: dict[str, Any]


class Subscriber(Protocol):
    """A topic as the table knows it; but for ``wanted``, called in the reader's thread."""

    @property
    def name(self) -> str:
        """The topic."""

    def wanted(self) -> dict[str, Any]:
        """Return the data of a subscribe, as of now."""

    def answered(self, fields: Mapping[str, Any]) -> None:
        """Take the answer to a subscribe."""

    def take(self, message: Message, size: int) -> None:
        """Take a message of the topic."""

    def skip(self, fields: Mapping[str, Any]) -> None:
        """Take a ``gap``."""

    def lose(self) -> None:
        """Note that the connection is lost."""

    def end(self, problem: Exception | None) -> None:
        """Note that nothing more will come."""


class _Answer:
    """What waits for the answer to one subscribe."""

    def __init__(self, table: Subscriptions, subscriber: Subscriber) -> None:
        self._table = table
        self._subscriber = subscriber

    def take(self, message: Message) -> bool:
        """Hand it to the topic."""
        fields = message.data if isinstance(message.data, dict) else {}
        if message.type == "response":
            if self._table.has(self._subscriber):
                self._subscriber.answered(fields)
        elif message.type == "error":
            self._table.refuse(self._subscriber, RequestError(fields))
        return True

    def lose(self, problem: Exception) -> None:
        """Leave it to the next connection."""


class Subscriptions:
    """The table of topics, by name.

    Args:
        requests: where answers are waited for.
    """

    def __init__(self, requests: Requests) -> None:
        self._lock = threading.Lock()
        self._requests = requests
        self._table: dict[str, Subscriber] = {}  # guarded by: _lock
        self._wire: Wire | None = None  # guarded by: _lock; the one that they are subscribed on
        self._over = False  # guarded by: _lock; there will be no other connection
        self._problem: Exception | None = None  # guarded by: _lock

    def __bool__(self) -> bool:
        """True while there is a topic."""
        return bool(self._table)  # unguarded: one look

    def add(self, subscriber: Subscriber) -> None:
        """Subscribe to a topic, now if there is a connection; end it if there will be none.

        Raises:
            StateError: there is one of that name.
        """
        check_outside("client.topic()", self._lock)
        with self._lock:
            known = subscriber.name in self._table
            over, problem = self._over, self._problem
            if not (known or over):
                self._table[subscriber.name] = subscriber
            wire = self._wire
        if over:
            subscriber.end(problem)
            return
        if known:
            raise StateError(
                f"this client has a topic {subscriber.name!r} already; use that one, or close it "
                f"first"
            )
        if wire is not None:
            self._subscribe(subscriber, wire)

    def remove(self, subscriber: Subscriber) -> None:
        """Leave a topic; nothing happens if it was left."""
        check_outside("closing a topic", self._lock)
        with self._lock:
            if self._table.get(subscriber.name) is not subscriber:
                return
            del self._table[subscriber.name]
            wire = self._wire
        if wire is not None:
            self._send(wire, encode("unsubscribe", {"topic": subscriber.name}))

    def has(self, subscriber: Subscriber) -> bool:
        """Tell whether a topic was not left."""
        return self._table.get(subscriber.name) is subscriber  # unguarded: in one step

    def refuse(self, subscriber: Subscriber, problem: RequestError) -> None:
        """End a topic that the server does not let us have."""
        with self._lock:
            if self._table.get(subscriber.name) is not subscriber:
                return
            del self._table[subscriber.name]
        logger.warning("no topic %r: %s", subscriber.name, problem)
        subscriber.end(problem)

    def resume(self, wire: Wire) -> None:
        """Subscribe to all of them on a new connection, in one go."""
        with self._lock:
            self._wire = wire
            found = list(self._table.values())
        for subscriber in found:
            self._subscribe(subscriber, wire)

    def lose(self) -> None:
        """Note that the connection is lost."""
        with self._lock:
            self._wire = None
            found = list(self._table.values())
        for subscriber in found:
            subscriber.lose()

    def end(self, problem: Exception | None) -> None:
        """Note that nothing more will come of any of them."""
        with self._lock:
            self._wire = None
            self._over, self._problem = True, problem
            found, self._table = list(self._table.values()), {}
        for subscriber in found:
            subscriber.end(problem)

    def take(self, message: Message, size: int) -> bool:
        """Hand a message to its topic; False if it is of none of ours."""
        fields = message.data if isinstance(message.data, dict) else {}
        if message.type == "gap" and message.topic is None:
            name = fields.get("topic")
            subscriber = self._get(name)
            if subscriber is not None:
                subscriber.skip(fields)
            return subscriber is not None
        subscriber = self._get(message.topic)
        if subscriber is None:
            return False
        if message.offset is not None:  # published, with a type of the program's own
            subscriber.take(message, size)
        elif message.type == "subscribed":  # by the server
            subscriber.answered(fields)
        elif message.type == "unsubscribed":  # likewise
            taken = {"error": "the server has ended the subscription", "code": "unsubscribed"}
            self.refuse(subscriber, RequestError(taken))
        else:
            subscriber.take(message, size)
        return True

    def _get(self, name: object) -> Subscriber | None:
        if not isinstance(name, str):
            return None
        return self._table.get(name)  # unguarded: in one step

    def _subscribe(self, subscriber: Subscriber, wire: Wire) -> None:
        ident = self._requests.number()
        if self._requests.add(ident, _Answer(self, subscriber), wire):
            self._send(wire, encode("subscribe", subscriber.wanted(), ident))

    def _send(self, wire: Wire, text: str) -> None:
        try:
            wire.send(text)
        except Lost:  # the next connection begins with all that are in the table
            pass


def integer(value: object) -> int | None:
    """Return a number of the server's that may be missing."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def position_in(fields: Mapping[str, Any]) -> Position | None:
    """Return the position that an answer or a gap holds."""
    epoch, offset = fields.get("epoch"), integer(fields.get("offset"))
    if not isinstance(epoch, str) or offset is None:
        return None
    return {"epoch": epoch, "offset": offset}
