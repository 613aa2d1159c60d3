"""One function that runs beside the server, and its thread from a start to a stop.

Rules of this module:

1. An exception of the function is logged and never ends its thread.
2. Calls of one task never overlap, even if the last start left a thread behind that
   did not end.
3. Async functions run on the app's loop, while the task's thread waits for them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import math
import threading
from collections.abc import Callable
from typing import Any, Literal

from ..errors import StateError
from ..interrupts.flag import Flag
from ..server.threads.loop import LoopThread
from ..server.threads.safelog import get_logger
from ..server.threads.track import track
from ..waits import lock_timeout, monotonic, until

__all__ = ["Kind", "TaskRun", "StopToken", "Task"]

logger = get_logger("daebus")

Kind = Literal["background", "thread"]

# The prefixes of the threads' names.
_THREADS: dict[Kind, str] = {"background": "daebus-background-", "thread": "daebus-thread-"}

# Seconds before a function that raised is called again, doubled each time up to the
# second: one that fails at once must not fill the log, one that works again must not
# wait long.
FIRST_PAUSE = 1.0
MAX_PAUSE = 30.0

# Seconds between two checks of a thread of the last start that did not end.
PREDECESSOR_POLL = 0.1


class StopToken:
    """The argument of a function of ``@app.thread``: tells whether to go on.

    ::

        while running.wait(1.0):
            ...
    """

    __slots__ = ("_loop", "_stop")

    def __init__(self, stop: threading.Event, loop: LoopThread) -> None:
        self._stop = stop
        self._loop = loop

    def __call__(self) -> bool:
        """Return True until the app or the thread is to stop.

        Threads:
            Any.
        """
        return not self._stop.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but not beyond the stop.

        Returns:
            True if the time has passed, False as soon as the function should return.

        Raises:
            StateError: in an async function, whose sleep is ``asyncio.sleep``.

        Threads:
            Any but the loop's.
        """
        if self._loop.is_current():
            raise StateError(
                "running.wait() was called on the loop, which it would block; write "
                "await asyncio.sleep(seconds), which ends at the stop as well"
            )
        return not self._stop.wait(lock_timeout(seconds))


def steps_to_next(late: float, interval: float) -> int:
    """Return how many intervals after the last due moment the next call is due.

    Calls keep to the moments that the start has set, so that they do not drift; a call
    that took longer than an interval skips those that passed meanwhile.

    Args:
        late: seconds since the last call was due.
        interval: seconds.
    """
    return max(1, math.ceil(late / interval))


class TaskRun:
    """One thread of a task, from a start to a stop.

    Args:
        task: what to call.
        loop: for an async function.
        gate: the function is not called before this is set.
    """

    def __init__(self, task: Task, loop: LoopThread, gate: threading.Event) -> None:
        name = _THREADS[task.kind] + task.name
        thread = threading.Thread(
            target=loop.vitals.guard, args=(self._run,), name=name, daemon=True
        )
        self.thread = track(thread, task.kind)
        self._task = task
        self._loop = loop
        self._gate = gate
        # Threads of earlier starts, in calls that did not end.
        self._previous = [] if task.run is None else task.run.threads()
        self._stop = Flag()
        self._async: asyncio.Task[Any] | None = None  # of an async function that runs

    def threads(self) -> list[threading.Thread]:
        """Return the threads of this and earlier starts that are alive."""
        return [thread for thread in (*self._previous, self.thread) if thread.is_alive()]

    def stop(self) -> None:
        """Tell the function to end, and cancel an async one; never wait."""
        self._stop.set()
        task = self._async
        if task is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                task.get_loop().call_soon_threadsafe(task.cancel)

    def _run(self) -> None:
        self._gate.wait()
        if not self._alone():
            return
        if self._task.interval is None:
            self._run_again_and_again()
        else:
            self._run_every(self._task.interval)

    def _alone(self) -> bool:
        """Wait for the threads of earlier starts; return False if the stop comes first."""
        if any(thread.is_alive() for thread in self._previous):
            logger.warning(
                "%s is not called again yet: its call from before the stop still runs",
                self._task,
                kind=str(self._task),
            )
        for thread in self._previous:
            while thread.is_alive() and not self._stop.is_set():
                thread.join(PREDECESSOR_POLL)
        return not self._stop.is_set()

    def _run_every(self, interval: float) -> None:
        due = monotonic() + interval
        while not self._stop.wait(until(due)):
            self._call()
            steps = steps_to_next(monotonic() - due, interval)
            self._task.missed += steps - 1
            due += steps * interval

    def _run_again_and_again(self) -> None:
        running = StopToken(self._stop, self._loop)
        pause = FIRST_PAUSE
        while True:
            began = monotonic()
            if self._call(running):
                return
            if monotonic() - began > MAX_PAUSE:
                pause = FIRST_PAUSE
            if self._stop.wait(pause):
                return
            pause = min(2 * pause, MAX_PAUSE)

    def _call(self, *arguments: StopToken) -> bool:
        """Call the function once; return False if it raised."""
        task = self._task
        task.calls += 1
        task.began = monotonic()
        try:
            result = task.function(*arguments)
            if inspect.iscoroutine(result):
                self._loop.run(self._cancellable(result))
        except BaseException as exc:  # a SystemExit must not end the thread silently
            # Not ``isinstance``, which asks the exception for its class.
            cancelled = issubclass(
                type(exc), concurrent.futures.CancelledError | asyncio.CancelledError
            )
            if not (cancelled and self._stop.is_set()):
                task.errors += 1
                logger.exception("%s failed", task, kind=str(task))
            return False
        finally:
            task.began = None
        return True

    async def _cancellable(self, awaitable: Any) -> None:
        """Await a coroutine so that ``stop`` can cancel it."""
        # Stored before the check: a stop sets its event first and reads this second, so one
        # of the two sees the other.
        self._async = asyncio.current_task()
        try:
            if self._stop.is_set():
                awaitable.close()
            else:
                await awaitable
        finally:
            self._async = None


class Task:
    """A function, its counts, and its current thread.

    Attributes:
        interval: seconds; None for a function that runs all the time.
        missed: calls that were not made because the one before took too long.
        began: when the current call began, by ``time.monotonic()``; None between calls.
    """

    def __init__(
        self,
        kind: Kind,
        name: str,
        function: Callable[..., Any],
        interval: float | None,
        auto_start: bool,
    ) -> None:
        self.kind = kind
        self.name = name
        self.function = function
        self.interval = interval
        self.auto_start = auto_start
        self.run: TaskRun | None = None  # set under Tasks._lock
        # Changed only by the task's thread.
        self.calls = 0
        self.errors = 0
        self.missed = 0
        self.began: float | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"

    @property
    def alive(self) -> bool:
        """Tell whether it has a thread."""
        run = self.run
        return run is not None and run.thread.is_alive()
