"""``Daebus.run``: wait for signals, and stop the app when one comes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

from .server.threads.track import track

__all__ = ["SIGNAL_POLL", "Stoppable", "run"]

# The main thread wakes this often while it waits: a signal that the kernel gave to
# another thread is then handled, which an endless wait would miss.
SIGNAL_POLL = 0.25


class Stoppable(Protocol):
    """The part of an app that ``run`` uses."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has stopped; return False if it still runs."""

    def stop(self, timeout: float = 10.0) -> list[str]:
        """Stop it within so many seconds."""

    def dump(self) -> None:
        """Print its threads and connections."""


def run(app: Stoppable, begin: Callable[[], None], timeout: float) -> None:
    """Start an app, and wait until a signal or a call of ``stop`` stops it.

    Args:
        app: the app.
        begin: starts it; called after the signal handlers are set.
        timeout: seconds for the stop.
    """
    # No Event: setting one in a signal handler can deadlock with its own waiter.
    signals: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            raise SystemExit(128 + number)

    def on_dump(number: int, frame: FrameType | None) -> None:
        # Standard error may be closed: asking for a dump must not end the program.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            app.dump()

    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, on_signal)
        if hasattr(signal, "SIGUSR1"):
            previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, on_dump)
    try:
        begin()
        while not signals and not app.wait(SIGNAL_POLL):
            pass
        _stop_interruptibly(app, timeout)
    finally:
        for restored, handler in previous.items():
            signal.signal(restored, signal.SIG_DFL if handler is None else handler)


def _stop_interruptibly(app: Stoppable, timeout: float) -> None:
    """Stop from the main thread so that a second signal is seen at once."""
    stopper = threading.Thread(target=app.stop, args=(timeout,), name="daebus-stop", daemon=True)
    track(stopper, "stop").start()
    while stopper.is_alive():
        stopper.join(SIGNAL_POLL)
