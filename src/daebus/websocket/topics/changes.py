"""A state topic inside: its values, when they are sent and when they expire."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

from ...interrupts.stack import held
from ...server.threads.minder import Timer
from ...waits import monotonic
from .feed import EVERYTHING, After, Feed, Retired
from .live import Look, Shared, Sharer
from .spec import Spec
from .store import Changed
from .values import Values

__all__ = ["StateFeed"]


# Seconds until values of several nodes are looked at again that had expired.
_AGAIN: Final = 1.0


class SharedState(Sharer, Protocol):
    """Changes what other nodes are to have as well.

    Attributes:
        ours: values that this node has set, and None for keys that it has removed, of which it
            has not heard yet; changed in turns.
    """

    ours: dict[str, bytes | None]

    def change(
        self,
        after: After,
        values: Mapping[str, bytes],
        removed: Sequence[str],
        lasts: float | None,
    ) -> bool:
        """Have keys set and removed, in a turn; see ``StateFeed.change``."""

    def lapse(self, keys: Sequence[str]) -> None:
        """Have keys removed whose time is over, in a turn."""


class StateFeed(Feed[Values]):
    """A state topic inside.

    Args:
        spec: the declaration.
        shared: with the other topics of the component.

    Attributes:
        copy: shares it with other nodes; None for a state of this process alone.
    """

    copy: SharedState | None = None

    def __init__(self, spec: Spec, shared: Shared) -> None:
        log = Values(
            spec.name,
            message_type=spec.message_type,
            max_keys=spec.count,
            max_bytes=spec.max_bytes,
        )
        super().__init__(spec, log, shared)
        self._told = 0  # guarded by: _order; offset up to which those who are current were told
        self._told_at = float("-inf")  # guarded by: _order
        self._flush_timer: Timer | None = None  # guarded by: _order

    def value(self, key: str) -> bytes | None:
        """Return a value as JSON; None without one."""
        copy = self.copy  # one look: a stop takes it away
        if copy is not None:
            ours = copy.ours.get(key, b"")
            if ours != b"":  # no JSON is empty
                return ours
        return self._log.get(key, monotonic())

    def values(self) -> list[tuple[str, bytes]]:
        """Return all keys and values, as JSON, in the order in which the keys came."""
        copy = self.copy  # one look
        if copy is None:
            return self._log.items(monotonic())
        ours = copy.ours.copy()  # first: what leaves it is in the log
        both = {**dict(self._log.items(monotonic())), **ours}
        return [(key, value) for key, value in both.items() if value is not None]

    def look(self) -> Look:
        """Return what there is at this moment, for who reads it once."""
        moment = monotonic()
        with held, self._data:
            log = self._log
            return Look("state", log.epoch, log.top, [], log.items(moment))

    def change(
        self, values: Mapping[str, bytes], removed: Sequence[str] = (), ttl: float | None = None
    ) -> bool:
        """Set and remove keys, and tell the subscribers of what has changed.

        Args:
            values: as JSON.
            removed: keys; those that are not there are passed over.
            ttl: seconds after which these values are removed; None for those of the topic.

        Returns:
            False if nothing has changed.

        Raises:
            StateLimitError: there would be too many keys or bytes; nothing is changed.
            Retired: look the topic up again.
        """
        return self.turn(self._change_locked, True, values, removed, ttl)

    def take(self, key: str | None) -> tuple[str, bytes] | None:
        """Remove a key in one step, the newest for None, and return it with its value.

        Returns:
            None if there is none, or this very thread was interrupted where it cannot wait.

        Raises:
            Retired: look the topic up again.
        """
        return self.turn(self._take_locked, None, key)

    def _take_locked(self, after: After, key: str | None) -> tuple[str, bytes] | None:
        assert self._order.locked()
        if key is None:
            found = self.values()[-1:]
        else:
            value = self.value(key)
            found = [] if value is None else [(key, value)]
        for name, _ in found:
            self._change_locked(after, {}, (name,), None)
        return found[0] if found else None

    def add(self, key: str, value: bytes) -> bytes:
        """Set a key that is not there, in one step; return the value that it has then.

        Raises:
            StateLimitError: there would be too many keys or bytes.
            Retired: look the topic up again.
        """
        return self.turn(self._add_locked, value, key, value)

    def _add_locked(self, after: After, key: str, value: bytes) -> bytes:
        assert self._order.locked()
        known = self.value(key)
        if known is None:
            self._change_locked(after, {key: value}, (), None)
            return value
        return known

    def _change_locked(
        self,
        after: After,
        values: Mapping[str, bytes],
        removed: Sequence[str],
        ttl: float | None,
    ) -> bool:
        assert self._order.locked()
        lasts = self.spec.ttl if ttl is None else ttl
        copy = self.copy  # one look
        if copy is not None:
            return copy.change(after, values, removed, lasts)
        return self.change_locked(after, values, removed, lasts)

    def change_locked(
        self,
        after: After,
        values: Mapping[str, bytes],
        removed: Sequence[str],
        lasts: float | None,
    ) -> bool:
        """Set and remove keys of this log, and tell the subscribers; see ``change``."""
        assert self._order.locked()
        now, moment = time.time(), monotonic()
        expires = None if lasts is None else moment + lasts
        with held, self._data:
            log = self._log
            before = log.top
            changed, gone = log.change(values, removed, expires=expires, time=now)
            epoch, top = log.epoch, log.top
        if expires is not None:
            self._expiry.plan(expires, moment, self._expire)
        if not (changed or gone):
            return False
        self.tell_locked(after, changed, gone, before)
        store = self.store
        if store is not None:
            until = None if lasts is None else now + lasts
            for key in changed:
                store.note(Changed(self.name, epoch, top, key, values[key], now, until))
            for key in gone:
                store.note(Changed(self.name, epoch, top, key, None, now, None))
        return True

    def tell_locked(
        self, after: After, changed: Collection[str], gone: Collection[str], before: int
    ) -> None:
        """Tell the subscribers of keys that were just set and removed, now or a little later.

        Args:
            after: see ``turn``.
            changed: keys that were set.
            gone: keys that were removed.
            before: offset before all these.
        """
        assert self._order.locked()
        live = self._shared.live
        if self.spec.min_interval and live is not None:
            moment = monotonic()
            wait = self._told_at + self.spec.min_interval - moment
            if self._flush_timer is None:
                if wait <= 0:
                    self._tell_locked(after)
                else:
                    self._flush_timer = live.minder.call_later(wait, self._flush)
            return
        with held, self._data:
            event = self._log.message(changed, gone)
            epoch = self._log.epoch
        self.offer_locked([event], before, epoch, after)
        self._told = event.offset

    def accept_locked(
        self,
        after: After,
        values: Mapping[str, bytes],
        removed: Sequence[str],
        top: int,
        *,
        expires: float | None,
        time: float,
    ) -> None:
        """Set and remove keys as another node has, and tell the subscribers."""
        assert self._order.locked()
        with held, self._data:
            before = self._log.top
            self._log.accept(values, removed, top, expires=expires, time=time)
        if expires is not None:
            self._expiry.plan(expires, monotonic(), self._expire)
        self.tell_locked(after, values.keys(), removed, before)

    def replaced_locked(self, after: After) -> None:
        """Have all subscribers read a log that is another one now."""
        assert self._order.locked()
        with held, self._data:
            self._told = self._log.top
            upcoming = self._log.next_due()
        self.nudge_locked(after)
        if upcoming is not None:
            self._expiry.plan(upcoming, monotonic(), self._expire)

    def _flush(self) -> None:
        """Tell the subscribers of what has changed since they were told last."""
        with contextlib.suppress(Retired):  # it was given up as the timer rang
            self.turn(self._tell_locked, None)

    def _tell_locked(self, after: After) -> None:
        assert self._order.locked()
        moment = monotonic()
        self._flush_timer = None
        self._told_at = moment
        with held, self._data:
            log = self._log
            events, epoch, top, *_ = log.read(log.epoch, self._told, 0, EVERYTHING)
        before, self._told = self._told, top
        for event in events:
            self.offer_locked([event], before, epoch, after)

    def _expire_locked(self, after: After) -> None:
        assert self._order.locked()
        moment = monotonic()
        self._expiry.forget()
        with held, self._data:
            due = self._log.due(moment)
        copy = self.copy  # one look
        if due and copy is not None:
            copy.lapse(due)  # they stay until that is heard
            self._expiry.plan(moment + _AGAIN, moment, self._expire)
            return
        if due:
            self.change_locked(after, {}, due, None)
        with held, self._data:
            upcoming = self._log.next_due()
        self._expiry.plan_next(after, upcoming, moment, self._expire, done=bool(due))

    def end(self) -> None:
        """Forget the timers: their minder has ended."""
        super().end()
        with self._order:
            self._forget_flush_locked()
            with held, self._data:
                self._told = self._log.top

    def retire(self) -> bool:
        """Give it up, and its timers; see ``Feed.retire``."""
        done = super().retire()
        if done:
            with self._order:
                self._forget_flush_locked()
        return done

    def _forget_flush_locked(self) -> None:
        assert self._order.locked()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._flush_timer = None
