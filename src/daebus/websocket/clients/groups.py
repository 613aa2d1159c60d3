"""Rooms and users: named sets of open connections."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...errors import RoomLimitError

if TYPE_CHECKING:
    from ..connection.connection import Connection

__all__ = ["Groups"]


class Groups:
    """Which clients are in which groups.

    A group exists while somebody is in it. Only who is connected can be in one: the
    lock and the open connections are those of the registry, so nobody can enter between
    leaving the registry and leaving his groups. A broadcast walks a tuple that is made
    anew only after somebody came or left.

    Args:
        lock: of the registry.
        connections: the registry's, by client id; read under the lock.
        max_groups: how many one client may be in.

    Threads:
        Every method may be called from any thread and never waits; ``forget_locked`` is
        the registry's.
    """

    def __init__(
        self, lock: threading.Lock, connections: Mapping[str, Connection], max_groups: int
    ) -> None:
        self._lock = lock
        self._connections = connections
        self._max_groups = max_groups
        # All guarded by: _lock. In the order in which clients and groups came.
        self._members: dict[str, dict[str, Connection]] = {}
        self._groups: dict[str, dict[str, None]] = {}  # by client id
        self._snapshots: dict[str, tuple[Connection, ...]] = {}

    def join(self, client_id: str, group: str) -> bool:
        """Put a client into a group; it may be in it already.

        Returns:
            False if the client is not connected.

        Raises:
            RoomLimitError: it is in as many as it may.
        """
        with self._lock:
            if client_id not in self._connections:
                return False
            mine = self._groups.get(client_id, ())
            if group not in mine:
                if len(mine) >= self._max_groups:
                    raise RoomLimitError(
                        f"client {client_id} is in {len(mine)} rooms, as many as it may; have it "
                        f"leave one, or write DaebusWebSocket(max_rooms={2 * self._max_groups})"
                    )
                self._enter_locked(client_id, group)
            return True

    def move(self, client_id: str, group: str | None) -> bool:
        """Put a client into that group alone; None: into none.

        Returns:
            False if the client is not connected.
        """
        with self._lock:
            if client_id not in self._connections:
                return False
            if group is None or group not in self._groups.get(client_id, ()):
                self.forget_locked(client_id)
                if group is not None:
                    self._enter_locked(client_id, group)
            return True

    def leave(self, client_id: str, group: str) -> bool:
        """Take a client out of a group; False if it was not in it."""
        with self._lock:
            mine = self._groups.get(client_id, {})
            if group not in mine:
                return False
            del mine[group]
            if not mine:
                del self._groups[client_id]
            self._exit_locked(client_id, group)
            return True

    def forget_locked(self, client_id: str) -> None:
        """Take a client out of all groups."""
        for group in self._groups.pop(client_id, ()):
            self._exit_locked(client_id, group)

    def names(self) -> list[str]:
        """Return the groups that somebody is in."""
        with self._lock:
            return list(self._members)

    def of(self, client_id: str) -> list[str]:
        """Return the groups that a client is in."""
        with self._lock:
            return list(self._groups.get(client_id, ()))

    def members(self, group: str) -> list[str]:
        """Return the ids of the clients in a group."""
        with self._lock:
            return list(self._members.get(group, ()))

    def snapshot(self, group: str) -> tuple[Connection, ...]:
        """Return the connections in a group now, in the order in which they came."""
        with self._lock:
            snapshot = self._snapshots.get(group)
            if snapshot is None:
                members = self._members.get(group)
                if members is None:
                    return ()
                snapshot = self._snapshots[group] = tuple(members.values())
            return snapshot

    def _enter_locked(self, client_id: str, group: str) -> None:
        self._groups.setdefault(client_id, {})[group] = None
        self._members.setdefault(group, {})[client_id] = self._connections[client_id]
        self._snapshots.pop(group, None)

    def _exit_locked(self, client_id: str, group: str) -> None:
        members = self._members[group]
        del members[client_id]
        if not members:
            del self._members[group]
        self._snapshots.pop(group, None)
