"""The JSON around every message: ``{"type": ..., "data": ...}``.

Rules of this module:

1. What goes out is what the app's encoder makes of the data, or an ``EncodeError`` in the
   caller's thread.
2. Incoming text that is not an envelope raises ``BadMessage`` with a stable code, also
   if it is nested too deep, has too long a number or half a surrogate pair. The depth
   is checked before it is parsed. NaN is not JSON; a byte order mark before it is skipped.
3. The scanner is made once. ``json.loads`` with options makes one anew for each call, which
   costs a tenth of an echo.
"""

from __future__ import annotations

import json
import json.scanner
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeGuard

from ...data import fastjson
from ...data.depth import MAX_DEPTH, nests
from ...data.encoder import PLAIN, Encoder
from ...errors import EncodeError

__all__ = ["BadMessage", "decode", "dumps", "encode", "error", "is_id", "stamp"]

# Characters of a client's own text that are repeated to it or logged, at most.
MAX_ECHO = 128

# Longest "id" of a message, in characters.
MAX_ID = 128

_BOM = "\ufeff"

# Chosen once, when the module is imported: both give the same answers.
_fast: bool = fastjson.AVAILABLE


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
        return _decoder.decode(text.removeprefix(_BOM))
    except RecursionError:
        raise BadMessage("bad_json", "the message is nested too deep") from None
    except json.JSONDecodeError as exc:
        raise BadMessage("bad_json", f"the message is not JSON: {exc.msg} at {exc.pos}") from None
    except ValueError:
        raise BadMessage(
            "bad_json", "the message is not JSON: a number is too long, or NaN or Infinity"
        ) from None


# The bytes before the data, by message type; a program has few types.
_heads: dict[str, bytes] = {}
_MAX_HEADS = 1000


def _head(kind: str) -> bytes:
    if not isinstance(kind, str):
        raise TypeError(
            f"a message type is a string, not {kind!r:.100}; write send(data, 'my_type')"
        ) from None
    head = b'{"type":%b,"data":' % json.dumps(kind).encode()
    if len(_heads) < _MAX_HEADS:
        _heads[kind] = head
    return head


def encode(kind: str, data: Any, encoder: Encoder = PLAIN) -> bytes:
    """Build an envelope.

    Args:
        kind: the message type.
        data: anything that the encoder takes.
        encoder: of the app.

    Returns:
        UTF-8.

    Raises:
        EncodeError: the data has no JSON form.
        TypeError: the type is not a string.
    """
    try:
        head = _heads[kind]  # get() would take a lock without the GIL, for which cores wait
    except (KeyError, TypeError):  # new, or unhashable, as from swapped arguments
        head = _head(kind)
    try:
        return head + encoder.dumps(data) + b"}"
    except EncodeError as exc:
        raise _unfit(kind, exc) from exc.__cause__


def dumps(kind: str, data: Any, encoder: Encoder = PLAIN) -> bytes:
    """Encode the data of a message, for an envelope that is built later.

    Raises:
        EncodeError: the data has no JSON form.
        TypeError: the type is not a string.
    """
    if kind.__class__ is not str:
        _head(kind)  # raises, unless it is a string all the same
    try:
        return encoder.dumps(data)
    except EncodeError as exc:
        raise _unfit(kind, exc) from exc.__cause__


def _unfit(kind: str, exc: EncodeError) -> EncodeError:
    return EncodeError(f"the data of the {kind[:MAX_ECHO]!r} message cannot be sent: {exc}")


def stamp(message: bytes, ident: str | float) -> bytes:
    """Add an id to an envelope."""
    return b'%b,"id":%b}' % (message[:-1], json.dumps(ident).encode())


def error(
    text: str,
    code: str,
    kind: str | None = None,
    more: Mapping[str, Any] | None = None,
    encoder: Encoder = PLAIN,
) -> bytes:
    """Build an error message; all errors that clients see have this shape."""
    data: dict[str, Any] = {**(more or {}), "error": text, "code": code}
    if kind is not None:
        data["message_type"] = kind if len(kind) <= MAX_ECHO else kind[:MAX_ECHO] + "..."
    return encode("error", data, encoder)
