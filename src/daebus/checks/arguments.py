"""Argument checks; errors name the argument and the value."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import TypeVar

__all__ = [
    "LEAST_SECONDS",
    "MAX_NAME",
    "check_client_id",
    "check_ids",
    "check_message_type",
    "check_name",
    "check_path",
    "fraction",
    "header_text",
    "positive",
    "positive_or_none",
    "seconds",
    "seconds_or_none",
]

# Characters of the name of a room or user at most: clients often choose them, and each
# name is stored.
MAX_NAME = 128

# The shortest time that may be asked for: what the system's waits count in. Less would be over
# before it began, and what is due again by then would be due all the time.
LEAST_SECONDS = 0.001

_PARAMETER = re.compile(r"<[^<>]*>")  # of a path

Number = TypeVar("Number", int, float)


def positive(name: str, value: Number) -> Number:
    """Return a number that must be greater than 0."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {value!r:.100}; write {name}=5")
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, not {value!r}")
    return value


def positive_or_none(name: str, value: Number | None) -> Number | None:
    """Return a number that must be greater than 0, or None."""
    return None if value is None else positive(name, value)


def seconds(name: str, value: float) -> float:
    """Return a time that must be ``LEAST_SECONDS`` or more; infinity is for ever.

    Raises:
        ValueError: it is less, or it is an integer too large to be added to a moment.
    """
    try:
        positive(name, value)
        float(value)
    except OverflowError:
        raise ValueError(
            f"{name} is too large for a number of seconds; write {name}=math.inf for ever"
        ) from None
    if value < LEAST_SECONDS:
        raise ValueError(
            f"{name} must be {LEAST_SECONDS} seconds or more, not {value!r}; "
            f"write {name}={LEAST_SECONDS}"
        )
    return value


def seconds_or_none(name: str, value: float | None) -> float | None:
    """Return a time as ``seconds`` does, or None."""
    return None if value is None else seconds(name, value)


def check_name(value: object, example: str) -> str:
    """Return the name of a room or user, if it is valid.

    Args:
        value: the argument.
        example: what to write, with ``{}`` for the name.

    Raises:
        TypeError: it is not a string.
        ValueError: it is empty, or longer than ``MAX_NAME``.
    """
    if not isinstance(value, str):
        # A number or an id is meant as its text; anything else is the wrong argument.
        plain = isinstance(value, int | float | uuid.UUID)
        better = example.format(repr(f"{value!s:.36}" if plain else "my_name"))
        raise TypeError(f"a name is a string, not {value!r:.100}; write {better}")
    if not 0 < len(value) <= MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} characters, not {len(value)}")
    return value


def check_client_id(value: object) -> str:
    """Return a client id, if it is a string.

    Raises:
        TypeError: it is not, as when arguments are swapped.
    """
    if not isinstance(value, str):
        raise TypeError(
            f"a client id is a string, not {value!r:.100}; it comes first, as in "
            f"send_to_client(client_id, data)"
        )
    return value


def check_message_type(value: object) -> None:
    """Check a message type that a test asks for.

    Raises:
        TypeError: it is not a string, as when a time is written in its place.
    """
    if not isinstance(value, str):
        raise TypeError(
            f"a message type is a string, not {value!r:.100}; a time has its name, as in "
            f"client.receive('my_type', timeout=1.0)"
        )


def check_path(value: str, example: str = "{}") -> str:
    """Return a path that requests are compared with, perhaps with parameters, if one can match.

    Args:
        value: the argument.
        example: what to write, with ``{}`` for the path.

    Raises:
        ValueError: it has no slash before it, or holds what is not a part of a path.
    """
    if not value.startswith("/"):
        better = example.format(repr("/" + value))
        raise ValueError(f"path {value!r} has no leading slash; write {better}")
    fixed = _PARAMETER.sub(lambda found: "x" * len(found[0]), value)
    for mark, what in (("?", "query"), ("#", "fragment")):
        end = fixed.find(mark)
        if end >= 0:
            better = example.format(repr(value[:end]))
            raise ValueError(f"path {value!r} holds a {what}, which no path does; write {better}")
    return value


def check_ids(value: Iterable[str], example: str) -> Iterable[str]:
    """Return several client ids, each of which is checked when its turn comes.

    Args:
        value: the argument.
        example: what to write, with ``{}`` for the ids.

    Raises:
        TypeError: it is one string, whose characters would be taken for ids; or, later, an
            id is not a string.
    """
    if isinstance(value, str):
        better = example.format([value[:MAX_NAME]])
        raise TypeError(f"several client ids are a list, not {value!r:.100}; write {better}")
    return map(check_client_id, value)


def fraction(name: str, value: float) -> float:
    """Return a number from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {value!r}")
    return value


def header_text(name: str, value: str | None) -> str | None:
    """Return a short text that fits a header, or None.

    Raises:
        ValueError: it is empty, longer than ``MAX_NAME``, or holds other characters.
    """
    if value is not None and not (
        0 < len(value) <= MAX_NAME and value.isascii() and value.isprintable()
    ):
        raise ValueError(
            f"{name} is 1 to {MAX_NAME} printable ASCII characters, not {value!r:.200}; "
            f"write {name}='1.4.2'"
        )
    return value
