"""Hand calls over to a thread of the host, which runs them when it pumps.

For hosts whose main thread alone may touch something: a window, a serial port. Whoever
hands over waits, so the queue holds no more than one call for each of those.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from ...errors import StateError
from ...interrupts.flag import Flag
from ...interrupts.stack import check_outside
from ...waits import lock_timeout, monotonic, until
from .safelog import get_logger

__all__ = ["AFTER_STOP", "Pump"]

logger = get_logger("daebus")

# Seconds that a pump waits at most once the app stops: long enough that a loop around it
# does not spin, short enough for that loop to see the stop.
AFTER_STOP = 0.1


class _Call:
    """One call, and the event that its caller waits for."""

    __slots__ = ("ended", "function", "wanted")

    def __init__(self, function: Callable[[], object], wanted: Callable[[], bool]) -> None:
        self.function = function
        self.wanted = wanted
        self.ended = Flag()


class Pump:
    """The queue of calls between our threads and one of the host's; new for each start.

    Args:
        begin_timeout: seconds within which a call must be started.
    """

    def __init__(self, begin_timeout: float) -> None:
        self._begin_timeout = begin_timeout
        self._lock = threading.Lock()
        # Not a condition, whose wait leaves the lock to nobody if a signal handler raises.
        self._work = Flag()  # there are calls, or no more will come
        self._calls: deque[_Call] = deque()  # guarded by: _lock
        self._current: _Call | None = None  # guarded by: _lock; the running one
        self._runner: int | None = None  # guarded by: _lock; the thread that pumps
        self._closed = False  # guarded by: _lock
        self._told = False  # guarded by: _lock; that nobody pumps, since somebody last did

    # --- the threads that hand over ---------------------------------------------

    def call(self, function: Callable[[], object], wanted: Callable[[], bool]) -> bool:
        """Have the function called by the host, and wait until it has returned.

        Args:
            function: must not raise.
            wanted: asked before the call; False drops it.

        Returns:
            False if it was not started in time and is withdrawn. True if it has been called
            or dropped, or if the app stops, which does not wait for it for ever.

        Threads:
            Any but the host's, which would wait for itself.
        """
        call = _Call(function, wanted)
        with self._lock:
            if self._closed:
                return True
            self._calls.append(call)
        self._work.set()
        if not call.ended.wait(lock_timeout(self._begin_timeout)):
            with self._lock:
                late = call in self._calls
                if late:
                    self._calls.remove(call)
                abandoned = late and self._runner is None and not self._told
                self._told = self._told or abandoned
            if abandoned:
                logger.warning(
                    "a handler with run_in='main' waited %g s in vain, since nobody calls "
                    "app.pump(); write while app.running: app.pump(0.1) in the main thread, or "
                    "leave out run_in='main'",
                    self._begin_timeout,
                )
            if late:
                return False
            call.ended.wait()  # it runs, for as long as it takes
        return True

    # --- the host's thread ------------------------------------------------------

    def run_while(self, wanted: Callable[[], bool], timeout: float, look: float) -> int:
        """Do as ``run``, and look every so many seconds whether to wait any longer.

        Args:
            wanted: asked then.
            timeout: as for ``run``.
            look: seconds between two looks.
        """
        deadline = monotonic() + lock_timeout(timeout)
        while True:
            done = self.run(min(until(deadline), look))
            if done or not wanted() or monotonic() >= deadline:
                return done

    def run(self, timeout: float) -> int:
        """Run the calls that wait; if there is none, wait for the first.

        No more than were there when it began with the first, so that it returns.

        Args:
            timeout: seconds to wait for the first.

        Returns:
            How many were run.

        Raises:
            StateError: another thread is pumping, or this one is, further up its stack.
            KeyboardInterrupt, SystemExit: a function was interrupted so, or by what else a
                signal handler raises; it has ended.

        Threads:
            One of the host's.
        """
        check_outside("app.pump()", self._lock)
        deadline = monotonic() + lock_timeout(timeout)
        me = threading.get_ident()
        mine = False
        try:
            with self._lock:
                if self._runner is not None:
                    where = "a handler that it runs" if self._runner == me else "another thread"
                    raise StateError(
                        f"app.pump() is called by {where} already; call it in one place"
                    )
                self._runner = me
                mine = True
                self._told = False
            done = 0
            for _ in range(self._wait(deadline)):
                done += self._run_one()
            return done
        finally:
            if mine:  # nothing is called here, so that no signal handler can raise first
                self._runner = None  # unguarded: see above

    def _wait(self, deadline: float) -> int:
        """Wait for the first call; return how many there are."""
        if self._closed:  # unguarded: set once
            Flag().wait(min(deadline - monotonic(), AFTER_STOP))
        while True:
            self._work.clear()
            with self._lock:
                if self._calls or self._closed:
                    return len(self._calls)
            if not self._work.wait(deadline - monotonic()):
                return 0

    def _run_one(self) -> int:
        with self._lock:
            if not self._calls:  # they were withdrawn meanwhile
                return 0
            call = self._current = self._calls.popleft()
        try:
            if not call.wanted():
                return 0
            call.function()
            return 1
        finally:
            self._current = None  # unguarded: one store, before a signal handler can raise
            call.ended.set()

    # --- the end ----------------------------------------------------------------

    def close(self) -> None:
        """Take no more calls, and drop those that have not started.

        If a running call itself stops the app, its caller is released too: the stop
        would wait for it in vain.
        """
        with self._lock:
            self._closed = True
            dropped, self._calls = list(self._calls), deque()
            mine = self._runner == threading.get_ident()
        self._work.set()
        for call in dropped:
            call.ended.set()
        if mine:
            self.abandon()

    def abandon(self) -> None:
        """Release the caller of the running call before that has ended."""
        with self._lock:
            current = self._current
        if current is not None:
            current.ended.set()
