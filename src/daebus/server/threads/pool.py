"""A bounded pool of threads that run jobs.

Rules of this module:

1. Every thread is a daemon and has a name. ``concurrent.futures`` will not do: its
   threads are joined before ``atexit`` runs, so one stuck job hangs the host's exit.
2. A job never ends its thread.
3. The caller learns of a thread that cannot be started.
4. Each job has a context of its own: what it puts into context variables is not there
   for the next one, which is another client's.
"""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from ...waits import until
from .safelog import LogThrottle, get_logger
from .track import track
from .vitals import Vitals

__all__ = ["WorkerPool", "join_all", "run_logged"]

logger = get_logger("daebus.server")

Job = Callable[[], object]

T = TypeVar("T")


def run_logged(job: Callable[[], T]) -> T | None:
    """Run a job in a context of its own; log what it raises and return None then."""
    try:
        return contextvars.copy_context().run(job)
    except BaseException:  # a SystemExit in user code must not end the thread silently
        logger.exception("%s failed", threading.current_thread().name)
        return None


def join_all(threads: list[threading.Thread], deadline: float) -> list[threading.Thread]:
    """Wait for threads until a moment of ``time.monotonic()``.

    Returns:
        Those that are still alive; the calling thread is never waited for.
    """
    me = threading.current_thread()
    for thread in threads:
        if thread is not me and thread.ident is not None:
            thread.join(until(deadline))
    return [thread for thread in threads if thread is not me and thread.is_alive()]


