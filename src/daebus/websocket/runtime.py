"""What one start of the app lends to all of its connections, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from ..server.threads.loop import LoopThread
from ..server.threads.minder import Minder
from ..server.threads.pool import WorkerPool
from ..server.threads.pump import Pump

__all__ = ["Runtime"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """Threads that connections share.

    Attributes:
        minder: deadlines, unfinished writes, reads for busy handlers.
        loop: async handlers and hooks.
        jobs: handlers that run in the pool.
        pump: handlers that run in the host's main thread.
    """

    minder: Minder
    loop: LoopThread
    jobs: WorkerPool
    pump: Pump
