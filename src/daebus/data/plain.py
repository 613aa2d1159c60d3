"""Data as plain values, by a walk that knows where it is: the way that is taken after a failure.

It replaces what the encoder could not take, NaN and the keys of dicts among it, or says in
an ``EncodeError`` where the data has no JSON form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from ..errors import EncodeError
from ..interrupts.raised import from_signal
from .depth import MAX_VALUE_DEPTH
from .forms import NoFormError

__all__ = ["Walk"]

# Where a value is: the place of what holds it, and its key or index there; None for the top.
Place = tuple[Any, str | int] | None

# Characters of a path in an error.
_MAX_PATH = 120

# Integers of fewer bits are printed, whatever the host has set as the limit of digits.
_SHORT = 2000


class Walk:
    """One walk through some data.

    Args:
        form: converts an object that JSON does not know.
        nan: NaN and the infinities become None; else they are errors.
    """

    def __init__(self, form: Callable[[Any], Any], *, nan: bool) -> None:
        self._form = form
        self._nan = nan
        self._open: set[int] = set()  # what the walk is inside of

    def plain(self, value: Any, place: Place = None, level: int = 0) -> Any:
        """Return the value with nothing in it that JSON does not know.

        Raises:
            EncodeError: something has no JSON form; the text says where and what.
        """
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int):
            return self._int(value, place)
        if isinstance(value, float):
            return self._float(value, place)
        try:
            if id(value) in self._open:
                raise EncodeError(
                    f"{_at(place)} is {_a_kind(value)} that contains itself, so it is nested too "
                    f"deep; send a copy without the cycle"
                )
            if level > MAX_VALUE_DEPTH:
                raise RecursionError
            self._open.add(id(value))
            # No comprehensions: each would be one more frame of the stack for a level.
            result: Any
            if isinstance(value, dict):
                result = {}
                for key, item in value.items():
                    name = self._key(key, place)
                    result[name] = self.plain(item, (place, _text(name)), level + 1)
            elif isinstance(value, list | tuple):
                result = []
                for index, item in enumerate(value):
                    result.append(self.plain(item, (place, index), level + 1))
            else:
                result = self.plain(self._formed(value, place), place, level + 1)
        except RecursionError:  # where there is stack again for the text
            raise EncodeError(
                f"{_at(place)} ({_a_kind(value)}) is nested too deep; send a flatter copy"
            ) from None
        self._open.discard(id(value))
        return result

    def _formed(self, value: Any, place: Place) -> Any:
        try:
            return self._form(value)
        except RecursionError:
            raise
        except NoFormError:
            raise EncodeError(
                f"{_at(place)} is {_a_kind(value)}, which has no JSON form; send dict, list, str, "
                f"int, float, bool or None, or write Daebus(name, json_default=...)"
            ) from None
        except Exception as exc:
            if from_signal(exc):
                raise
            raise EncodeError(
                f"{_at(place)} is {_a_kind(value)}, whose conversion to JSON failed: {exc!r:.100}"
            ) from exc

    def _int(self, value: int, place: Place) -> int:
        if value.bit_length() > _SHORT:
            try:
                int.__repr__(value)
            except ValueError:
                raise EncodeError(
                    f"{_at(place)} is {_a_kind(value)} of more digits than Python prints; send "
                    f"it as text, such as hex(value)"
                ) from None
        return value

    def _float(self, value: float, place: Place) -> float | None:
        if math.isfinite(value):
            return value
        if self._nan:
            return None
        raise EncodeError(
            f"{_at(place)} is {float.__repr__(value)} ({_a_kind(value)}), which is not JSON; send "
            f"None in its place, or write Daebus(name, nan='null')"
        )

    def _key(self, key: Any, place: Place) -> str | int | float | None:
        """Return the key of a dict as one that JSON can carry."""
        given = key
        for _ in range(3):  # a time of numpy becomes a datetime becomes text
            if key is None or isinstance(key, str):
                return key
            if isinstance(key, int):
                return self._int(key, place)
            if isinstance(key, float):
                return self._float(key, place)
            if isinstance(key, bytes | bytearray | memoryview):
                break  # meant as text, most of the time
            key = self._formed(key, place)
            if isinstance(key, dict | list | tuple):
                break
        raise EncodeError(
            f"{_at(place)} is a dict with a key of type {_kind(given)}; send keys that are strings"
        )


def _kind(value: Any) -> str:
    return type(value).__name__[:100]


def _a_kind(value: Any) -> str:
    kind = _kind(value)
    return f"{'an' if kind[0] in 'AEIOaeio' else 'a'} {kind}"


def _text(key: str | float | None) -> str:
    return key if isinstance(key, str) else json.dumps(key)[:40]


def _at(place: Place) -> str:
    """Return where something is, such as ``$.temp.boiler[2]``."""
    parts: list[str] = []
    while place is not None:
        place, key = place
        if isinstance(key, int):
            parts.append(f"[{key}]")
        else:
            parts.append(f".{key}" if key.isidentifier() else f"[{json.dumps(key[:40])}]")
    path = "$" + "".join(reversed(parts))
    if len(path) > _MAX_PATH:
        path = f"{path[: _MAX_PATH // 2]}...{path[-_MAX_PATH // 2 :]}"
    return path
