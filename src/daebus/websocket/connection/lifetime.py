"""When a connection ends though its client is alive: expired, idle, or old."""

from __future__ import annotations

import datetime
import math
import random
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...server.threads.minder import Minder
from .limits import Limits

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Lifetime", "expiry"]

# An identity expires by the wall clock, which may be set meanwhile, as on a machine that
# starts without the time: it is looked at this often.
_LONGEST = 60.0


def expiry(identity: Any) -> float | None:
    """Return when an identity expires, its ``expires_at``, in Unix seconds.

    Args:
        identity: an object with such an attribute, a mapping with such a key, or
            anything else, which never expires.

    Raises:
        TypeError: it is neither a number nor a datetime.
        ValueError: it is NaN, or a datetime without a time zone.
    """
    if isinstance(identity, Mapping):
        value = identity.get("expires_at")
    else:
        value = getattr(identity, "expires_at", None)
    if value is None:
        return None
    if isinstance(value, datetime.datetime):
        if value.utcoffset() is None:
            raise ValueError(
                f"expires_at has no time zone: {value!r}; write datetime.now(timezone.utc) + "
                f"timedelta(minutes=15)"
            )
        return value.timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"expires_at is a number of seconds or a datetime, not {value!r}; write "
            f"time.time() + 900"
        )
    if math.isnan(value):
        raise ValueError("expires_at is NaN; write time.time() + 900")
    return float(value)


class Lifetime:
    """The end that is set to one connection, with one timer for all reasons.

    Args:
        connection: the one.
        minder: on whose thread the timer runs.
        limits: how long it may be idle, and how long it may last.
        expires: when its client's identity does, in Unix seconds; None never.

    Threads:
        ``renew`` and ``stop`` may be called from any; they never wait.
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
        self, connection: Connection, minder: Minder, limits: Limits, expires: float | None
    ) -> None:
        self._connection = connection
        self._minder = minder
        self._lock = threading.Lock()
        self._over = False  # guarded by: _lock, as the next two
        self._expires = math.inf if expires is None else expires
        self._idle_timeout = math.inf if limits.idle_timeout is None else limits.idle_timeout
        self._busy = 0.0  # when it was last seen at work for its client; only the minder's thread
        self._old = math.inf
        if limits.max_lifetime is not None:
            # Those who came together, such as after a restart, must not return together.
            share = 1 - limits.lifetime_jitter * random.random()
            self._old = connection.connected_at + limits.max_lifetime * share
        self._timer = minder.call_later(self._rest(time.monotonic()), self._look)

    def renew(self, identity: Any, expires: float | None) -> bool:
        """Go on with another identity; False if the connection has just been ended."""
        with self._lock:
            if self._over:
                return False
            self._connection.user = identity
            self._expires = math.inf if expires is None else expires
            self._arm_locked(time.monotonic())
            return True

    def stop(self) -> None:
        """Look no more: the connection has ended."""
        with self._lock:
            self._over = True
            self._timer.cancel()

    def _look(self) -> None:
        # Before our own lock: this takes the connection's.
        waits = self._connection.busy or self._connection.has_work()
        with self._lock:
            if self._over:
                return
            now = time.monotonic()
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
        self._timer.cancel()
        self._timer = self._minder.call_later(self._rest(now), self._look)

    def _rest(self, now: float) -> float:
        idle = self._idle_from() + self._idle_timeout - now
        return max(0.0, min(self._expires - time.time(), _LONGEST, self._old - now, idle))

    def _idle_from(self) -> float:
        """Return since when nothing has come: a client that waits for its handler is not idle."""
        return max(self._connection.last_message, self._busy)
