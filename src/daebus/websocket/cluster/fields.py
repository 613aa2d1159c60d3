"""The fields of a frame that belong to its kind, as the types that they must have. Pure."""

from __future__ import annotations

from typing import TypeVar

from ...backplane.frames import FrameError, Header

__all__ = ["field", "texts"]

_Value = TypeVar("_Value")


def field(header: Header, name: str, kind: type[_Value]) -> _Value:
    """Return a field.

    Raises:
        FrameError: there is none, or it is of another type.
    """
    value = header.more.get(name)
    if not isinstance(value, kind):
        raise FrameError(f"field {name!r} of a {header.kind!r} is {value!r:.100}")
    return value


def texts(header: Header, name: str) -> list[str]:
    """Return a field that is a list of strings; see ``field``."""
    values = field(header, name, list)
    if not all(isinstance(value, str) for value in values):
        raise FrameError(f"field {name!r} of a {header.kind!r} is {values!r:.100}")
    return values
