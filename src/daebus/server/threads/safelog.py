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
    "MAX_CHAIN",
    "MAX_LINE",
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

# Characters of a warning or an error, and as many of its traceback: an exception of the
# program may hold all that a client has sent. What lies between both ends is left out.
MAX_LINE = 10_000

# Exceptions of one traceback, each of them the cause or the context of the next.
MAX_CHAIN = 20

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
        exc = _exception(kwargs.get("exc_info"))
        if type(exc) is TypeError:
            _explain_await(exc)
        try:
            if level > logging.DEBUG:
                _write(_repeats.take_due())
                if level >= logging.WARNING and self.isEnabledFor(level):
                    key = (self.logger.name, level, str(msg), kind, _problem(exc))
                    first, forgotten = _repeats.meet(key, self.logger.name, level)
                    if first is None:
                        return
                    text = _text(msg, args)
                    first.text = text[:_MAX_TEXT]
                    _write(forgotten)
                    if len(text) > MAX_LINE:
                        msg, args = _cut(text), ()
            if exc is not None:
                trace, whole = _format(exc)
                if not whole:  # logging would write all of it, or drop the line, or raise
                    kwargs["exc_info"] = None
                    between = "\n" if "\n" in trace else ": "
                    msg, args = f"{_text(msg, args)}{between}{trace}", ()
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


def _exception(exc_info: Any) -> BaseException | None:
    """Return the exception that an argument of a logger's stands for."""
    if issubclass(type(exc_info), BaseException):
        found: BaseException = exc_info
        return found
    if type(exc_info) is tuple:
        return _exception(exc_info[1])
    return sys.exc_info()[1] if exc_info else None


def _problem(exc: BaseException | None) -> tuple[object, ...]:
    """Return what the type and the place of an exception are, in plain values."""
    if exc is None:
        return ()
    found = type(exc)
    try:
        return (str(found.__module__), str(found.__qualname__), place_of(exc))
    except Exception:  # its own methods raise, or those of a metaclass of the user's
        return (_type_name(exc),)


# What Python says of ``await websocket.send(...)``: the type is what that has returned. The
# second form is that of 3.14 and later.
_RETURNED = "(SendResult|bool|int|str|list|dict|NoneType)"
_AWAITED = re.compile(
    rf"object {_RETURNED} can't be used in 'await'|'{_RETURNED}' object can't be awaited"
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
        return str(msg) % args if args else str(msg)
    except Exception:  # it is the user's object that cannot be formatted
        return str(msg)


def _cut(text: str) -> str:
    """Return both ends of a text that is too long for the log."""
    half = MAX_LINE // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n... {left_out} characters are left out ...\n{text[-half:]}"


def _write(counts: list[Count]) -> None:
    for count in counts:
        logging.getLogger(count.logger).log(
            count.level,
            "%d more like this within %.0f s: %s",
            count.number,
            max(1.0, count.last - count.since),
            count.text,
        )


def _format(exc: BaseException) -> tuple[str, bool]:
    """Return the traceback of an exception, and whether nothing of it is left out."""
    try:
        chain = _chain(exc)
        if len(chain) <= MAX_CHAIN:
            text = "".join(traceback.format_exception(exc)).rstrip()
            return (text, True) if len(text) <= MAX_LINE else (_cut(text), False)
        last = [_format_one(each) for each in chain[:MAX_CHAIN]]
        text = f"{len(chain) - MAX_CHAIN} exceptions that led to these are left out:\n\n"
        text += "\n\nwhich led to:\n\n".join(reversed(last))
        return _cut(text) if len(text) > MAX_LINE else text, False
    except Exception:  # its own methods raise
        return f"{_type_name(exc)}, which cannot be formatted", False


def _format_one(exc: BaseException) -> str:
    """Return one of a long chain, of which ``traceback`` would look at all."""
    trace = exc.__traceback__
    lines = ["Traceback (most recent call last):\n", *traceback.format_tb(trace)] if trace else []
    return "".join((*lines, f"{type(exc).__qualname__}: {exc}"))


def _chain(exc: BaseException) -> list[BaseException]:
    """Return an exception, its cause or context, the cause of that, and so on."""
    chain, seen = [exc], {id(exc)}
    while True:
        last = chain[-1]
        before = last.__cause__
        if before is None and not last.__suppress_context__:
            before = last.__context__
        if before is None or id(before) in seen:
            return chain
        seen.add(id(before))
        chain.append(before)


def format_exception(exc: BaseException) -> str:
    """Return the traceback of an exception, whatever its own methods do and however long it is."""
    return _format(exc)[0]


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
