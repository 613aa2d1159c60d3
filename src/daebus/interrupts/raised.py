"""Telling what a signal handler raised from what the interrupted code did."""

from __future__ import annotations

import signal
import threading

__all__ = ["from_signal", "is_for_host"]


def from_signal(exc: BaseException) -> bool:
    """Tell whether a signal handler raised it, such as one that ends what takes too long.

    It is meant for the thread that was interrupted, and must not end with what that ran.
    """
    if threading.current_thread() is not threading.main_thread():  # no other is interrupted
        return False
    if issubclass(type(exc), KeyboardInterrupt):  # Python's own handler leaves no trace
        return True
    codes = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        codes.add(getattr(handler, "__code__", None))
    trace = object.__getattribute__(exc, "__traceback__")  # its own methods may raise
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def is_for_host(exc: BaseException) -> bool:
    """Tell whether a thread of the host must see it, though code that we called has raised it."""
    # By its type: an exception whose own methods raise cannot be asked for its class.
    return issubclass(type(exc), KeyboardInterrupt | SystemExit) or from_signal(exc)
