"""orjson where it is installed (the extra ``fast``), with the standard library's answers.

Both functions return what the standard library would, or ``None``/``UNSURE`` where orjson
refuses or could differ; the caller then asks the standard library, whose word counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]  # the module is optional

__all__ = ["AVAILABLE", "UNSURE", "dumps", "loads"]

AVAILABLE: Final = orjson is not None
UNSURE: Final = object()

# orjson makes a float of an integer beyond 64 bits (19 digits), silently. A run of that
# many digits shows as six digits in a row in every third character; 13 digits, as in
# timestamps, do not. Where no float came out there was none: that is looked at first,
# two levels deep, for it takes a fifth of the time.
_DIGITS_TO_ZERO = bytes(48 if 48 <= byte <= 57 else 46 for byte in range(256))
_SUSPECT = b"0" * 6
_EXACT: Final = frozenset((str, int, bool, type(None)))

if AVAILABLE:
    _OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def loads(text: str) -> Any:
    """Decode, or return ``UNSURE``: no JSON, too deep, NaN, or a very long number."""
    try:
        value = orjson.loads(text)
    except ValueError:
        return UNSURE
    if value.__class__ is dict:
        for item in value.values():
            if item.__class__ not in _EXACT and not _flat(item):
                break
        else:
            return value
    if _SUSPECT in text[::3].encode().translate(_DIGITS_TO_ZERO):
        return UNSURE
    return value


def _flat(value: Any) -> bool:
    return value.__class__ is dict and all(item.__class__ in _EXACT for item in value.values())


def dumps(value: Any, default: Callable[[Any], Any]) -> bytes | None:
    """Encode, or return None: no JSON form known to orjson, or a ``null`` that may be a NaN."""
    try:
        data = orjson.dumps(value, default, _OPTIONS)
    except TypeError:
        return None
    if value.__class__ is not str and b"null" in data:
        return None
    return data
