"""A bounded pool of threads that the jobs of many clients share.

Rules of this module:

1. Clients take turns: a client that has a thousand jobs waiting has one begun, then
   every other client that waits has, and then it again.
2. A client has at most twice as many jobs waiting as places are free. So one that floods
   fills two thirds of the places, two fill four fifths, and one more client finds room.
3. A quarter of the threads are kept from any single client.
4. What has not begun when its client leaves is dropped.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable

from .pool import WorkerPool, run_logged
from .vitals import Vitals

__all__ = ["FairPool"]

Job = Callable[[], object]


class _Share:
    """The jobs of one client."""

    __slots__ = ("jobs", "running")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.running = 0


class FairPool:
    """Runs jobs, each of which is some client's.

    Args:
        name: threads are called ``name-1``, ``name-2`` ...
        size: most threads at once.
        backlog: most jobs that may wait, of all clients together.
        vitals: watches over the threads.

    Threads:
        Every method may be called from any thread, and never waits.
    """

    def __init__(self, name: str, size: int, backlog: int, *, vitals: Vitals | None = None) -> None:
        self._pool = WorkerPool(name, size, size, vitals=vitals)
        self._size = size
        self._most = max(1, size - size // 4)  # that one client may run at once
        self._backlog = backlog
        self._lock = threading.Lock()
        self._shares: dict[Hashable, _Share] = {}  # guarded by: _lock
        # Those that have jobs waiting, in the order of their turns.
        self._turns: deque[tuple[Hashable, _Share]] = deque()  # guarded by: _lock
        self._waiting = 0  # guarded by: _lock
        self._stopping = False  # guarded by: _lock
        self._workers = 0  # guarded by: _lock; threads that run jobs, or are about to

    def submit(self, client: Hashable, job: Job) -> bool:
        """Queue a job for the client's next turn.

        Args:
            client: whose it is; compared by identity, as objects without ``__eq__`` are.
            job: what to do.

        Returns:
            False if the client, or all together, have too many waiting, or the pool stops.
        """
        with self._lock:
            share = self._shares.get(client) or _Share()
            if self._stopping or len(share.jobs) >= 2 * (self._backlog - self._waiting):
                return False
            self._shares[client] = share
            if not share.jobs:
                self._turns.append((client, share))
            share.jobs.append(job)
            self._waiting += 1
            wanted = self._workers < self._size
            self._workers += wanted
        if not wanted or self._pool.submit(self._work):
            return True
        with self._lock:
            self._workers -= 1
            if self._workers or job not in share.jobs:
                return True  # another thread does it, or has
            share.jobs.remove(job)
            self._waiting -= 1
            self._tidy_locked(client, share)
        return False

    def forget(self, client: Hashable) -> None:
        """Drop the jobs of a client that have not begun; it has left."""
        with self._lock:
            share = self._shares.get(client)
            if share is None:
                return
            dropped, none = share.jobs, deque[Job]()  # freed after the lock
            waiting = self._waiting - len(dropped)
            # In one step, as a signal handler may raise whenever something is called.
            share.jobs, self._waiting = none, waiting
            self._tidy_locked(client, share)

    def stop(self) -> list[threading.Thread]:
        """Take no more jobs, and end the threads after the jobs that were taken.

        Returns:
            The threads, to be joined.
        """
        with self._lock:
            self._stopping = True
        return self._pool.stop()

    def _work(self) -> None:
        """Run jobs until no client has one whose turn it is."""
        while True:
            with self._lock:
                found = self._next_locked()
                if found is None:
                    self._workers -= 1
                    return
                client, share, job = found
            run_logged(job)
            del job, found  # keep no client alive while waiting
            with self._lock:
                share.running -= 1
                self._tidy_locked(client, share)
            del client, share

    def _next_locked(self) -> tuple[Hashable, _Share, Job] | None:
        """Take the job whose turn it is; None if there is none that may begin."""
        assert self._lock.locked()
        for _ in range(len(self._turns)):  # no more are passed over than can run that many
            client, share = self._turns.popleft()
            if share.running < self._most:
                job = share.jobs.popleft()
                share.running += 1
                self._waiting -= 1
                if share.jobs:
                    self._turns.append((client, share))
                return client, share, job
            self._turns.append((client, share))
        return None

    def _tidy_locked(self, client: Hashable, share: _Share) -> None:
        """Take a client that has nothing waiting out of the turns, and forget it if idle."""
        assert self._lock.locked()
        if not share.jobs:
            if (client, share) in self._turns:
                self._turns.remove((client, share))
            if not share.running:
                self._shares.pop(client, None)
