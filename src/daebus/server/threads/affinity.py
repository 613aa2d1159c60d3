"""Keep threads on chosen CPU cores, where the system can."""

from __future__ import annotations

import os

from .safelog import get_logger

__all__ = ["keep_on"]

logger = get_logger("daebus.server")


def keep_on(cpus: frozenset[int]) -> None:
    """Keep the calling thread on these cores; children that it starts inherit it.

    Under the GIL only one connection thread runs at a time anyway, and handing it from
    core to core costs more than half of the rate. Where the system has no such call, or
    refuses, the thread runs anywhere.
    """
    set_affinity = getattr(os, "sched_setaffinity", None)
    if set_affinity is None:
        return
    try:
        set_affinity(0, cpus)
    except OSError as exc:
        logger.warning("cannot keep a thread on CPUs %s: %s", sorted(cpus), exc)
