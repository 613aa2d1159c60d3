"""End connections whose client is alive: those expired, idle or too old."""

from __future__ import annotations

import math
import random
import threading
import time
from functools import partial
from typing import Any, Protocol

from ...interrupts.stack import inside
from ...server.threads.minder import Minder
from .limits import Limits

__all__ = ["Lasting", "Lifetime"]

# An identity expires by the wall clock, which may be set meanwhile, as on a machine that
# starts without the time: so it is checked again after this many seconds at most.
_LONGEST = 60.0


class Lasting(Protocol):
    """The part of a connection that ``Lifetime`` uses."""

    identity: Any

    @property
    def opened_at(self) -> float:
        """When it opened, by the minder's clock."""

    @property
    def last_message(self) -> float:
        """When the last message arrived, or else when the connection opened."""

    @property
    def busy(self) -> bool:
        """True while a handler runs."""

    def has_work(self) -> bool:
        """Tell whether a job runs for its client, or a call waits for its answer."""

    def shut(self, code: int, reason: str, why: str) -> bool:
        """Send a close frame."""


class Lifetime:
    """Ends one connection for its age or its silence, with one timer for all reasons.

    Args:
        connection: the connection to end.
        minder: runs the timer on its thread.
        limits: how long it may be idle, and how long it may last.
        expires: when the client's identity expires, in Unix seconds; None for never.

    Threads:
        ``renew`` and ``stop`` may be called from any thread; they never wait.
    """

    __slots__ = (
        "_busy",
        "_connection",
        "_expires",
        "_idle_timeout",
        "_lock",
        "_minder",
        "_old",
        "_over",
        "_timer",
    )

    def __init__(
        self, connection: Lasting, minder: Minder, limits: Limits, expires: float | None
    ) -> None:
        self._connection = connection
        self._minder = minder
        self._lock = threading.Lock()
        self._over = False  # guarded by: _lock
        self._expires = math.inf if expires is None else expires  # guarded by: _lock
        self._idle_timeout = math.inf if limits.idle_timeout is None else limits.idle_timeout
        self._busy = 0.0  # when it was last seen working for its client; only the minder's thread
        self._old = math.inf
        if limits.max_lifetime is not None:
            # Clients that came together, as after a restart, must not come back together.
            share = 1 - limits.lifetime_jitter * random.random()
            self._old = connection.opened_at + limits.max_lifetime * share
        with self._lock:  # the minder may look before its timer is noted
            rest = self._rest(minder.clock(), self._expires)
            self._timer = minder.call_later(rest, self._look)

    def renew(self, identity: Any, expires: float | None) -> bool:
        """Replace the identity; return False if the connection has just been ended."""
        if self._lock.locked() and inside():
            self._minder.call_later(0.0, partial(self.renew, identity, expires))
            return True
        with self._lock:
            if self._over:
                return False
            before = self._connection.identity  # which is freed after the lock
            self._connection.identity = identity
            self._expires = math.inf if expires is None else expires
            self._arm_locked(self._minder.clock())
        del before
        return True

    def stop(self) -> None:
        """Stop the timer: the connection has ended."""
        with self._lock:
            self._over = True
            self._timer.cancel()

    def _look(self) -> None:
        # Asked before our own lock is taken: it takes the connection's.
        waits = self._connection.busy or self._connection.has_work()
        with self._lock:
            if self._over:
                return
            now = self._minder.clock()
            if waits:
                self._busy = now
            expired, old = self._expires <= time.time(), self._old <= now
            if not (expired or old or self._idle_from() + self._idle_timeout <= now):
                self._arm_locked(now)
                return
            self._over = True
        if expired:
            self._connection.shut(4401, "the identity has expired", "expired")
        elif old:
            self._connection.shut(1001, "connected for long; connect again", "lifetime")
        else:
            self._connection.shut(4408, "no message for long", "idle")

    def _arm_locked(self, now: float) -> None:
        assert self._lock.locked()
        self._timer.cancel()
        self._timer = self._minder.call_later(self._rest(now, self._expires), self._look)

    def _rest(self, now: float, expires: float) -> float:
        idle = self._idle_from() + self._idle_timeout - now
        return max(0.0, min(expires - time.time(), _LONGEST, self._old - now, idle))

    def _idle_from(self) -> float:
        """Return since when the client is idle; one that waits for its handler is not."""
        return max(self._connection.last_message, self._busy)
