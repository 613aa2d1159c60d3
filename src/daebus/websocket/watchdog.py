"""Watch handlers that take long, from the minder's thread.

While a handler runs, its client is not read. At the second check the minder begins to
read in its place, so that pings are answered and a close is seen; and after
``slow_handler`` seconds the handler is reported with its stack.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..server.threads.loop import LoopThread
from ..server.threads.minder import Minder
from ..server.threads.safelog import get_logger
from ..server.threads.stacks import stack_of_coroutine, stack_of_thread
from .clients.registry import Registry
from .connection.events import SlowHandlerInfo
from .connection.link import Link

__all__ = ["Watchdog", "stack_of"]

logger = get_logger("daebus.websocket")

# Seconds between two checks while a connection is busy; otherwise there are none.
TICK = 0.1


def stack_of(link: Link) -> str:
    """Return the stack of a connection's handler as text, also of an async one."""
    activity = link.activity
    task = None if activity is None else activity.task
    if task is None:
        return stack_of_thread(link.writer.owner)
    # The task's own get_stack() ends at the outermost coroutine, which is not the user's.
    return stack_of_coroutine(task.get_coro())


class _Seen:
    """What a busy connection was doing at the last check."""

    __slots__ = ("reported", "since", "turn", "what")

    def __init__(self, turn: int, what: int, now: float) -> None:
        self.turn = turn
        self.what = what
        self.since = now
        self.reported = False


class Watchdog:
    """Checks connections regularly while some are busy, and sleeps while none is.

    Args:
        registry: has the connections to check.
        minder: runs the checks on its thread.
        loop: its thread is watched too.
        slow_handler: seconds after which to report; None for never.
        report: called with the slow connection (None for the loop) and the report.
    """

    def __init__(
        self,
        registry: Registry,
        minder: Minder,
        loop: LoopThread,
        slow_handler: float | None,
        report: Callable[[Link | None, SlowHandlerInfo], None],
    ) -> None:
        self.dozing = True
        self._registry = registry
        self._minder = minder
        self._loop = loop
        self._slow_handler = slow_handler
        self._report = report
        self._lock = threading.Lock()
        self._stopped = False  # guarded by: _lock
        self._seen: dict[Link, _Seen] = {}  # only the minder's thread
        self._loop_reported = False  # only the minder's thread

    def rouse(self) -> None:
        """Begin to check again; called at the first message after a quiet time."""
        with self._lock:
            if not self.dozing or self._stopped:
                return
            self.dozing = False
        self._minder.call_later(TICK, self._tick)

    def stop(self) -> None:
        """Stop checking."""
        with self._lock:
            self._stopped = True

    def _tick(self) -> None:
        quiet = False
        try:
            quiet = self._look_at_all(self._minder.clock())
        finally:  # an error with one connection must not end the checks
            self._rearm(quiet)

    def _look_at_all(self, now: float) -> bool:
        """Check each busy connection; return True if there was none twice in a row."""
        seen: dict[Link, _Seen] = {}
        for link in self._registry.snapshot():
            if link.busy:
                seen[link] = self._look(link, now)
        quiet = not seen and not self._seen
        self._seen = seen
        if seen:
            self._look_at_loop()
        return quiet

    def _rearm(self, quiet: bool) -> None:
        with self._lock:
            if self._stopped:
                self._seen = {}
                return
            self.dozing = quiet
        self._minder.call_later(TICK, self._look_once_more if quiet else self._tick)

    def _look_once_more(self) -> None:
        """Look for one that became busy while this began to doze, and does not know.

        It marks itself busy and then looks whether this dozes; this dozes and then looks
        whether it is busy. Either may see what the other did a moment ago too late, as each
        may reorder its two steps; but not a whole ``TICK`` too late.
        """
        if self.dozing and any(link.busy for link in self._registry.snapshot()):
            self.rouse()

    def _look(self, link: Link, now: float) -> _Seen:
        reader, activity = link.reader, link.activity
        turn, what = reader.turn, reader.messages_in
        last = self._seen.get(link)
        if last is None or (last.turn, last.what) != (turn, what):
            return _Seen(turn, what, now)
        reader.lend(turn)
        seconds = now - last.since
        running = None if activity is None else activity.running
        if (
            running is not None
            and self._slow_handler is not None
            and seconds >= self._slow_handler
            and not last.reported
        ):
            last.reported = True
            self._report(link, SlowHandlerInfo(running, seconds, stack_of(link)))
        return last

    def _look_at_loop(self) -> None:
        """Report a handler that blocks the loop's thread, and with it all async handlers."""
        thread = self._loop.thread
        if self._slow_handler is None or thread is None:
            return
        seconds = self._loop.probe()
        if seconds < self._slow_handler:
            self._loop_reported = False
        elif not self._loop_reported:
            self._loop_reported = True
            stack = stack_of_thread(thread.ident)
            self._report(None, SlowHandlerInfo("(the loop thread)", seconds, stack))
