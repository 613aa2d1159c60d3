"""What ``run()`` does: wait for signals, and stop the app when one comes."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from .server.threads.track import track

if TYPE_CHECKING:
    from .app import Daebus

__all__ = ["SIGNAL_POLL", "run"]

# The main thread wakes this often while it waits: a signal that the kernel gave to
# another thread is then handled, which an endless wait would miss.
SIGNAL_POLL = 0.25


def run(app: Daebus, timeout: float, *, notify: bool = False) -> None:
    """Start the app unless it runs, wait until something stops it; see ``Daebus.run``."""
    # No Event: setting one in a signal handler can deadlock with its own waiter.
    signals: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            raise SystemExit(128 + number)

    def on_dump(number: int, frame: FrameType | None) -> None:
        # Nobody may be reading: a question about the program must not end it.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            app.dump()

    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, on_signal)
        if hasattr(signal, "SIGUSR1"):
            previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, on_dump)
    try:
        if not app.running:
            app.start(notify=notify)
        elif notify:
            app.announce()
        while not signals and not app.wait(SIGNAL_POLL):
            pass
        _stop_interruptibly(app, timeout)
    finally:
        for restored, handler in previous.items():
            signal.signal(restored, signal.SIG_DFL if handler is None else handler)


def _stop_interruptibly(app: Daebus, timeout: float) -> None:
    """Stop from the main thread so that a second signal is seen at once."""
    stopper = threading.Thread(target=app.stop, args=(timeout,), name="daebus-stop", daemon=True)
    track(stopper, "stop").start()
    while stopper.is_alive():
        stopper.join(SIGNAL_POLL)
