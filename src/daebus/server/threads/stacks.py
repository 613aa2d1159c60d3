"""Where another thread or a coroutine is, as text.

CPython 3.13 without the GIL may crash when a thread looks at the frames of one that runs; 3.14
and later stop that one meanwhile. There the stacks are left out, and the text says so.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

__all__ = ["LEFT_OUT", "stack_of_coroutine", "stack_of_thread"]

LEFT_OUT = "(the stack is left out: Python 3.13 without the GIL cannot look at other threads)"

# Asked each time, as importing a module may turn the GIL on.
_has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)


def stack_of_thread(ident: int | None) -> str:
    """Return the stack of a thread, innermost last; an empty string if it has ended."""
    if ident == threading.get_ident():
        return "".join(traceback.format_stack(sys._getframe(1))).rstrip()
    if not _can_look():
        return LEFT_OUT
    frame = sys._current_frames().get(ident or 0)
    return "" if frame is None else "".join(traceback.format_stack(frame)).rstrip()


def stack_of_coroutine(awaited: Any) -> str:
    """Return the stack of a coroutine down to what it awaits, innermost last."""
    if not _can_look():
        return LEFT_OUT
    parts = []
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            parts += traceback.format_stack(frame, limit=1)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return "".join(parts).rstrip()


def _can_look() -> bool:
    return sys.version_info >= (3, 14) or _has_gil()
