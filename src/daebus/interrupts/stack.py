"""Knowing from the stack that this thread was interrupted while it holds a lock of ours.

Where time counts the question is put only if a lock is taken, so the common way pays for one
look at it. Nor do two interrupted threads wait for each other: each looked at what it wants
after it had taken what it holds, so the later look saw the lock of the other.
"""

from __future__ import annotations

import dis
import sys
import threading
from types import CodeType, FrameType

from ..errors import StateError

__all__ = ["check_outside", "inside"]

# The attributes under which objects of ours keep their lock. A section is found by them:
# what stands behind ``with`` is one attribute of a local variable.
_NAMES = ("_lock", "lock", "_connection_lock", "_order", "_data")

# Functions of ``threading`` that hold the lock which every new thread takes before its start
# is over: whoever interrupts them and starts a thread would wait for ever.
_STARTING = ("_bootstrap_inner", "_delete", "enumerate", "start")

_PACKAGE = __name__.partition(".")[0] + "."

# By code: where exceptions are handled, as start, end, handler, and whether that is the end
# of a ``with``.
_Table = list[tuple[int, int, int, bool]]
_tables: dict[CodeType, _Table] = {}


def inside() -> bool:
    """Tell whether this thread holds a lock of ours, and was interrupted there.

    It looks at the stack, some microseconds: nothing has to be noted where locks are
    taken. It may say yes in vain, where another thread has the lock.

    Threads:
        Any; waits for nothing.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if _is_ours(module):
            if _in_with(frame.f_code, frame.f_lasti) and _holds(frame):
                return True
        elif (
            module == "threading"
            and frame.f_code.co_name in _STARTING
            and _in_with(frame.f_code, frame.f_lasti)
        ):
            return True
        frame = frame.f_back
    return False


def check_outside(what: str, lock: threading.Lock | None = None) -> None:
    """Raise ``StateError`` if a call would wait for the thread that makes it.

    Args:
        what: the call, for the exception.
        lock: all that it waits for, so that nothing else is asked while this one is free;
            None if it waits for other threads.
    """
    if (lock is None or lock.locked()) and inside():
        raise StateError(
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


def _in_with(code: CodeType, offset: int) -> bool:
    """Tell whether an instruction lies in a ``with`` block."""
    table = _tables.get(code)
    if table is None:
        table = _tables[code] = _read_table(code)
    for _ in range(len(table)):  # from the innermost handler outwards
        for start, end, handler, is_with in table:
            if start <= offset < end:
                if is_with:
                    return True
                offset = handler
                break
        else:
            return False
    return False


def _read_table(code: CodeType) -> _Table:
    bytecode = dis.Bytecode(code)
    ends: set[int] = set()
    handler = -1
    for instruction in bytecode:
        if instruction.opname == "PUSH_EXC_INFO":
            handler = instruction.offset
        elif instruction.opname == "WITH_EXCEPT_START":
            ends.add(handler)
    entries = bytecode.exception_entries  # type: ignore[attr-defined]  # not in typeshed
    return [(entry.start, entry.end, entry.target, entry.target in ends) for entry in entries]
