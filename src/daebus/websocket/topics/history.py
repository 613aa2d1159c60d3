"""The log of a history topic: the newest messages, within three bounds. Pure.

Rules of this module:

1. Offsets count every message ever published, from 1. Those that are still there are
   ``floor`` to ``top``.
2. The oldest message goes when there are too many, when they are too large together, or when
   it is too old, whichever comes first. One that is larger than all may be is not kept at all.
3. A message is encoded once; what is read are the same bytes that went out.
4. An exception may come between any two steps, such as ``KeyboardInterrupt``. So what belongs
   together is one tuple, and each change of it is one assignment.
"""

from __future__ import annotations

from typing import NamedTuple

from .envelopes import Event, gap, publication_head
from .position import Answer, Position, Reason, new_epoch, next_epoch

__all__ = ["Chunk", "Entry", "History", "Saved", "Turn"]


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


class Turn(NamedTuple):
    """How readers of another epoch come into this one.

    Attributes:
        prior: an epoch whose offsets mean the same messages in this one, up to a point.
        until: that point: whoever has come further goes on from here.
        base: where readers of all other epochs go on.
        reason: what they are told.
    """

    prior: str = ""
    until: int = 0
    base: int = 0
    reason: str = "epoch"

    def place(self, epoch: str, sent: int) -> int:
        """Return the offset behind which a reader of another epoch goes on."""
        return min(sent, self.until) if epoch == self.prior else self.base


class _Kept(NamedTuple):
    payload: bytes
    start: int  # of the data in it
    message_type: str
    time: float
    moment: float


class _State(NamedTuple):
    """All that a publication changes.

    Attributes:
        epoch: see ``History``.
        top: see ``History``.
        size: see ``History``.
        kept: has the messages at the places from ``start`` to before ``stop``. Those before are
            given up when they are the most. One behind is of a publication that an exception
            has ended.
        start: place of the oldest message.
        stop: place behind the newest.
    """

    epoch: str
    top: int
    size: int
    kept: list[_Kept | None]
    start: int
    stop: int


