"""The copy of a state topic."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ....backplane.frames import Header
from ....backplane.store import Done, Known, Loaded, Notice, Write, describe, read_change
from ....errors import StateLimitError
from ....server.threads.safelog import get_logger
from ....waits import monotonic
from ..changes import StateFeed
from ..envelopes import quote
from ..feed import After, Retired
from ..history import Entry
from ..position import Kind
from .follower import ALONE, Bus, Follower, Heard
from .pending import Change

__all__ = ["StateCopy"]

logger = get_logger("daebus.backplane")

_NEVER = float("-inf")


class _Content(NamedTuple):
    values: dict[str, bytes]
    removed: list[str]
    lasts: float | None
    only: int = 0


class StateCopy:
    """A state topic that all nodes share.

    What this node has changed it reads at once (``ours``), though its clients, like all others,
    are told when it is heard.

    Args:
        feed: the topic.
        bus: the backplane.

    Attributes:
        ours: see ``SharedState``.

    Threads:
        All methods but ``run`` are called in a turn of the topic.
    """

    kind: Kind = "state"

    def __init__(self, feed: StateFeed, bus: Bus) -> None:
        self._feed = feed
        self._bus = bus
        self.ours: dict[str, bytes | None] = {}
        self._changes: dict[str, Change] = {}  # which of ours is the last of a key
        self._lapsing: set[str] = set()
        self.follower = Follower(feed.name, self, bus)

    @property
    def busy(self) -> bool:
        """True while a change of ours is on its way."""
        return bool(self.follower.pending)

    def settle(self, timeout: float) -> None:
        """Wait until readers can be told where they stand."""
        self.follower.ready.wait(timeout)

    def change(
        self,
        after: After,
        values: Mapping[str, bytes],
        removed: Sequence[str],
        lasts: float | None,
    ) -> bool:
        """Have keys set and removed; see ``StateFeed.change``."""
        if self.follower.is_alone(after):
            return self._feed.change_locked(after, values, removed, lasts)  # unguarded: in a turn
        fresh = {key: data for key, data in values.items() if self._feed.value(key) != data}
        gone = [
            key
            for key in dict.fromkeys(removed)
            if key not in values and self._feed.value(key) is not None
        ]
        if fresh:
            self._check(fresh, gone)
        # What is set again lives longer, or for ever.
        told = {
            key: data for key, data in values.items() if key in fresh or self._renews(key, lasts)
        }
        if told or gone:
            self._put(_Content(told, gone, lasts))
        return bool(fresh or gone)

    def _renews(self, key: str, lasts: float | None) -> bool:
        log = self._feed.log_locked(lambda log: log)  # unguarded: in a turn
        known = log.at(key)
        return lasts is not None or (known is not None and known.expires is not None)

    def _check(self, fresh: Mapping[str, bytes], gone: Sequence[str]) -> None:
        """Judge bounds as if all of ours had been heard."""
        log = self._feed.log_locked(lambda log: log)  # unguarded: in a turn
        coming = {**self.ours, **fresh, **dict.fromkeys(gone)}
        count, size = len(log), log.size
        for key, data in coming.items():
            known, head = log.get(key, _NEVER), len(quote(key)) + 1
            count += (data is not None) - (known is not None)
            size += (0 if data is None else head + len(data)) - (
                0 if known is None else head + len(known)
            )
        log.check(count, size)

    def _put(self, content: _Content) -> None:
        self.follower.write(self._make(content))

    def _make(self, content: _Content) -> Change:
        values, removed = content.values, content.removed
        size = sum(map(len, values)) + sum(map(len, values.values())) + sum(map(len, removed))
        self._bus.judge(size + len(self._feed.name))
        change = Change(content, size, self._send, self._bus.clock())
        if not content.only:
            self.ours |= {**values, **dict.fromkeys(removed)}
            self._changes |= dict.fromkeys([*values, *removed], change)
        return change

    def lapse(self, keys: Sequence[str]) -> None:
        """Have keys removed whose time is over, unless somebody has set them meanwhile."""
        log = self._feed.log_locked(lambda log: log)  # unguarded: in a turn
        if self.follower.state == ALONE:
            return
        offsets = {entry.key: entry.offset for entry in log.dump().entries}
        for key in keys:
            if key not in self.ours and key in offsets:
                self._put(_Content({}, [key], None, offsets[key]))

    def _send(self, change: Change, known: Known, done: Done) -> None:
        spec = self._feed.spec
        values, removed, lasts, only = change.content
        ttl = None if lasts is None else max(1, round(lasts * 1000))
        more, payload = describe(values, removed, ttl)
        frame = self._bus.frame("state", spec.name, change.number, payload, **more)
        brief = spec.family is not None
        write = Write(
            spec.name, known, self._bus.writer, change.number, change.before, frame, brief
        )
        self._bus.store.change(write, values, removed, ttl=ttl, only=only, done=done)

    def _heard(self, number: int) -> None:
        """Forget of ours what is in the log."""
        for key, change in list(self._changes.items()):
            if 0 < change.number <= number:
                del self._changes[key]
                self.ours.pop(key, None)

    # --- for the follower --------------------------------------------------------------

    def run(self, action: Callable[..., Any], *args: Any) -> None:
        """Do something in a turn."""
        with contextlib.suppress(Retired):
            self._feed.step(action, *args)

    def known(self) -> Known:
        """Return the epoch and top of the log."""
        return Known(self._feed.epoch, self._feed.top)

    def span(self, header: Header) -> int:
        """Return how many keys a change has."""
        if header.kind != "state":
            return 0
        return len(header.more.get("set", ())) + len(header.more.get("gone", ()))

    def accept(self, after: After, heard: Sequence[Heard]) -> None:
        """Set and remove keys, and tell the subscribers."""
        for notice, header, payload in heard:
            values, removed, ttl = read_change(header.more, payload)
            expires = None if ttl is None else monotonic() + ttl / 1000
            self._feed.accept_locked(  # unguarded: in a turn
                after, values, removed, notice.top, expires=expires, time=notice.time
            )
            if header.incarnation == self._bus.writer:
                self._heard(header.number)

    def differs(self, notice: Notice, header: Header, payload: bytes) -> bool:
        """Tell whether another change has this offset."""
        values, removed, _ = read_change(header.more, payload)
        if removed or not values:
            return False
        key, data = values.popitem()
        log = self._feed.log_locked(lambda log: log)  # unguarded: in a turn
        known = log.at(key)
        return known is not None and known.offset == notice.top and known.data != data

    def append(self, after: After, loaded: Loaded, confirmed: int) -> None:
        """Hold what was loaded."""
        self.adopt(after, loaded, confirmed, self.known())

    def adopt(self, after: After, loaded: Loaded, confirmed: int, before: Known) -> None:
        """Hold what was loaded, and have the subscribers read it."""
        assert loaded.values is not None
        moment = monotonic()
        entries = []
        for key, (offset, time, ttl, data) in loaded.values.items():
            left = None if ttl is None else moment + ttl / 1000 - max(0.0, loaded.now - time)
            entries.append(Entry(offset, key, data, time, left))
        step = partial(_adopt, loaded=loaded, entries=entries)
        self._feed.log_locked(step)  # unguarded: in a turn
        self._heard(confirmed)
        self._feed.replaced_locked(after)  # unguarded: in a turn

    def alone(self, after: After, epoch: str, changes: list[Change]) -> None:
        """Go on with the log as it is, in an epoch of its own."""
        self._feed.log_locked(lambda log: log.rename(epoch, "backplane"))  # unguarded: in a turn
        for change in changes:
            values, removed, lasts, only = change.content
            if only:
                continue
            try:
                self._feed.change_locked(after, values, removed, lasts)  # unguarded: in a turn
            except StateLimitError as exc:
                logger.warning("a change of state %r is lost: %s", self._feed.name, exc)
        self.ours.clear()
        self._changes.clear()
        self._feed.replaced_locked(after)  # unguarded: in a turn

    def load_count(self, *, whole: bool) -> int:
        """Return 0 if the values are needed in any case."""
        return 0 if whole else 1

    def values(self) -> dict[str, tuple[int | None, bytes]]:
        """Return all values, and how many milliseconds they last."""
        moment = monotonic()
        saved = self._feed.log_locked(lambda log: log.dump())  # unguarded: in a turn
        return {entry.key: (_left(entry, moment), entry.data) for entry in saved.entries}

    def unshared(self, top: int) -> list[Change]:
        """Return what was changed behind an offset."""
        entries, gone = self._feed.log_locked(lambda log: log.behind(top))  # unguarded: in a turn
        moment = monotonic()
        changes = []
        lasting = {entry.key: entry.data for entry in entries if entry.expires is None}
        if lasting or gone:
            changes.append(self._make(_Content(lasting, gone, None)))
        for entry in entries:
            left = _left(entry, moment)
            if left is not None:
                changes.append(self._make(_Content({entry.key: entry.data}, [], left / 1000)))
        return changes


def _adopt(log: Any, loaded: Loaded, entries: list[Entry]) -> None:
    log.adopt(loaded.epoch, loaded.top, loaded.floor, entries, "epoch")


def _left(entry: Entry, moment: float) -> int | None:
    if entry.expires is None:
        return None
    return max(1, round((entry.expires - moment) * 1000))
