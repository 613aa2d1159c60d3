"""Telling what a signal handler raised from what the interrupted code did."""

from __future__ import annotations

import signal

__all__ = ["from_signal"]


def from_signal(exc: BaseException) -> bool:
    """Tell whether a signal handler raised it, such as one that ends what takes too long."""
    codes = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        codes.add(getattr(handler, "__code__", None))
    trace = exc.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False
