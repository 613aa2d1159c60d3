"""The connected clients, and how many there may be."""

from __future__ import annotations

import itertools
import threading

from ...interrupts.stack import inside
from ..connection.link import Link
from ..connection.writer import Writer
from ..topics.subscribers import Subscribers
from .groups import Groups

__all__ = ["Registry"]


class Registry:
    """The open connections by client id, and their rooms and users.

    A place is reserved before the handshake is answered, so that a burst cannot exceed
    the limit. Broadcasts walk a snapshot: the lock is never held while writing or in
    user code.

    Args:
        max_clients: how many may be connected.
        max_rooms: how many rooms one client may be in.

    Threads:
        Every method may be called from any thread and never waits.
    """

    def __init__(self, max_clients: int, max_rooms: int = 100) -> None:
        self._max_clients = max_clients
        self._lock = threading.Lock()
        self._open: dict[str, Link] = {}  # guarded by: _lock
        self._reserved = 0  # guarded by: _lock
        self._snapshot: tuple[Link, ...] | None = ()  # guarded by: _lock
        self._writers: tuple[Writer, ...] | None = ()  # guarded by: _lock
        numbers = itertools.count(1)
        self.rooms = Groups(self._lock, self._open, max_rooms, numbers)
        self.users = Groups(self._lock, self._open, 1, numbers)
        self.subscribers = Subscribers(self._lock, self._open)

    def interrupted(self) -> bool:
        """Tell whether this thread was interrupted inside: what is to change must wait."""
        return self._lock.locked() and inside()

    def reserve(self) -> bool:
        """Reserve a place for a connection about to open; return False if all are taken."""
        with self._lock:
            if len(self._open) + self._reserved >= self._max_clients:
                return False
            self._reserved += 1
            return True

    def cancel(self) -> None:
        """Give back a reserved place: the connection did not open."""
        with self._lock:
            self._reserved -= 1

    def add(self, link: Link) -> None:
        """Add a connection in its reserved place."""
        with self._lock:
            self._reserved -= 1
            self._open[link.client_id] = link
            self._snapshot = self._writers = None

    def remove(self, link: Link) -> bool:
        """Remove a connection, and its client from all groups; return False if it was gone."""
        client_id = link.client_id
        with self._lock:
            if self._open.get(client_id) is not link:
                return False
            # The entry goes last: if an exception of a signal handler comes amid this, the
            # connection's own thread does it again.
            self._snapshot = self._writers = None
            rooms = self.rooms.forget_locked(client_id)
            users = self.users.forget_locked(client_id)
            topics = self.subscribers.forget_locked(client_id)
            del self._open[client_id]
        self.rooms.tell(rooms)
        self.users.tell(users)
        for topic in topics:
            self.subscribers.on_empty(topic)
        return True

    def identify(self, client_id: str, user: str | None) -> bool:
        """Set the user of a client; return False if it is not connected."""
        with self._lock:
            if client_id not in self._open:
                return False
            changes = self.users.move_locked(client_id, user)
            self._open[client_id].user = user
        self.users.tell(changes)
        return True

    def get(self, client_id: str) -> Link | None:
        """Return the connection of that client, or None."""
        return self._open.get(client_id)  # unguarded: one look

    def __len__(self) -> int:
        return len(self._open)  # unguarded: one look

    def snapshot(self) -> tuple[Link, ...]:
        """Return the connections that are open now, in order of arrival."""
        snapshot = self._snapshot  # unguarded: replaced as a whole
        if snapshot is None:
            if self.interrupted():
                links = list(self._open.values())  # unguarded: one look
                return tuple(links)
            with self._lock:
                snapshot = self._snapshot = tuple(self._open.values())
        return snapshot

    def writers(self) -> tuple[Writer, ...]:
        """Return the writers of the open connections, in order of arrival."""
        writers = self._writers  # unguarded: replaced as a whole
        if writers is None:
            if self.interrupted():
                return tuple(link.writer for link in self.snapshot())
            with self._lock:
                writers = self._writers = tuple(link.writer for link in self._open.values())
        return writers
