"""Every lock of a running app, and a function that holds one as code of ours does."""

from __future__ import annotations

import functools
import gc
from collections import deque
from collections.abc import Callable, Iterator
from types import BuiltinMethodType, CellType, FunctionType, MethodType
from typing import Any

from daebus.interrupts.stack import _NAMES, held

__all__ = ["holding", "owners_of_locks"]

_CONTAINERS = (dict, list, tuple, set, deque, MethodType, CellType, functools.partial)


def _inner(thing: object) -> Iterator[object]:
    if isinstance(thing, FunctionType):
        yield from thing.__closure__ or ()
    elif isinstance(thing, _CONTAINERS) or type(thing).__module__.startswith("daebus"):
        yield from gc.get_referents(thing)
    elif isinstance(thing, BuiltinMethodType):
        yield thing.__self__


def owners_of_locks(*roots: object) -> dict[str, tuple[Any, str]]:
    """Return an object of each class that keeps a lock, and the name of its attribute.

    Where that is none with ``lock`` in it, it stands behind the name of the class.

    Args:
        roots: all that is reached from there is looked at.
    """
    found: dict[str, tuple[Any, str]] = {}
    seen: set[int] = set()
    waiting: list[object] = list(roots)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        if type(thing).__module__.startswith("daebus"):
            for name in _NAMES:
                if hasattr(getattr(thing, name, None), "locked"):
                    kind = type(thing).__name__
                    found.setdefault(kind if "lock" in name else kind + name, (thing, name))
        waiting.extend(_inner(thing))
    return found


_TEMPLATE = """
def hold(owner, probe):
    with {held}owner.{name}:
        probe()
"""

# Locks for which others wait while they hold another one.
_WAITED_FOR = {("TlsSocket", "_lock"), ("MemoryBackplane", "_lock"), ("Queue", "_lock")}


def holding(owner: Any, name: str, probe: Callable[[], object]) -> Callable[[], None]:
    """Return a function that has the lock while it calls ``probe``, as if it was of ours.

    Args:
        owner: of the lock.
        name: of the attribute.
        probe: what interrupts it.
    """
    space: dict[str, Any] = {"__name__": "daebus.held", "held": held}
    marked = name == "_data" or (type(owner).__name__, name) in _WAITED_FOR
    exec(_TEMPLATE.format(name=name, held="held, " if marked else ""), space)
    return functools.partial(space["hold"], owner, probe)
