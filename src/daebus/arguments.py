"""Argument checks; errors name the argument and the value."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import types
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = [
    "MAX_NAME",
    "check_ids",
    "check_name",
    "checked",
    "fraction",
    "positive",
    "positive_or_none",
    "seconds",
    "seconds_or_none",
]

# Characters of the name of a room or user at most: clients often choose them, and each
# name is stored.
MAX_NAME = 128

Number = TypeVar("Number", int, float)
P = ParamSpec("P")

# What an annotation is called in an error. Arguments of other types have checks of their own.
_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path",
    types.NoneType: "None",
}

_SEVERAL = (Sequence, Collection)


def checked(init: Callable[P, None]) -> Callable[P, None]:
    """Decorate a constructor whose plain arguments are checked against their annotations.

    Plain are flags, numbers, strings, paths, None, and collections of these. What is of the
    right type and makes no sense is left to the constructor.

    Raises:
        TypeError: at the call, an argument is of another type.
        ValueError: at the call, a number is not one, or too large for the system.
    """
    parameters = inspect.signature(init)

    @functools.wraps(init)
    def check(*args: P.args, **kwargs: P.kwargs) -> None:
        hints = _hints(init)
        for name, value in parameters.bind(*args, **kwargs).arguments.items():
            if name in hints:
                _check(name, value, hints[name])
        init(*args, **kwargs)

    return check


@functools.cache
def _hints(init: Callable[..., None]) -> dict[str, Any]:
    # Later than the decoration: the module of the constructor is complete only then.
    return get_type_hints(init)


def _check(name: str, value: Any, hint: Any) -> None:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words = [_word(kind) for kind in kinds]
    if "" in words:
        return
    if not any(_fits(value, kind) for kind in kinds):
        if isinstance(value, str) and any(get_origin(kind) in _SEVERAL for kind in kinds):
            raise TypeError(f"{name} must be a list; write {name}=[{value!r:.200}]")
        raise TypeError(f"{name} must be {' or '.join(words)}, not {value!r:.200}")
    one = isinstance(value, str) or not isinstance(value, Collection)
    for text in (value,) if one else value:
        if isinstance(text, str | os.PathLike):
            _check_text(name, str(text))
    if isinstance(value, float) and value != value:
        raise ValueError(f"{name} must be a number, not nan")
    # Neither the system nor a float takes more; whoever means no limit has float('inf').
    if isinstance(value, int) and abs(value) > sys.maxsize:
        raise ValueError(f"{name} must be {sys.maxsize} at most; this number is larger")


def _check_text(name: str, text: str) -> None:
    try:
        text.encode(errors="surrogateescape")  # as the system does with names of files
    except UnicodeEncodeError:
        raise ValueError(f"{name} has a character without a UTF-8 form: {text!r:.200}") from None
    if "\0" in text:
        raise ValueError(f"{name} must not hold a NUL character: {text!r:.200}")


def _word(kind: Any) -> str:
    """Return how to call an annotation; empty if it is none of the plain ones."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in _SEVERAL:
        word = _word(inner[0])
        return word and f"a list, each {word}"
    return _WORDS.get(kind, "")


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:  # which one is for the constructor to say
        return isinstance(value, type(inner[0]))
    if origin in _SEVERAL:
        plain = isinstance(value, Collection) and not isinstance(value, str | bytes | bytearray)
        return plain and all(_fits(item, inner[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, os.PathLike if kind is Path else kind)


def positive(name: str, value: Number) -> Number:
    """Return a number that must be greater than 0."""
    if not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name} must be greater than 0, not {value!r}")
    return value


def positive_or_none(name: str, value: Number | None) -> Number | None:
    """Return a number that must be greater than 0, or None."""
    return None if value is None else positive(name, value)


def seconds(name: str, value: float) -> float:
    """Return a time that must be greater than 0; infinity is for ever.

    Raises:
        ValueError: it is not, or it is an integer too large to be added to a moment.
    """
    try:
        positive(name, value)
        float(value)
    except OverflowError:
        raise ValueError(
            f"{name} is too large for a number of seconds; write {name}=math.inf for ever"
        ) from None
    return value


def seconds_or_none(name: str, value: float | None) -> float | None:
    """Return a time that must be greater than 0, or None."""
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
        better = example.format(repr(f"{value!s:.20}"))
        raise TypeError(f"a name is a string, not {value!r:.100}; write {better}")
    if not 0 < len(value) <= MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} characters, not {len(value)}")
    return value


def check_ids(value: Iterable[str], example: str) -> Iterable[str]:
    """Return several client ids, if they are not one string.

    Args:
        value: the argument.
        example: what to write, with ``{}`` for the ids.

    Raises:
        TypeError: it is one string, whose characters would be taken for ids.
    """
    if isinstance(value, str):
        better = example.format([value[:MAX_NAME]])
        raise TypeError(f"several client ids are a list, not {value!r:.100}; write {better}")
    return value


def fraction(name: str, value: float) -> float:
    """Return a number from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {value!r}")
    return value
