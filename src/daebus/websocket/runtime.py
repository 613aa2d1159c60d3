"""What all connections of one start share, as a value: the threads, and the encoder."""

from __future__ import annotations

from dataclasses import dataclass

from ..data.encoder import PLAIN, Encoder
from ..server.threads.fairpool import FairPool
from ..server.threads.loop import LoopThread
from ..server.threads.minder import Minder
from ..server.threads.pump import Pump

__all__ = ["Runtime"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What connections share.

    Attributes:
        minder: runs deadlines, unfinished writes, reads for busy handlers.
        loop: runs async handlers and hooks.
        jobs: runs handlers with ``run_in="pool"``.
        pump: hands handlers with ``run_in="main"`` to the host's thread.
        encoder: of the app.
    """

    minder: Minder
    loop: LoopThread
    jobs: FairPool
    pump: Pump
    encoder: Encoder = PLAIN
