"""An event without a lock."""

from __future__ import annotations

import threading
from collections import deque

from ..waits import monotonic

__all__ = ["Flag"]


class Flag(threading.Event):
    """An event without a lock, so that whatever interrupts ``set`` or ``wait`` may do both.

    An event of the standard library takes a lock that is not re-entrant.
    """

    def __init__(self) -> None:
        self._flag = False
        # A lock for each thread that waits. Whoever waits first puts its lock here and then
        # looks, whoever sets first sets and then takes from here: never ``if self._waiters``,
        # since only the queue's methods exclude each other where there is no GIL.
        self._waiters: deque[threading.Lock] = deque()

    def is_set(self) -> bool:
        """Tell whether it is set."""
        return self._flag

    def set(self) -> None:
        """Set it, and wake who waits."""
        self._flag = True
        try:
            while True:
                self._waiters.popleft().release()
        except IndexError:  # nobody is left that waits
            pass

    def clear(self) -> None:
        """Set it no more."""
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False if the time passed first."""
        if self.is_set():
            return True
        deadline = None if timeout is None else monotonic() + timeout
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        try:
            if self.is_set():
                return True
            if deadline is None:
                return waiter.acquire()
            return waiter.acquire(timeout=max(0.0, deadline - monotonic())) or self.is_set()
        finally:
            try:
                self._waiters.remove(waiter)
            except ValueError:  # it was woken
                pass
