"""The frames that a connection could not write at once. Pure: no socket, no lock.

Bounded in bytes and in messages. A frame that was begun is always finished: only
whole frames are ever dropped or replaced.

A message costs the same however many wait, since a broadcast meets every slow client:
what may be dropped is found at the front of a queue, never by looking through it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal

__all__ = ["DROPPED", "GONE", "QUEUED", "SENT", "TAKEN", "OnFull", "Outbox"]

# Results of sending a frame.
GONE: Final = 0
SENT: Final = 1
QUEUED: Final = 2
DROPPED: Final = 3
TAKEN: Final = (SENT, QUEUED)

# What to do with a message for which there is no room.
OnFull = Literal["disconnect", "drop_oldest", "drop_newest", "block"]


class _Entry:
    """A queued frame; ``frame`` is empty once dropped or written."""

    __slots__ = ("droppable", "frame", "key", "opcode")

    def __init__(self, frame: bytes, droppable: bool, key: str | None) -> None:
        self.frame = frame
        self.droppable = droppable
        self.key = key
        self.opcode = 0  # of a control frame


class Outbox:
    """A queue of frames, the first of which may be partly written.

    Args:
        max_bytes: queued bytes at most; a single larger frame is taken if nothing else is
            queued.
        max_messages: queued frames at most.

    Attributes:
        size: bytes queued.
        dropped: messages dropped or replaced so far.
        complained: True once the app was told that this client is slow; set by the writer.
    """

    __slots__ = (
        "_controls",
        "_count",
        "_droppable",
        "_entries",
        "_keyed",
        "_max_bytes",
        "_max_messages",
        "_offset",
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
        self._offset = 0  # how much of the first entry is written
        self._count = 0
        self.size = 0
        self.dropped = 0
        self.complained = False

    def __len__(self) -> int:
        return self._count

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
        if not self._count:
            self._entries.clear()
            self._offset = offset
        elif len(self._entries) > 2 * self._count + 8:  # mostly dropped ones
            self._entries = deque(queued for queued in self._entries if queued.frame)
            self._droppable = deque(queued for queued in self._droppable if queued.frame)
        self._entries.append(entry)
        if droppable:
            self._first_droppable()  # lets go of those that have left
            self._droppable.append(entry)
        self._count += 1
        self.size += len(frame) - offset
        if key is not None and not offset:
            self._keyed[key] = entry

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
        passed: list[_Entry] = []  # the one that was begun, and one of each control frame
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
        for entry in list(self._entries):
            if entry.frame and not self._begun(entry):
                self._remove(entry)
                dropped += 1
        self.dropped += dropped
        return dropped

    def write(self, send: Callable[[bytes | memoryview], int]) -> int:
        """Write queued frames until none is left or no more bytes are taken.

        Args:
            send: writes bytes; returns how many it took.

        Returns:
            How many bytes were taken.
        """
        total = 0
        while self._count:
            chunk = self.chunk()
            written = send(chunk)
            self.advance(written)
            total += written
            if written < len(chunk):
                break
        return total

    def chunk(self, limit: int = 262144) -> bytes | memoryview:
        """Return what to write next: the rest of the first frame, or several small ones."""
        while not self._entries[0].frame:  # dropped
            self._entries.popleft()
        first = self._entries[0]
        if self._offset or len(self._entries) == 1 or len(first.frame) >= limit:
            return memoryview(first.frame)[self._offset :]
        parts: list[bytes] = []
        total = 0
        for entry in self._entries:
            total += len(entry.frame)
            if total > limit and parts:
                break
            parts.append(entry.frame)
        return b"".join(parts)

    def advance(self, written: int) -> None:
        """Note that so many bytes of the chunk are written."""
        self.size -= written
        while self._entries:
            entry = self._entries[0]
            rest = len(entry.frame) - self._offset
            if written < rest:
                self._offset += written
                return
            written -= rest
            self._offset = 0
            self._entries.popleft()
            if entry.frame:
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
            if not entry.frame:  # dropped
                continue
            if not (entry.opcode or (self._offset and not passed)):
                return entry
            passed.append(entry)
        return None

    def _remove(self, entry: _Entry) -> None:
        self.size -= len(entry.frame)
        self._count -= 1
        entry.frame = b""
        self._unlist(entry)

    def _unlist(self, entry: _Entry) -> None:
        if entry.key is not None and self._keyed.get(entry.key) is entry:
            del self._keyed[entry.key]
        if entry.opcode and self._controls.get(entry.opcode) is entry:
            del self._controls[entry.opcode]
