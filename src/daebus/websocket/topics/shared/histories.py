"""The copy of a history topic."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ....backplane.frames import Header
from ....backplane.store import Done, Kept, Known, Loaded, Notice, Write
from ....waits import monotonic
from ...connection.sent import SendResult
from ..feed import After, Retired
from ..history import Entry, Turn
from ..position import Kind
from ..topic import HistoryFeed
from .follower import ALONE, Bus, Follower, Heard
from .pending import Change

__all__ = ["HistoryCopy"]


class HistoryCopy:
    """A history topic that all nodes share.

    Args:
        feed: the topic.
        bus: the backplane.

    Threads:
        All methods but ``run`` are called in a turn of the topic.
    """

    kind: Kind = "history"

    def __init__(self, feed: HistoryFeed, bus: Bus) -> None:
        self._feed = feed
        self._bus = bus
        self.follower = Follower(feed.name, self, bus)

    @property
    def busy(self) -> bool:
        """True while a change of ours is on its way."""
        return bool(self.follower.pending)

    def settle(self, timeout: float) -> None:
        """Wait until readers can be told where they stand."""
        self.follower.ready.wait(timeout)

    def publish(self, after: After, message_type: str, data: bytes) -> SendResult:
        """Have a message published; see ``Topic.publish``."""
        if self.follower.is_alone(after):
            done = self._feed.append_locked(after, message_type, data)  # unguarded: in a turn
            return SendResult(int(done), done.queued)
        self.follower.write(self._change(message_type, data))
        count = self._feed.count_subscribers()
        return SendResult(count, count)

    def clear(self, after: After) -> None:
        """Have all messages forgotten; see ``Topic.clear``."""
        if self.follower.state == ALONE:
            self._feed.clear_locked(after)  # unguarded: in a turn
        else:
            self.follower.renew()

    def _change(self, message_type: str, data: bytes) -> Change:
        self._bus.judge(len(data) + len(message_type) + len(self._feed.name))
        return Change((message_type, data), len(data), self._send, self._bus.clock())

    def _send(self, change: Change, known: Known, done: Done) -> None:
        spec = self._feed.spec
        message_type, data = change.content
        frame = self._bus.frame("topic", spec.name, change.number, data, m=message_type)
        brief = spec.family is not None
        write = Write(
            spec.name, known, self._bus.writer, change.number, change.before, frame, brief
        )
        floor = self._feed.floor if known.epoch == self._feed.epoch else 0
        life = None if spec.max_age is None else spec.max_age + 60
        self._bus.store.append(write, count=spec.count, floor=floor, life=life, done=done)

    # --- for the follower --------------------------------------------------------------

    def run(self, action: Callable[..., Any], *args: Any) -> None:
        """Do something in a turn."""
        with contextlib.suppress(Retired):
            self._feed.step(action, *args)

    def known(self) -> Known:
        """Return the epoch and top of the log."""
        return Known(self._feed.epoch, self._feed.top)

    def span(self, header: Header) -> int:
        """Return 1 for a message."""
        return 1 if header.kind == "topic" else 0

    def accept(self, after: After, heard: Sequence[Heard]) -> None:
        """Add messages, and send them to the subscribers."""
        self._feed.extend_locked(  # unguarded: in a turn
            after, [(_type(header), payload, notice.time) for notice, header, payload in heard]
        )

    def differs(self, notice: Notice, header: Header, payload: bytes) -> bool:
        """Tell whether another message has this offset."""
        entry = self._feed.log_locked(lambda log: log.at(notice.top))  # unguarded: in a turn
        return entry is not None and entry.time != notice.time

    def append(self, after: After, loaded: Loaded, confirmed: int) -> None:
        """Add what was missed."""
        known = self.known()
        kept = [one for one in loaded.kept if one.offset > known.top]
        entries = self._entries(loaded, kept)
        if entries and len(entries) == loaded.top - known.top:
            for entry in entries:
                self._feed.append_locked(  # unguarded: in a turn
                    after, entry.key, entry.data, time=entry.time, moment=entry.expires
                )
            return
        moment = monotonic()
        self._feed.log_locked(  # unguarded: in a turn
            lambda log: log.adopt(loaded.epoch, loaded.top, entries, Turn(), moment)
        )
        self._feed.replaced_locked(after)  # unguarded: in a turn

    def adopt(self, after: After, loaded: Loaded, confirmed: int, before: Known) -> None:
        """Hold what was loaded, and have the subscribers read it."""
        moment, kept = monotonic(), loaded.kept
        entries = self._entries(loaded, kept)
        if loaded.epoch == before.epoch:  # back from being alone
            turn = Turn(self._feed.epoch, before.top, loaded.base)
            if len(entries) == loaded.top - before.top:
                until = partial(_until, top=before.top)
                entries = self._feed.log_locked(until) + entries  # unguarded: in a turn
        else:
            turn = Turn(base=loaded.base)
        self._feed.log_locked(  # unguarded: in a turn
            lambda log: log.adopt(loaded.epoch, loaded.top, entries, turn, moment)
        )
        self._feed.replaced_locked(after)  # unguarded: in a turn

    def _entries(self, loaded: Loaded, kept: list[Kept]) -> list[Entry]:
        """Return those messages of which none is missing up to the top."""
        entries: list[Entry] = []
        offset, moment = loaded.top, monotonic()
        for one in reversed(kept):
            found = self._bus.read(self._feed.name, one.frame)
            if one.offset != offset or found is None or not self.span(found[0]):
                break
            header, payload = found
            then = moment - max(0.0, loaded.now - one.time)
            entries.append(Entry(offset, _type(header), payload, one.time, then))
            offset -= 1
        return entries[::-1]

    def alone(self, after: After, epoch: str, changes: list[Change]) -> None:
        """Go on with the log as it is, in an epoch of its own."""
        known = self.known()
        turn = Turn(known.epoch, known.top, known.top, "backplane")
        self._feed.log_locked(lambda log: log.rename(epoch, turn))  # unguarded: in a turn
        for change in changes:
            self._feed.append_locked(after, *change.content)  # unguarded: in a turn
        self._feed.nudge_locked(after)  # unguarded: in a turn

    def load_count(self, *, whole: bool) -> int:
        """Return how many messages the log holds."""
        return self._feed.spec.count

    def values(self) -> dict[str, tuple[int | None, bytes]]:
        """Return nothing: only states are given back."""
        return {}

    def unshared(self, top: int) -> list[Change]:
        """Take back what was published while the app did not run."""
        entries = self._feed.log_locked(lambda log: log.cut(top))  # unguarded: in a turn
        return [self._change(entry.key, entry.data) for entry in entries]


def _type(header: Header) -> str:
    return str(header.more.get("m", "message"))


def _until(log: Any, *, top: int) -> list[Entry]:
    """Return the messages up to an offset, with moments as ``History.adopt`` wants them."""
    entries: list[Entry] = log.aged()
    return [entry for entry in entries if entry.offset <= top]
