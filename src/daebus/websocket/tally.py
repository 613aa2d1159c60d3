"""Counting for ``stats()``: finished connections here, running ones are asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any

from .connection import Connection
from .info import BUCKETS, DisconnectInfo, Times

__all__ = ["Tally"]

_SUMMED = ("messages_in", "messages_out", "bytes_in", "bytes_out", "dropped")


class Tally:
    """Totals of the connections that have ended.

    A running connection counts for itself, without any lock of others, so that counting
    costs the messages nothing; ``report`` adds both up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()  # guarded by: _lock
        self._reasons: Counter[str] = Counter()  # guarded by: _lock
        self._refused: Counter[str] = Counter()  # guarded by: _lock
        self._times: dict[str, Times] = {}  # guarded by: _lock

    def refused(self, code: str) -> None:
        """Count an upgrade that was refused."""
        with self._lock:
            self._refused[code] += 1

    def finished(self, info: DisconnectInfo, times: dict[str, Times]) -> None:
        """Take over the counts of a connection that has ended."""
        with self._lock:
            self._reasons[info.reason] += 1
            for name in _SUMMED:
                self._totals[name] += getattr(info, name)
            for kind, time in times.items():
                self._times.setdefault(kind, Times()).merge(time)

    def report(self, running: Iterable[Connection]) -> dict[str, Any]:
        """Return all counts, those of the running connections included."""
        with self._lock:
            totals = Counter(self._totals)
            reasons, refused = dict(self._reasons), dict(self._refused)
            times = {kind: _copy(time) for kind, time in self._times.items()}
        connections = queued_bytes = queued_messages = 0
        for connection in running:
            connections += 1
            info = connection.account()
            for name in _SUMMED:
                totals[name] += getattr(info, name)
            size, count = connection.queued()
            queued_bytes += size
            queued_messages += count
            for kind, time in connection.times.copy().items():
                times.setdefault(kind, Times()).merge(time)
        return {
            "connections": connections,
            "connections_total": connections + sum(reasons.values()),
            **{name: totals[name] for name in _SUMMED},
            "queued_bytes": queued_bytes,
            "queued_messages": queued_messages,
            "slow_consumers": reasons.get("slow_consumer", 0),
            "disconnects": reasons,
            "refused": refused,
            "handlers": {kind: _describe(time) for kind, time in times.items()},
        }


def _copy(times: Times) -> Times:
    copy = Times()
    copy.merge(times)
    return copy


def _describe(times: Times) -> dict[str, Any]:
    bounds = [*(f"{bound:g}" for bound in BUCKETS), "inf"]
    return {
        "count": sum(times.buckets),
        "seconds": times.seconds,
        "buckets": dict(zip(bounds, times.buckets, strict=True)),
    }
