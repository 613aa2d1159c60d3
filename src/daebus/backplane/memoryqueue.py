"""What a ``MemoryBackplane`` keeps in an outage. Pure; its owner has the lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Entry", "Kept"]

# Frames that were sent last, of which some may be sent again.
SENT = 100


class Entry(NamedTuple):
    """A frame.

    Attributes:
        moment: when it was published.
        channel: for which it is.
        frame: the bytes.
    """

    moment: float
    channel: str
    frame: bytes


class Kept:
    """Keeps frames, the newest if there are too many.

    Args:
        most_bytes: of all of them.
        age: seconds after which they are dropped.

    Attributes:
        size: bytes that are kept.
        dropped: how many were dropped.
    """

    def __init__(self, most_bytes: int, age: float) -> None:
        self._most_bytes = most_bytes
        self._age = age
        self._entries: deque[Entry] = deque()
        self._sent: deque[Entry] = deque(maxlen=SENT)
        self.size = 0
        self.dropped = 0

    def clear(self) -> None:
        """Begin anew."""
        self._entries.clear()
        self._sent.clear()
        self.size = self.dropped = 0

    def add(self, entry: Entry) -> bool:
        """Keep a frame; return False if it is dropped at once."""
        self._entries.append(entry)
        self.size += len(entry.frame)
        self._forget(entry.moment)
        return bool(self._entries)

    def sent(self, entry: Entry) -> None:
        """Note a frame that left."""
        self._sent.append(entry)

    def take_back(self, count: int, now: float) -> None:
        """Keep the frames that left last, to be sent again."""
        for _ in range(min(count, len(self._sent))):
            entry = self._sent.pop()
            self._entries.appendleft(entry)
            self.size += len(entry.frame)
        self._forget(now)

    def take(self, now: float) -> Iterator[Entry]:
        """Give out all that is not too old."""
        self._forget(now)
        while self._entries:
            entry = self._entries.popleft()
            self.size -= len(entry.frame)
            yield entry

    def _forget(self, now: float) -> None:
        entries, oldest = self._entries, now - self._age
        while entries and (entries[0].moment < oldest or self.size > self._most_bytes):
            self.size -= len(entries.popleft().frame)
            self.dropped += 1
