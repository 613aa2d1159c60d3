"""Request heads as bytes: a strict reading of RFC 9112.

What two programs could read differently is answered 400, and the connection is closed.
 The grammar is checked by one regular expression over the whole head; only
when it does not match is the reason looked for, line by line.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from ipaddress import IPv6Address

from .limits import Limits
from .paths import fault_in_path

__all__ = [
    "BadRequest",
    "Head",
    "find_broken",
    "is_host",
    "parse_head",
    "parse_trailers",
]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELD = _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n"
_FIELDS = re.compile(rb"(?:" + _FIELD + rb")*")
_ONE_FIELD = re.compile(_FIELD)
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e]+) HTTP/(\d)\.(\d)\r\n")
_HOST = re.compile(
    r"(?:(?P<name>[A-Za-z0-9._~!$&'()*+,;=%-]*)|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>[0-9]{0,5}))?"
)
_ABSOLUTE = re.compile(r"https?://([^/?@]+)(?:[/?]|$)", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,18}")
# Characters of a host name and of one of its labels (RFC 1035 section 2.3.4, as text). What
# is longer is no name, and decoding Punycode takes time that grows with the square of it.
_MAX_HOST_NAME = 253
_MAX_LABEL = 63

_LINE_BREAKS = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\0")


class BadRequest(Exception):
    """A request that is refused before any view sees it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(slots=True)
class Head:
    """A request head, checked.

    Attributes:
        method: such as ``GET``.
        target: origin-form, absolute-form or ``*``.
        version: ``"1.0"`` or ``"1.1"``.
        headers: names in lower case, in order.
        length: bytes of the body; None if it is chunked.
        authority: of an absolute-form target, which outranks the ``Host`` header; else None.
        host: that the client asks for: the authority, or the ``Host`` header, or empty.
        keep_alive: the client wants to go on (RFC 9112 section 9.3).
        upgrade: the client asks for a WebSocket.
        expects: the client waits for ``100 Continue`` before it sends the body.
    """

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    length: int | None
    authority: str | None
    host: str
    keep_alive: bool
    upgrade: bool
    expects: bool

    def first(self, name: str) -> str | None:
        """Return the first header of that (lower case) name, or None."""
        return next((value for key, value in self.headers if key == name), None)


def find_broken(data: bytes | bytearray, start: int) -> bool:
    """Return whether a head holds a NUL, or a CR or LF without the other.

    A CR at the very end may still be followed by its LF.
    """
    return _LINE_BREAKS.search(data, start) is not None


def parse_head(block: bytes, limits: Limits) -> Head:
    r"""Parse and check a head, from the request line to the end of the last header line.

    Args:
        block: with its ``\r\n`` at the end, without the empty line.
        limits: for lines and their number.

    Raises:
        BadRequest: 400, 414, 417, 431, 501 or 505; the connection must be closed.
    """
    line = _REQUEST_LINE.match(block)
    first = block.find(b"\r\n")
    if first > limits.max_line:
        raise BadRequest(414, "the request line is too long")
    if line is None:
        raise BadRequest(400, "the request line is not: method, space, target, space, HTTP/1.1")
    if not _FIELDS.fullmatch(block, line.end()):
        raise BadRequest(400, _what_is_wrong(block[line.end() :]))
    method, target, major, minor = (part.decode("ascii") for part in line.groups())
    if major != "1" or minor not in "01":
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are supported")
    lines = block[line.end() :].decode("latin-1").split("\r\n")
    lines.pop()
    if len(lines) > limits.max_headers or (lines and max(map(len, lines)) > limits.max_line):
        raise BadRequest(431, "the request has too many headers, or too long ones")
    headers = []
    known: dict[str, list[str]] = {}
    for text in lines:
        name, _, value = text.partition(":")
        name, value = name.lower(), value.strip(" \t")
        headers.append((name, value))
        if name in _FRAMING:
            known.setdefault(name, []).append(value)
    authority = _check_target(method, target)
    _check_host(known.get("host", ()), minor)
    wishes = _tokens(known.get("connection", ()))
    return Head(
        method,
        target,
        "1.1" if minor == "1" else "1.0",
        headers,
        _body_length(known, minor),
        authority,
        known.get("host", [""])[0] if authority is None else authority,
        "close" not in wishes and (minor == "1" or "keep-alive" in wishes),
        minor == "1" and "websocket" in _tokens(known.get("upgrade", ())),
        minor == "1" and _expects(known.get("expect", ())),
    )


