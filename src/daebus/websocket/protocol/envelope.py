"""The JSON around every message: ``{"type": ..., "data": ...}``.

Rules of this module:

1. What goes out is valid JSON in valid UTF-8, or an ``EncodeError`` in the caller's
   thread. NaN is not JSON.
2. Incoming text that is not an envelope raises ``BadMessage`` with a stable code, also
   if it is nested too deep, has too long a number or half a surrogate pair. The depth
   is checked before it is parsed.
3. The scanner and the encoder are made once. ``json.loads`` and ``json.dumps`` with
   options make them anew for each call, which costs a fifth of an echo.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import json
import json.encoder
import json.scanner
import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeGuard

from ...depth import MAX_DEPTH, is_too_deep, nests
from ...errors import EncodeError
from ...interrupts.raised import from_signal
from . import fastjson

__all__ = ["BadMessage", "decode", "encode", "error", "is_id", "package", "stamp"]

# Characters of a client's own text that are repeated to it or logged, at most.
MAX_ECHO = 128

# Longest "id" of a message, in characters.
MAX_ID = 128


# Chosen once, when the module is imported: both give the same answers.
_fast: bool = fastjson.AVAILABLE


def package() -> str:
    """Return the name of the JSON package in use."""
    return "orjson" if _fast else "json"


def is_id(ident: object) -> TypeGuard[str | int | float]:
    """Tell whether a value may be the id of a message."""
    if isinstance(ident, str):
        return len(ident) <= MAX_ID
    if isinstance(ident, bool) or not isinstance(ident, int | float):
        return False
    return math.isfinite(ident) and len(repr(ident)) <= MAX_ID  # 1e999 is read as infinity


class BadMessage(Exception):
    """The message is not an envelope; text, code and id go to the client."""

    def __init__(self, code: str, text: str, ident: object = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.ident = ident if is_id(ident) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_no_constant)
_scan: Callable[[str, int], tuple[Any, int]] = json.scanner.make_scanner(
    _decoder  # type: ignore[arg-type]  # typeshed describes the result, not the argument
)


def decode(text: str, max_depth: int = MAX_DEPTH) -> tuple[str, dict[str, Any]]:
    """Parse an envelope.

    Args:
        text: the message.
        max_depth: levels of arrays and objects, that of the envelope included.

    Returns:
        The message type and the whole object, which may lack ``"data"``.

    Raises:
        BadMessage: with code ``too_deep``, ``bad_json``, ``not_an_object``, ``missing_type``
            or ``bad_type``.
    """
    if len(text) > max_depth and nests(text, max_depth):
        raise BadMessage("too_deep", f"the message is nested deeper than {max_depth} levels")
    payload = fastjson.loads(text) if _fast else fastjson.UNSURE
    if payload is fastjson.UNSURE:
        try:
            payload, end = _scan(text, 0)
            if end != len(text):
                payload = _decoder.decode(text)
        except (StopIteration, ValueError, RecursionError):
            payload = _decode_slowly(text)
    if not isinstance(payload, dict):
        raise BadMessage("not_an_object", 'send an object such as {"type": "...", "data": ...}')
    try:
        kind = payload["type"]
    except KeyError:
        raise BadMessage("missing_type", 'the message has no "type"', payload.get("id")) from None
    if not isinstance(kind, str):
        raise BadMessage("bad_type", '"type" must be a string', payload.get("id"))
    return kind, payload


def _decode_slowly(text: str) -> Any:
    """Decode text that the fast path refused: leading white space, or not JSON at all."""
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise BadMessage("bad_json", "the message is nested too deep") from None
    except json.JSONDecodeError as exc:
        raise BadMessage("bad_json", f"the message is not JSON: {exc.msg} at {exc.pos}") from None
    except ValueError:
        raise BadMessage(
            "bad_json", "the message is not JSON: a number is too long, or NaN or Infinity"
        ) from None


def _default(value: Any) -> Any:
    """Convert an object that JSON does not know to its usual form."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, uuid.UUID | decimal.Decimal):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        try:
            return sorted(value)
        except TypeError:
            return list(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _make_chunks(ensure_ascii: bool) -> Callable[[Any, int], Iterable[str]]:
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the C accelerator
        encoder = json.JSONEncoder(
            default=_default,
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
        None, _default, quote, None, ":", ",", False, False, False
    )
    return chunks


_chunks = _make_chunks(ensure_ascii=False)
_ascii_chunks = _make_chunks(ensure_ascii=True)

# The bytes before the data, by message type; a program has few types.
_heads: dict[str, tuple[str, bytes]] = {}
_MAX_HEADS = 1000


def _head(kind: str) -> tuple[str, bytes]:
    if not isinstance(kind, str):
        raise TypeError(
            f"a message type is a string, not {kind!r:.100}; write send(data, 'my_type')"
        )
    text = "{" + f'"type":{json.dumps(kind)},"data":'
    head = (text, text.encode())
    if len(_heads) < _MAX_HEADS:
        _heads[kind] = head
    return head


def encode(kind: str, data: Any) -> bytes:
    """Build an envelope.

    Args:
        kind: the message type.
        data: anything JSON knows, and dataclasses, datetimes, UUIDs, Decimals (as
            strings), enums (their value), sets (lists) and bytes (base64).

    Returns:
        UTF-8.

    Raises:
        EncodeError: the data has no JSON form.
        TypeError: the type is not a string.
    """
    try:
        head = _heads.get(kind) or _head(kind)
    except TypeError:  # an unhashable type, as from swapped arguments
        head = _head(kind)
    if _fast:
        fast = fastjson.dumps(data, _default)
        if fast is not None:
            return head[1] + fast + b"}"
    try:
        if is_too_deep(data):
            raise RecursionError
        try:
            return "".join((head[0], *_chunks(data, 0), "}")).encode()
        except UnicodeEncodeError:  # half a surrogate pair: only an escape can carry it
            return "".join((head[0], *_ascii_chunks(data, 0), "}")).encode()
    except RecursionError:
        raise EncodeError(
            f"the data of the {kind!r} message contains itself, or is nested too deep; "
            f"send a copy without the cycle"
        ) from None
    except Exception as exc:  # or whatever an object of the user's raises when it is asked
        if from_signal(exc):
            raise
        raise EncodeError(
            f"the data of the {kind!r} message has no JSON form: {exc}; "
            f"send dict, list, str, int, float, bool or None"
        ) from exc


def stamp(message: bytes, ident: str | float) -> bytes:
    """Add an id to an envelope."""
    return b'%b,"id":%b}' % (message[:-1], json.dumps(ident).encode())


def error(
    text: str, code: str, kind: str | None = None, more: Mapping[str, Any] | None = None
) -> bytes:
    """Build an error message; all errors that clients see have this shape."""
    data: dict[str, Any] = {**(more or {}), "error": text, "code": code}
    if kind is not None:
        data["message_type"] = kind if len(kind) <= MAX_ECHO else kind[:MAX_ECHO] + "..."
    return encode("error", data)
