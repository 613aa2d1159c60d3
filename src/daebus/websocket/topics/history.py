"""The log of a history topic: the newest messages, within three bounds. Pure.

Rules of this module:

1. Offsets count every message ever published, from 1. Those that are still there are
   ``floor`` to ``top``.
2. The oldest message goes when there are too many, when they are too large together, or when
   it is too old, whichever comes first. One that is larger than all may be is not kept at all.
3. A message is encoded once; what is read are the same bytes that went out.
"""

from __future__ import annotations

from typing import NamedTuple

from .envelopes import Event, gap, publication_head
from .position import Answer, Position, Reason, new_epoch, next_epoch

__all__ = ["Chunk", "Entry", "History", "Saved"]


class Entry(NamedTuple):
    """One message as it is saved.

    Attributes:
        offset: its number.
        key: its type; of a state, the key.
        data: its data, or the value, as JSON.
        time: Unix time of its publication.
        expires: of a value of a state with a time to live, Unix time; else None.
    """

    offset: int
    key: str
    data: bytes
    time: float
    expires: float | None = None


class Saved(NamedTuple):
    """All of a topic, to be kept over the end of a program.

    Attributes:
        epoch: its count of offsets.
        top: offset of the last message or change.
        entries: the messages or values, in the order of their offsets.
    """

    epoch: str
    top: int
    entries: list[Entry]


class Chunk(NamedTuple):
    """What a reader gets at once, and where it stands then.

    Attributes:
        events: the messages.
        epoch: of the position.
        sent: the offset up to which the reader has been told.
        base: see ``Values.read``.
        more: there is more to read.
    """

    events: list[Event]
    epoch: str
    sent: int
    base: int
    more: bool


class _Kept(NamedTuple):
    payload: bytes
    start: int  # of the data in it
    message_type: str
    time: float
    moment: float


