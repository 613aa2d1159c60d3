"""Logging that does not end the thread that logs, nor fill a disk.

Handlers belong to the host and may raise: out of descriptors, even those of the standard
library do when they open their file late or again. A log line is not worth a server that
accepts no connections any more.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

from ...waits import monotonic
from .repeats import Count, Repeats, place_of

__all__ = [
    "WARNING_INTERVAL",
    "LogThrottle",
    "flush_repeats",
    "forget_repeats",
    "format_exception",
    "get_logger",
    "is_shown",
]

# Seconds between two warnings about the same trouble: a crowd must not flood the log.
WARNING_INTERVAL = 10.0


# Characters of a record's text that are kept for the line with the count of its repeats.
_MAX_TEXT = 200

_repeats = Repeats()


class _Adapter(logging.LoggerAdapter[logging.Logger]):
    """A logger that never raises, and counts the repeats of warnings and errors."""

    def log(
        self, level: int, msg: object, *args: object, kind: object = None, **kwargs: Any
    ) -> None:
        """Log; what a handler raises is printed where logging prints such things.

        Args:
            level: of the record; below a warning it is written always.
            msg: the same for all records of a kind.
            args: for the message.
            kind: tells records apart whose message and place are the same; made of plain
                strings and numbers, as few as a program has and no client can add to.
            kwargs: as ever.
        """
        kwargs.setdefault("stacklevel", 2)  # the caller's line, not this one
        exc = kwargs.get("exc_info")
        if exc is True:
            exc = sys.exc_info()[1]
        if type(exc) is TypeError:
            _explain_await(exc)
        if exc and _format(exc) is None:  # logging would drop the line, or raise
            kwargs["exc_info"] = None
            msg = f"{msg}: {_type_name(exc)}, which cannot be formatted"
        try:
            if level > logging.DEBUG:
                _write(_repeats.take_due())
                if level >= logging.WARNING and self.isEnabledFor(level):
                    problem = _problem(kwargs.get("exc_info"))
                    key = (self.logger.name, level, str(msg), kind, problem)
                    first, forgotten = _repeats.meet(key, self.logger.name, level)
                    if first is None:
                        return
                    first.text = _text(msg, args)
                    _write(forgotten)
            super().log(level, msg, *args, **kwargs)
        except Exception:
            _complain()


def flush_repeats() -> None:
    """Write the counts that are not written yet, and begin anew; an app that stops does."""
    try:
        _write(_repeats.take_all())
    except Exception:
        _complain()


def forget_repeats() -> None:
    """Begin anew without a word, in a forked child: the counts are the parent's."""
    global _repeats
    _repeats = Repeats()


def _problem(exc_info: Any) -> tuple[object, ...]:
    """Return what the type and the place of an exception are, in plain values."""
    if isinstance(exc_info, tuple):
        exc = exc_info[1]
    elif isinstance(exc_info, BaseException):
        exc = exc_info
    else:
        exc = sys.exc_info()[1] if exc_info else None
    if exc is None:
        return ()
    found = type(exc)
    try:
        name = (str(found.__module__), str(found.__qualname__))
    except Exception:  # a metaclass of the user's
        name = ("", "")
    return (*name, place_of(exc))


# What Python says of ``await websocket.send(...)``: the type is what that has returned.
_AWAITED = re.compile(
    r"object (SendResult|bool|int|str|list|dict|NoneType) can't be used in 'await'"
)

_NO_AWAIT = (
    "the methods of daebus do not wait, but for those that end in _async; write "
    "websocket.send(...), not await websocket.send(...)"
)


def _explain_await(exc: TypeError) -> None:
    """Say what to write in place of an ``await`` of something that is not async."""
    text = exc.args[0] if exc.args else None
    if type(text) is str and _AWAITED.search(text) and not hasattr(exc, "__notes__"):
        exc.add_note(_NO_AWAIT)


def _type_name(exc: object) -> str:
    try:
        return type(exc).__name__
    except Exception:  # a metaclass of the user's
        return "an exception"


def _complain() -> None:
    """Print what a handler of the host raised, where logging prints such things."""
    if logging.raiseExceptions and sys.stderr is not None:
        try:
            traceback.print_exc()
        except Exception:  # nobody reads it, or it cannot be formatted
            pass


def _text(msg: object, args: tuple[object, ...]) -> str:
    try:
        return (str(msg) % args if args else str(msg))[:_MAX_TEXT]
    except Exception:  # it is the user's object that cannot be formatted
        return str(msg)[:_MAX_TEXT]


def _write(counts: list[Count]) -> None:
    for count in counts:
        logging.getLogger(count.logger).log(
            count.level,
            "%d more like this within %.0f s: %s",
            count.number,
            max(1.0, count.last - count.since),
            count.text,
        )


def _format(exc: BaseException) -> str | None:
    try:
        return "".join(traceback.format_exception(exc)).rstrip()
    except Exception:  # its own methods raise
        return None


def format_exception(exc: BaseException) -> str:
    """Return the traceback of an exception, whatever its own methods do."""
    return _format(exc) or f"{_type_name(exc)}, which cannot be formatted"


def get_logger(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """Return a logger for daebus's own threads."""
    return _Adapter(logging.getLogger(name), {})


def is_shown(name: str, level: int) -> bool:
    """Tell whether the host has a handler for what a logger logs at a level."""
    logger: logging.Logger | None = logging.getLogger(name)
    if logger is None or not logger.isEnabledFor(level):
        return False
    while logger is not None:
        for handler in logger.handlers:
            if handler.level <= level and not isinstance(handler, logging.NullHandler):
                return True
        logger = logger.parent if logger.propagate else None
    return False


class LogThrottle:
    """Decides whether a warning about lasting trouble is due again.

    Args:
        clock: seconds, as of ``time.monotonic``.

    Threads:
        One at a time: its owner's thread, or whoever holds its owner's lock.
    """

    __slots__ = ("_clock", "_last")

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._last = -math.inf  # moment of the last warning

    def is_due(self) -> bool:
        """Return True for the first warning, and then once every ``WARNING_INTERVAL``."""
        now = self._clock()
        if now - self._last < WARNING_INTERVAL:
            return False
        self._last = now
        return True
