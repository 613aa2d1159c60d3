"""The deadline of a message that has begun: a client must send on, and end it."""

from __future__ import annotations

import threading
from typing import Protocol

from ...server.threads.minder import Minder, Timer
from .limits import Limits

__all__ = ["Progress", "Sending"]


class Sending(Protocol):
    """What is asked of the connection."""

    @property
    def held(self) -> int:
        """Bytes kept of a message that is not finished; 0 for none."""

    def unread(self) -> bool:
        """Tell whether bytes wait that nobody has read yet."""

    def shut(self, code: int, reason: str, why: str) -> bool:
        """Send a close frame."""


class Progress:
    """Looks at a message once ``message_timeout`` after it began, and as often as that again.

    Each time it must have ended, or have grown by ``min_rate`` bytes for each second: so a
    long one may take its time, and one that drips or stands still may not. Control frames
    do not make it grow. While the server does not read, as behind a busy handler, the time
    does not count.

    There is one timer at most, and none until a message is unfinished. It stays when that
    one ends, for the next: a client that sends large messages sets one each half minute.

    Args:
        connection: the one.
        minder: on whose thread and by whose clock the timer runs.
        limits: ``message_timeout``, which is not None, and ``min_rate``.

    Threads:
        ``begin`` is for whoever reads, ``stop`` for any; they never wait.
    """

    __slots__ = (
        "_connection",
        "_due",
        "_grown",
        "_least",
        "_lock",
        "_minder",
        "_over",
        "_timeout",
        "_timer",
    )

    def __init__(self, connection: Sending, minder: Minder, limits: Limits) -> None:
        assert limits.message_timeout is not None
        self._connection = connection
        self._minder = minder
        self._timeout = limits.message_timeout
        self._least = limits.min_rate * limits.message_timeout
        self._lock = threading.Lock()
        self._timer: Timer | None = None  # guarded by: _lock
        self._over = False  # guarded by: _lock
        self._due = 0.0  # guarded by: _lock; when the message is looked at, of the minder's clock
        self._grown = 0  # guarded by: _lock; its bytes at the last look

    def begin(self) -> None:
        """Note that a message has begun, before any of it is kept."""
        with self._lock:
            self._due = self._minder.clock() + self._timeout
            self._grown = 0
            if self._timer is None and not self._over:
                self._timer = self._minder.call_later(self._timeout, self._look)

    def stop(self) -> None:
        """Look no more: the connection has ended."""
        with self._lock:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()

    def _look(self) -> None:
        # Before our own lock: this takes the connection's, under which ``begin`` may be called.
        unread, held = self._connection.unread(), self._connection.held
        with self._lock:
            now = self._minder.clock()
            if self._over:
                return
            if self._due <= now:  # else another message has begun meanwhile
                if not held:
                    self._timer = None
                    return
                self._over = not unread and held - self._grown < self._least
                self._grown = held
                self._due = now + self._timeout
            if not self._over:
                self._timer = self._minder.call_later(self._due - now, self._look)
                return
        self._connection.shut(1008, "the message does not come to its end", "message_timeout")
