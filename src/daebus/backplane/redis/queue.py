"""What waits to be sent: bounded in bytes and seconds, in the order of each slot.

A server that stands alone has one slot here, so one order of everything.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ...interrupts.stack import held, within
from ...waits import monotonic

__all__ = ["Done", "Entry", "Queue"]

Done = Callable[[Any], None]

# Bytes that an entry takes besides what is sent.
_OVERHEAD = 200


class Entry:
    """A command that waits or is underway.

    Args:
        command: as it is sent.
        slot: the one of its channel or key.
        keep: it is sent again, or once there is a connection.
        done: called with the answer or an exception.

    Attributes:
        at: when it was queued.
        size: bytes that count.
        script: the source, where ``command`` has its digest in place of it.
    """

    __slots__ = ("at", "command", "done", "keep", "script", "size", "slot")

    def __init__(
        self,
        command: tuple[Any, ...],
        slot: int,
        *,
        keep: bool,
        done: Done | None = None,
        script: str | None = None,
    ) -> None:
        self.command = command
        self.slot = slot
        self.keep = keep
        self.done = done
        self.script = script
        self.at = monotonic()
        self.size = _OVERHEAD + sum(
            len(part) if isinstance(part, bytes | str) else 8 for part in command
        )

    @property
    def is_frame(self) -> bool:
        """Whether it is a frame, of which the others will know if it is missing."""
        return self.keep and self.command[0] in ("PUBLISH", "SPUBLISH")


class Queue:
    """The queue of one start.

    Args:
        most_bytes: that may wait; beyond it the oldest is dropped.
        most_age: seconds that one may wait.

    Threads:
        Any. Takes ``_lock`` briefly and calls nobody.
    """

    def __init__(self, most_bytes: int, most_age: float) -> None:
        self._most_bytes = most_bytes
        self._most_age = most_age
        self._lock = threading.Lock()
        self._slots: dict[int, deque[Entry]] = {}  # guarded by: _lock
        self._urgent: deque[Entry] = deque()  # guarded by: _lock; they overtake what is held
        self._late: deque[Entry] = deque()  # put by what interrupted a thread that has the lock
        self._bytes = 0  # guarded by: _lock
        self._lost = 0  # guarded by: _lock
        self._dropped: list[Entry] = []  # guarded by: _lock; those that somebody waits for

    @property
    def bytes(self) -> int:
        """What waits, in bytes."""
        return self._bytes  # unguarded: old as soon as it is told

    @property
    def lost(self) -> int:
        """How many frames were dropped."""
        return self._lost  # unguarded: old as soon as it is told

    def put(self, entry: Entry, is_held: Callable[[int], bool]) -> None:
        """Add one.

        Args:
            entry: the new one.
            is_held: whether what is kept is held back in its slot, so that one which is not kept
                goes first; asked under the lock.
        """
        # Whoever calls may hold locks of ours, under which this one is taken.
        if self._lock.locked() and within(self._lock):
            # This very thread has the lock, and was interrupted: it looks again.
            self._late.append(entry)
            return
        with held, self._lock:
            self._take_late_locked(is_held)
            self._put_locked(entry, is_held)
            self._trim_locked()

    def _put_locked(self, entry: Entry, is_held: Callable[[int], bool]) -> None:
        assert self._lock.locked()
        self._bytes += entry.size
        if not entry.keep and is_held(entry.slot):
            self._urgent.append(entry)
        else:
            self._slots.setdefault(entry.slot, deque()).append(entry)

    def _take_late_locked(self, is_held: Callable[[int], bool]) -> None:
        assert self._lock.locked()
        while self._late:
            self._put_locked(self._late.popleft(), is_held)

    def locked(self, change: Callable[[], None]) -> None:
        """Change what is held, between two calls of ``put``."""
        with held, self._lock:
            change()

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Let those that were taken wait again, before all others of their slots."""
        with held, self._lock:
            for entry in reversed(list(entries)):
                self._bytes += entry.size
                self._slots.setdefault(entry.slot, deque()).appendleft(entry)
            self._trim_locked()

    def take(self, most: int, accept: Callable[[int], bool], *, hurried: bool) -> list[Entry]:
        """Return the next ones, of the slots that are accepted.

        Args:
            most: how many.
            accept: is asked for each slot.
            hurried: only those that are not kept.
        """
        taken: list[Entry] = []
        with held, self._lock:
            self._take_late_locked(lambda slot: hurried)
            for _ in range(len(self._urgent)):
                entry = self._urgent.popleft()
                if len(taken) < most and accept(entry.slot):
                    taken.append(entry)
                else:
                    self._urgent.append(entry)
            if not hurried:
                for slot in [slot for slot in self._slots if accept(slot)]:
                    waiting = self._slots[slot]
                    while waiting and len(taken) < most:
                        taken.append(waiting.popleft())
                    if not waiting:
                        del self._slots[slot]
            self._bytes -= sum(entry.size for entry in taken)
        return taken

    def drop(self, entries: Iterable[Entry]) -> None:
        """Note that some which were taken will never be sent."""
        with held, self._lock:
            for entry in entries:
                self._drop_locked(entry)

    def cut(self, accept: Callable[[int], bool]) -> None:
        """Drop what is not kept, of the slots that are accepted: their server is away."""
        with held, self._lock:
            for waiting in [self._urgent, *self._slots.values()]:
                for _ in range(len(waiting)):
                    entry = waiting.popleft()
                    if entry.keep or not accept(entry.slot):
                        waiting.append(entry)
                    else:
                        self._bytes -= entry.size
                        self._drop_locked(entry)

    def tidy(self) -> list[Entry]:
        """Drop what is too old; return those that were dropped and that somebody waits for."""
        with held, self._lock:
            self._trim_locked()
            dropped, self._dropped = self._dropped, []
        return dropped

    def is_empty(self) -> bool:
        """Tell whether nothing waits."""
        return not (self._bytes or self._late)  # unguarded: old as soon as it is told

    def _trim_locked(self) -> None:
        assert self._lock.locked()
        oldest = monotonic() - self._most_age
        for slot in list(self._slots):
            waiting = self._slots[slot]
            while waiting and waiting[0].at < oldest:
                self._pop_locked(waiting)
        while self._bytes > self._most_bytes:
            fullest = [waiting for waiting in self._slots.values() if waiting]
            if not fullest:
                break
            self._pop_locked(min(fullest, key=lambda waiting: waiting[0].at))

    def _pop_locked(self, waiting: deque[Entry]) -> None:
        assert self._lock.locked()
        entry = waiting.popleft()
        self._bytes -= entry.size
        self._drop_locked(entry)

    def _drop_locked(self, entry: Entry) -> None:
        assert self._lock.locked()
        self._lost += entry.is_frame
        if entry.done is not None:
            self._dropped.append(entry)
