"""Finding peers that vanished without a word: pings, and a deadline for any sign of life."""

from __future__ import annotations

import time
from typing import Protocol

from ...server.threads.minder import Minder
from .limits import Limits

__all__ = ["Keepalive", "Pinged"]


class Pinged(Protocol):
    """What is asked of the connection."""

    @property
    def open(self) -> bool:
        """True until either side began to close."""

    @property
    def last_in(self) -> float:
        """When the last byte came, of ``time.monotonic()``."""

    @property
    def last_life(self) -> float:
        """When the peer last showed any sign of life."""

    def ping(self, data: bytes) -> bool:
        """Send a ping."""

    def unread(self) -> bool:
        """Tell whether bytes wait that nobody has read yet."""

    def lose(self, why: str, text: str) -> None:
        """Give it up."""


class Keepalive:
    """Pings one connection when it is silent, and gives it up when it stays so.

    Every received byte counts as life, so a talking client is never pinged. A vanished
    one is gone ``ping_interval + ping_timeout`` after its last byte.

    Attributes:
        round_trip: seconds between the last ping that was answered and its pong, which
            waits for a busy handler; None before the first.

    Threads:
        Runs on the minder's thread; ``stop`` may be called from any, ``answered`` is for
        whoever reads.
    """

    __slots__ = (
        "_answered",
        "_connection",
        "_count",
        "_interval",
        "_last",
        "_minder",
        "_pinged",
        "_timeout",
        "_timer",
        "round_trip",
    )

    def __init__(self, connection: Pinged, minder: Minder, limits: Limits) -> None:
        assert limits.ping_interval is not None
        self._connection = connection
        self._minder = minder
        self._interval = limits.ping_interval
        self._timeout = limits.ping_timeout
        self._pinged: float | None = None  # when the ping went out that waits for an answer
        self._count = 0
        # A value, handed over by one store: payload of the last ping, and when it went out.
        self._last: tuple[bytes, float] | None = None
        self._answered: tuple[bytes, float] | None = None  # only who reads
        self.round_trip: float | None = None  # only who reads
        self._timer = minder.call_later(self._interval, self._beat)

    def stop(self) -> None:
        """Ping no more."""
        self._timer.cancel()

    def answered(self, data: bytes) -> None:
        """Measure how long a pong took, if it answers the last ping and is the first to."""
        last = self._last
        if last is not None and last[0] == data and last is not self._answered:
            self._answered = last
            self.round_trip = time.monotonic() - last[1]

    def _ping(self) -> None:
        # A number, so that the pong of an earlier ping, or one sent unasked, is told apart.
        self._count += 1
        data = b"%d" % self._count
        self._last = (data, time.monotonic())
        self._connection.ping(data)

    def _beat(self) -> None:
        if self._connection.open:
            rest = self._check(time.monotonic() - self._connection.last_life)
            if rest is not None:
                self._timer = self._minder.call_later(rest, self._beat)

    def _check(self, idle: float) -> float | None:
        """Act on that many seconds of silence; return when to look again."""
        if self._pinged is not None and self._connection.last_in >= self._pinged:
            self._pinged = None  # answered, perhaps long before this timer
        if idle < self._interval:
            return self._interval - idle
        if self._timeout is None:
            self._ping()
            return self._interval
        if self._pinged is None:
            self._pinged = time.monotonic()
            self._ping()
            return min(self._interval, self._timeout)
        if idle < self._interval + self._timeout:
            return min(self._interval, self._interval + self._timeout - idle)
        if self._connection.unread():  # it lives; its handler is too busy to read
            return self._interval
        self._connection.lose("ping_timeout", "no answer to a ping")
        return None