_FRAMING = frozenset(
    ("connection", "content-length", "expect", "host", "transfer-encoding", "upgrade")
)


def _tokens(values: list[str] | tuple[()]) -> set[str]:
    """Return the comma-separated parts of headers, in lower case."""
    return {part.strip(" \t").lower() for value in values for part in value.split(",")}


def _check_target(method: str, target: str) -> str | None:
    """Return the authority of an absolute-form target."""
    if method == "CONNECT":
        raise BadRequest(501, "this server is not a proxy")
    if not method.isupper():  # they are case-sensitive, but Werkzeug takes get for GET
        raise BadRequest(501, "methods are written in upper case")
    path, authority = target.partition("?")[0], None
    if target[0] != "/" and (target != "*" or method != "OPTIONS"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None or not is_host(absolute[1]):
            raise BadRequest(400, "the request target must be a path or an absolute URL")
        path, authority = path[absolute.end(1) :], absolute[1]
    fault = fault_in_path(path)
    if fault is not None:
        raise BadRequest(400, fault)
    return authority


def _check_host(values: list[str] | tuple[()], minor: str) -> None:
    if len(values) > 1 or (minor == "1" and not values):
        raise BadRequest(400, "a request must have exactly one Host header")
    if values and not is_host(values[0]):
        raise BadRequest(400, "the Host header is not a host")


@functools.lru_cache(maxsize=256)
def is_host(text: str) -> bool:
    """Return whether a text is a host, with or without a port, or empty.

    Stricter than the grammar of RFC 3986: an invalid port, IPv6 address or Punycode name
    would make Werkzeug raise where a view asks for the URL of its request.
    """
    found = _HOST.fullmatch(text)
    if found is None or int(found["port"] or 0) > 65535:
        return False
    name = found["name"]
    try:
        if name is None:
            IPv6Address(found["ipv6"])
        elif len(name) > _MAX_HOST_NAME:
            return False
        elif "xn--" in name.lower():
            if max(map(len, name.split("."))) > _MAX_LABEL:
                return False
            name.encode().decode("idna")
    except ValueError:  # of which UnicodeError is one
        return False
    return True


def _body_length(known: dict[str, list[str]], minor: str) -> int | None:
    lengths, encodings = known.get("content-length", ()), known.get("transfer-encoding", ())
    if len(lengths) > 1 or (lengths and encodings):
        raise BadRequest(400, "the length of the body is ambiguous")
    if encodings:
        if minor == "0" or len(encodings) > 1 or encodings[0].lower() != "chunked":
            raise BadRequest(400, "the only transfer encoding is chunked")
        return None
    if not lengths:
        return 0
    if not _DIGITS.fullmatch(lengths[0]):
        raise BadRequest(400, "Content-Length must be a number")
    return int(lengths[0])


def _expects(values: list[str] | tuple[()]) -> bool:
    if not values:
        return False
    if _tokens(values) != {"100-continue"}:
        raise BadRequest(417, "the only expectation is 100-continue")
    return True


def parse_trailers(block: bytes) -> None:
    """Check the trailer lines of a chunked body; their contents are not used.

    Raises:
        BadRequest: a line is not a header.
    """
    if not _FIELDS.fullmatch(block):
        raise BadRequest(400, _what_is_wrong(block))


def _what_is_wrong(block: bytes) -> str:
    """Return why a header block does not match."""
    if _LINE_BREAKS.search(block):
        return "lines must end with CR LF, and hold no CR, LF or NUL"
    for line in block.split(b"\r\n")[:-1]:
        if _ONE_FIELD.fullmatch(line + b"\r\n"):
            continue
        if line[:1] in (b" ", b"\t"):
            return "folded header lines are not accepted"
        if b":" not in line:
            return "a header line has no colon"
        if re.match(_TOKEN + rb":", line) is None:
            return "a header name is empty or holds a character that is not allowed"
        break
    return "a header value holds a control character"
