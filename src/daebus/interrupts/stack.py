"""Knowing from the stack that this thread was interrupted while it holds a lock of ours.

Where time counts the question is put only if a lock is taken, so the common way pays for one
look at it; before the lock of a connection also if this thread has something ``held``. Nor do
two interrupted threads wait for each other: each looked at what it wants after it had taken
what it holds, so the later look saw the lock of the other.

A lock is seen from the step after its ``with`` has taken it to the step at which it is given
back. Where a release of Python lets something interrupt a thread just before or after that,
what comes finds an inner lock (that of TLS, taken without another one around it) taken, and
nobody inside.
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple, TypeVar

from ..errors import StateError

__all__ = ["bottom", "check_outside", "held", "inside", "interrupted", "within"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

# The attributes under which objects of ours keep their lock. A section is found by them:
# what stands behind ``with`` is one attribute of a local variable.
_NAMES = ("_lock", "lock", "_connection_lock", "_order", "_data")


class _Held(threading.local):
    """The locks of this thread for which others wait while they hold another one of ours.

    That is the lock of a connection, or the one under which frames for other nodes are numbered.
    Whoever holds one of them and was interrupted must not wait for that other one, even if it is
    free at that moment: another thread may take it in the next one. Write
    ``with held, self._data:`` for such a lock.

    Attributes:
        count: how many this thread holds; too high once an exception came between two steps
            of ours, which only costs a look at the stack.
    """

    count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *exc_info: object) -> None:
        self.count -= 1


held = _Held()

# Functions of ``threading`` that hold the lock which every new thread takes before its start
# is over: whoever interrupts them and starts a thread would wait for ever.
_STARTING = ("_bootstrap_inner", "_delete", "enumerate", "start")

_PACKAGE = __name__.partition(".")[0] + "."


class _Known(NamedTuple):
    """What is known of a function, for as long as the program runs."""

    within: dict[int, None]  # the offsets of its instructions within a ``with``
    ours: bool
    bottom: bool  # it is called where its thread holds no lock
    code: CodeType  # so that its id stays its own


# By the id of a code, whose hash would cost more. Every thread looks, so where there is no GIL
# nothing here may take a lock: ``dict.get`` and ``in`` a set do, and whoever finds it taken
# gives up its core some forty times. ``d[key]`` and ``in`` a dict do not.
_known: dict[int, _Known] = {}

# The codes of functions that are called where their thread holds no lock.
_bottoms: set[int] = set()


def bottom(function: _Function) -> _Function:
    """Mark a function that is called where its thread holds no lock: nobody looks further."""
    _bottoms.add(id(function.__code__))
    return function


def inside() -> bool:
    """Tell whether this thread holds a lock of ours, and was interrupted there.

    It looks at the stack, some microseconds: nothing has to be noted where locks are
    taken. It may say yes in vain, where another thread has the lock.

    Threads:
        Any; waits for nothing.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        try:
            known: _Known | None = _known[id(frame.f_code)]
        except KeyError:
            known = _look_at(frame)
        if known is not None:
            within, ours, last, _ = known
            if frame.f_lasti in within and (not ours or _holds(frame)):
                return True
            if last:
                return False
        frame = frame.f_back
    return False


def within(lock: threading.Lock) -> bool:
    """Tell whether this thread was interrupted while it holds this very lock.

    For locks that are taken under others of ours, where ``inside`` says yes in any case.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        known = _known.get(id(frame.f_code)) or _look_at(frame)
        if known is not None and frame.f_lasti in known.within and _has(frame, lock):
            return True
        frame = frame.f_back
    return False


def check_outside(what: str, lock: threading.Lock | None = None) -> None:
    """Raise ``StateError`` if a call would wait for the thread that makes it.

    Args:
        what: the call, for the exception.
        lock: all that it waits for, so that nothing else is asked while this one is free, unless
            this thread has something ``held``;
            None if it waits for other threads.
    """
    if (lock is None or held.count or lock.locked()) and inside():
        raise interrupted(what)


def interrupted(what: str) -> StateError:
    """Return the exception for a call that would wait for the thread that makes it."""
    return StateError(
        f"{what} was called by something that interrupted this very thread, such as a "
        f"signal handler or a destructor, at a moment when it cannot be done; call it in "
        f"another thread: threading.Thread(target=...).start()"
    )


def _is_ours(module: object) -> bool:
    return module.__class__ is str and str(module).startswith(_PACKAGE)


def _holds(frame: FrameType) -> bool:
    """Tell whether one of the variables of a function has a lock that is taken."""
    for value in list(frame.f_locals.values()):
        if _is_ours(getattr(type(value), "__module__", None)):
            for name in _NAMES:
                locked = getattr(getattr(value, name, None), "locked", None)
                if locked is not None and locked():
                    return True
    return False


def _has(frame: FrameType, lock: threading.Lock) -> bool:
    """Tell whether one of the variables of a function has that lock."""
    return any(
        getattr(value, name, None) is lock
        for value in list(frame.f_locals.values())
        if _is_ours(getattr(type(value), "__module__", None))
        for name in _NAMES
    )


def _look_at(frame: FrameType) -> _Known | None:
    """Note what there is to know of a function; None if it has no lock that counts."""
    code = frame.f_code
    try:
        module = frame.f_globals["__name__"]
    except KeyError:
        return None
    ours = _is_ours(module)
    if not ours and not (module == "threading" and code.co_name in _STARTING):
        return None
    within = dict.fromkeys(_read_sections(code))
    known = _known[id(code)] = _Known(within, ours, id(code) in _bottoms, code)
    return known


def _read_sections(code: CodeType) -> frozenset[int]:
    """Return the offsets that lie in a ``with``; those between instructions too."""
    bytecode = dis.Bytecode(code)
    ends: set[int] = set()  # the handlers that are the end of a ``with``
    calls: dict[int, int] = {}  # by what comes next: the call before it
    handler, call = -1, -1
    for instruction in bytecode:
        if call >= 0:
            calls[instruction.offset] = call
        call = instruction.offset if instruction.opname == "CALL" else -1
        if instruction.opname == "PUSH_EXC_INFO":
            handler = instruction.offset
        elif instruction.opname == "WITH_EXCEPT_START":
            ends.add(handler)
    entries = bytecode.exception_entries  # type: ignore[attr-defined]  # not in typeshed

    def within(offset: int) -> bool:
        for _ in range(len(entries)):  # from the innermost handler outwards
            for entry in entries:
                if entry.start <= offset < entry.end:
                    if entry.target in ends:
                        return True
                    offset = entry.target
                    break
            else:
                return False
        return False

    # Since 3.14 ``with`` calls ``__enter__`` as anything else is called: what interrupts comes
    # after that, with the lock taken and before the block.
    starts = {entry.start for entry in entries if entry.target in ends}
    entered = {at for start in starts for at in range(calls.get(start, start), start, 2)}
    return frozenset(entered).union(filter(within, range(0, len(code.co_code), 2)))
