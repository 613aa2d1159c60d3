"""Find peers that vanished silently: pings, and a deadline for any sign of life."""

from __future__ import annotations

from typing import Protocol

from ...server.threads.minder import Minder
from .limits import Limits

__all__ = ["Keepalive", "Pinged"]


class Pinged(Protocol):
    """The part of a connection that ``Keepalive`` uses."""

    @property
    def open(self) -> bool:
        """True until either side began to close."""

    @property
    def last_in(self) -> float:
        """When the last byte came, by the minder's clock."""

    @property
    def last_life(self) -> float:
        """When the peer last showed any sign of life."""

    def ping(self, data: bytes) -> bool:
        """Send a ping."""

    def unread(self) -> bool:
        """Tell whether unread bytes wait in the socket."""

    def lose(self, why: str, text: str) -> None:
        """Give up the connection."""


class Keepalive:
    """Pings one connection when it is silent; gives it up if it stays silent.

    Every received byte counts as life, so a talking client is never pinged. A vanished
    one is given up ``ping_interval + ping_timeout`` after its last byte.

    Attributes:
        round_trip: seconds between the last answered ping and its pong, which a busy
            handler delays; None before the first.

    Threads:
        Runs on the minder's thread; ``stop`` may be called from any thread, ``answered``
        is called by the thread that reads.
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
        self._pinged: float | None = None  # when the unanswered ping was sent
        self._count = 0
        # Replaced by one store, as other threads read it: the last ping's payload and moment.
        self._last: tuple[bytes, float] | None = None
        self._answered: tuple[bytes, float] | None = None  # only the reading thread
        self.round_trip: float | None = None  # only the reading thread
        self._timer = minder.call_later(self._interval, self._beat)

    def stop(self) -> None:
        """Stop pinging."""
        self._timer.cancel()

    def answered(self, data: bytes) -> None:
        """Measure the round trip, if this is the first pong to the last ping."""
        last = self._last
        if last is not None and last[0] == data and last is not self._answered:
            self._answered = last
            self.round_trip = self._minder.clock() - last[1]

    def _ping(self) -> None:
        # A number tells this ping's pong from that of an earlier one or an unsolicited one.
        self._count += 1
        data = b"%d" % self._count
        self._last = (data, self._minder.clock())
        self._connection.ping(data)

    def _beat(self) -> None:
        if self._connection.open:
            rest = self._check(self._minder.clock() - self._connection.last_life)
            if rest is not None:
                self._timer = self._minder.call_later(rest, self._beat)

    def _check(self, idle: float) -> float | None:
        """Act on that many seconds of silence; return when to check again."""
        if self._pinged is not None and self._connection.last_in >= self._pinged:
            self._pinged = None  # answered, perhaps long before this timer
        if idle < self._interval:
            return self._interval - idle
        if self._timeout is None:
            self._ping()
            return self._interval
        if self._pinged is None:
            self._pinged = self._minder.clock()
            self._ping()
            return min(self._interval, self._timeout)
        if idle < self._interval + self._timeout:
            return min(self._interval, self._interval + self._timeout - idle)
        if self._connection.unread():  # it is alive; its handler is too busy to read
            return self._interval
        self._connection.lose("ping_timeout", "no answer to a ping")
        return None
