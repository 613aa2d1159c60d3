"""Who is connected, and how many may be."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .groups import Groups

if TYPE_CHECKING:
    from ..connection.connection import Connection

__all__ = ["Registry"]


class Registry:
    """The open connections by client id, and the rooms and users that they belong to.

    A place is reserved before the handshake is answered, so that a burst cannot pass
    the limit. Broadcasts walk a snapshot: the lock is never held while writing or in
    the user's code.

    Args:
        max_clients: how many may be connected.
        max_rooms: how many rooms one client may be in.

    Threads:
        Every method may be called from any thread and never waits.
    """

    def __init__(self, max_clients: int, max_rooms: int = 100) -> None:
        self._max_clients = max_clients
        self._lock = threading.Lock()
        self._open: dict[str, Connection] = {}  # guarded by: _lock
        self._reserved = 0  # guarded by: _lock
        self._snapshot: tuple[Connection, ...] | None = ()  # guarded by: _lock
        self.rooms = Groups(self._lock, self._open, max_rooms)
        self.users = Groups(self._lock, self._open, 1)

    def reserve(self) -> bool:
        """Take a place for a connection that is about to open; False if all are taken."""
        with self._lock:
            if len(self._open) + self._reserved >= self._max_clients:
                return False
            self._reserved += 1
            return True

    def cancel(self) -> None:
        """Give a reserved place back: the connection did not come about."""
        with self._lock:
            self._reserved -= 1

    def add(self, connection: Connection) -> None:
        """Turn a reserved place into an entry."""
        with self._lock:
            self._reserved -= 1
            self._open[connection.client_id] = connection
            self._snapshot = None

    def remove(self, connection: Connection) -> bool:
        """Take the entry out; False if it was out already."""
        with self._lock:
            if self._open.get(connection.client_id) is not connection:
                return False
            del self._open[connection.client_id]
            self.rooms.forget_locked(connection.client_id)
            self.users.forget_locked(connection.client_id)
            self._snapshot = None
            return True

    def get(self, client_id: str) -> Connection | None:
        """Return the connection of that client, or None."""
        with self._lock:
            return self._open.get(client_id)

    def user(self, client_id: str) -> str | None:
        """Return the user that a client was identified as, or None."""
        users = self.users.of(client_id)
        return users[0] if users else None

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)

    def snapshot(self) -> tuple[Connection, ...]:
        """Return the connections that are open now, in order of arrival."""
        with self._lock:
            if self._snapshot is None:
                self._snapshot = tuple(self._open.values())
            return self._snapshot
