"""Finding peers that vanished without a word: pings, and a deadline for any sign of life."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..server.minder import Minder
from .codec import PING
from .limits import Limits

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Heartbeat"]


class Heartbeat:
    """Pings one connection when it is silent, and gives it up when it stays so.

    Every received byte counts as life, so a talking client is never pinged. A vanished
    one is gone ``ping_interval + ping_timeout`` after its last byte.

    Threads:
        Runs on the minder's thread; ``stop`` may be called from any.
    """

    __slots__ = ("_connection", "_interval", "_minder", "_pinged", "_timeout", "_timer")

    def __init__(self, connection: Connection, minder: Minder, limits: Limits) -> None:
        assert limits.ping_interval is not None
        self._connection = connection
        self._minder = minder
        self._interval = limits.ping_interval
        self._timeout = limits.ping_timeout
        self._pinged: float | None = None  # when the ping went out that waits for an answer
        self._timer = minder.call_later(self._interval, self._beat)

    def stop(self) -> None:
        """Ping no more."""
        self._timer.cancel()

    def _beat(self) -> None:
        if self._connection.open:
            # A full socket that takes bytes again shows that the peer's side takes them.
            life = max(self._connection.last_in, self._connection.last_drained)
            rest = self._check(time.monotonic() - life)
            if rest is not None:
                self._timer = self._minder.call_later(rest, self._beat)

    def _check(self, idle: float) -> float | None:
        """Act on that many seconds of silence; return when to look again."""
        if self._pinged is not None and self._connection.last_in >= self._pinged:
            self._pinged = None  # answered, perhaps long before this timer
        if idle < self._interval:
            return self._interval - idle
        if self._timeout is None:
            self._connection.control(PING, b"")
            return self._interval
        if self._pinged is None:
            self._pinged = time.monotonic()
            self._connection.control(PING, b"")
            return min(self._interval, self._timeout)
        if idle < self._interval + self._timeout:
            return min(self._interval, self._interval + self._timeout - idle)
        if self._connection.unread():  # it lives; its handler is too busy to read
            return self._interval
        self._connection.lose("ping_timeout", "no answer to a ping")
        return None