class History:
    """The newest messages of one topic.

    Args:
        topic: its name.
        count: how many messages are kept.
        max_bytes: how many bytes of them.
        max_age: seconds; None for no limit.
        replay_limit: how many messages a new subscriber may be sent at once.

    Attributes:
        epoch: the count of offsets.
        top: offset of the newest message; 0 before the first.
        size: bytes of the messages that are kept.
        gaps: how often a reader was told that it had missed something.
    """

    __slots__ = (
        "_count", "_kept", "_max_age", "_max_bytes", "_replay_limit", "_start", "epoch", "gaps",
        "size", "top", "topic",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        *,
        count: int = 1000,
        max_bytes: int = 1 << 20,
        max_age: float | None = 300.0,
        replay_limit: int = 1000,
    ) -> None:
        self.topic = topic
        self.epoch = new_epoch()
        self.top = 0
        self.size = 0
        self.gaps = 0
        self._count = count
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._replay_limit = replay_limit
        # The first ``_start`` places are empty; they are given up when they are the most.
        self._kept: list[_Kept | None] = []
        self._start = 0

    def __len__(self) -> int:
        return len(self._kept) - self._start

    @property
    def floor(self) -> int:
        """Offset of the oldest message that is kept; one behind the top if none is."""
        return self.top + 1 - len(self)

    def append(self, message_type: str, data: bytes, time: float, moment: float) -> Event:
        """Add a message, and let the oldest go that are beyond a bound.

        Args:
            message_type: its type.
            data: its data, as JSON.
            time: Unix time, for those who read it.
            moment: of the clock that ages are measured by.
        """
        offset = self.top + 1
        head = publication_head(message_type, self.topic, offset)
        payload = b"%b%b}" % (head, data)
        self._kept.append(_Kept(payload, len(head), message_type, time, moment))
        self.size += len(payload)
        self.top = offset
        self.trim(moment)
        return Event(message_type, payload, offset)

    def trim(self, moment: float) -> None:
        """Let go of what is beyond the bounds at that moment."""
        kept, start = self._kept, self._start
        oldest = None if self._max_age is None else moment - self._max_age
        while start < len(kept):
            first = kept[start]
            assert first is not None
            if not (
                len(kept) - start > self._count
                or self.size > self._max_bytes
                or (oldest is not None and first.moment < oldest)
            ):
                break
            self.size -= len(first.payload)
            kept[start] = None
            start += 1
        if start > 64 and start * 2 > len(kept):
            # A new list: who reads without a lock has the old one.
            kept, start = kept[start:], 0
        self._kept, self._start = kept, start

    def begin(self, since: Position | None, last: int) -> tuple[Answer, int]:
        """Decide where a new subscriber begins.

        Args:
            since: where it stood before; None if it is new.
            last: how many messages it wants if it cannot go on from there.

        Returns:
            The answer, and the offset behind which it begins.
        """
        reason = self._reason(since)
        missed: int | None = 0
        if reason is None:
            assert since is not None
            sent = since.offset
        else:
            sent = self.top - min(last, len(self), self._replay_limit)
            counted = since if reason in ("expired", "limit") else None
            missed = None if counted is None else sent - counted.offset
        replay = self.top - sent
        answer = Answer(
            self.topic, "history", self.epoch, self.top, reason is None, reason, replay, missed
        )
        return answer, sent

    def _reason(self, since: Position | None) -> Reason | None:
        """Return why a subscriber cannot go on from a position; None if it can."""
        if since is None:
            return "new"
        if since.epoch != self.epoch:
            return "epoch"
        if since.offset > self.top:
            return "ahead"
        if since.offset < self.floor - 1:
            return "expired"
        return "limit" if self.top - since.offset > self._replay_limit else None

    def read(self, epoch: str, sent: int, base: int, limit: int) -> Chunk:
        """Return the next messages of a reader, whole ones, until they are of that size.

        Args:
            epoch: of its position.
            sent: the offset up to which it was told.
            base: handed back.
            limit: bytes; one message may be larger.
        """
        events: list[Event] = []
        before = self.floor - 1
        if epoch != self.epoch:
            events.append(self._gap(before, None, "epoch"))
            sent = before
        elif sent < before:
            events.append(self._gap(before, before - sent, "slow"))
            sent = before
        kept, size = self._kept, 0
        for index in range(self._start + sent - before, len(kept)):
            message = kept[index]
            assert message is not None
            if size and size + len(message.payload) > limit:
                return Chunk(events, self.epoch, sent, base, more=True)
            size += len(message.payload)
            sent += 1
            events.append(Event(message.message_type, message.payload, sent))
        return Chunk(events, self.epoch, sent, base, more=False)

    def _gap(self, offset: int, missed: int | None, reason: str) -> Event:
        self.gaps += 1
        return Event("gap", gap(self.topic, self.epoch, offset, missed, reason), offset)

    def newest(self, last: int | None = None) -> list[tuple[bytes, float]]:
        """Return the newest messages and their times, the oldest first.

        Args:
            last: how many at most; None for all.

        Threads:
            Any, without a lock: one look.
        """
        found = [message for message in self._kept.copy() if message is not None]
        if last is not None:
            found = found[max(0, len(found) - last) :]
        return [(message.payload, message.time) for message in found]

    def contents(self) -> bytes:
        """Return all messages, as a list in JSON."""
        kept = [message.payload for message in self._kept if message is not None]
        return b"[%b]" % b",".join(kept)

    def clear(self) -> None:
        """Forget all messages: the offsets are counted anew, in another epoch."""
        self.epoch = next_epoch(self.epoch)
        self.top = self.size = self._start = 0
        self._kept = []

    def dump(self) -> Saved:
        """Return all that is to be saved."""
        entries = [
            Entry(offset, kept.message_type, kept.payload[kept.start : -1], kept.time)
            for offset, kept in enumerate(self._kept[self._start :], self.floor)
            if kept is not None
        ]
        return Saved(self.epoch, self.top, entries)

    def restore(self, saved: Saved, time: float, moment: float, *, keep_epoch: bool) -> None:
        """Put what was saved before what is there; for a topic that nobody has read.

        Args:
            saved: of an earlier run.
            time: Unix time now.
            moment: the same, of the clock that ages are measured by.
            keep_epoch: nothing can have been lost since, so that positions go on.
        """
        own = self.dump().entries
        self.epoch = saved.epoch if keep_epoch else self.epoch
        self._kept, self._start, self.size = [], 0, 0
        # Those that were saved have no gap among them; what is before them has gone.
        self.top = saved.top - len(saved.entries)
        for entry in [*saved.entries, *own]:
            age = max(0.0, time - entry.time)
            self.append(entry.key, entry.data, entry.time, moment - age)
        self.trim(moment)
