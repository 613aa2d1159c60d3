"""Time that a test sets by hand, and a minder that runs on it without a thread."""

from __future__ import annotations

from daebus.server.threads.minder import Minder

__all__ = ["ManualClock", "ManualMinder"]


class ManualClock:
    """Seconds that pass only when a test says so; pass it as ``clock``.

    Attributes:
        now: the current moment.
    """

    def __init__(self, now: float = 1e6) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class ManualMinder(Minder):
    """A minder whose calls run in the test's own thread, when ``advance`` reaches them.

    It is not started; ``stop`` releases its sockets, as does the end of a ``with``.

    Args:
        clock: a new one if it is left out.

    Attributes:
        clock: may be given to what else reads the time.
    """

    clock: ManualClock

    def __init__(self, clock: ManualClock | None = None) -> None:
        super().__init__()
        self.clock = ManualClock() if clock is None else clock

    def __enter__(self) -> ManualMinder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass, and run every call at its own moment on the way."""
        end = self.clock.now + seconds
        while True:
            pause = self.run_due()
            if pause is None or self.clock.now + pause > end:
                break
            self.clock.now += pause
        self.clock.now = max(self.clock.now, end)
