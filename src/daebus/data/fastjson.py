"""orjson where it is installed (the extra ``fast``), with the standard library's answers.

What they return is what the standard library would. Where orjson fails or could differ, ``loads``
returns ``UNSURE`` and ``encode`` raises; the caller then uses the standard library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..interrupts.raised import from_signal

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]  # the module is optional

__all__ = ["AVAILABLE", "OPTIONS", "UNSURE", "encode", "loads", "pass_on"]

AVAILABLE: Final = orjson is not None
UNSURE: Final = object()

# orjson silently turns an integer beyond 64 bits (19 digits) into a float. So many digits
# in a row show as six in a row if only every third character is looked at; 13 digits, as
# in timestamps, do not. A result without floats cannot contain such a number: that is
# checked first, two levels deep, as it takes a fifth of the time.
_DIGITS_TO_ZERO = bytes(48 if 48 <= byte <= 57 else 46 for byte in range(256))
_SUSPECT = b"0" * 6
# No set, which all threads would lock without the GIL.
_EXACT: Final = dict.fromkeys((str, int, bool, type(None)))

# Makes JSON of a value, NaN as ``null``: ``encode(value, form, OPTIONS)``. Raises TypeError for
# what orjson cannot; then call ``pass_on``. It is orjson's own: a call more costs each message.
encode: Callable[[Any, Callable[[Any], Any], int], bytes]
OPTIONS: int
if AVAILABLE:
    encode = orjson.dumps
    OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def loads(text: str) -> Any:
    """Decode; return ``UNSURE`` for invalid or too deep JSON, NaN, or a very long number."""
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


def pass_on(exc: TypeError) -> None:
    """Raise what interrupted ``encode``; return if the value is not for it.

    Raises:
        BaseException: such as a KeyboardInterrupt, which orjson wraps as it does all others.
    """
    cause = exc.__cause__
    if cause is not None and (not isinstance(cause, Exception) or from_signal(cause)):
        raise cause from None
