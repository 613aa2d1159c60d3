"""Logging that does not end the thread that logs, nor flood the log.

Handlers belong to the host and may raise: out of descriptors, even those of the standard
library do when they open their file late or again. A log line is not worth a server that
accepts no connections any more.
"""

from __future__ import annotations

import logging
import math
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

__all__ = ["WARNING_INTERVAL", "LogThrottle", "format_exception", "get_logger"]

# Seconds between two warnings about the same trouble: a crowd must not flood the log.
WARNING_INTERVAL = 10.0


class _Adapter(logging.LoggerAdapter[logging.Logger]):
    """A logger that never raises."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log; what a handler raises is printed where logging prints such things."""
        kwargs.setdefault("stacklevel", 2)  # the caller's line, not this one
        exc = kwargs.get("exc_info")
        if exc is True:
            exc = sys.exc_info()[1]
        if exc and _format(exc) is None:  # logging would drop the line, or raise
            kwargs["exc_info"] = None
            msg = f"{msg}: {type(exc).__name__}, which cannot be formatted"
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception:
            if logging.raiseExceptions and sys.stderr is not None:
                try:
                    traceback.print_exc()
                except OSError:  # nobody reads it
                    pass


def _format(exc: BaseException) -> str | None:
    try:
        return "".join(traceback.format_exception(exc)).rstrip()
    except Exception:  # its own methods raise
        return None


def format_exception(exc: BaseException) -> str:
    """Return the traceback of an exception, whatever its own methods do."""
    return _format(exc) or f"{type(exc).__name__}, which cannot be formatted"


def get_logger(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """Return a logger for daebus's own threads."""
    return _Adapter(logging.getLogger(name), {})


class LogThrottle:
    """Decides whether a warning about lasting trouble is due again.

    Args:
        clock: seconds, as of ``time.monotonic``.

    Threads:
        One at a time: its owner's thread, or whoever holds its owner's lock.
    """

    __slots__ = ("_clock", "_last")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = -math.inf  # moment of the last warning

    def is_due(self) -> bool:
        """Return True for the first warning, and then once every ``WARNING_INTERVAL``."""
        now = self._clock()
        if now - self._last < WARNING_INTERVAL:
            return False
        self._last = now
        return True
