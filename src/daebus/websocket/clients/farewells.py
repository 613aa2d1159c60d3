"""Send clients away before a stop, each at a moment of its own.

Rules of this module:

1. Clients that were told together would come back together. So those who are left are told in
   random order, at an even pace, and each is told when to come back.
2. It runs on the minder: there is no thread, timer or note for each client, and none of them can
   hold up the others. Once the time is over all are told.
3. A client whose request is being worked on is told after its answer, if there is time.
4. A second farewell can only hurry: the end is never put off.
"""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Final

from ...interrupts.flag import Flag
from ...server.threads.minder import Minder, Timer
from ..connection.link import Link
from ..protocol import envelope
from ..protocol.codec import TEXT, frame
from .registry import Registry

__all__ = ["GOODBYE", "Farewells"]

GOODBYE = "goodbye"

# Seconds after which a client is to come back, the least and the most: a process that is
# replaced is there again by then, and a thousand clients do not come within one instant.
_SOONEST, _LATEST = 0.2, 2.0
# Seconds between two lots of clients that are told.
_PAUSE: Final = 0.05


class Farewells:
    """Says goodbye to all clients of one start of the app.

    Args:
        registry: has them.
        minder: runs it.

    Attributes:
        over: set once all were told; who comes later is told at once.
    """

    def __init__(self, registry: Registry, minder: Minder) -> None:
        self.over = Flag()
        self._registry = registry
        self._minder = minder
        self._restart = False  # once True it stays
        # The minder's alone.
        self._end = math.inf
        self._timer: Timer | None = None

    def begin(self, spread: float, *, restart: bool) -> None:
        """Tell each client within so many seconds.

        Args:
            spread: seconds; 0 for now.
            restart: another process takes over, so the close code is 1012 in place of 1001.

        Threads:
            Any, and what interrupted one; never waits.
        """
        self._restart = self._restart or restart
        self._minder.call_later(0.0, partial(self._hasten, self._minder.clock() + spread))

    def end(self, *, restart: bool = False) -> None:
        """Tell all who are left, at once.

        Threads:
            Any, and the minder may be dead.
        """
        self._restart = self._restart or restart
        self.over.set()
        for link in self._registry.all_now():
            self._tell(link)

    def came(self, link: Link) -> None:
        """Note a client that is in the registry now; one that is late is told at once.

        Threads:
            The connection's own.
        """
        if self.over.is_set():
            self._tell(link)

    def _hasten(self, end: float) -> None:
        self._end = min(self._end, end)
        if self._timer is not None:
            self._timer.cancel()
        self._tell_some()

    def _tell_some(self) -> None:
        """Tell as many as keep the pace, and go on after a pause."""
        self._timer = None
        left = self._end - self._minder.clock()
        links = self._registry.snapshot()
        if left <= 0 or not links:
            self.end()
            return
        pause = min(_PAUSE, left)
        share = len(links) * pause / left
        # With a fraction left to chance, one client alone is as likely told early as late.
        count = int(share) + (random.random() < share % 1)
        idle = [link for link in links if not (link.busy or link.has_work())]
        for link in random.sample(idle, min(count, len(idle))):
            self._tell(link)
        self._timer = self._minder.call_later(pause, self._tell_some)

    def _tell(self, link: Link) -> None:
        reason = "restart" if self._restart else "shutdown"
        last = b""
        if not link.peer.raw:
            seconds = round(random.uniform(_SOONEST, _LATEST), 3)
            last = frame(TEXT, envelope.encode(GOODBYE, {"retry_after": seconds, "reason": reason}))
        link.shut(1012 if self._restart else 1001, "", "shutdown", last)
