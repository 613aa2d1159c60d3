"""The log of a state topic: the latest value of each key, and the order of the changes. Pure.

Rules of this module:

1. Every change of a key has an offset of its own, also where a message carries several; a
   message's offset is that of its last change. So a reader can stop between any two keys.
2. What changed since an offset is found in the list of changes, of which only the last of each
   key is valid. Keys that were removed are remembered, but not for ever: a reader from before
   the last one that was forgotten gets all of the state.
3. Values are kept encoded; a message joins bytes and encodes nothing.
4. A change that would break a bound is refused as a whole, before anything is changed.
5. An exception may come between any two steps, such as ``KeyboardInterrupt``. What follows from
   the items and the removed keys is made anew before it is next used.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from operator import itemgetter

from .envelopes import Event, Item, check_limits, gap, heap_of, make_item, quote, state
from .history import Chunk, Entry, Saved
from .position import SNAPSHOT, UNTOLD, Answer, Position, Reason, new_epoch

__all__ = ["Values"]

_offset_of = itemgetter(0)

# What a key costs besides its bytes is bounded by their number; short lists are not compacted.
_FEW = 64


class Values:
    """The values of one state topic.

    Args:
        topic: its name.
        message_type: of its messages.
        max_keys: keys at most, and removed ones that are remembered.
        max_bytes: bytes of keys and values at most, as JSON.

    Attributes:
        epoch: the count of offsets.
        top: offset of the latest change; 0 before the first.
        floor: offset of the latest removal that is no longer remembered.
        size: bytes of keys and values.
        gaps: how often a reader was told that the state was replaced.
    """

    __slots__ = (
        "_changes", "_expiries", "_gone", "_gone_size", "_items", "_max_bytes", "_max_keys",
        "_reason_anew", "_whole", "epoch", "floor", "gaps", "message_type", "size", "top", "topic",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        *,
        message_type: str = "state",
        max_keys: int = 1000,
        max_bytes: int = 1 << 20,
    ) -> None:
        self.topic = topic
        self.message_type = message_type
        self.epoch = new_epoch()
        self.top = 0
        self.floor = 0
        self.size = 0
        self.gaps = 0
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._reason_anew = "epoch"
        self._items: dict[str, Item] = {}
        self._gone: dict[str, int] = {}  # in the order of their offsets
        self._gone_size = 0
        self._changes: list[tuple[int, str]] = []  # rising; some are no longer valid
        self._expiries: list[tuple[float, str]] = []  # a heap; some are no longer valid
        self._whole = True  # False while a change is under way

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str, moment: float) -> bytes | None:
        """Return a value as JSON; None if there is none, or it has expired by that moment.

        Threads:
            Any, without a lock: one look.
        """
        item = self._items.get(key)
        if item is None or (item.expires is not None and item.expires <= moment):
            return None
        return item.text[item.start :]

    def items(self, moment: float) -> list[tuple[str, bytes]]:
        """Return keys and values as JSON, in the order in which the keys came.

        Threads:
            Any, without a lock: one look.
        """
        return [
            (key, item.text[item.start :])
            for key, item in self._items.copy().items()
            if item.expires is None or item.expires > moment
        ]

    def trim(self, moment: float) -> None:
        """Do nothing: what expires is removed by whoever owns it, who tells of it."""

    def change(
        self,
        values: Mapping[str, bytes],
        removed: Collection[str] = (),
        *,
        expires: float | None = None,
        time: float = 0.0,
    ) -> tuple[list[str], list[str]]:
        """Set and remove keys; what is as it was does not count as changed.

        Args:
            values: as JSON.
            removed: keys; those that are not there are passed over.
            expires: the moment when these values are due to be removed; None for never.
            time: Unix time.

        Returns:
            The keys that were set and those that were removed.

        Raises:
            StateLimitError: there would be too many keys or bytes; nothing is changed.
        """
        self._mend()
        items, fresh = self._items, {}
        renewed: dict[str, Item] = {}
        going = [key for key in dict.fromkeys(removed) if key in items and key not in values]
        count, size = len(items) - len(going), self.size
        size -= sum(len(items[key].text) for key in going)
        for key, value in values.items():
            head = quote(key)
            text = b"%b:%b" % (head, value)
            known = items.get(key)
            if known is not None and known.text == text:
                if known.expires != expires:
                    renewed[key] = known._replace(expires=expires)
                continue
            count += known is None
            size += len(text) - (0 if known is None else len(known.text))
            fresh[key] = (text, len(head) + 1)
        if fresh:  # removing is always possible
            self.check(count, size)
        self._whole = False
        for key, item in renewed.items():
            self._expire(key, item)
        for key, (text, start) in fresh.items():
            self.top += 1
            self._changes.append((self.top, key))
            self._expire(key, Item(self.top, text, start, time, expires))
            if key in self._gone:
                del self._gone[key]
                self._gone_size -= len(key)
        for key in going:
            self.top += 1
            self._changes.append((self.top, key))
            self._gone[key] = self.top
            self._gone_size += len(key)
            del items[key]
        self.size = size
        self._forget()
        self._whole = True
        return list(fresh), going

    def accept(
        self,
        values: Mapping[str, bytes],
        removed: Collection[str],
        top: int,
        *,
        expires: float | None,
        time: float,
    ) -> None:
        """Set and remove keys as somebody else has, who judged it; see ``change``.

        Args:
            values: as JSON.
            removed: keys.
            top: offset of the last of them, each of which has one of its own.
            expires: the moment when these values are due to be removed; None for never.
            time: Unix time.
        """
        self._mend()
        self._whole = False
        items, gone, offset = self._items, self._gone, top - len(values) - len(removed)
        for key in (*values, *removed):
            offset += 1
            self._changes.append((offset, key))
            known = items.pop(key, None) if key not in values else items.get(key)
            self.size -= 0 if known is None else len(known.text)
            if gone.pop(key, None) is not None:
                self._gone_size -= len(key)
            if key in values:
                item = make_item(offset, key, values[key], time, expires)
                self.size += len(item.text)
                self._expire(key, item)
            else:
                gone[key] = offset
                self._gone_size += len(key)
        self.top = top
        self._forget()
        self._whole = True

    def adopt(
        self, epoch: str, top: int, floor: int, entries: Iterable[Entry], reason: str
    ) -> None:
        """Hold what others have set, and nothing else.

        Args:
            epoch: of theirs.
            top: offset of the newest change.
            floor: offset of the newest removal.
            entries: the values; what expires says a moment.
            reason: what readers of another epoch are told.
        """
        self._whole = False
        self._items = {
            entry.key: make_item(entry.offset, entry.key, entry.data, entry.time, entry.expires)
            for entry in sorted(entries)
        }
        self._gone = {}
        self.epoch, self.top, self.floor, self._reason_anew = epoch, top, floor, reason
        self._mend()

    def rename(self, epoch: str, reason: str) -> None:
        """Go on in another epoch, with what is there."""
        self.epoch, self._reason_anew = epoch, reason

    def behind(self, offset: int) -> tuple[list[Entry], list[str]]:
        """Return the values that were set, and the keys that were removed, since an offset."""
        self._mend()
        fresh = [entry for entry in self.dump().entries if entry.offset > offset]
        return fresh, [key for key, at in self._gone.items() if at > offset]

    def at(self, key: str) -> Entry | None:
        """Return a value that is there; its expiry is a moment."""
        item = self._items.get(key)
        if item is None:
            return None
        return Entry(item.offset, key, item.text[item.start :], item.time, item.expires)

    def _mend(self) -> None:
        """End a change that an exception has ended, if there is one."""
        if self._whole:
            return
        # A key that is in both was about to leave one of them: the later step counts.
        items = {
            key: item for key, item in self._items.items() if item.offset > self._gone.get(key, 0)
        }
        gone = {key: offset for key, offset in self._gone.items() if key not in items}
        changes = [(item.offset, key) for key, item in items.items()]
        changes += [(offset, key) for key, offset in gone.items()]
        changes.sort()
        self._expiries = heap_of(items)
        self._changes = changes
        self._items, self._gone = items, gone
        self._gone_size = sum(map(len, gone))
        self.size = sum(len(item.text) for item in items.values())
        self._forget()
        self._whole = True

    def check(self, count: int, size: int) -> None:
        """Refuse what grows beyond a bound; one that was lowered may be exceeded already."""
        most = max(self._max_keys, len(self._items)), max(self._max_bytes, self.size)
        check_limits(self.topic, count, size, *most)

    def _expire(self, key: str, item: Item) -> None:
        """Set an item, and note when it is due."""
        self._items[key] = item
        if item.expires is not None:
            heapq.heappush(self._expiries, (item.expires, key))
            if len(self._expiries) > 2 * len(self._items) + _FEW:
                self._expiries = heap_of(self._items)

    def due(self, moment: float) -> list[str]:
        """Return the keys whose time is over; they stay until they are removed."""
        self._mend()
        heap = self._expiries
        found, places = set(), [0]
        while places:
            place = places.pop()
            if place < len(heap) and heap[place][0] <= moment:
                places += (2 * place + 1, 2 * place + 2)
                if self._is_noted(*heap[place]):
                    found.add(heap[place])
        return [key for _, key in sorted(found)]

    def next_due(self) -> float | None:
        """Return the moment when the next key is due; None for never."""
        self._mend()
        while self._expiries and not self._is_noted(*self._expiries[0]):
            heapq.heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else None

    def _is_noted(self, expires: float, key: str) -> bool:
        item = self._items.get(key)
        return item is not None and item.expires == expires

    def _forget(self) -> None:
        """Forget the oldest removals, and changes that are no longer valid."""
        while len(self._gone) > self._max_keys or self._gone_size > self._max_bytes:
            key = next(iter(self._gone))
            self.floor = self._gone[key]
            del self._gone[key]
            self._gone_size -= len(key)
        if len(self._changes) > 2 * (len(self._items) + len(self._gone)) + _FEW:
            self._changes = [change for change in self._changes if self._is_valid(*change)]

    def _is_valid(self, offset: int, key: str) -> bool:
        item = self._items.get(key)
        return (self._gone.get(key) if item is None else item.offset) == offset

    def message(self, values: Collection[str], removed: Collection[str]) -> Event:
        """Return the message that tells those who are current of a change that was just made."""
        texts = [self._items[key].text for key in values]
        payload = state(self.message_type, self.topic, self.top, texts, map(quote, removed))
        return Event(self.message_type, payload, self.top)

    def begin(self, since: Position | None, last: int) -> tuple[Answer, int]:
        """Decide what a new subscriber gets: what changed since its position, or everything.

        Args:
            since: where it stood before; None if it is new.
            last: unused.

        Returns:
            The answer, and the offset behind which it begins; ``SNAPSHOT`` for everything.
        """
        self._mend()
        reason = self._reason(since)
        if reason is None:
            assert since is not None
            sent, replay = since.offset, len(self._since(since.offset))
        else:
            sent, replay = SNAPSHOT, len(self._items)
        missed = 0 if reason in (None, "expired") else None
        answer = Answer(
            self.topic, "state", self.epoch, self.top, reason is None, reason, replay, missed
        )
        return answer, sent

    def _reason(self, since: Position | None) -> Reason | None:
        if since is None:
            return "new"
        if since.epoch != self.epoch:
            return "epoch"
        if since.offset > self.top:
            return "ahead"
        return "expired" if since.offset < self.floor else None

    def _since(self, offset: int) -> list[tuple[int, str]]:
        start = bisect_right(self._changes, offset, key=_offset_of)
        return [change for change in self._changes[start:] if self._is_valid(*change)]

    def read(self, epoch: str, sent: int, base: int, limit: int) -> Chunk:
        """Return the next message of a reader: what changed since, of about that size.

        Args:
            epoch: of its position.
            sent: the offset up to which it was told; ``SNAPSHOT`` if it needs everything.
            base: the top as its snapshot began, up to which removals are none that it must be
                told of; ``UNTOLD`` for one that is new.
            limit: bytes of one message; a single value may be larger.
        """
        self._mend()
        events: list[Event] = []
        if epoch != self.epoch:
            self.gaps += 1
            event = Event("gap", gap(self.topic, self.epoch, 0, None, self._reason_anew), 0)
            events.append(event)
            sent, base = SNAPSHOT, 0
        snapshot = sent == SNAPSHOT or max(sent, base) < self.floor
        if snapshot:
            sent, base = 0, self.top
        elif sent == self.top and base != UNTOLD:
            return Chunk(events, self.epoch, sent, base, more=False)
        texts: list[bytes] = []
        gone: list[bytes] = []
        size, more = 0, False
        changes = self._changes
        for index in range(bisect_right(changes, sent, key=_offset_of), len(changes)):
            offset, key = changes[index]
            item = self._items.get(key)
            if item is None:
                if self._gone.get(key) != offset or offset <= base:
                    continue
                text, into = quote(key), gone
            elif item.offset != offset:
                continue
            else:
                text, into = item.text, texts
            if size and size + len(text) > limit:
                more = True
                break
            into.append(text)
            size += len(text) + 1
            sent = offset
        if not more:
            sent = self.top
        payload = state(
            self.message_type, self.topic, sent, texts, gone, snapshot=snapshot, synced=not more
        )
        events.append(Event(self.message_type, payload, sent))
        return Chunk(events, self.epoch, sent, max(0, base), more)

    def contents(self) -> bytes:
        """Return all values, as an object in JSON."""
        self._mend()
        return b"{%b}" % b",".join(item.text for item in self._items.values())

    def dump(self) -> Saved:
        """Return all that is to be saved."""
        self._mend()
        entries = [
            Entry(item.offset, key, item.text[item.start :], item.time, item.expires)
            for key, item in self._items.items()
        ]
        return Saved(self.epoch, self.top, sorted(entries))

    def restore(self, saved: Saved, time: float, moment: float, *, keep_epoch: bool) -> None:
        """Put what was saved before what is there; for a state that nobody has read.

        Args:
            saved: of an earlier run; the expiries in it are Unix times.
            time: Unix time now.
            moment: the same, of the clock that times to live are measured by.
            keep_epoch: nothing can have been lost since, so that positions go on.
        """
        own = self.dump().entries
        items = {}
        for entry in saved.entries:
            expires = None if entry.expires is None else moment + (entry.expires - time)
            items[entry.key] = make_item(entry.offset, entry.key, entry.data, entry.time, expires)
        self._whole = False
        self._items, self._gone = items, {}
        self.epoch = saved.epoch if keep_epoch else self.epoch
        self.top = self.floor = saved.top  # removals were not saved
        self._mend()
        for entry in own:
            self.change({entry.key: entry.data}, expires=entry.expires, time=entry.time)
