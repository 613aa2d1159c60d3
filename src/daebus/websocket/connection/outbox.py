"""The frames that a connection could not write at once. Pure: no socket, no lock.

Bounded in bytes and in messages. A frame that was begun is always finished: only
whole frames are ever dropped or replaced.

A message costs the same however many wait, since a broadcast meets every slow client:
what may be dropped is found at the front of a queue, never by looking through it.

An entry may be a source in place of a frame, such as the cursor of a topic. When it comes to the
front it gives its next frames, and goes to the end if it has more. What it gives is bounded, and
it keeps nothing here meanwhile, so it counts against no limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal, Protocol

__all__ = ["DROPPED", "GONE", "QUEUED", "SENT", "TAKEN", "OnFull", "Outbox", "Source"]

# Results of sending a frame.
GONE: Final = 0
SENT: Final = 1
QUEUED: Final = 2
DROPPED: Final = 3
TAKEN: Final = (SENT, QUEUED)

# What to do with a message for which there is no room.
OnFull = Literal["disconnect", "drop_oldest", "drop_newest", "block"]


# Bytes that a source gives at once, about.
_TAKE: Final = 65536

# Bytes of sources that are written before another connection gets its turn.
_TURN: Final = 4 * _TAKE

# In place of the opcode of a control frame: what a source gave. There is one at most, in front.
_GIVEN: Final = -1


class Source(Protocol):
    """What is asked for frames when its turn has come."""

    def take(self, limit: int) -> tuple[bytes, bool]:
        """Return whole frames, of about that many bytes at most, and whether there is more."""


class _Entry:
    """A queued frame, or a source; ``frame`` is empty once dropped or written."""

    __slots__ = ("droppable", "frame", "key", "opcode", "source")

    def __init__(
        self, frame: bytes, droppable: bool, key: str | None, source: Source | None = None
    ) -> None:
        self.frame = frame
        self.droppable = droppable
        self.key = key
        self.source = source
        self.opcode = 0  # of a control frame


class Outbox:
    """A queue of frames, the first of which may be partly written.

    Args:
        max_bytes: queued bytes at most; a single larger frame is taken if nothing else is
            queued.
        max_messages: queued frames at most.

    Attributes:
        size: bytes queued, without those of sources.
        dropped: messages dropped or replaced so far.
        complained: True once the app was told that this client is slow; set by the writer.
    """

    __slots__ = (
        "_controls",
        "_count",
        "_droppable",
        "_entries",
        "_given",
        "_keyed",
        "_max_bytes",
        "_max_messages",
        "_offset",
        "_sources",
        "complained",
        "dropped",
        "size",
    )

    def __init__(self, max_bytes: int, max_messages: int) -> None:
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._entries: deque[_Entry] = deque()
        # In the same order; the first one waits, those behind it may have been dropped.
        self._droppable: deque[_Entry] = deque()
        self._keyed: dict[str, _Entry] = {}
        self._controls: dict[int, _Entry] = {}
        self._sources: dict[Source, None] = {}
        self._given = False  # the first entry is what a source gave
        self._offset = 0  # how much of the first entry is written
        self._count = 0
        self.size = 0
        self.dropped = 0
        self.complained = False

    def __len__(self) -> int:
        return self._count

    @property
    def is_empty(self) -> bool:
        """True if nothing waits, no source either."""
        return not (self._count or self._sources or self._given)

    def has_room(self, size: int) -> bool:
        """Tell whether a frame of that many bytes fits."""
        return not self._count or (
            self.size + size <= self._max_bytes and self._count < self._max_messages
        )

    @property
    def low(self) -> bool:
        """True below half of both limits: then a waiting sender may go on."""
        return self.size * 2 <= self._max_bytes and self._count * 2 <= self._max_messages

    def admit(
        self, frame: bytes, on_full: OnFull, *, droppable: bool, key: str | None
    ) -> bool | None:
        """Queue a message, or do what ``on_full`` says if there is no room.

        Messages marked droppable are dropped first, whatever ``on_full`` says.

        Args:
            frame: a whole frame.
            on_full: see ``OnFull``; ``"block"`` drops here, as the sender has waited already.
            droppable: this message may be dropped.
            key: replace the queued message with the same key.

        Returns:
            True if it is queued, False if it is dropped, None if the client must be cut.
        """
        size = len(frame)
        if key is not None and self.replace(frame, key):
            return True
        if not self.has_room(size) and not droppable:
            self.drop_oldest(size, droppable_only=True)
            if on_full == "drop_oldest":
                self.drop_oldest(size)
        if self.has_room(size):
            self.push(frame, droppable=droppable, key=key)
            return True
        if on_full == "disconnect" and not droppable:
            return None
        self.dropped += 1
        return False

    def push_control(self, frame: bytes, opcode: int) -> None:
        """Queue a control frame, beyond the limits: one of each kind, never dropped.

        Only the newest ping is answered (RFC 6455 section 5.5.3).
        """
        entry = self._controls.get(opcode)
        if entry is not None and not self._begun(entry):
            self.size += len(frame) - len(entry.frame)
            entry.frame = frame
            return
        self.push(frame)
        self._controls[opcode] = self._entries[-1]
        self._entries[-1].opcode = opcode

    def push(
        self, frame: bytes, offset: int = 0, *, droppable: bool = False, key: str | None = None
    ) -> None:
        """Queue a frame; ``offset`` bytes of it are written already (only of the first)."""
        entry = _Entry(frame, droppable, key)
        if self.is_empty:
            self._entries.clear()
            self._offset = offset
        elif len(self._entries) > 2 * (self._count + len(self._sources)) + 8:  # mostly dropped
            self._entries = deque(
                queued for queued in self._entries if queued.frame or queued.source is not None
            )
            self._droppable = deque(queued for queued in self._droppable if queued.frame)
        self._entries.append(entry)
        if droppable:
            self._first_droppable()  # lets go of those that have left
            self._droppable.append(entry)
        self._count += 1
        self.size += len(frame) - offset
        if key is not None and not offset:
            self._keyed[key] = entry

    def push_source(self, source: Source) -> bool:
        """Queue a source; return False if it is queued already."""
        if source in self._sources:
            return False
        if self.is_empty:
            self._entries.clear()
            self._offset = 0
        self._sources[source] = None
        self._entries.append(_Entry(b"", False, None, source))
        return True

    def push_given(self, frame: bytes, offset: int) -> None:
        """Queue the rest of a source's frame, of which so much is written; nothing waits."""
        entry = _Entry(frame, False, None)
        entry.opcode = _GIVEN
        self._given = True
        self._entries.clear()
        self._entries.append(entry)
        self._offset = offset

    def drop_sources(self) -> None:
        """Forget all sources; what was given is still written."""
        self._sources.clear()
        self._entries = deque(entry for entry in self._entries if entry.source is None)

    def replace(self, frame: bytes, key: str) -> bool:
        """Replace the queued frame with that key by a newer one.

        Returns:
            False if the newer frame must still be queued: no frame has that key, or there is
            no room in its place.
        """
        entry = self._keyed.get(key)
        if entry is None or self._begun(entry):
            return False
        self.dropped += 1
        growth = len(frame) - len(entry.frame)
        if growth > 0 and self._count > 1 and self.size + growth > self._max_bytes:
            self._remove(entry)  # it must not follow the newer one, which has no room here
            return False
        self.size += len(frame) - len(entry.frame)
        entry.frame = frame
        return True

    def drop_oldest(self, size: int, *, droppable_only: bool = False) -> int:
        """Make room for a frame of that many bytes.

        Returns:
            How many frames were dropped; that may not have made enough room.
        """
        dropped = 0
        passed: list[_Entry] = []  # the one that was begun, each source and control frame
        while not self.has_room(size):
            entry = self._first_droppable() if droppable_only else self._take_oldest(passed)
            if entry is None:
                break
            self._remove(entry)
            dropped += 1
        self._entries.extendleft(reversed(passed))
        self.dropped += dropped
        return dropped

    def clear(self) -> int:
        """Drop everything except the rest of a partly written frame.

        Returns:
            How many frames were dropped.
        """
        dropped = 0
        self.drop_sources()
        for entry in list(self._entries):
            if entry.frame and not self._begun(entry):
                dropped += entry.opcode != _GIVEN
                self._remove(entry)
        self.dropped += dropped
        return dropped

    def write(self, send: Callable[[bytes | memoryview], int]) -> int:
        """Write queued frames until none is left or no more bytes are taken.

        Of sources some is left for the next call, since others wait for the same thread.

        Args:
            send: writes bytes; returns how many it took.

        Returns:
            How many bytes were taken.
        """
        total = 0
        while chunk := self.chunk():
            written = send(chunk)
            self.advance(written)
            total += written
            if written < len(chunk) or (self._sources and total >= _TURN):
                break
        return total

    def chunk(self, limit: int = 262144) -> bytes | memoryview:
        """Return what to write next: the rest of the first frame, or several small ones.

        It is empty if nothing waits, and no source has anything.
        """
        entries = self._entries
        while entries and not entries[0].frame:
            source = entries[0].source
            if source is None or not self._render(entries[0], source):
                entries.popleft()  # dropped, or without anything
        if not entries:
            return b""
        first = entries[0]
        if self._offset or len(entries) == 1 or len(first.frame) >= limit:
            return memoryview(first.frame)[self._offset :]
        parts: list[bytes] = []
        total = 0
        for entry in entries:
            total += len(entry.frame)
            if entry.source is not None or (total > limit and parts):
                break
            parts.append(entry.frame)
        return b"".join(parts)

    def _render(self, entry: _Entry, source: Source) -> bool:
        """Have the source in front give its frames; return False if it had none."""
        del self._sources[source]
        entry.source = None
        entry.frame, more = source.take(_TAKE)
        if entry.frame:
            entry.opcode = _GIVEN
            self._given = True
        if more:  # behind this entry, which counts from now on
            self.push_source(source)
        return self._given

    def advance(self, written: int) -> None:
        """Note that so many bytes of the chunk are written."""
        while self._entries:
            entry = self._entries[0]
            if entry.source is not None:
                return
            rest = len(entry.frame) - self._offset
            taken = min(written, rest)
            if not self._given:
                self.size -= taken
            if taken < rest:
                self._offset += taken
                return
            written -= rest
            self._offset = 0
            self._entries.popleft()
            if self._given:
                self._given = False
            elif entry.frame:
                self._count -= 1
                self._unlist(entry)
            entry.frame = b""

    def _begun(self, entry: _Entry) -> bool:
        return bool(self._offset) and entry is self._entries[0]

    def _first_droppable(self) -> _Entry | None:
        """Return the oldest droppable entry that may still be dropped."""
        waiting = self._droppable
        while waiting and (not waiting[0].frame or self._begun(waiting[0])):
            waiting.popleft()
        return waiting[0] if waiting else None

    def _take_oldest(self, passed: list[_Entry]) -> _Entry | None:
        """Take the oldest entry that may be dropped out of the queue.

        Args:
            passed: gets those before it that must stay, to be put back.
        """
        while self._entries:
            entry = self._entries.popleft()
            if not entry.frame and entry.source is None:  # dropped
                continue
            if not (entry.opcode or entry.source or (self._offset and not passed)):
                return entry
            passed.append(entry)
        return None

    def _remove(self, entry: _Entry) -> None:
        if entry.opcode == _GIVEN:
            self._given = False
        else:
            self.size -= len(entry.frame)
            self._count -= 1
        entry.frame = b""
        self._unlist(entry)

    def _unlist(self, entry: _Entry) -> None:
        if entry.key is not None and self._keyed.get(entry.key) is entry:
            del self._keyed[entry.key]
        if entry.opcode and self._controls.get(entry.opcode) is entry:
            del self._controls[entry.opcode]
