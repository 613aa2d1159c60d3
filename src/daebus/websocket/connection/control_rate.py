"""How many control frames a client may send, and what else costs us work that nobody waits for.

Pure: the moment is an argument.
"""

from __future__ import annotations

__all__ = ["CONTROL_BURST", "CONTROL_RATE", "ControlRate"]

# Pings, pongs, cancels, and answers that nobody waits for, a second. Browsers send none of
# these unasked, clients and proxies that keep a connection alive one in some seconds, and
# somebody who measures the network ten a second. A hundred cost us a millisecond.
CONTROL_RATE = 100

# The same at once: what has gathered while a handler was busy comes in one go.
CONTROL_BURST = 1000


class ControlRate:
    """A bucket that ``CONTROL_RATE`` a second fill up to ``CONTROL_BURST``.

    Args:
        now: the moment at which it is full.
    """

    __slots__ = ("_at", "_left")

    def __init__(self, now: float) -> None:
        self._left = float(CONTROL_BURST)
        self._at = now

    def take(self, count: int, now: float) -> bool:
        """Take so many out; False if there were not as many in it."""
        left = min(float(CONTROL_BURST), self._left + (now - self._at) * CONTROL_RATE)
        self._at = now
        self._left = left - count
        return self._left >= 0
