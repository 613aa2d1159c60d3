"""One thread for each connection, parked and reused for the next.

The rules of ``pool`` hold here too: threads are daemons with names, no job ends them, each
job has a context of its own, and the caller learns of a thread that cannot be started.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

from .affinity import keep_on
from .pool import run_logged
from .track import track
from .vitals import Vitals

__all__ = ["ConnectionThreads", "Opening"]

# What a thread runs for a connection. It may return what the thread runs next; the thread
# drops its reference to the first before it does.
Opening = Callable[[], Callable[[], None] | None]

# Held while the stack size of the process is that of a thread which is being started.
_stack_size_lock = threading.Lock()


class _Parked:
    """A thread between two connections, and the lock it waits for."""

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
        vitals: watches over the threads.
    """

    def __init__(
        self,
        idle_timeout: float = 5.0,
        max_parked: int = 64,
        *,
        stack_size: int | None = None,
        affinity: frozenset[int] | None = None,
        vitals: Vitals | None = None,
    ) -> None:
        self._vitals = vitals or Vitals()
        self._stack_size = stack_size
        self._affinity = affinity
        self._idle_timeout = idle_timeout
        self._max_parked = max_parked
        self._lock = threading.Lock()
        self._parked: list[_Parked] = []  # guarded by: _lock
        self._all: set[threading.Thread] = set()  # guarded by: _lock
        self._stopping = False  # guarded by: _lock

    def run(self, job: Opening, name: str) -> None:
        """Run a job in a thread of that name at once, and then what the job returns.

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
                thread = threading.Thread(
                    target=self._vitals.guard, args=(self._run, new), name=name, daemon=True
                )
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
        """End the parked threads; the others end after their job.

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
            run_logged(functools.partial(keep_on, self._affinity))  # its job comes first
        try:
            while seat.job is not None:
                job, seat.job = seat.job, None
                thread.name = seat.name
                track(thread, "ws")
                rest = run_logged(job)
                del job
                if rest is not None:
                    run_logged(rest)
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
        # The seat was taken as the time ran out: the job is on its way.
        seat.door.acquire()
        return True
