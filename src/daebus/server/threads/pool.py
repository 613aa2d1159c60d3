"""Threads that do the work: a bounded pool for requests, parked threads for connections.

Rules of this module:

1. Every thread is a daemon and has a name. ``concurrent.futures`` will not do: its
   threads are joined before ``atexit`` runs, so one stuck job hangs the host's exit.
2. A thread never dies of a job.
3. A thread that cannot be started is told to the caller, never swallowed.
4. Each job has a context of its own: what it puts into context variables is not there
   for the next one, which is another client's.
"""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from .affinity import keep_on
from .safelog import get_logger
from .track import track

__all__ = ["ConnectionThreads", "WorkerPool", "join_all"]

logger = get_logger("daebus.server")

Job = Callable[[], object]
# Of a connection: it may return what its thread does next, and is let go before that.
Opening = Callable[[], Callable[[], None] | None]

# Seconds between two warnings of a pool that gets no thread: a crowd must not flood the log.
_QUIET = 10.0

_stack_size_lock = threading.Lock()


T = TypeVar("T")


def _run_logged(job: Callable[[], T]) -> T | None:
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
            thread.join(max(0.0, deadline - time.monotonic()))
    return [thread for thread in threads if thread is not me and thread.is_alive()]


class WorkerPool:
    """A bounded number of threads, started when there is something to do.

    Args:
        name: threads are called ``name-1``, ``name-2`` ...
        size: most threads at once.
        backlog: most jobs that may wait; more are refused.
    """

    def __init__(self, name: str, size: int, backlog: int) -> None:
        self._name = name
        self._size = size
        self._backlog = backlog
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._jobs: deque[Job] = deque()  # guarded by: _lock
        self._threads: list[threading.Thread] = []  # guarded by: _lock
        self._idle = 0  # guarded by: _lock
        self._warned = -math.inf  # guarded by: _lock; moment of the last warning
        self._waking = False  # guarded by: _lock; one was woken and has not looked yet
        self._stopping = False  # guarded by: _lock

    @property
    def busy(self) -> bool:
        """True if jobs wait for a thread."""
        return bool(self._jobs)

    def submit(self, job: Job) -> bool:
        """Have a thread run the job soon.

        Returns:
            False if the pool is full or stopping, or has no thread and gets none.

        Threads:
            Any; never waits.
        """
        with self._lock:
            if self._stopping or len(self._jobs) >= self._backlog:
                return False
            problem = None
            if self._idle <= len(self._jobs) and len(self._threads) < self._size:
                problem = self._start_locked()
            threads = len(self._threads)
            if threads:
                self._jobs.append(job)
                self._wake_locked()
        if problem is not None:
            logger.warning("cannot start %s; %d workers go on", problem, threads)
        return threads > 0

    def _wake_locked(self) -> None:
        """Wake one thread for what waits, unless one is on its way.

        That one wakes the next when it has taken its job. If all were woken at once they
        would wait for the GIL and each other: by the time the second one runs, the first
        has often done its job too (measured: a tenth less CPU for small requests).
        """
        if self._idle and not self._waking:
            self._waking = True
            self._work.notify()

    def _start_locked(self) -> str | None:
        """Start a thread; if that fails, return its name now and then, for the log."""
        thread = threading.Thread(
            target=self._run, name=f"{self._name}-{len(self._threads) + 1}", daemon=True
        )
        track(thread, self._name.removeprefix("daebus-"))
        try:
            thread.start()
        except RuntimeError:  # "can't start new thread": the ones we have go on
            now = time.monotonic()
            if now - self._warned < _QUIET:
                return None
            self._warned = now
            return thread.name
        self._threads.append(thread)
        return None

    def _run(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
                while not self._jobs and not self._stopping:
                    self._work.wait()
                    self._waking = False
                self._idle -= 1
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                if self._jobs:
                    self._wake_locked()
            _run_logged(job)
            del job  # keeps no socket alive while waiting

    def stop(self) -> list[threading.Thread]:
        """Take no more jobs and let the threads end after those that were taken.

        Returns:
            The threads, to be joined.
        """
        with self._lock:
            self._stopping = True
            self._work.notify_all()
            return list(self._threads)


class _Parked:
    """A thread between two connections, and the door it waits at."""

    __slots__ = ("door", "job", "name")

    def __init__(self) -> None:
        self.door = threading.Lock()
        self.door.acquire()
        self.job: Opening | None = None
        self.name = ""


class ConnectionThreads:
    """One thread for each connection, reused for the next.

    Starting a thread costs several times what waking a parked one does.

    Args:
        idle_timeout: seconds after which a parked thread ends.
        max_parked: most threads kept waiting; more end at once.
        stack_size: bytes of each thread's stack; None takes the system's default.
        affinity: CPU cores that the threads keep to; None for all.
    """

    def __init__(
        self,
        idle_timeout: float = 5.0,
        max_parked: int = 64,
        *,
        stack_size: int | None = None,
        affinity: frozenset[int] | None = None,
    ) -> None:
        self._stack_size = stack_size
        self._affinity = affinity
        self._idle_timeout = idle_timeout
        self._max_parked = max_parked
        self._lock = threading.Lock()
        self._parked: list[_Parked] = []  # guarded by: _lock
        self._all: set[threading.Thread] = set()  # guarded by: _lock
        self._stopping = False  # guarded by: _lock

    def run(self, job: Opening, name: str) -> None:
        """Run the job in a thread of that name, now, and then what it returns.

        Raises:
            RuntimeError: no thread can be started, or the threads are stopping.
        """
        with self._lock:
            if self._stopping:
                raise RuntimeError("connection threads are stopping")
            seat = self._parked.pop() if self._parked else None
            if seat is None:
                # Counted before it starts, so that no stop misses it.
                new = _Parked()
                thread = threading.Thread(target=self._run, args=(new,), name=name, daemon=True)
                self._all.add(track(thread, "ws"))
        if seat is not None:
            seat.job, seat.name = job, name
            seat.door.release()
            return
        new.job, new.name = job, name
        try:
            self._start(thread)
        except RuntimeError:
            with self._lock:
                self._all.discard(thread)
            raise

    def _start(self, thread: threading.Thread) -> None:
        if self._stack_size is None:
            thread.start()
            return
        # The size is the process's, for all threads that start from now on: it is put
        # back at once, and only one of ours changes it at a time.
        with _stack_size_lock:
            previous = threading.stack_size(self._stack_size)
            try:
                thread.start()
            finally:
                threading.stack_size(previous)

    def count(self) -> tuple[int, int]:
        """Return how many threads exist, and how many of them are parked."""
        with self._lock:
            return len(self._all), len(self._parked)

    def stop(self) -> list[threading.Thread]:
        """Send the parked threads home; the others end after their job.

        Returns:
            All threads, to be joined.
        """
        with self._lock:
            self._stopping = True
            parked, self._parked = self._parked, []
            threads = list(self._all)
        for seat in parked:
            seat.door.release()
        return threads

    def _run(self, seat: _Parked) -> None:
        thread = threading.current_thread()
        if self._affinity is not None:
            keep_on(self._affinity)
        try:
            while seat.job is not None:
                job, seat.job = seat.job, None
                thread.name = seat.name
                track(thread, "ws")
                rest = _run_logged(job)
                del job
                if rest is not None:
                    _run_logged(rest)
                del rest
                thread.name = "daebus-ws-parked"
                track(thread, "parked")
                if not self._park(seat):
                    return
        finally:
            with self._lock:
                self._all.discard(thread)

    def _park(self, seat: _Parked) -> bool:
        with self._lock:
            if self._stopping or len(self._parked) >= self._max_parked:
                return False
            self._parked.append(seat)
        if seat.door.acquire(timeout=self._idle_timeout):
            return True
        with self._lock:
            if seat in self._parked:
                self._parked.remove(seat)
                return False
        # Somebody took the seat while the time ran out: the job is on its way.
        seat.door.acquire()
        return True
