"""Rooms and users: named sets of open connections."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from ...errors import RoomLimitError
from ...interrupts.stack import inside
from ...server.threads.safelog import get_logger
from ..connection.link import Link
from ..connection.writer import Writer

__all__ = ["Announce", "Change", "Groups"]

logger = get_logger("daebus.websocket")


class Change(NamedTuple):
    """A client that joined or left a group.

    Attributes:
        number: counts the changes of all groups of a registry in the order in which they
            were made; announcements of several threads may come in another order.
        client_id: the client.
        group: the group.
        joined: True if it joined, False if it left.
    """

    number: int
    client_id: str
    group: str
    joined: bool


Announce = Callable[[tuple[Change, ...]], None]


class Groups:
    """Knows which clients are in which groups.

    A group exists while a client is in it. Only a connected client can be in one: lock
    and connections are those of the registry, so a client cannot join between leaving
    the registry and leaving its groups. A broadcast walks a tuple that is rebuilt only
    after a client joined or left.

    Args:
        lock: of the registry.
        connections: those of the registry, by client id; read under the lock.
        max_groups: how many groups one client may be in.
        numbers: of changes, common to all groups of the registry; used under the lock.

    Attributes:
        listeners: called with what a call changed, after the lock is released.

    Threads:
        Every method may be called from any thread and never waits. The registry calls the
            ``_locked`` ones, and announces what they return.
    """

    def __init__(
        self,
        lock: threading.Lock,
        connections: Mapping[str, Link],
        max_groups: int,
        numbers: Iterator[int],
    ) -> None:
        self._lock = lock
        self._connections = connections
        self._max_groups = max_groups
        self.listeners: list[Announce] = []
        # In the order in which clients joined and groups were made.
        self._members: dict[str, dict[str, Link]] = {}  # guarded by: _lock
        self._groups: dict[str, dict[str, None]] = {}  # guarded by: _lock
        self._snapshots: dict[str, tuple[Writer, ...]] = {}  # guarded by: _lock
        self._numbers = numbers  # guarded by: _lock

    def join(self, client_id: str, group: str) -> bool:
        """Put a client into a group; it may be in it already.

        Returns:
            False if the client is not connected.

        Raises:
            RoomLimitError: the client is in as many groups as it may be.
        """
        with self._lock:
            if client_id not in self._connections:
                return False
            mine = self._groups.get(client_id, ())
            if group in mine:
                return True
            if len(mine) >= self._max_groups:
                raise RoomLimitError(
                    f"client {client_id} is in {len(mine)} rooms, the most it may be in; have it "
                    f"leave one, or write DaebusWebSocket(max_rooms={2 * self._max_groups})"
                )
            change = self._enter_locked(client_id, group)
        self.tell((change,))
        return True

    def leave(self, client_id: str, group: str) -> bool:
        """Take a client out of a group; return False if it was not in it."""
        with self._lock:
            mine = self._groups.get(client_id, {})
            if group not in mine:
                return False
            change = self._exit_locked(client_id, group)
            del mine[group]
            if not mine:
                del self._groups[client_id]
        self.tell((change,))
        return True

    def move_locked(self, client_id: str, group: str | None) -> tuple[Change, ...]:
        """Put a connected client into that group alone, or into none for None."""
        assert self._lock.locked()
        if group is not None and group in self._groups.get(client_id, ()):
            return ()
        changes = self.forget_locked(client_id)
        return changes if group is None else (*changes, self._enter_locked(client_id, group))

    def forget_locked(self, client_id: str) -> tuple[Change, ...]:
        """Take a client out of all groups."""
        assert self._lock.locked()
        groups = list(self._groups.get(client_id, ()))
        changes = tuple(self._exit_locked(client_id, group) for group in groups)
        self._groups.pop(client_id, None)
        return changes

    def tell(self, changes: tuple[Change, ...]) -> None:
        """Announce changes; call it without the lock. A listener that raises is logged."""
        if not changes:
            return
        for announce in tuple(self.listeners):
            try:
                announce(changes)
            except Exception:  # the client has joined or left all the same
                logger.exception("a change of groups could not be announced")

    def names(self) -> list[str]:
        """Return the groups that somebody is in."""
        return list(self._members)  # unguarded: one look

    def of(self, client_id: str) -> list[str]:
        """Return the groups that a client is in."""
        return list(self._groups.get(client_id, ()))  # unguarded: one look

    def members(self, group: str) -> list[str]:
        """Return the ids of the clients in a group."""
        return list(self._members.get(group, ()))  # unguarded: one look

    def writers(self, group: str) -> tuple[Writer, ...]:
        """Return the writers of the clients in a group, in the order in which they joined."""
        try:
            return self._snapshots[group]  # unguarded: one look, and no get(), as in the registry
        except KeyError:
            pass
        if self._lock.locked() and inside():
            members = self._members.get(group, {})  # unguarded: this thread has the lock
            return tuple(link.writer for link in list(members.values()))
        with self._lock:
            found = self._members.get(group)
            if found is None:
                return ()
            snapshot = tuple(link.writer for link in found.values())
            self._snapshots[group] = snapshot
        return snapshot

    def _enter_locked(self, client_id: str, group: str) -> Change:
        assert self._lock.locked()
        # The client's own list comes first and goes last. So whatever a signal handler's
        # exception leaves half done here is undone when the client leaves.
        self._snapshots.pop(group, None)
        self._groups.setdefault(client_id, {})[group] = None
        self._members.setdefault(group, {})[client_id] = self._connections[client_id]
        return self._change_locked(client_id, group, joined=True)

    def _exit_locked(self, client_id: str, group: str) -> Change:
        assert self._lock.locked()
        self._snapshots.pop(group, None)
        members = self._members.get(group, {})
        members.pop(client_id, None)
        if not members:
            self._members.pop(group, None)
        return self._change_locked(client_id, group, joined=False)

    def _change_locked(self, client_id: str, group: str, *, joined: bool) -> Change:
        assert self._lock.locked()
        return Change(next(self._numbers), client_id, group, joined)
