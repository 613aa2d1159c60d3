"""The one thread that waits so that the others need not.

The minder finishes writes that a socket would not take at once, reads on behalf of
connections whose thread is inside a handler, and keeps every deadline.

Rules of this module:

1. Nothing that runs here may wait; what the minder calls is our own code, never the
   user's (a hook that hangs would hang every client).
2. A callback that raises is logged; the minder goes on.
3. A socket that was ever watched is closed here (``release``), after it left the
   selector, so that a reused descriptor number cannot be mistaken for it.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..sockets.wakeup import Wakeup
from .safelog import get_logger
from .track import track
from .vitals import Vitals

__all__ = ["Minder", "Timer", "Watched"]

logger = get_logger("daebus.server")

# A pause no deadline asked for; a lost wake-up would then cost this long at most.
_LONGEST_SLEEP = 60.0

# Calls that are due before sockets get their turn: clients that came together are pinged
# together.
_BURST = 64


class Watched(Protocol):
    """What the minder asks of a connection."""

    def fileno(self) -> int:
        """Return its descriptor, -1 once closed."""

    def interest(self) -> int:
        """Return the selector events it waits for now; 0 for none."""

    def ready(self, events: int) -> None:
        """Do what can be done without waiting."""

    def release(self) -> None:
        """Close it; the minder has let go."""


class Timer:
    """A scheduled call; any thread may cancel it."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Cancel the call, and forget the callback with all that it refers to."""
        self.callback = None


class Minder:
    """Runs deadlines and unfinished socket work on one daemon thread.

    Args:
        clock: seconds, as of ``time.monotonic``; a test passes one that it sets by hand,
            and calls ``run_due`` in place of ``start``.
        vitals: watches over the thread.

    Attributes:
        vitals: as given, for what shares its start of the app.
        clock: the same; who sets timers here measures by it too.

    Threads:
        ``call_later``, ``attend`` and ``release`` may be called from any thread and
        never wait.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, vitals: Vitals | None = None
    ) -> None:
        self.vitals = vitals or Vitals()
        self.clock = clock
        self._lock = threading.Lock()
        self._inbox: deque[Watched] = deque()  # guarded by: _lock
        self._released: deque[Watched] = deque()  # guarded by: _lock
        self._timers: list[tuple[float, int, Timer]] = []  # guarded by: _lock
        self._additions = 0  # guarded by: _lock; since the heap was swept
        self._sleeps_until = 0.0  # guarded by: _lock
        self._stopping = False  # guarded by: _lock
        self._number = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._wakeup = Wakeup(self._selector)
        thread = threading.Thread(
            target=self.vitals.guard, args=(self._run,), name="daebus-minder", daemon=True
        )
        self._thread = track(thread, "minder")

    @property
    def thread(self) -> threading.Thread:
        """The thread, for joining and for reports."""
        return self._thread

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Make the thread end; join it afterwards."""
        with self._lock:
            self._stopping = True
        self._wakeup.set()
        if self._thread.ident is None:  # never started, so no thread cleans up
            self._close()

    def abandon(self) -> None:
        """Close a forked child's copies; the parent's selector watches on."""
        self._wakeup.abandon()
        self._selector.close()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Schedule a call on the minder's thread after that many seconds."""
        timer = Timer(callback)
        when = self.clock() + seconds
        with self._lock:
            heapq.heappush(self._timers, (when, next(self._number), timer))
            self._additions += 1
            if self._additions > len(self._timers) // 2 + 1000:
                # Sweep: cancelled ones would otherwise stay until they are due.
                self._additions = 0
                self._timers = [entry for entry in self._timers if entry[2].callback is not None]
                heapq.heapify(self._timers)
            early = when < self._sleeps_until
        if early:
            self._wakeup.set()
        return timer

    def attend(self, target: Watched) -> None:
        """Have the minder's thread ask for the target's ``interest()`` again."""
        with self._lock:
            self._inbox.append(target)
        self._wakeup.set()

    def release(self, target: Watched) -> None:
        """Take over a socket for good: stop watching it, then close it."""
        with self._lock:
            if not self._stopping:
                self._released.append(target)
                self._wakeup.set()
                return
        target.release()

    def run_due(self) -> float | None:
        """Run all calls that are due and do the socket work that waits for nothing.

        Returns:
            Seconds until the next call, one minute at most; None once stopped.

        Threads:
            The minder's own, or the one that drives a minder that was not started.
        """
        while True:
            self._wakeup.clear()
            if not self._take_inbox():
                return None
            pause = self._fire_timers()
            if pause > 0:
                return pause
            self._serve_all(self._selector.select(0))

    def _run(self) -> None:
        try:
            while True:
                pause = self.run_due()
                if pause is None:
                    return
                self._serve_all(self._selector.select(pause))
        finally:
            self._close()

    # In functions of their own, whose names do not keep a connection while the minder sleeps.

    def _take_inbox(self) -> bool:
        with self._lock:
            if self._stopping:
                return False
            inbox, self._inbox = self._inbox, deque()
            released, self._released = self._released, deque()
        for target in inbox:
            self._guarded(self._watch, target)
        for target in released:
            self._guarded(self._forget, target)
        return True

    def _serve_all(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, events in ready:
            if key.data is not None:
                self._guarded(self._serve, key.data, events)

    def _close(self) -> None:
        with self._lock:
            self._stopping = True
            released, self._released = self._released, deque()
            self._timers.clear()
        for target in released:
            self._guarded(target.release)
        self._wakeup.close()
        self._selector.close()

    def _guarded(self, function: Callable[..., None], *args: object) -> None:
        try:
            function(*args)
        except Exception:
            logger.exception("the minder's %s failed", function)

    def _fire_timers(self) -> float:
        """Run what is due, not too much of it, and return how long the minder may sleep."""
        for _ in range(_BURST):
            now = self.clock()
            with self._lock:
                while self._timers and self._timers[0][2].callback is None:
                    heapq.heappop(self._timers)
                if self._inbox or self._released or self._stopping:
                    self._sleeps_until = now
                    return 0.0
                if not self._timers or self._timers[0][0] > now:
                    until = self._timers[0][0] if self._timers else now + _LONGEST_SLEEP
                    self._sleeps_until = min(until, now + _LONGEST_SLEEP)
                    return self._sleeps_until - now
                timer = heapq.heappop(self._timers)[2]
            callback = timer.callback
            if callback is not None:
                self._guarded(callback)
        return 0.0  # sockets first

    def _watch(self, target: Watched) -> None:
        """Bring the selector in line with the target's interest."""
        fd, events = target.fileno(), target.interest()
        if fd < 0:
            return
        key = self._selector.get_map().get(fd)
        if key is not None and (not events or key.data is not target):
            self._selector.unregister(fd)
            key = None
        if not events:
            return
        if key is None:
            self._selector.register(fd, events, target)
        elif key.events != events:
            self._selector.modify(fd, events, target)

    def _serve(self, target: Watched, events: int) -> None:
        target.ready(events)
        self._watch(target)

    def _forget(self, target: Watched) -> None:
        fd = target.fileno()
        key = self._selector.get_map().get(fd) if fd >= 0 else None
        if key is not None and key.data is target:
            self._selector.unregister(fd)
        target.release()
