"""What a topic that is kept is given as its store: a place in the queue of the file's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..history import Saved
from ..position import Kind
from ..store import Appended, Changed, Record

__all__ = ["Kept", "Queue", "Source"]

# A topic may have as many records in the queue as its log has messages, but no fewer than these,
# so that a short log is not written anew all the time; and so with bytes.
LEAST_RECORDS = 1000
LEAST_BYTES = 1 << 16


class Source(Protocol):
    """A topic, as it is asked for all that is to be kept."""

    def span(self) -> tuple[str, int, int]:
        """Return the epoch, and the oldest and newest offset that its log holds."""

    @property
    def retired(self) -> bool:
        """True for one of a family that is empty and was given up."""

    def dump(self) -> Saved:
        """Return all of it; may wait for a publication to end."""


class Queue:
    """Records of all topics of one file, in order, on their way to its thread.

    Attributes:
        records: which topic, and what.
        behind: topics that are to be written anew from their logs.
        wake: called when there is something to do.

    Threads:
        Any appends; the file's thread takes. No lock: an interrupted thread may be asked to
        publish on another topic.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.records: deque[tuple[Kept, Record]] = deque()
        self.behind: deque[Kept] = deque()
        self.wake = wake


class Kept:
    """One topic in a file; a ``Store``.

    What the queue has no room for is left out. The log has it, and the topic is written anew
    from there; so is what comes while the disk takes nothing. So a topic never has more in
    the queue than about what its log holds.

    Args:
        name: of the topic.
        kind: of the topic.
        source: the topic.
        queue: of the file.
        problem: why the file takes nothing at present.
        count: how many messages or keys the log holds at most.
        max_bytes: how many bytes of them.

    Attributes:
        left_out: records that are in the log alone, since the topic has fallen behind.
        overflowed: it has because the queue had no room.
        number: of the topic in the file; None before it is in there. This and what follows
            is the file's thread's alone.
        epoch: the last one that was written.
        base: offset up to which all is in the file, or has left the log, whatever comes
            out of the queue.
        top: offset of the last one that was written.
        trimmed: offset below which no message is in the file.
        lapses: there are values with a time to live in the file.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        source: Source,
        queue: Queue,
        problem: Callable[[], str | None],
        *,
        count: int,
        max_bytes: int,
    ) -> None:
        self.name = name
        self.kind = kind
        self.source = source
        self.left_out = 0
        self.overflowed = False
        self.number: int | None = None
        self.epoch = ""
        self.base = 0
        self.top = 0
        self.trimmed = 0
        self.lapses = False
        self._queue = queue
        self._problem = problem
        self._max_records = max(LEAST_RECORDS, count)
        self._max_bytes = max(LEAST_BYTES, max_bytes)
        self._is_behind = False
        # Each counter has one writer: the publisher, of which the topic's lock lets in one at a
        # time, and the file's thread.
        self._put = self._put_bytes = 0
        self._taken = self._taken_bytes = 0

    @property
    def error(self) -> str | None:
        """Why records are not kept at present; None while they are."""
        return self._problem()

    def note(self, record: Record) -> None:
        """Queue a record.

        Threads:
            Any, one at a time; waits for nothing.
        """
        queue = self._queue
        if self._is_behind:
            self.left_out += 1
            return
        size = size_of(record)
        if (
            self._put - self._taken >= self._max_records
            or self._put_bytes - self._taken_bytes + size > self._max_bytes
        ):
            self.left_out += 1
            self.overflowed = True
            self.fall_behind()
            return
        self._put += 1
        self._put_bytes += size
        queue.records.append((self, record))
        queue.wake()

    def fall_behind(self) -> None:
        """Have the topic written anew, and nothing queued until then."""
        self._is_behind = True
        self._queue.behind.append(self)
        self._queue.wake()

    # --- the file's thread --------------------------------------------------------

    @property
    def is_behind(self) -> bool:
        """True if records are left out."""
        return self._is_behind

    @property
    def is_drained(self) -> bool:
        """True if none of its records is in the queue."""
        return self._taken == self._put

    def taken(self, record: Record) -> None:
        """Count a record that was taken from the queue."""
        self._taken += 1
        self._taken_bytes += size_of(record)

    def catch_up(self) -> Saved:
        """Return all of the topic; what is noted from now on is queued again.

        Some of it may be in both. None of its records was in the queue before.
        """
        self.left_out, self.overflowed = 0, False
        self._is_behind = False
        return self.source.dump()

    def is_written(self, number: int, saved: Saved) -> None:
        """Note what the file has of the topic."""
        self.number = number
        self.epoch, self.base, self.top = saved.epoch, saved.top, saved.top
        self.trimmed = saved.top + 1 - len(saved.entries)
        self.lapses = any(entry.expires is not None for entry in saved.entries)

    def cleared(self, epoch: str) -> None:
        """Note that the file has nothing of the topic, whose offsets are counted anew."""
        self.epoch = epoch
        self.base = self.top = self.trimmed = 0

    def floor(self) -> int:
        """Return the offset below which the file needs no messages.

        It keeps as many as the log does, though the log may be far ahead of it: it must not
        be empty if the program dies.
        """
        epoch, floor, top = self.source.span()
        return floor - max(0, top - self.top) if epoch == self.epoch else 0


def size_of(record: Record) -> int:
    """Return the bytes of a record that count."""
    if isinstance(record, Appended):
        return len(record.data)
    if isinstance(record, Changed):
        return len(record.key) + len(record.value or b"")
    return 0
