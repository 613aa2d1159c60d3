"""Values to JSON, by the fastest way that gives the right answer.

Rules of this module:

1. What comes out is valid JSON in valid UTF-8, or an ``EncodeError`` that says where in the
   data the trouble is.
2. Nothing is looked at twice as long as all goes well. After a failure the data is walked
   (``plain``), which replaces what can be, or finds the place.
3. Both JSON packages give the same answers.
4. The standard library's encoder is made once: ``json.dumps`` with options makes one anew
   for each call, which costs a fifth of an echo.
"""

from __future__ import annotations

import functools
import json.encoder
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

from ..errors import EncodeError
from ..interrupts.raised import from_signal
from . import fastjson
from .depth import is_too_deep
from .forms import children, form_of
from .plain import Walk

__all__ = ["PLAIN", "Encoder", "Nan", "package"]

Nan = Literal["null", "error"]

# Chosen once, when the module is imported: both give the same answers.
_fast: bool = fastjson.AVAILABLE


def package() -> str:
    """Return the name of the JSON package in use."""
    return "orjson" if _fast else "json"


class Encoder:
    """Encodes what one app sends.

    Args:
        nan: what NaN and the infinities become: ``null``, or an error.
        default: returns a JSON form of what has none otherwise, or raises.

    Raises:
        ValueError: ``nan`` is neither of the two.

    Threads:
        Any; it has no state.
    """

    __slots__ = ("_ascii_chunks", "_chunks", "_form", "_nan")

    def __init__(self, nan: Nan = "null", default: Callable[[Any], Any] | None = None) -> None:
        if nan not in get_args(Nan):
            raise ValueError(f"nan is {nan!r}; write 'null' or 'error'")
        self._nan = nan == "null"
        self._form: Callable[[Any], Any] = (
            form_of if default is None else functools.partial(form_of, rest=default)
        )
        self._chunks = _make_chunks(self._form, ensure_ascii=False)
        self._ascii_chunks = _make_chunks(self._form, ensure_ascii=True)

    def form(self, value: Any) -> Any:
        """Return what an object becomes that JSON does not know; one step.

        Raises:
            NoFormError: it has no JSON form.
            Exception: whatever it raises.
        """
        return self._form(value)

    def dumps(self, value: Any) -> bytes:
        """Encode a value; compact, in UTF-8.

        Raises:
            EncodeError: it has no JSON form; the text names the place, as in ``$.temp.boiler``.
        """
        if _fast:
            try:
                data = fastjson.encode(value, self._form, fastjson.OPTIONS)
            except TypeError as exc:
                fastjson.pass_on(exc)
            else:
                # A null may stand for a NaN.
                if self._nan or b"null" not in data or value.__class__ is str:
                    return data
        deep = False
        try:
            deep = is_too_deep(value, lambda item: children(item, self._form))
            if not deep:
                return self._join(value)
        except Exception as exc:  # or whatever an object of the user's raises when it is asked
            if from_signal(exc):
                raise
        plain = Walk(self._form, nan=self._nan).plain(value)
        try:
            if deep:
                raise RecursionError("nested too deep")
            return self._join(plain)
        except Exception as exc:  # an object that is another one each time it is looked at
            if from_signal(exc):
                raise
            raise EncodeError(f"$ is a {type(value).__name__:.100}: {exc!s:.100}") from exc

    def _join(self, value: Any) -> bytes:
        try:
            return "".join(self._chunks(value, 0)).encode()
        except UnicodeEncodeError:  # half a surrogate pair: only an escape can carry it
            return "".join(self._ascii_chunks(value, 0)).encode()


def _make_chunks(
    form: Callable[[Any], Any], *, ensure_ascii: bool
) -> Callable[[Any, int], Iterable[str]]:
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the C accelerator
        encoder = json.JSONEncoder(
            default=form,
            ensure_ascii=ensure_ascii,
            allow_nan=False,
            check_circular=False,
            separators=(",", ":"),
        )
        return lambda value, level: encoder.iterencode(value)
    quote = json.encoder.encode_basestring_ascii if ensure_ascii else json.encoder.encode_basestring
    # No dictionary of markers: it would be shared by all threads. A circular
    # reference ends in RecursionError instead.
    chunks: Callable[[Any, int], Iterable[str]] = make(
        None, form, quote, None, ":", ",", False, False, False
    )
    return chunks


# With nothing of an app's own.
PLAIN = Encoder()
