"""Paths with parameters, such as ``/device/<name>``, and which of several a path matches. Pure.

The notation is that of views, for its usual converters, and a path finds what it would find
there; but a slash at the end counts, as a WebSocket follows no redirects.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Pattern", "Patterns"]

T = TypeVar("T")

# What each converter matches, what it makes of that, and how late it is tried.
_CONVERTERS: dict[str, tuple[str, Callable[[str], Any], int]] = {
    "int": (r"[0-9]{1,18}", int, 1),
    "float": (r"[0-9]{1,18}\.[0-9]{1,18}", float, 1),
    "uuid": (r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}", uuid.UUID, 1),
    "string": (r"[^/]{1,1024}", str, 2),
    "path": (r"[^/].*?", str, 3),
}

# Behind all of these, so that of two patterns that begin alike the longer one is tried first.
_LAST = 4

# What those that match anything weigh, in one segment. More would let a long path be tried in so
# many ways that the match takes seconds.
_FREE = {"string": 1, "path": 2}
_MAX_FREE = 2

_PARAMETER = re.compile(r"<(?:([a-z]+):)?([A-Za-z_][A-Za-z0-9_]*)>")


class Pattern:
    """One path, perhaps with parameters.

    Args:
        text: such as ``"/device/<name>"`` or ``"/rack/<int:number>/<path:rest>"``, with the
            slash before it.

    Attributes:
        text: as given.
        names: of the parameters, in order.
        shape: equal for patterns that match the same paths.
        order: those with a lesser one are tried first.

    Raises:
        ValueError: a parameter is malformed, or there are too many.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._makers: dict[str, Callable[[str], Any]] = {}
        shape, at = "", 0
        ranks, free = [0] * text.count("/"), [0] * text.count("/")
        for found in _PARAMETER.finditer(text):
            kind, name = found[1] or "string", found[2]
            if kind not in _CONVERTERS or name in self._makers:
                raise ValueError(
                    f"path {text!r}: {found[0]} has no known converter, or a name that is taken; "
                    f"write <{name}2>, or one of {', '.join(_CONVERTERS)}"
                )
            expression, self._makers[name], rank = _CONVERTERS[kind]
            shape += f"{re.escape(text[at : found.start()])}({expression})"
            at = found.end()
            segment = text.count("/", 0, at) - 1
            ranks[segment] += rank
            free[segment] += _FREE.get(kind, 0)
        self.shape = shape + re.escape(text[at:])
        if "<" in _PARAMETER.sub("", text) or ">" in _PARAMETER.sub("", text):
            raise ValueError(f"path {text!r} holds a malformed parameter; write <name> or <int:n>")
        if max(free) > _MAX_FREE or self.shape.count(_CONVERTERS["path"][0]) > 1:
            raise ValueError(
                f"path {text!r} has more than two parameters between two slashes, or several of "
                f"kind path; take one of them, and split it in the handler"
            )
        self.names = tuple(self._makers)
        self.order = (*ranks, _LAST)
        self._match = re.compile(self.shape, re.DOTALL).fullmatch
        fixed = text.partition("<")[0]
        self._fixed, self._whole = fixed.rstrip("/"), fixed.endswith("/") or not self.names

    def match(self, path: str) -> dict[str, Any] | None:
        """Return the parameters of a path, decoded; None if it is another one."""
        found = self._match(path)
        if found is None:
            return None
        makers = self._makers.items()
        return {name: make(text) for (name, make), text in zip(makers, found.groups(), strict=True)}

    def claims(self, path: str) -> bool:
        """Tell whether a path begins with the part before the first parameter.

        It ends with a segment: ``/logs`` claims ``/logs/x`` and not ``/logsheet``. One with
        nothing before the first parameter, or that is ``/``, claims only what it matches.
        """
        if not self._fixed:
            return False
        rest = path[len(self._fixed) :]
        return path.startswith(self._fixed) and not (self._whole and rest and rest[0] != "/")


class Patterns(Generic[T]):
    """Values by pattern.

    Threads:
        Who adds has the lock of the owner; any may look meanwhile.
    """

    def __init__(self) -> None:
        self._fixed: dict[str, tuple[Pattern, T]] = {}  # entries are only added
        self._free: tuple[tuple[Pattern, T], ...] = ()
        self._shapes: dict[str, Pattern] = {}  # entries are only added

    def add(self, pattern: Pattern, value: T) -> Pattern | None:
        """Add a pattern; return the one that matches the same paths instead, if there is one."""
        known = self._shapes.setdefault(pattern.shape, pattern)
        if known is not pattern:
            return known
        if pattern.names:
            more = (*self._free, (pattern, value))
            self._free = tuple(sorted(more, key=lambda entry: entry[0].order))
        else:
            self._fixed[pattern.text] = (pattern, value)
        return None

    def find(self, path: str) -> tuple[Pattern, T, dict[str, Any]] | None:
        """Return pattern, value and parameters of a path."""
        entry = self._fixed.get(path)
        if entry is not None:
            return (*entry, {})
        for pattern, value in self._free:
            parameters = pattern.match(path)
            if parameters is not None:
                return pattern, value, parameters
        return None

    def claims(self, path: str) -> bool:
        """Tell whether a path begins with the fixed part of a pattern."""
        return any(pattern.claims(path) for pattern in list(self._shapes.values()))
