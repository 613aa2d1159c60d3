"""Which partitions this node hears: those of rooms, users and topics that have members here."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ...backplane.names import Names
from ...backplane.protocol import Backplane
from ...errors import StateError
from ...interrupts.stack import within
from ...server.threads.minder import Minder

__all__ = ["Partitions"]

# Seconds for which a partition is heard after its last member left: another may come.
LINGER = 30.0


class Partitions:
    """Counts the members of each partition. The first partition, which is for all, is always heard.

    Args:
        names: of the channels.
        backplane: subscribes to them.
        minder: leaves them later.
        left: told which channel is not heard any more.

    Threads:
        Any; only ``wait`` waits.
    """

    def __init__(
        self, names: Names, backplane: Backplane, minder: Minder, left: Callable[[str], object]
    ) -> None:
        self._names = names
        self._backplane = backplane
        self._minder = minder
        self._left = left
        self._lock = threading.Lock()
        self._members: dict[int, int] = {}  # guarded by: _lock
        self._heard: set[int] = {0}  # guarded by: _lock
        self._turns: dict[int, int] = {}  # guarded by: _lock; how often each became empty

    def channels(self) -> list[str]:
        """Return the channels that are to be heard."""
        with self._lock:
            return [self._names.frames(partition) for partition in self._heard]

    def add(self, to: str) -> None:
        """Count one member more."""
        self._count(to, 1)

    def remove(self, to: str) -> None:
        """Count one member less; it may be told before it was told that the member came."""
        self._count(to, -1)

    def _count(self, to: str, change: int) -> None:
        partition = self._names.partition(to)
        if not partition:
            return
        if self._lock.locked() and within(self._lock):
            self._minder.call_later(0.0, lambda: self._count(to, change))
            return
        with self._lock:
            members = self._members[partition] = self._members.get(partition, 0) + change
            if members > 0 and partition not in self._heard:
                self._heard.add(partition)
                self._subscribe(self._names.frames(partition))
            if members or change > 0:
                return
            turn = self._turns[partition] = self._turns.get(partition, 0) + 1
        self._minder.call_later(LINGER, lambda: self._leave(partition, turn))

    def _subscribe(self, channel: str) -> None:
        try:
            self._backplane.subscribe(channel)
        except StateError:  # this thread was interrupted in the backplane; before any leaving
            self._minder.call_later(0.0, lambda: self._backplane.subscribe(channel))

    def wait(self, to: str, timeout: float) -> bool:
        """Wait until the partition of a room, user or topic is heard."""
        return self._backplane.subscribed(self._names.frames(self._names.partition(to)), timeout)

    def _leave(self, partition: int, turn: int) -> None:
        """Leave a partition, unless somebody came since it was empty for that time."""
        with self._lock:
            if self._members[partition] or self._turns[partition] != turn:
                return
            self._heard.discard(partition)
            channel = self._names.frames(partition)
            self._backplane.unsubscribe(channel)
        self._left(channel)
