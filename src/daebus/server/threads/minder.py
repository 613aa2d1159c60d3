"""The one thread that waits so that the others need not.

The minder finishes writes that a socket would not take at once, reads on behalf of
connections whose thread is inside a handler, and keeps every deadline.

Rules of this module:

1. Nothing that runs here may wait; what the minder calls is our own code, never the
   user's (a hook that hangs would hang every client).
2. A callback that raises is logged; the minder goes on.
3. A socket that was ever watched is closed here (``release``), after it left the
   selector, so that a reused descriptor number cannot be mistaken for it.
4. It has no lock, so that whatever interrupts a thread may leave work here (see
   ``interrupts``): others put things into queues and then look at what the minder has said,
   and the minder says it and then looks into the queues, so that one of them sees the
   other. Timers and selector are the minder's alone.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ...waits import monotonic
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
# New timers that may wait until the minder wakes for another reason; most are cancelled
# before they are due, and the minder sweeps those out.
_MAX_NEW = 1000


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

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

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
        self, clock: Callable[[], float] = monotonic, *, vitals: Vitals | None = None
    ) -> None:
        self.vitals = vitals or Vitals()
        self.clock = clock
        self._inbox: deque[Watched] = deque()
        self._released: deque[Watched] = deque()
        self._new: deque[tuple[float, int, Timer]] = deque()
        self._sleeps_until = 0.0
        self._stopping = False
        self._closed = False
        self._number = itertools.count()
        # The minder's alone.
        self._timers: list[tuple[float, int, Timer]] = []
        self._additions = 0  # since the heap was swept
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
        self._stopping = True
        self._wakeup.set()
        if self._thread.ident is None:  # never started, so no thread cleans up
            self._close()

    def abandon(self) -> None:
        """Close a forked child's copies; the parent's selector watches on."""
        self._wakeup.abandon()
        self._selector.close()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Schedule a call on the minder's thread after that many seconds."""
        timer = Timer(callback)
        when = self.clock() + seconds
        self._new.append((when, next(self._number), timer))
        if when < self._sleeps_until or len(self._new) > _MAX_NEW:
            self._wakeup.set()
        return timer

    def attend(self, target: Watched) -> None:
        """Have the minder's thread ask for the target's ``interest()`` again."""
        self._inbox.append(target)
        self._wakeup.set()

    def release(self, target: Watched) -> None:
        """Take over a socket for good: stop watching it, then close it."""
        self._released.append(target)
        self._wakeup.set()
        if self._closed:  # nobody takes it any more
            self._release_all(_release)

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
        if self._stopping:
            return False
        _settle(self._inbox)
        for _ in range(len(self._inbox)):
            self._guarded(self._watch, self._inbox.popleft())
        self._release_all(self._forget)
        return True

    def _release_all(self, release: Callable[[Watched], None]) -> None:
        while True:
            try:
                target = self._released.popleft()
            except IndexError:
                return
            self._guarded(release, target)

    def _serve_all(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, events in ready:
            if key.data is not None:
                self._guarded(self._serve, key.data, events)

    def _close(self) -> None:
        self._stopping = self._closed = True
        self._release_all(_release)
        self._timers.clear()
        self._new.clear()
        self._wakeup.close()
        self._selector.close()

    def _guarded(self, function: Callable[..., object], *args: object) -> None:
        try:
            function(*args)
        except Exception:
            logger.exception("the minder's %s failed", function)

    def _fire_timers(self) -> float:
        """Run what is due, not too much of it, and return how long the minder may sleep."""
        for _ in range(_BURST):
            self._take_new()
            now = self.clock()
            timers = self._timers
            while timers and timers[0][2].callback is None:
                heapq.heappop(timers)
            if timers and timers[0][0] <= now:
                timer = heapq.heappop(timers)[2]
            else:
                until = now + _LONGEST_SLEEP
                self._sleeps_until = min(timers[0][0], until) if timers else until
                _settle(self._new)
                if self._inbox or self._released or self._new or self._stopping:
                    self._sleeps_until = now
                    return 0.0
                return self._sleeps_until - now
            callback = timer.callback
            if callback is not None:
                self._guarded(callback)
        return 0.0  # sockets first

    def _take_new(self) -> None:
        """Take over the new timers, and drop cancelled ones now and then."""
        for _ in range(len(self._new)):
            heapq.heappush(self._timers, self._new.popleft())
            self._additions += 1
        if self._additions > len(self._timers) // 2 + 1000:
            # They would otherwise stay until they are due.
            self._additions = 0
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapq.heapify(self._timers)

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


def _release(target: Watched) -> None:
    target.release()


def _settle(queue: deque[Any]) -> None:
    """Have whoever appends from now on see all that this thread has done.

    A method of the queue, unlike a look at its length, excludes ``append`` in other threads, also
    without the GIL: so either their entry is there now, or they come later and look later.
    """
    queue.rotate(0)