class WorkerPool:
    """A bounded number of threads, started when there are jobs for them.

    Args:
        name: threads are called ``name-1``, ``name-2`` ...
        size: most threads at once.
        backlog: most jobs that may wait; more are refused.
        max_aside: threads beyond ``size`` for jobs that step aside.
        vitals: watches over the threads.
    """

    def __init__(
        self,
        name: str,
        size: int,
        backlog: int,
        *,
        max_aside: int = 0,
        vitals: Vitals | None = None,
    ) -> None:
        self._vitals = vitals or Vitals()
        self._max_aside = max_aside
        self._name = name
        self._size = size
        self._backlog = backlog
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._jobs: deque[Job] = deque()  # guarded by: _lock
        self._threads: list[threading.Thread] = []  # guarded by: _lock
        self._aside: set[threading.Thread] = set()  # guarded by: _lock
        # Those whose jobs may last and have not stepped aside yet, the oldest first.
        self._lasting: dict[threading.Thread, None] = {}  # guarded by: _lock
        self._number = itertools.count(1)
        self._idle = 0  # guarded by: _lock
        self._warnings = LogThrottle()  # guarded by: _lock; that no thread can be started
        self._waking = False  # guarded by: _lock; one was woken and has not looked yet
        self._stopping = False  # guarded by: _lock

    @property
    def busy(self) -> bool:
        """True if jobs wait for a thread."""
        return bool(self._jobs)  # unguarded: a hint, old as soon as it is given

    def is_idle(self) -> bool:
        """Tell whether no job waits or runs."""
        with self._lock:
            return not self._jobs and self._idle == len(self._threads)

    def submit(self, job: Job) -> bool:
        """Queue a job for the next free thread.

        Returns:
            False if the pool is full or stopping, or has no thread and gets none.

        Threads:
            Any; never waits.
        """
        with self._lock:
            if self._stopping or len(self._jobs) >= self._backlog:
                return False
            problem = None
            if self._idle <= len(self._jobs):
                problem = self._start_locked()
            threads = len(self._threads)
            if threads:
                self._jobs.append(job)
                self._wake_locked()
        if problem is not None:
            logger.warning("cannot start %s; %d workers go on", problem, threads)
        return threads > 0

    def step_aside(self) -> bool:
        """Let another thread take the place of the calling one until its job has ended.

        For jobs that turn out to last, so that they do not keep others from running.

        Returns:
            False if as many have done so as may.

        Threads:
            One of the pool's; any number of calls in a job. Never waits.
        """
        me = threading.current_thread()
        with self._lock:
            if me in self._aside:
                return True
            if len(self._aside) >= self._max_aside:
                return False
            self._lasting.pop(me, None)
            self._aside.add(me)
            if self._jobs and not self._idle:
                self._start_locked()
            return True

    def may_last(self) -> bool:
        """Step aside at the moment in which another job needs the thread, be that now or later.

        For jobs that cannot say whether they will last, such as one that waits for the host's
        code and will not be asked again before that is done. A thread costs more than most of
        them, so none is started before it is needed.

        Returns:
            False if there are so many such jobs that none of the threads would be left.

        Threads:
            As ``step_aside``.
        """
        me = threading.current_thread()
        with self._lock:
            if me in self._aside or me in self._lasting:
                return True
            if len(self._aside) + len(self._lasting) >= self._max_aside + self._size - 1:
                return False
            self._lasting[me] = None
            if self._jobs and not self._idle:
                self._start_locked()
            return True

    def _has_place_locked(self) -> bool:
        """Tell whether there may be one more thread; a job that may last steps aside for it."""
        assert self._lock.locked()
        if len(self._threads) - len(self._aside) < self._size:
            return True
        return self._set_aside_locked()

    def _set_aside_locked(self) -> bool:
        """Have the oldest job that may last step aside, if there is one."""
        assert self._lock.locked()
        if not self._lasting or len(self._aside) >= self._max_aside:
            return False
        oldest = next(iter(self._lasting))
        del self._lasting[oldest]
        self._aside.add(oldest)
        return True

    def _wake_locked(self) -> None:
        """Wake one thread for the waiting jobs, unless one was woken already.

        That one wakes the next when it has taken its job. If all were woken at once they
        would wait for the GIL and each other: by the time the second one runs, the first
        has often done its job too (measured: a tenth less CPU for small requests).
        """
        assert self._lock.locked()
        if self._idle and not self._waking:
            self._waking = True
            self._work.notify()

    def _start_locked(self) -> str | None:
        """Start a thread if there may be one more.

        Returns:
            The thread's name if that fails and a warning is due.
        """
        assert self._lock.locked()
        if not self._has_place_locked():
            return None
        thread = threading.Thread(
            target=self._vitals.guard,
            args=(self._run,),
            name=f"{self._name}-{next(self._number)}",
            daemon=True,
        )
        track(thread, self._name.removeprefix("daebus-"))
        try:
            thread.start()
        except RuntimeError:  # "can't start new thread": the ones we have go on
            return thread.name if self._warnings.is_due() else None
        self._threads.append(thread)
        return None

    def _run(self) -> None:
        me = threading.current_thread()
        try:
            self._work_until_stopped(me)
        except BaseException:  # it dies; what it would have done is for another one
            with self._lock:
                self._threads.remove(me)
                self._aside.discard(me)
                self._lasting.pop(me, None)
                if self._jobs:
                    self._start_locked()
            raise

    def _work_until_stopped(self, me: threading.Thread) -> None:
        while True:
            with self._lock:
                self._aside.discard(me)
                self._lasting.pop(me, None)
                crowded = len(self._threads) - len(self._aside) > self._size
                if crowded and not (self._jobs and self._set_aside_locked()):
                    self._threads.remove(me)  # another one has its place
                    return
                self._idle += 1
                try:
                    while not self._jobs and not self._stopping:
                        try:
                            self._work.wait()
                        finally:  # if it dies here, the next one is woken all the same
                            self._waking = False
                finally:
                    self._idle -= 1
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                if self._jobs:
                    self._wake_locked()
            run_logged(job)
            del job  # keeps no socket alive while waiting

    def stop(self) -> list[threading.Thread]:
        """Take no more jobs, and end the threads after the jobs that were taken.

        Returns:
            The threads, to be joined.
        """
        with self._lock:
            self._stopping = True
            self._work.notify_all()
            return list(self._threads)
