"""Which clients are subscribed to which topics, under the registry's lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from ...errors import ClientError
from ...interrupts.stack import inside
from ..connection.link import Link
from .cursor import Cursor

__all__ = ["Subscribers"]


def _nothing(topic: str) -> None:
    """Do nothing; nobody wants to know."""


class Subscribers:
    """The cursors of all clients, by topic and by client.

    Lock and connections are those of the registry, so leaving the registry ends the
    subscriptions in the same step. A publication walks a tuple that is made anew only after
    somebody came or left.

    Args:
        lock: of the registry.
        connections: those of the registry, by client id; read under the lock.

    Attributes:
        on_empty: called with the name of a topic that lost its last subscriber, without any
            lock, by whoever took that away.

    Threads:
        Any; never waits. The registry calls the ``_locked`` methods.
    """

    def __init__(self, lock: threading.Lock, connections: Mapping[str, Link]) -> None:
        self._lock = lock
        self._connections = connections
        self.on_empty: Callable[[str], None] = _nothing
        # In the order in which they came. A tuple for each client, which has few topics: a
        # dict would cost more than all the rest of a subscription.
        self._topics: dict[str, dict[str, Cursor]] = {}  # guarded by: _lock
        self._clients: dict[str, tuple[Cursor, ...]] = {}  # guarded by: _lock
        self._snapshots: dict[str, tuple[Cursor, ...]] = {}  # guarded by: _lock

    def enter(self, client_id: str, cursor: Cursor, limit: int) -> Cursor | bool:
        """Add a cursor, in place of an earlier one of that client for the same topic.

        Args:
            client_id: of the cursor's connection.
            cursor: of a subscription.
            limit: how many of those may count that the client has asked for. One in place of
                another that does not count does not either.

        Returns:
            The earlier one; True if there was none, False if the client is not connected.

        Raises:
            ClientError: ``too_many_topics``.
        """
        topic = cursor.topic.name
        with self._lock:
            link = self._connections.get(client_id)
            if link is None or link.writer is not cursor.writer:
                return False
            mine = self._clients.get(client_id, ())
            others = tuple(other for other in mine if other.topic.name != topic)
            earlier = self._topics.get(topic, {}).get(client_id)
            if earlier is not None and not earlier.counted:
                cursor.counted = False
            if cursor.counted and sum(other.counted for other in others) >= limit:
                raise ClientError(
                    f"this client has {limit} topics, the most it may have", "too_many_topics"
                )
            # The client's own list comes first and goes last, as in ``Groups``.
            self._snapshots.pop(topic, None)
            self._clients[client_id] = (*others, cursor)
            self._topics.setdefault(topic, {})[client_id] = cursor
        return True if earlier is None else earlier

    def leave(self, client_id: str, topic: str) -> Cursor | None:
        """Remove and return the cursor of a client for a topic; None if it has none."""
        with self._lock:
            cursor = self._topics.get(topic, {}).get(client_id)
            if cursor is None:
                return None
            self._exit_locked(client_id, topic)
            others = tuple(other for other in self._clients[client_id] if other is not cursor)
            if others:
                self._clients[client_id] = others
            else:
                del self._clients[client_id]
        return cursor

    def forget_locked(self, client_id: str) -> list[str]:
        """Remove all cursors of a client; return the topics that nobody has any more."""
        assert self._lock.locked()
        mine = self._clients.get(client_id, ())
        names = [cursor.topic.name for cursor in mine]
        empty = [name for name in names if self._exit_locked(client_id, name)]
        self._clients.pop(client_id, None)
        return empty

    def _exit_locked(self, client_id: str, topic: str) -> bool:
        assert self._lock.locked()
        self._snapshots.pop(topic, None)
        members = self._topics.get(topic, {})
        members.pop(client_id, None)
        if members:
            return False
        self._topics.pop(topic, None)
        return True

    def cursors(self, topic: str) -> tuple[Cursor, ...]:
        """Return the cursors of a topic, in the order in which they came."""
        snapshot = self._snapshots.get(topic)  # unguarded: one look
        if snapshot is not None:
            return snapshot
        if topic not in self._topics:  # unguarded: one look
            return ()
        if self._lock.locked() and inside():
            members = self._topics.get(topic, {})  # unguarded: this thread has the lock
            return tuple(members.copy().values())
        with self._lock:
            found = self._topics.get(topic)
            if found is None:
                return ()
            snapshot = self._snapshots[topic] = tuple(found.values())
        return snapshot

    def of(self, client_id: str) -> list[str]:
        """Return the topics of a client."""
        mine = self._clients.get(client_id, ())  # unguarded: one look
        return [cursor.topic.name for cursor in mine]

    def has(self, client_id: str, topic: str) -> bool:
        """Tell whether a client is subscribed to a topic."""
        return client_id in self._topics.get(topic, ())  # unguarded: one look

    def count(self, topic: str) -> int:
        """Return how many subscribers a topic has."""
        return len(self._topics.get(topic, ()))  # unguarded: one look
