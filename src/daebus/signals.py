"""``Daebus.serve`` and ``run``: the app in the foreground, until a signal comes.

Rules of this module:

1. A signal handler sets plain attributes, or raises; it takes no lock, since the main thread
   may hold it. So whoever waits looks at them every ``SIGNAL_POLL`` seconds.
2. A loop that asks ``app.wait()`` is told by it, and ends its round; any other is interrupted
   where it is, but only between the start and the stop.
3. The handlers that were there before are put back, and a forked child has them at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Protocol

from .server.threads.safelog import is_shown
from .server.threads.track import track

__all__ = ["FAREWELL", "SIGNAL_POLL", "Ending", "Foreground", "Served"]

logger = logging.getLogger("daebus")

# The main thread wakes this often while it waits: a signal that the kernel gave to
# another thread is then handled, which an endless wait would miss.
SIGNAL_POLL = 0.25

# Seconds that the goodbye to the clients may take when the program is in a hurry to leave.
FAREWELL = 1.0


class Ending:
    """Whether the program was asked to end, and whether its loop will notice.

    Attributes:
        asked: by a signal.
        watched: the main thread's loop looks, so it need not be interrupted.
    """

    def __init__(self) -> None:
        self.asked = False
        self.watched = False

    def watch(self) -> None:
        """Note that the loop of the calling thread looks at ``asked``."""
        if not self.watched:
            self.watched = threading.current_thread() is threading.main_thread()


class Served(Protocol):
    """The part of an app that is used here."""

    name: str

    def stop(self, timeout: float = 10.0) -> list[str]:
        """Stop it within so many seconds."""

    def dump(self) -> None:
        """Print its threads and connections."""


# Those that run in the main thread, the innermost last: a signal is for all of them.
_endings: list[Ending] = []


class Foreground:
    """An app that starts, says where it is, and stops with a block or by a signal.

    Args:
        app: the app.
        ending: the app's own.
        begin: starts it; called after the signal handlers are set.
        places: tells where it listens: URLs, or else addresses.
        timeout: seconds for the stop.
        watched: what is in the block looks at ``ending``.
    """

    def __init__(
        self,
        app: Served,
        ending: Ending,
        *,
        begin: Callable[[], None],
        places: Callable[[], Sequence[str]],
        timeout: float,
        watched: bool,
    ) -> None:
        self._app = app
        self._ending = ending
        self._begin = begin
        self._places = places
        self._timeout = timeout
        self._watched = watched
        self._entered = False
        self._is_main = False
        self._pid = os.getpid()
        self._inside = False  # in the block, where an exception reaches ``__exit__``
        self._raised: BaseException | None = None  # by a signal, to leave the block
        self._previous: dict[int, Any] = {}

    def __del__(self) -> None:
        if not self._entered:
            warnings.warn(
                "app.serve() does nothing by itself; write with app.serve():",
                RuntimeWarning,
                stacklevel=2,
            )

    def __enter__(self) -> None:
        self._entered = True
        self._is_main = threading.current_thread() is threading.main_thread()
        self._ending.asked, self._ending.watched = False, self._watched
        self._take_signals()
        try:
            self._begin()
            self._announce()
        except BaseException as exc:
            self._give_signals_back()
            if self._is_main and isinstance(exc, OSError):
                raise SystemExit(f"{self._app.name}: {_sentence(exc)}") from exc
            raise
        if self._ending.asked and not self._ending.watched:
            self._leave(self._timeout)
            raise SystemExit(0)
        self._inside = True

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        self._inside = False
        hurried = isinstance(exc, _SecondSignal)
        self._leave(FAREWELL if hurried else self._timeout)
        return exc is not None and exc is self._raised

    def _leave(self, timeout: float) -> None:
        try:
            _stop_interruptibly(self._app, timeout)
        finally:
            self._give_signals_back()

    # --- what is said -----------------------------------------------------------

    def _announce(self) -> None:
        """Say where it listens, and how to end it."""
        places = " ".join(self._places())
        end = "Ctrl-C ends it" if self._is_main else "app.stop() ends it"
        if not places:  # another server listens
            return
        if is_shown(logger.name, logging.INFO):
            logger.info("%s: %s  (%s)", self._app.name, places, end)
        elif sys.stderr is not None:  # a program without a console has none
            with contextlib.suppress(OSError, ValueError):
                print(f"{self._app.name}: {places}  ({end})", file=sys.stderr, flush=True)

    # --- signals ----------------------------------------------------------------

    def _take_signals(self) -> None:
        if not self._is_main:
            return
        _endings.append(self._ending)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)
        if hasattr(signal, "SIGUSR1"):
            self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._on_dump)

    def _give_signals_back(self) -> None:
        previous, self._previous = self._previous, {}
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._ending in _endings:
            _endings.remove(self._ending)
        self._ending.asked = self._ending.watched = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            self._pass_on(number)
            return
        if self._ending.asked:
            raise _SecondSignal(128 + number)
        for ending in _endings:
            ending.asked = True
        if self._inside and not self._ending.watched:
            self._raised = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(0)
            raise self._raised

    def _on_dump(self, number: int, frame: FrameType | None) -> None:
        # Standard error may be closed: asking for a dump must not end the program.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self._app.dump()

    def _pass_on(self, number: int) -> None:
        """Have a forked child do with a signal what it would do without us."""
        handler = self._previous.get(number)
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.raise_signal(number)


class _SecondSignal(SystemExit):
    """The program is to leave at once."""


def _stop_interruptibly(app: Served, timeout: float) -> None:
    """Stop from the main thread so that a second signal is seen at once."""
    stopper = threading.Thread(target=app.stop, args=(timeout,), name="daebus-stop", daemon=True)
    track(stopper, "stop").start()
    while stopper.is_alive():
        stopper.join(SIGNAL_POLL)


def _sentence(exc: OSError) -> str:
    """Return the text of an error of the system, without its number."""
    text = exc.strerror or str(exc)
    return text if not exc.filename or str(exc.filename) in text else f"{exc.filename}: {text}"
