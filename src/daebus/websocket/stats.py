"""The counts of ``stats()``: those of ended connections, and those of running ones."""

from __future__ import annotations

import threading
import types
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Final, Protocol, TypedDict

from ..data.encoder import package
from ..interrupts.stack import inside
from .connection.events import DisconnectInfo
from .connection.link import Link
from .topics.live import TopicStats

__all__ = ["BUCKETS", "Counted", "HandlerStats", "Stats", "Times", "WebSocketStats"]

# Upper bounds, in seconds, of the histogram of handler times; the last bucket has none.
BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


_SUMMED = ("messages_in", "messages_out", "bytes_in", "bytes_out", "dropped")


class HandlerStats(TypedDict):
    """How long the handler of one message type took; see ``DaebusWebSocket.stats``."""

    count: int
    seconds: float
    buckets: dict[str, int]


class WebSocketStats(TypedDict):
    """The counts of ``DaebusWebSocket.stats``, which describes them."""

    connections: int
    connections_total: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    dropped: int
    queued_bytes: int
    queued_messages: int
    lost_notices: int
    slow_consumers: int
    disconnects: dict[str, int]
    refused: dict[str, int]
    errors: dict[str, int]
    handlers: dict[str, HandlerStats]
    topics: dict[str, TopicStats]
    json: str


EMPTY: Final[Mapping[str, TopicStats]] = types.MappingProxyType({})


class Times:
    """Handler times of one message type on one connection."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def add(self, seconds: float) -> None:
        """Count one call."""
        self.seconds += seconds
        self.buckets[bisect_right(BUCKETS, seconds)] += 1

    def merge(self, other: Times) -> None:
        """Add the counts of another."""
        self.seconds += other.seconds
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]


class Counted(Protocol):
    """A running connection, with its own counts.

    Attributes:
        errors: how many errors were sent, by code.
        times: how long handlers took, by message type.
    """

    errors: dict[str, int]
    times: dict[str, Times]

    @property
    def link(self) -> Link:
        """The connection."""


_Ended = tuple[Counter[str], Counter[str], dict[str, int], dict[str, int], dict[str, Times]]


class Stats:
    """The totals of ended connections, and the set of running ones.

    A running connection counts for itself without a shared lock, so that counting costs its
    messages nothing; ``report`` adds both up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: set[Counted] = set()  # guarded by: _lock
        self._totals: Counter[str] = Counter()  # guarded by: _lock
        self._reasons: Counter[str] = Counter()  # guarded by: _lock
        self._refused: Counter[str] = Counter()  # guarded by: _lock
        self._errors: Counter[str] = Counter()  # guarded by: _lock
        self._times: dict[str, Times] = {}  # guarded by: _lock

    def refused(self, code: str) -> None:
        """Count an upgrade that was refused."""
        with self._lock:
            self._refused[code] += 1

    def refused_message(self, code: str) -> None:
        """Count an error that was sent outside of the connection's thread."""
        with self._lock:
            self._errors[code] += 1

    def handled(self, kind: str, seconds: float) -> None:
        """Count a handler that ran outside of its connection's thread."""
        with self._lock:
            self._times.setdefault(kind, Times()).add(seconds)

    def lost_notice(self) -> None:
        """Count a slow-client or slow-handler notice that was dropped, as the queue was full."""
        with self._lock:
            self._totals["lost_notices"] += 1

    def started(self, activity: Counted) -> None:
        """Include a connection in the counts from now on."""
        with self._lock:
            self._current.add(activity)

    def finished(self, activity: Counted) -> DisconnectInfo:
        """Add the counts of a connection whose last handler has ended; return them."""
        info = activity.link.account()
        with self._lock:
            self._current.discard(activity)
            self._reasons[info.reason] += 1
            _add(self._totals, info)
            self._errors.update(activity.errors)
            _merge(self._times, activity.times)
        return info

    def report(
        self, connections: int = 0, topics: Mapping[str, TopicStats] = EMPTY
    ) -> WebSocketStats:
        """Return all counts, including those of running connections.

        Args:
            connections: how many clients count as connected.
            topics: the counts of each.
        """
        if self._lock.locked() and inside():
            ended, running = self._read()
        else:
            with self._lock:
                ended, running = self._read()
        totals, errors, reasons, refused, times = ended
        # One that ends meanwhile is among the running ones, and not in these sums.
        for activity in running:
            _add(totals, activity.link.account())
            errors.update(activity.errors.copy())
            _merge(times, activity.times.copy())
        queued = [activity.link.writer.outlet.queued() for activity in running]
        return {
            "connections": connections,
            "connections_total": len(running) + sum(reasons.values()),
            "messages_in": totals["messages_in"],
            "messages_out": totals["messages_out"],
            "bytes_in": totals["bytes_in"],
            "bytes_out": totals["bytes_out"],
            "dropped": totals["dropped"],
            "queued_bytes": sum(size for size, _ in queued),
            "queued_messages": sum(count for _, count in queued),
            "lost_notices": totals["lost_notices"],
            "slow_consumers": reasons.get("slow_consumer", 0),
            "disconnects": reasons,
            "refused": refused,
            "errors": dict(errors),
            "handlers": {kind: _describe(time) for kind, time in times.items()},
            "topics": dict(topics),
            "json": package(),
        }

    def _read(self) -> tuple[_Ended, list[Counted]]:
        """Return copies of the sums, and the running connections."""
        times: dict[str, Times] = {}
        _merge(times, self._times.copy())  # unguarded: see report
        ended = (
            Counter(self._totals),  # unguarded: see report
            Counter(self._errors),  # unguarded: see report
            dict(self._reasons),  # unguarded: see report
            dict(self._refused),  # unguarded: see report
            times,
        )
        return ended, list(self._current)  # unguarded: see report


def _add(totals: Counter[str], info: DisconnectInfo) -> None:
    for name in _SUMMED:
        totals[name] += getattr(info, name)


def _merge(into: dict[str, Times], times: dict[str, Times]) -> None:
    for kind, time in times.items():
        into.setdefault(kind, Times()).merge(time)


def _describe(times: Times) -> HandlerStats:
    bounds = [*(f"{bound:g}" for bound in BUCKETS), "inf"]
    return {
        "count": sum(times.buckets),
        "seconds": times.seconds,
        "buckets": dict(zip(bounds, times.buckets, strict=True)),
    }
