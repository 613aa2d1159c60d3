"""Whether this node hears itself: what is down, what is deaf, and when to send what was kept."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable

from ...backplane.protocol import Backplane

__all__ = ["Hearing"]

# After an outage what was kept waits for so many seconds at most for the others to be back.
LONGEST_HOLD = 2.0


class Hearing:
    """Judges the backplane by our own beats that come back.

    Args:
        backplane: carries them.
        clock: seconds, as of ``time.monotonic``.
        silence: seconds without one after which something is wrong.

    Attributes:
        up: whether they come back, as far as is known.
        deaf_resets: how often the receiving side was made anew.

    Threads:
        Any; never waits.
    """

    def __init__(self, backplane: Backplane, clock: Callable[[], float], silence: float) -> None:
        self._backplane = backplane
        self._clock = clock
        self._silence = silence
        self._lock = threading.Lock()
        self._echo = -math.inf  # guarded by: _lock; when one came last
        self._patient_from = clock()  # guarded by: _lock; nothing is expected before
        self._down_since = clock()  # guarded by: _lock
        self._held_at = clock()  # guarded by: _lock
        self._echoed = False  # guarded by: _lock; since we are connected
        self._missing: frozenset[str] = frozenset()  # guarded by: _lock; not back yet
        self._holding = True  # guarded by: _lock
        self.up = False  # written under _lock
        self.deaf_resets = 0  # written under _lock

    @property
    def holding(self) -> bool:
        """True while what was kept has not left."""
        return self._holding  # unguarded: old as soon as it is told

    def connected(self, others: Iterable[str]) -> None:
        """Note that connections were made anew, and who is to be back before anything leaves."""
        with self._lock:
            self._held_at = self._patient_from = self._clock()
            self._missing = frozenset(others)
            self._echoed, self._holding = False, True

    def echo(self) -> tuple[float, float | None]:
        """Note that one of our own beats came back.

        Returns:
            For how long we have heard ourselves since the last one, 0 after an outage; and how
                long we were down, None if we were not.
        """
        with self._lock:
            now = self._clock()
            pause, self._echo = now - self._echo, now
            self._echoed = True
            was_up, self.up = self.up, True
            down = None if was_up else now - self._down_since
            return (pause if pause <= self._silence else 0.0), down

    def heard(self, node: str) -> None:
        """Note that another node is back."""
        if node in self._missing:  # unguarded: it is looked at again
            with self._lock:
                self._missing -= {node}

    def settle(self) -> bool:
        """Let what was kept leave, if it is time to; True if it did."""
        with self._lock:
            if not self._holding or not self._backplane.up:
                return False
            late = self._clock() - self._held_at >= LONGEST_HOLD
            if not late and (self._missing or not self._echoed):
                return False
            self._holding = False
        self._backplane.flush()
        return True

    def judge(self) -> float | None:
        """Look at what did not come; make the receiving side anew if it is deaf.

        Returns:
            For how long nothing has come back, if that is so since now; None otherwise.
        """
        connected = self._backplane.up
        with self._lock:
            now = self._clock()
            silent = now - max(self._echo, self._patient_from) > self._silence
            went_down = self.up and (silent or not connected)
            if went_down:
                self.up, self._down_since = False, now
            deaf = connected and silent
            if deaf:
                self.deaf_resets += 1
                self._patient_from = now
            last = self._echo
        if deaf:
            self._backplane.renew()
        return now - last if went_down else None