class History:
    """The newest messages of one topic.

    Args:
        topic: its name.
        count: how many messages are kept.
        max_bytes: how many bytes of them.
        max_age: seconds; None for no limit.
        replay_limit: how many messages a new subscriber may be sent at once.

    Attributes:
        topic: its name.
        gaps: how often a reader was told that it had missed something.
    """

    __slots__ = (
        "_count", "_lost", "_max_age", "_max_bytes", "_replay_limit", "_state", "_turn", "gaps",
        "topic",
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
        self.gaps = 0
        self._count = count
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._replay_limit = replay_limit
        self._state = _State(new_epoch(), 0, 0, [], 0, 0)
        self._turn = Turn()
        self._lost = 0  # what is missing up to this offset did not come from the other nodes

    def __len__(self) -> int:
        state = self._state
        return state.stop - state.start

    @property
    def epoch(self) -> str:
        """The count of offsets."""
        return self._state.epoch

    @property
    def top(self) -> int:
        """Offset of the newest message; 0 before the first."""
        return self._state.top

    @property
    def size(self) -> int:
        """Bytes of the messages that are kept."""
        return self._state.size

    @property
    def floor(self) -> int:
        """Offset of the oldest message that is kept; one behind the top if none is."""
        state = self._state
        return state.top + 1 - (state.stop - state.start)

    def append(self, message_type: str, data: bytes, time: float, moment: float) -> Event:
        """Add a message, and let the oldest go that are beyond a bound.

        Args:
            message_type: its type.
            data: its data, as JSON.
            time: Unix time, for those who read it.
            moment: of the clock that ages are measured by.
        """
        state = self._with(self._state, message_type, data, time, moment)
        newest = state.kept[-1]
        assert newest is not None
        self._become(self._trimmed(state, moment))
        return Event(message_type, newest.payload, state.top)

    def _with(
        self, state: _State, message_type: str, data: bytes, time: float, moment: float
    ) -> _State:
        """Return the state with one more message; until it is set nobody reads that."""
        epoch, top, size, kept, start, stop = state
        head = publication_head(message_type, self.topic, top + 1)
        payload = b"%b%b}" % (head, data)
        if len(kept) > stop:
            del kept[stop:]
        kept.append(_Kept(payload, len(head), message_type, time, moment))
        return _State(epoch, top + 1, size + len(payload), kept, start, stop + 1)

    def trim(self, moment: float, most: int | None = None) -> bool:
        """Let go of what is beyond the bounds at that moment.

        Args:
            moment: now.
            most: so many messages at most; None for all.

        Returns:
            False if nothing is.
        """
        state = self._trimmed(self._state, moment, most)
        if state is self._state:
            return False
        self._become(state)
        return True

    def next_due(self) -> float | None:
        """Return the moment when the oldest message is too old; None for never."""
        state = self._state
        first = state.kept[state.start] if state.start < state.stop else None
        return None if first is None or self._max_age is None else first.moment + self._max_age

    def _trimmed(self, state: _State, moment: float, most: int | None = None) -> _State:
        """Return the state without what is beyond the bounds, so many messages at most."""
        epoch, top, size, kept, start, stop = state
        max_age, end = self._max_age, stop if most is None else min(stop, start + most)
        while start < end:
            first = kept[start]
            assert first is not None
            if not (
                stop - start > self._count
                or size > self._max_bytes
                or (max_age is not None and first.moment + max_age <= moment)
            ):
                break
            size -= len(first.payload)
            start += 1
        if start == state.start:
            return state
        if start > 64 and start * 2 > stop:
            # A new list: who reads without a lock has the old one.
            kept, start, stop = kept[start:stop], 0, stop - start
        return _State(epoch, top, size, kept, start, stop)

    def _become(self, state: _State) -> None:
        """Set the state; then free what is no longer in it."""
        before, self._state = self._state, state
        kept = state.kept
        for index in range(before.start if kept is before.kept else 0, state.start):
            kept[index] = None

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
            turn = self._turn
            sent = max(before, min(turn.place(epoch, sent), self.top))
            events.append(self._gap(sent, None, turn.reason))
        elif sent < before:
            reason = "backplane" if sent < self._lost else "slow"
            events.append(self._gap(before, before - sent, reason))
            sent = before
        kept, start, stop = self._state[3:]
        size = 0
        for index in range(start + sent - before, stop):
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
        found = self._messages()
        if last is not None:
            found = found[max(0, len(found) - last) :]
        return [(message.payload, message.time) for message in found]

    def _messages(self) -> list[_Kept]:
        """Return all messages; one look, so that some may be gone already."""
        kept, start, stop = self._state[3:]
        return [message for message in kept[start:stop] if message is not None]

    def contents(self) -> bytes:
        """Return all messages, as a list in JSON."""
        return b"[%b]" % b",".join([message.payload for message in self._messages()])

    def clear(self) -> None:
        """Forget all messages: the offsets are counted anew, in another epoch."""
        self._turn = Turn()
        self._state = _State(next_epoch(self.epoch), 0, 0, [], 0, 0)

    def rename(self, epoch: str, turn: Turn) -> None:
        """Go on in another epoch, with what is there."""
        self._turn = turn
        self._state = self._state._replace(epoch=epoch)

    def cut(self, top: int) -> list[Entry]:
        """Take back the messages behind an offset, and return them."""
        entries, top = self.aged(), min(top, self.top)
        left = [entry for entry in entries if entry.offset <= top]
        self._become(self._filled(_State(self.epoch, top - len(left), 0, [], 0, 0), left))
        return entries[len(left) :]

    def adopt(self, epoch: str, top: int, entries: list[Entry], turn: Turn, moment: float) -> None:
        """Hold what others have published, and nothing else.

        Args:
            epoch: of theirs.
            top: offset of the newest.
            entries: the newest ones, as of ``aged``, without a gap among them, up to the top.
            turn: how readers come into it.
            moment: now, of that clock.
        """
        if epoch == self.epoch and (not entries or entries[0].offset > self.top + 1):
            self._lost = top - len(entries)
        state = self._filled(_State(epoch, top - len(entries), 0, [], 0, 0), entries)
        self._turn = turn
        self._become(self._trimmed(state, moment))

    def _filled(self, state: _State, entries: list[Entry]) -> _State:
        for entry in entries:
            assert entry.expires is not None
            state = self._with(state, entry.key, entry.data, entry.time, entry.expires)
        return state

    def aged(self) -> list[Entry]:
        """Return the messages; ``expires`` of each is the moment from which its age counts."""
        messages = self._messages()
        return [
            Entry(offset, kept.message_type, kept.payload[kept.start : -1], kept.time, kept.moment)
            for offset, kept in enumerate(messages, self.top + 1 - len(messages))
        ]

    def at(self, offset: int) -> Entry | None:
        """Return a message that is there; one look."""
        state = self._state
        place = state.stop - 1 - (state.top - offset)
        kept = state.kept[place] if state.start <= place < state.stop else None
        if kept is None:
            return None
        return Entry(offset, kept.message_type, kept.payload[kept.start : -1], kept.time)

    def dump(self) -> Saved:
        """Return all that is to be saved."""
        entries = [
            Entry(offset, kept.message_type, kept.payload[kept.start : -1], kept.time)
            for offset, kept in enumerate(self._messages(), self.floor)
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
        epoch = saved.epoch if keep_epoch else self.epoch
        # Those that were saved have no gap among them; what is before them has gone.
        state = _State(epoch, saved.top - len(saved.entries), 0, [], 0, 0)
        for entry in [*saved.entries, *self.dump().entries]:
            then = moment - max(0.0, time - entry.time)
            state = self._with(state, entry.key, entry.data, entry.time, then)
            state = self._trimmed(state, then)
        self._become(self._trimmed(state, moment))
