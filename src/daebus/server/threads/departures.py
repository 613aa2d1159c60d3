"""Many who are sent away before a stop, each at a moment of its own.

Rules of this module:

1. Those who were told together would come back together. So those who are left are told in random
   order, at an even pace.
2. It runs on the minder: there is no thread, timer or note for each of them, and none can hold up
   the others. Once the time is over all are told.
3. A second beginning can only hurry: the end is never put off.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection
from typing import Final, Generic, TypeVar

from ...interrupts.flag import Flag
from .minder import Minder, Timer

__all__ = ["Departures", "pause_before_return"]

# Seconds after which one is to come back, the least and the most: a process that is replaced is
# there again by then, and a thousand do not come within one instant.
_SOONEST, _LATEST = 0.2, 2.0
# Seconds between two lots of those who are told.
_PAUSE: Final = 0.05

Item = TypeVar("Item")


def pause_before_return() -> float:
    """Return after how many seconds one of many is to come back."""
    return round(random.uniform(_SOONEST, _LATEST), 3)


class Departures(Generic[Item]):
    """Paces them.

    Args:
        minder: runs it.
        left: returns who is still there.
        may_go: whether one may be told now, rather than a little later.
        tell: tells one.
        finish: called once nobody is left or the time is over; tells all who are left.

    Attributes:
        over: to be set by ``finish``; who comes later is told at once.
    """

    def __init__(
        self,
        minder: Minder,
        *,
        left: Callable[[], Collection[Item]],
        may_go: Callable[[Item], bool],
        tell: Callable[[Item], None],
        finish: Callable[[], None],
    ) -> None:
        self.over = Flag()
        self._minder = minder
        self._left = left
        self._may_go = may_go
        self._tell = tell
        self._finish = finish
        # The minder's alone.
        self._end = math.inf
        self._timer: Timer | None = None

    def begin(self, spread: float) -> None:
        """Tell each within so many seconds; 0 for now.

        Threads:
            Any, and what interrupted one; never waits.
        """
        end = self._minder.clock() + spread
        self._minder.call_later(0.0, lambda: self._hasten(end))

    def rest(self) -> float:
        """Return how many seconds are left; on the minder, between ``begin`` and the end."""
        return max(0.0, self._end - self._minder.clock())

    def _hasten(self, end: float) -> None:
        self._end = min(self._end, end)
        if self._timer is not None:
            self._timer.cancel()
        self._tell_some()

    def _tell_some(self) -> None:
        """Tell as many as keep the pace, and go on after a pause."""
        self._timer = None
        rest, crowd = self.rest(), self._left()
        if not rest or not crowd:
            self._finish()
            return
        pause = min(_PAUSE, rest)
        share = len(crowd) * pause / rest
        # With a fraction left to chance, one alone is as likely told early as late.
        count = int(share) + (random.random() < share % 1)
        idle = [one for one in crowd if self._may_go(one)]
        for one in random.sample(idle, min(count, len(idle))):
            self._tell(one)
        self._timer = self._minder.call_later(pause, self._tell_some)
