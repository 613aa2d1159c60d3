"""When to come back to a server, and when not to. Pure.

Rules of this module, which the browser's client follows as well:

1. What will be the same again next time is final: most 4xx answers, close codes of errors,
   and those from 4400 to 4499; 4000 is the app's own for the same.
2. Everything else is tried again after ``random(0, min(MAX_DELAY, MIN_DELAY * 2**n))``, which
   spreads a crowd evenly. A server that says when to come back is obeyed, but never into a storm:
   next to nothing counts as nothing, and from the second attempt on the longer pause counts.
3. A connection counts as a success after ``RESET_AFTER`` seconds: one that ends right after it
   opened would otherwise be tried again without a pause.
"""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime

__all__ = ["Backoff", "is_final_code", "is_final_status", "retry_after"]

MIN_DELAY = 0.5  # seconds, of the first delay at most
MAX_DELAY = 30.0
RESET_AFTER = 5.0

# What a server may ask for at most: it may have meant milliseconds; and what is none.
_MAX_RETRY_AFTER = 3600.0
_MIN_RETRY_AFTER = 0.1

_FINAL_CODES = frozenset((1000, 1002, 1003, 1007, 1008, 1009, 1010, 4000))

# Of 4xx: a request that came slowly, a client id that is still in use, too early, too many.
_PASSING = frozenset((408, 409, 425, 429))

# Of 5xx: no WebSocket component, another version of HTTP.
_LASTING = frozenset((501, 505))


def is_final_code(code: int) -> bool:
    """Tell whether a connection that was closed with this code stays closed."""
    return code in _FINAL_CODES or 4400 <= code <= 4499


def is_final_status(status: int) -> bool:
    """Tell whether a server that answered so will answer so again."""
    if status >= 500:
        return status in _LASTING
    return status not in _PASSING


def retry_after(value: object) -> float | None:
    """Return the seconds that a server asks for, in a goodbye or a header; None if it is none.

    A header may hold a date (RFC 9110 section 10.2.3), as a proxy may send it.
    """
    try:
        seconds = float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError):
        try:
            seconds = max(0.0, parsedate_to_datetime(str(value)).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None
    return min(seconds, _MAX_RETRY_AFTER) if seconds >= 0 else None


def draw() -> float:
    """Return a random number from 0 to 1."""
    return random.random()


class Backoff:
    """How long to wait before the next attempt.

    Attributes:
        asked: seconds that the server asks for, once; None if it leaves that to the client.
    """

    def __init__(self) -> None:
        self._failures = 0
        self.asked: float | None = None

    def lasted(self, seconds: float) -> bool:
        """Note how long a connection was open; return whether it counts as a success."""
        if seconds >= RESET_AFTER:
            self._failures = 0
            return True
        return False

    def next(self) -> float:
        """Return the seconds to wait now."""
        asked, self.asked = self.asked, None
        # The exponent is bounded, as a client may try for years.
        first = not self._failures
        own = draw() * min(MAX_DELAY, MIN_DELAY * 2.0 ** min(self._failures, 32))
        self._failures += 1
        if asked is None or asked < _MIN_RETRY_AFTER:
            return own
        return asked if first else max(asked, own)
