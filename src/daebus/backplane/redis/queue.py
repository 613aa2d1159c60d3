"""What waits to be sent: bounded in bytes and seconds, in the order of each slot.

A server that stands alone has one slot here, so one order of everything.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ...interrupts.stack import held, within
from ...waits import monotonic

__all__ = ["Done", "Entry", "Part", "Queue"]

Done = Callable[[Any], None]

# Bytes that an entry takes besides what is sent.
_OVERHEAD = 200

# Parts of one command at most, and its bytes: the server does nothing else meanwhile.
_MOST_PARTS = 100
_MOST_JOINED = 64 << 10


class Part(NamedTuple):
    """A step of a series, of which several in a row may be one command.

    Attributes:
        series: a name; its commands differ in their last argument, and in what the first one says
            for all that are joined to it.
        before: number of the step that must be done before; 0 for none.
        number: of this step.
    """

    series: str
    before: int
    number: int


class Entry:
    """A command that waits or is underway.

    Args:
        command: as it is sent.
        slot: the one of its channel or key.
        keep: it is sent again, or once there is a connection.
        done: called with the answer or an exception.
        script: the source, where ``command`` has its digest in place of it.
        part: the step that it is, if others may join it; then ``command`` is a list.

    Attributes:
        at: when it was queued.
        size: bytes that count.
        dones: those of all that have joined it.
    """

    __slots__ = ("at", "command", "dones", "keep", "part", "parts", "script", "size", "slot")

    def __init__(
        self,
        command: Sequence[Any],
        slot: int,
        *,
        keep: bool,
        done: Done | None = None,
        script: str | None = None,
        part: Part | None = None,
    ) -> None:
        self.command = command
        self.slot = slot
        self.keep = keep
        self.dones = [] if done is None else [done]
        self.script = script
        self.part = part
        self.parts = 1
        self.at = monotonic()
        self.size = _OVERHEAD + sum(
            len(part) if isinstance(part, bytes | str) else 8 for part in command
        )

    def join(self, part: Part, argument: bytes, done: Done) -> bool:
        """Take in the next step of the series; return whether it is that, and there is room."""
        mine, command = self.part, self.command
        if (
            mine is None
            or part.series != mine.series
            or not part.before == mine.number == part.number - 1
            or self.parts == _MOST_PARTS
            or self.size + len(argument) > _MOST_JOINED
        ):
            return False
        assert isinstance(command, list)
        command.append(argument)
        self.dones.append(done)
        self.part = part
        self.parts += 1
        self.size += len(argument)
        return True

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
    def size(self) -> int:
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

    def join(self, slot: int, part: Part, argument: bytes, done: Done) -> bool:
        """Join a step of a series to the entry that was put last; False if it does not fit.

        Args:
            slot: of the entry.
            part: the step.
            argument: that the command of this step alone would end with.
            done: called with the answer to all.
        """
        if self._lock.locked() and within(self._lock):
            return False
        with held, self._lock:
            waiting = self._slots.get(slot)
            full = self._bytes + len(argument) > self._most_bytes
            if not waiting or full or self._late or not waiting[-1].join(part, argument, done):
                return False
            self._bytes += len(argument)
        return True

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
        if entry.dones:
            self._dropped.append(entry)
