"""Calls whose arguments are checked against the annotations; errors say what to type. Pure."""

from __future__ import annotations

import datetime
import difflib
import functools
import inspect
import math
import os
import re
import sys
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

__all__ = ["checked"]

Checked = TypeVar("Checked", bound=Callable[..., Any])

# What an annotation is called in an error. Arguments of other types have checks of their own.
_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path",
    types.NoneType: "None",
}

_SEVERAL = (Sequence, Collection, Iterable, list)

# What to write where the value does not tell.
_EXAMPLES: dict[str, object] = {
    "error": 404,
    "host": "0.0.0.0",
    "interval": 1.0,
    "message_type": "my_type",
    "name": "my_name",
    "path": "/path",
    "port": 8080,
    "prefix": "/old",
    "rate": "10/s",
    "room_pattern": "team-*",
}
# What is never shown, whatever it is: there may be a password in it.
_SECRETS = ("secret", "url")

# Permissions, which people write and read in octal.
_OCTAL = ("unix_mode",)

_REMARKS = {"host": " for every address of IPv4, or leave it out for this machine alone"}

# Bytes and seconds as people write them.
_UNITS = {
    **dict.fromkeys(("k", "kb", "kib"), 1 << 10),
    **dict.fromkeys(("m", "mb", "mib"), 1 << 20),
    **dict.fromkeys(("g", "gb", "gib"), 1 << 30),
}
_TIMES = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_QUANTITY = re.compile(r"\s*(-?\d{1,18}(?:\.\d{1,18})?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def checked(function: Checked) -> Checked:
    """Decorate a constructor or method whose plain arguments are checked when it is called.

    Plain are flags, numbers, strings, paths, None, and collections of these; each is compared
    with its annotation. What is of the right type and makes no sense is left to the function.
    A method that is a decorator, or returns one, is told apart by its annotations, and what is
    said of it tells whether it is written with parentheses.

    Raises:
        TypeError: at the call, an argument is of another type, missing or unknown.
        ValueError: at the call, a number is not one, or too large for the system.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def check(*args: Any, **kwargs: Any) -> Any:
        hints = _hints(function)
        if len(args) == 2 and isinstance(args[1], types.FunctionType) and _is_factory(hints):
            raise TypeError(
                f"@app.{function.__name__} stands above {args[1].__name__} without parentheses; "
                f"write {_usage(function, signature)}"
            )
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as exc:
            raise TypeError(_misuse(function, signature, args, kwargs, str(exc))) from None
        for name, value in given.items():
            if isinstance(hints.get(name), TypeVar) and not callable(value):
                raise TypeError(
                    f"{function.__name__} decorates a function, not {value!r:.200}; write "
                    f"{_usage(function, signature)}"
                )
            if name in hints:
                _check(name, value, hints[name], signature.parameters[name].default)
        return function(*args, **kwargs)

    return cast("Checked", check)


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    # Later than the decoration: the module of the function is complete only then.
    return get_type_hints(function)


def _is_decorator(hints: dict[str, Any]) -> bool:
    """Tell whether a method takes the function that it decorates, so without parentheses."""
    return isinstance(hints.get("return"), TypeVar)


def _is_factory(hints: dict[str, Any]) -> bool:
    """Tell whether a method returns a decorator, so is written with parentheses."""
    inner = get_args(hints.get("return"))
    return bool(inner) and isinstance(inner[-1], TypeVar)


def _usage(function: Callable[..., Any], signature: inspect.Signature) -> str:
    """Return how to write a decorator, or a call."""
    hints = _hints(function)
    name = function.__name__
    if _is_decorator(hints):
        return f"@app.{name} above the function"
    needed = [
        repr(_EXAMPLES[parameter.name]) if parameter.name in _EXAMPLES else parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty and parameter.name != "self"
    ]
    owner = function.__qualname__.partition(".")[0]
    call = owner if name == "__init__" else f"{'@' * _is_factory(hints)}app.{name}"
    return f"{call}({', '.join(needed)})"


def _misuse(
    function: Callable[..., Any],
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    problem: str,
) -> str:
    """Say what is wrong with a call that Python would not make."""
    label = function.__name__
    if label == "__init__":
        label = function.__qualname__.partition(".")[0]
    usage = _usage(function, signature)
    if _is_decorator(_hints(function)):
        return f"{label} takes no parentheses and no options; write {usage}"
    known = [name for name in signature.parameters if name != "self"]
    for name in kwargs:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            return f"{label} has no option {name!r}; {hint}"
    by_name = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    most = len(known) - len(by_name)
    if len(args) - 1 > most:
        return (
            f"{label} takes {most} by position, and got {len(args) - 1}; write the others by name"
            + (f", such as {by_name[0]}=..." if by_name else "")
        )
    missing = [
        name
        for name in known[len(args) - 1 :]
        if name not in kwargs and signature.parameters[name].default is inspect.Parameter.empty
    ]
    if missing:
        return f"{label} needs {' and '.join(missing)}; write {usage}"
    return f"{label}: {problem}"


def _check(name: str, value: Any, hint: Any, default: Any) -> None:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words = [_word(kind) for kind in kinds]
    if "" in words:
        return
    if not any(_fits(value, kind) for kind in kinds):
        if isinstance(value, str) and any(get_origin(kind) in _SEVERAL for kind in kinds):
            raise TypeError(f"{name} must be a list; write {name}=[{value!r:.200}]")
        if name in _SECRETS:
            raise TypeError(f"{name} must be {' or '.join(words)}, not of {type(value).__name__}")
        better = _better(name, value, kinds, default)
        raise TypeError(f"{name} must be {' or '.join(words)}, not {value!r:.200}{better}")
    one = isinstance(value, str) or not isinstance(value, Collection)
    for text in (value,) if one else value:
        if isinstance(text, str | os.PathLike):
            _check_text(name, str(text))
    if isinstance(value, float) and value != value:
        raise ValueError(f"{name} must be a number, not nan")
    # Neither the system nor a float takes more; whoever means no limit has float('inf').
    if isinstance(value, int) and abs(value) > sys.maxsize:
        raise ValueError(f"{name} must be {sys.maxsize} at most; this number is larger")


def _better(name: str, value: Any, kinds: tuple[Any, ...], default: Any) -> str:
    """Return what to type in place of a value, as the end of a sentence; or nothing."""
    number = None
    if name in _OCTAL:
        meant = isinstance(value, str) and re.fullmatch(r"(?:0o)?[0-7]{3,4}", value)
        return f"; write {name}={int(value, 8) if meant else default:#o}"
    if isinstance(value, str):
        number = _number(value, seconds=float in kinds)
    elif isinstance(value, datetime.timedelta):
        number = value.total_seconds()
    elif isinstance(value, float) and math.isfinite(value):
        number = int(value)
    if number is not None and int in kinds:
        number = int(number)
    if number is not None and (int in kinds or float in kinds):
        return f"; write {name}={number!r}"
    example = _EXAMPLES.get(name)
    if example is not None and any(_fits(example, kind) for kind in kinds):
        return f"; write {name}={example!r}{_REMARKS.get(name, '')}"
    if default in (None, (), inspect.Parameter.empty) or isinstance(default, bool):
        return ""
    return f"; write {name}={default!r}"


def _number(text: str, *, seconds: bool) -> int | float | None:
    """Return the number that is meant by ``"8080"``, ``"16M"`` or ``"500ms"``, if any is."""
    match = _QUANTITY.fullmatch(text.replace("_", ""))
    if match is None:
        return None
    digits, unit = match[1], match[2].lower()
    factor = 1 if not unit else (_TIMES if seconds else _UNITS).get(unit)
    if factor is None:
        return None
    number = float(digits) * factor if "." in digits else int(digits) * factor
    return int(number) if number == int(number) else number


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
        if origin is Iterable and isinstance(value, Iterator):
            return True  # which looking at would use up
        plain = isinstance(value, Collection) and not isinstance(value, str | bytes | bytearray)
        return plain and all(_fits(item, inner[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, os.PathLike if kind is Path else kind)
