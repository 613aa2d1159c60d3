"""Requests as bytes: a strict reading of RFC 9112.

h11 parses and frames; in front of it stand the checks in which it is more lenient
than a server on a hostile network should be. Whoever sends what two programs could
read differently gets a 400 and a closed connection.
"""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import h11
from werkzeug.http import HTTP_STATUS_CODES

__all__ = ["BadRequest", "Body", "Head", "has_head", "read_head", "status_code_name"]

# Limits of other servers of this kind (nginx, gunicorn, Apache: 8 KiB and 100 lines).
MAX_LINE = 8192
MAX_HEADERS = 100
MAX_HEAD = 65536

# Seconds before the least rate counts, and that rate in bytes a second.
BODY_GRACE = 10.0
BODY_RATE = 1024

_BAD_BYTES = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")
_FOLDED = re.compile(rb"\r\n[ \t]")
_DIGITS = re.compile(rb"[0-9]{1,18}")


class BadRequest(Exception):
    """A request that is answered with an error before any view sees it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def status_code_name(status: int) -> str:
    """Return the stable identifier of a status in JSON errors, such as ``not_found``."""
    return HTTP_STATUS_CODES.get(status, "error").lower().replace(" ", "_")


@dataclass(frozen=True, slots=True)
class Head:
    """A request head, checked.

    Attributes:
        connection: h11's object, which goes on to read the body.
        method: such as ``GET``.
        target: origin-form, absolute-form or ``*``.
        version: ``"1.0"`` or ``"1.1"``.
        headers: names in lower case, in order.
        length: bytes of the body; None if it is chunked.
        rest: what came behind the head.
    """

    connection: h11.Connection
    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    length: int | None
    rest: bytes

    def all(self, name: str) -> list[str]:
        """Return the values of every header of that (lower case) name."""
        return [value for key, value in self.headers if key == name]

    def tokens(self, name: str) -> set[str]:
        """Return the comma-separated parts of a header, in lower case."""
        return {part.strip().lower() for value in self.all(name) for part in value.split(",")}

    def go_on(self) -> bytes:
        """Return the ``100 Continue`` that the client waits for before it sends the body."""
        return self.connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b""

    @property
    def keep_alive(self) -> bool:
        """Tell whether the client wants to go on (RFC 9112 section 9.3)."""
        wishes = self.tokens("connection")
        if self.version == "1.0":
            return "keep-alive" in wishes and "close" not in wishes
        return "close" not in wishes


def has_head(buffer: bytes) -> bool:
    """Tell whether a worker can answer: the head is whole, too large, or broken already."""
    return (
        b"\r\n\r\n" in buffer.lstrip(b"\r\n")
        or len(buffer) > MAX_HEAD
        or _BAD_BYTES.search(buffer, 0, max(0, len(buffer) - 1)) is not None
    )


def read_head(buffer: bytes) -> Head:
    """Parse and check the head at the start of the buffer.

    Raises:
        BadRequest: 400, 414, 431, 501 or 505; the connection must be closed.
    """
    while buffer.startswith(b"\r\n"):  # an empty line before a request is ignored
        buffer = buffer[2:]
    end = buffer.find(b"\r\n\r\n")
    head = buffer[: end + 2] if end >= 0 else buffer
    first = head.find(b"\r\n")
    if first > MAX_LINE or (first < 0 and len(head) > MAX_LINE):
        raise BadRequest(414, "the request line is too long")
    if _BAD_BYTES.search(head, 0, len(head) - (end < 0)):
        raise BadRequest(400, "lines must end with CR LF, and hold no CR, LF or NUL")
    lines = head.split(b"\r\n")
    if end < 0 or end > MAX_HEAD or len(lines) - 2 > MAX_HEADERS or max(map(len, lines)) > MAX_LINE:
        raise BadRequest(431, "the request head is too large")
    if _FOLDED.search(head):
        raise BadRequest(400, "folded header lines are not accepted")
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD + 4)
    connection.receive_data(buffer)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as exc:
        raise BadRequest(exc.error_status_hint or 400, str(exc)) from None
    assert isinstance(event, h11.Request)
    return _checked(connection, event, buffer[end + 4 :])


def _checked(connection: h11.Connection, request: h11.Request, rest: bytes) -> Head:
    version = request.http_version.decode()
    if version not in ("1.0", "1.1"):
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    target = request.target.decode("ascii")
    method = request.method.decode("ascii")
    if method == "CONNECT":
        raise BadRequest(501, "this is no proxy")
    if not (
        target.startswith("/")
        or (target == "*" and method == "OPTIONS")
        or target.lower().startswith(("http://", "https://"))
    ):
        raise BadRequest(400, "the request target must be a path or an absolute URL")
    raw = [(name.lower(), value) for name, value in request.headers.raw_items()]
    lengths = [value for name, value in raw if name == b"content-length"]
    encodings = [value for name, value in raw if name == b"transfer-encoding"]
    if len(lengths) > 1 or (lengths and encodings):
        raise BadRequest(400, "the length of the body is ambiguous")
    if lengths and not _DIGITS.fullmatch(lengths[0]):
        raise BadRequest(400, "Content-Length must be a number")
    if encodings and (version == "1.0" or [value.lower() for value in encodings] != [b"chunked"]):
        raise BadRequest(400, "the only transfer encoding is chunked")
    headers = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in raw)
    length = None if encodings else int(lengths[0]) if lengths else 0
    return Head(connection, method, target, version, headers, length, rest)


class Body(io.RawIOBase):
    """The body of one request, read from the socket as it is asked for.

    Args:
        head: of the request.
        sock: with any timeout; this sets its own.
        max_size: bytes; a larger body raises ``BadRequest`` 413.
        on_expect: called once before the first read if the client waits for
            ``100 Continue``.

    Attributes:
        done: the body was read to its end.
    """

    def __init__(
        self,
        head: Head,
        sock: socket.socket,
        *,
        max_size: int,
        on_expect: Callable[[], None],
    ) -> None:
        super().__init__()
        self._connection = head.connection
        self._sock = sock
        self._max_size = max_size
        self._on_expect = on_expect
        self._began = time.monotonic()
        self._received = 0
        self._rest = memoryview(b"")
        self.done = False

    def readable(self) -> bool:
        """Return True, for ``io.BufferedReader``."""
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]  # Buffer in stubs
        """Fill the target with the next bytes of the body; 0 at its end.

        Raises:
            BadRequest: 413 too large, 408 too slow, 400 cut short or badly framed.
        """
        while not self._rest and not self.done:
            self._advance()
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def trailing(self) -> bytes:
        """Return what came behind the request: the next one, or WebSocket frames."""
        return bytes(self._connection.trailing_data[0])

    def _advance(self) -> None:
        try:
            event = self._connection.next_event()
        except h11.RemoteProtocolError as exc:
            raise BadRequest(400, str(exc)) from None
        if event is h11.NEED_DATA:
            if self._connection.they_are_waiting_for_100_continue:
                self._on_expect()
            self._connection.receive_data(self._receive())
        elif isinstance(event, h11.Data):
            self._received += len(event.data)
            if self._received > self._max_size:
                raise BadRequest(413, f"the body is larger than {self._max_size} bytes")
            self._rest = memoryview(event.data)
        elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
            self.done = True
        else:
            raise BadRequest(400, "the body is cut short")

    def _receive(self) -> bytes:
        due = self._began + BODY_GRACE + self._received / BODY_RATE
        rest = due - time.monotonic()
        if rest <= 0:
            raise BadRequest(408, f"the body came slower than {BODY_RATE} bytes a second")
        self._sock.settimeout(rest)
        try:
            data = self._sock.recv(65536)
        except TimeoutError:
            raise BadRequest(408, f"the body came slower than {BODY_RATE} bytes a second") from None
        if not data:
            raise BadRequest(400, "the body is cut short")
        return data
