"""The clock that everything of ours goes by, and seconds as the waits of the system take them.

A lock takes three hundred years, a poll 24 days, and both raise ``OverflowError`` beyond. A
deadline may be any moment, infinity included, so every wait goes through here.

A test of a program may stop the clock of its own code (freezegun), and ours must go on: it
looks for ``time.monotonic`` in all modules, and does not see it inside of another callable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

__all__ = [
    "LONGEST_POLL",
    "comes_true",
    "lock_timeout",
    "monotonic",
    "perf_counter",
    "poll_timeout",
    "until",
]

# Those of ``time``, taken when this module is imported.
monotonic: Final[Callable[[], float]] = partial(time.monotonic)
perf_counter: Final[Callable[[], float]] = partial(time.perf_counter)

# Seconds of one wait for descriptors; who waits for longer looks again then. ``poll`` and
# ``epoll`` count milliseconds in 32 bits.
LONGEST_POLL = 86400.0

# Seconds between two looks at what changes without an event.
_PAUSE = 0.01


def lock_timeout(seconds: float) -> float:
    """Return what a lock, condition, event or future and the end of a thread can be waited for.

    Args:
        seconds: any number; NaN and what is below 0 count as 0.

    Raises:
        TypeError: it is no number.
    """
    try:
        return min(max(0.0, seconds), threading.TIMEOUT_MAX)
    except TypeError:
        raise TypeError(
            f"a time to wait must be a number of seconds, not {seconds!r:.100}; write 5.0, or "
            "math.inf for ever"
        ) from None


def until(deadline: float) -> float:
    """Return ``lock_timeout`` of the time until a moment of ``time.monotonic()``."""
    return lock_timeout(deadline - monotonic())


def comes_true(holds: Callable[[], bool], timeout: float) -> bool:
    """Look again and again whether something holds that no event tells; False if it did not."""
    deadline, pause = monotonic() + lock_timeout(timeout), threading.Event()
    while not holds():
        if monotonic() > deadline:
            return False
        pause.wait(_PAUSE)
    return True


def poll_timeout(seconds: float | None) -> float | None:
    """Return how long a wait for descriptors may take; None, as given, for ever.

    It may end before the seconds have passed: look at the deadline and wait again.
    """
    return None if seconds is None else min(max(0.0, seconds), LONGEST_POLL)
