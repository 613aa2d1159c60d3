"""Which log records are repeats, and how many there were.

A client can have the same line logged as often as it sends messages, with a traceback each.
So the first of a kind is written whole, and the others are counted; the count is written
once a minute while there are more, and what has been silent for a minute is forgotten, so
that the next one is written whole again.

There is no thread and no timer: counts that are due are written with the next record of
ours, of any kind, and the last ones at the stop of an app.
"""

from __future__ import annotations

import math
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from ...interrupts.stack import inside
from ...waits import monotonic

__all__ = ["FOLD_SECONDS", "MAX_KINDS", "Count", "Repeats", "place_of"]

# Seconds between two lines about the same.
FOLD_SECONDS = 60.0

# Kinds that are remembered: a kind is a place in a program, so few have that many.
MAX_KINDS = 256

# Frames, from where an exception was raised outwards, that tell its place: a handler and
# the helper that it called, but not all of a recursion, whose depth a client may choose.
_FRAMES = 3


@dataclass(slots=True)
class Count:
    """Repeats of one kind since something was written of it.

    Attributes:
        logger: the name of the logger.
        level: of the records.
        text: of the first one, which was written whole.
        number: of repeats.
        since: moment at which something was written.
        last: moment of the newest record.
    """

    logger: str
    level: int
    text: str
    since: float
    last: float
    number: int = 0


def place_of(exc: BaseException) -> tuple[tuple[str, int], ...]:
    """Return where an exception was raised, as the innermost frames of its traceback."""
    frames = [
        (frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(exc.__traceback__)
    ]
    return tuple(frames[-_FRAMES:])


class Repeats:
    """Counts repeats by kind; bounded.

    Args:
        clock: seconds, as of ``time.monotonic``.

    Threads:
        Every method may be called from any thread, and never waits.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: OrderedDict[Hashable, Count] = OrderedDict()  # guarded by: _lock
        self._due = math.inf  # guarded by: _lock; no count is due before

    def meet(self, kind: Hashable, logger: str, level: int) -> tuple[Count | None, list[Count]]:
        """Count a record.

        Args:
            kind: made of plain strings and numbers, whose comparison is no code of the user's.
            logger: its name.
            level: of the record.

        Returns:
            None if it is a repeat; else its count, which is given the text of the record, and
            the counts that were forgotten for it and have yet to be written.
        """
        now = self._clock()
        forgotten: list[Count] = []
        if self._lock.locked() and inside():  # what interrupted this thread logs too
            return Count(logger, level, "", now, now), forgotten
        with self._lock:
            count = self._counts.get(kind)
            if count is not None:
                count.number += 1
                count.last = now
                return None, forgotten
            first = self._counts[kind] = Count(logger, level, "", now, now)
            self._due = min(self._due, now + FOLD_SECONDS)
            while len(self._counts) > MAX_KINDS:
                forgotten.append(self._counts.popitem(last=False)[1])
        return first, [count for count in forgotten if count.number]

    def take_due(self) -> list[Count]:
        """Return the counts that are to be written now, and begin them anew."""
        now = self._clock()
        if now < self._due:  # unguarded: a late look writes with the next record
            return []
        due: list[Count] = []
        if self._lock.locked() and inside():
            return due
        with self._lock:
            for kind, count in list(self._counts.items()):
                if now - count.since < FOLD_SECONDS:
                    continue
                if count.number:
                    due.append(count)
                if now - count.last >= FOLD_SECONDS:
                    del self._counts[kind]
                else:
                    anew = Count(count.logger, count.level, count.text, now, count.last)
                    self._counts[kind] = anew
                    self._counts.move_to_end(kind)
            starts = [count.since for count in self._counts.values()]
            self._due = min(starts, default=math.inf) + FOLD_SECONDS
        return due

    def take_all(self) -> list[Count]:
        """Return all counts that have yet to be written, and forget everything."""
        if self._lock.locked() and inside():
            return []
        with self._lock:
            counts, self._counts = self._counts, OrderedDict()
            self._due = math.inf
        return [count for count in counts.values() if count.number]
