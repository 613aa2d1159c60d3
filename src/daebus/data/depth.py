"""How deep data is nested: JSON before it is parsed, values before they are encoded.

The parsers and encoders of CPython call themselves for each level, on the C stack. What is
too deep for that stack ends the process, and only the recursion limit of the interpreter
stands before it, which is the host's to raise. So the depth is looked at first.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

__all__ = ["MAX_DEPTH", "MAX_VALUE_DEPTH", "check_depth", "is_too_deep", "nests"]

# Levels of what a client sends, unless an app says otherwise: more than people write, and
# a tenth of what the recursion limit allows.
MAX_DEPTH = 100

# Levels of anything, in and out: the recursion limit that CPython starts with. The least
# ``stack_size`` was measured with it.
MAX_VALUE_DEPTH = 1000

_BRACKETS = b"[]{}"
_OTHERS = bytes(set(range(256)) - set(_BRACKETS))
# Bytes that are looked at in one go: other threads run in between, and the parts take no memory.
_SLICE = 1 << 15
_STEPS = bytes.maketrans(_BRACKETS, b"\x01\xff\x01\xff")  # +1 and -1, as signed bytes


def nests(text: str, most: int) -> bool:
    """Tell whether JSON is nested deeper than that, without parsing it.

    Of a text that is no JSON the depth is right up to where a parser would stop.

    Args:
        text: the whole text.
        most: levels of arrays and objects that are allowed.
    """
    if len(text) <= most or text.count("[") + text.count("{") <= most:
        return False
    data = text.encode("utf-8", "surrogatepass")
    if b"\\" in data:
        # Escapes stand in strings alone. In pairs, from the left, as a parser reads them.
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth = inside = 0
    for start in range(0, len(data), _SLICE):
        parts = data[start : start + _SLICE].split(b'"')
        steps = b"".join(parts[inside::2]).translate(_STEPS, _OTHERS)
        inside = (inside + len(parts) - 1) % 2  # a string goes on in the next slice
        depths = list(accumulate(array("b", steps), initial=depth))
        if max(depths) > most:
            return True
        depth = depths[-1]
    return False


def check_depth(name: str, value: int) -> int:
    """Return an argument that bounds the depth of what clients send."""
    if not 1 <= value <= MAX_VALUE_DEPTH:
        raise ValueError(f"{name} is a number of levels from 1 to {MAX_VALUE_DEPTH}, not {value!r}")
    return value


# What the encoder may recurse to. These versions have a limit for C of their own, which is
# higher; 3.14 looks at the stack that is left.
_recursion_limit: Callable[[], int] = (
    (lambda: sys.maxsize)
    if (3, 12) <= sys.version_info < (3, 14)
    else sys.getrecursionlimit  # read each time: the host may raise it at any moment
)

# No set: all threads look here for each message, and without the GIL a look into one locks it.
_LEAVES = dict.fromkeys((str, int, float, bool, type(None)))


def is_too_deep(value: Any, children: Callable[[Any], Iterable[Any]]) -> bool:
    """Tell whether a value is nested too deep to be encoded, if nobody else would notice.

    Up to ``MAX_VALUE_DEPTH`` levels nothing can happen, and with the recursion limit that
    CPython starts with the encoder raises ``RecursionError`` beyond: then this costs a
    comparison. Else the value is walked, level by level.

    Args:
        value: anything.
        children: returns what the encoder looks at inside a value.
    """
    return _recursion_limit() > MAX_VALUE_DEPTH and _walks_deep(value, children)


def _walks_deep(value: Any, children: Callable[[Any], Iterable[Any]]) -> bool:
    level: Iterable[Any] = (value,)
    for _ in range(MAX_VALUE_DEPTH):
        # Each value once in a level: structures that share parts would grow at each.
        below = {
            id(child): child
            for item in level
            for child in children(item)
            if child.__class__ not in _LEAVES
        }
        if not below:
            return False
        level = below.values()
    return True
