"""What an object becomes in JSON, if JSON does not know it.

An object is asked for what it offers, so no package is imported for the sake of its objects.
One step at a time: what comes out may hold objects that JSON does not know either.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import functools
import math
import os
import sys
import uuid
from collections import UserString
from collections.abc import Callable, Iterable, Mapping, Sequence, Set, ValuesView
from typing import Any, NoReturn

from ..interrupts.raised import from_signal

__all__ = ["NoFormError", "children", "form_of", "no_form"]

# Units of numpy's times that are finer than a datetime is.
_FINE = ("ns]", "ps]", "fs]", "as]")

# Made once: where the depth is looked at, each message comes by.
_ATOMS = (str, int, float)
_CONTAINERS = (dict, list, tuple)


class NoFormError(TypeError):
    """An object has no JSON form."""


def no_form(value: Any) -> NoReturn:
    """Raise ``NoFormError``: what happens to the rest, unless a program has its own function."""
    raise NoFormError(f"a {type(value).__name__} has no JSON form")


def form_of(value: Any, rest: Callable[[Any], Any] = no_form) -> Any:
    """Convert an object that JSON does not know to its usual form.

    Args:
        value: the object.
        rest: converts what is not known here either.

    Raises:
        NoFormError: it has none.
        Exception: whatever the object or ``rest`` raises.
    """
    kind = type(value)
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal) and not value.is_finite():
        return math.nan if value.is_nan() else float(value)
    if isinstance(value, uuid.UUID | decimal.Decimal | UserString):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    # orjson asks for the form of subclasses too, whose values the standard library takes.
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, tuple):
        return list(tuple.__iter__(value))
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if hasattr(kind, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    if hasattr(kind, "__struct_fields__"):  # msgspec
        convert = functools.partial(form_of, rest=rest)
        return sys.modules["msgspec"].to_builtins(value, enc_hook=convert)
    if hasattr(kind, "tolist"):  # numpy, pandas, array
        return _of_array(value)
    if isinstance(value, Mapping) or (hasattr(kind, "keys") and hasattr(kind, "__getitem__")):
        return dict(value)  # a row of sqlite3 has keys too
    if isinstance(value, Set):
        try:
            return sorted(value)
        except TypeError:
            return list(value)
    if isinstance(value, Sequence | ValuesView):
        return list(value)
    return rest(value)


def _of_array(value: Any) -> Any:
    kind: Any = getattr(value, "dtype", None)
    # Of a time that is too fine for a datetime, ``tolist`` makes a number.
    if getattr(kind, "kind", "") in ("M", "m") and str(kind).endswith(_FINE):
        value = value.astype(f"{kind.kind}8[us]")
    if getattr(kind, "kind", "") in ("M", "m"):
        return _of_times(value)
    plain = value.tolist()
    return float(plain) if type(plain) is type(value) else plain  # numpy's long double


def _of_times(value: Any) -> Any:
    """Return times of numpy, with NaN for those that are none."""
    missing = value != value  # NaT alone
    if not missing.any():
        return value.tolist()
    if not value.shape:
        return math.nan
    times = value.astype(object)
    times[missing] = math.nan
    return times.tolist()


def children(item: Any, form: Callable[[Any], Any]) -> Iterable[Any]:
    """Return what the encoders look at inside a value.

    Args:
        item: any value.
        form: converts one that JSON does not know.
    """
    if item is None or isinstance(item, _ATOMS):
        return ()
    if not isinstance(item, _CONTAINERS):
        try:
            item = form(item)
        except Exception as exc:
            if from_signal(exc):
                raise
            return ()  # the encoder meets it too
        if not isinstance(item, _CONTAINERS):
            return (item,)
    return item.values() if isinstance(item, dict) else item
