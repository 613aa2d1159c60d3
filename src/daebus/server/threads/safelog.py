"""Logging that does not end the thread that logs.

Handlers belong to the host and may raise: out of descriptors, even those of the standard
library do when they open their file late or again. What our own threads have to say is
not worth a server that accepts nobody any more.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

__all__ = ["get_logger"]


class _Adapter(logging.LoggerAdapter[logging.Logger]):
    """A logger that never raises."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log; what a handler raises is printed where logging prints such things."""
        kwargs.setdefault("stacklevel", 2)  # the caller's line, not this one
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception:
            if logging.raiseExceptions and sys.stderr is not None:
                try:
                    traceback.print_exc()
                except OSError:  # nobody reads it
                    pass


def get_logger(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """Return a logger for threads of ours."""
    return _Adapter(logging.getLogger(name), {})
