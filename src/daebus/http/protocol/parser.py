"""From bytes to whole requests; a large body goes to a temporary file.

The acceptor's thread feeds what a client sent; a worker sees a request only once all
of it is there. So neither a slow head nor a slow body ever holds a worker.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from .forwarded import Seen
from .heads import BadRequest, Head, find_broken, parse_head, parse_trailers
from .limits import Limits

__all__ = ["BODY", "HEAD", "IDLE", "MAX_EMPTY_LINES", "Parser", "Request"]

# What the parser waits for: a first byte, the rest of a head, the rest of a body.
IDLE, HEAD, BODY = "idle", "head", "body"

# A chunk's size line with its extensions, and all trailers together, in bytes.
_MAX_SIZE_LINE = 256
_MAX_TRAILERS = 8192

# Empty lines in front of a request. RFC 9112 section 2.2 asks to ignore one at least; a
# client that sends nothing else would otherwise be read for ever.
MAX_EMPTY_LINES = 16

# Chunks in one read beyond which the next one is to be shorter, so that the shortest of them
# hold up other clients for no longer than anything else does.
_MANY_CHUNKS = 64

_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_WHOLE_SIZE_LINE = re.compile(_SIZE_LINE.pattern + rb"\r\n")


def _cannot_store() -> BadRequest:
    return BadRequest(503, "the server cannot store the body")


@dataclass(slots=True)
class Request:
    """A whole request.

    Attributes:
        head: checked.
        body: at its beginning; the one who takes the request closes it.
        size: bytes of the body.
        seen: what a trusted proxy says of its client; None without one. Set by the reader.
    """

    head: Head
    body: IO[bytes]
    size: int
    seen: Seen | None = None


class Parser:
    """Cuts the byte stream of one connection into requests.

    Args:
        limits: see there.
        open_file: makes a file for a large body, gone when it is closed.

    Attributes:
        received: bytes of the body that have come so far.
        in_crumbs: what was fed last came in many small chunks, each of which takes its time.
        wants_continue: the client waits for ``100 Continue``; clear it once that is sent.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_empty_lines",
        "_head",
        "_left",
        "_limits",
        "_open_file",
        "_seen",
        "_stage",
        "in_crumbs",
        "received",
        "wants_continue",
    )

    def __init__(
        self, limits: Limits, open_file: Callable[[], IO[bytes]] = tempfile.TemporaryFile
    ) -> None:
        self._limits = limits
        self._open_file = open_file
        self._buffer = bytearray()
        self._seen = 0  # bytes of the buffer in which the end of head or trailers is not
        self._empty_lines = 0  # in front of the next request
        self._head: Head | None = None
        self._body: IO[bytes] | None = None
        self._left = 0  # bytes to come of the body or of this chunk
        self._stage = ""  # of a chunked body: size, data, end or trailers
        self.received = 0
        self.in_crumbs = False
        self.wants_continue = False

    @property
    def phase(self) -> str:
        """IDLE, HEAD or BODY."""
        if self._head is not None:
            return BODY
        return HEAD if self._buffer else IDLE

    @property
    def head(self) -> Head | None:
        """The head of the request whose body is still coming."""
        return self._head

    @property
    def in_plain_body(self) -> bool:
        """True inside a body of known length, where each byte costs little, however many come."""
        return self._head is not None and not self._stage

    @property
    def large(self) -> Head | None:
        """The head of the request whose body comes and is about to go to a file; else None."""
        head = self._head
        if head is None:
            return None
        # How long chunks will get is not known before there are some.
        size = 2 * self.received if head.length is None else head.length
        return head if size > self._limits.max_memory_body else None

    def take_rest(self) -> bytes:
        """Return the bytes beyond the last request, and forget them."""
        rest, self._buffer = bytes(self._buffer), bytearray()
        return rest

    def close(self) -> None:
        """Drop what has been read; a temporary file is deleted."""
        self._buffer = bytearray()
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def feed(self, data: bytes) -> Request | None:
        """Take bytes, perhaps none, and return the next request if it is complete.

        Raises:
            BadRequest: the connection must be closed after the answer.
        """
        self._buffer += data
        if self._head is None:
            head = self._read_head()
            if head is None:
                return None
            if head.length == 0:
                return Request(head, io.BytesIO(), 0)
            self._begin_body(head)
        done = self._read_plain() if self._stage == "" else self._read_chunked()
        if not done:
            return None
        head, body = self._head, self._body
        assert head is not None
        assert body is not None
        self._head = self._body = None
        self._stage = ""
        self.in_crumbs = self.wants_continue = False
        try:
            body.seek(0)
        except OSError as exc:  # what was in its buffer did not fit on the disk
            body.close()
            raise _cannot_store() from exc
        return Request(head, body, self.received)

    # --- the head ---------------------------------------------------------------

    def _read_head(self) -> Head | None:
        buffer, limits = self._buffer, self._limits
        if buffer.startswith(b"\r\n") and (lines := _EMPTY_LINES.match(buffer)):
            self._empty_lines += lines.end() // 2
            if self._empty_lines > MAX_EMPTY_LINES:
                raise BadRequest(400, "empty lines come in place of a request")
            del buffer[: lines.end()]  # before a request they are ignored
        if not buffer:
            return None
        end = buffer.find(b"\r\n\r\n", max(0, self._seen - 3))
        if end < 0:
            self._check_unfinished()
            self._seen = len(buffer)
            return None
        self._seen = self._empty_lines = 0
        if end > limits.max_head:
            raise BadRequest(431, "the request head is too large")
        head = parse_head(bytes(buffer[: end + 2]), limits)
        del buffer[: end + 4]
        if head.length is not None and head.length > limits.max_body:
            raise BadRequest(413, f"the body is larger than {limits.max_body} bytes")
        if head.upgrade and head.length != 0:
            raise BadRequest(400, "a WebSocket handshake has no body")
        return head

    def _check_unfinished(self) -> None:
        """Refuse an unfinished head that no continuation could complete."""
        buffer, limits = self._buffer, self._limits
        # A line that is broken or too long needs no end to be refused.
        if find_broken(buffer, max(0, self._seen - 1)):
            raise BadRequest(400, "lines must end with CR LF, and hold no CR, LF or NUL")
        if len(buffer) > limits.max_line and not 0 <= buffer.find(b"\r\n") <= limits.max_line:
            raise BadRequest(414, "the request line is too long")
        if len(buffer) > limits.max_head:
            raise BadRequest(431, "the request head is too large")

    # --- the body ---------------------------------------------------------------

    def _begin_body(self, head: Head) -> None:
        self._head = head
        self.received = 0
        self.wants_continue = head.expects and not self._buffer
        if head.length is None:
            self._stage, self._left = "size", 0
        else:
            self._left = head.length
        # A file is made once there is more than may be in memory: most bodies never need one,
        # and nobody may want this one.
        self._body = io.BytesIO()

    def _spill(self) -> None:
        """Move the body to a temporary file, which is deleted with its descriptor."""
        memory = self._body
        assert isinstance(memory, io.BytesIO)
        try:
            self._body = self._open_file()
            self._body.write(memory.getvalue())
        except OSError as exc:
            raise _cannot_store() from exc

    def _store(self, data: bytes | bytearray) -> None:
        body, limits = self._body, self._limits
        assert body is not None
        self.received += len(data)
        if self.received > limits.max_body:
            raise BadRequest(413, f"the body is larger than {limits.max_body} bytes")
        if self.received > limits.max_memory_body and isinstance(body, io.BytesIO):
            self._spill()
            body = self._body
            assert body is not None
        try:
            body.write(data)
        except OSError as exc:  # the disk is full
            raise _cannot_store() from exc

    def _take(self) -> None:
        """Store the expected bytes as far as they have come."""
        part = self._buffer[: self._left]
        if part:
            del self._buffer[: len(part)]
            self._left -= len(part)
            self._store(part)

    def _read_plain(self) -> bool:
        self._take()
        return self._left == 0

    def _read_chunked(self) -> bool:
        """Read chunks (RFC 9112 section 7.1); return True after the trailers."""
        buffer = self._buffer
        self.in_crumbs = False
        while True:
            if self._stage == "data":
                self._take()
                if self._left:
                    return False
                self._stage = "end"
            if self._stage == "end":
                if not b"\r\n".startswith(buffer[:2]):
                    raise BadRequest(400, "a chunk does not end where its size says")
                if len(buffer) < 2:
                    return False
                del buffer[:2]
                self._stage = "size"
            if self._stage == "size":
                self._take_whole_chunks()
                if not self._read_size():
                    return False
            if self._stage == "trailers":
                return self._read_trailers()

    def _take_whole_chunks(self) -> None:
        """Store the chunks that have come from end to end.

        ``_read_chunked`` would find the same, and takes three times as long for each: what
        comes in chunks of a byte must not hold up other clients.
        """
        data = bytes(self._buffer)  # once a read: what is left over is no whole chunk
        parts, start = [], 0
        while found := _WHOLE_SIZE_LINE.match(data, start):
            begin = found.end()
            end = begin + int(found[1], 16)
            if end == begin or data[end : end + 2] != b"\r\n":
                break
            if begin - start > _MAX_SIZE_LINE + 2:
                break
            parts.append(data[begin:end])
            start = end + 2
        self.in_crumbs = self.in_crumbs or len(parts) > _MANY_CHUNKS
        if parts:
            del self._buffer[:start]
            self._store(b"".join(parts))

    def _read_size(self) -> bool:
        buffer = self._buffer
        end = buffer.find(b"\r\n", 0, _MAX_SIZE_LINE + 2)
        if end < 0:
            if len(buffer) > _MAX_SIZE_LINE or find_broken(buffer, 0):
                raise BadRequest(400, "a chunk size is malformed")
            return False
        found = _SIZE_LINE.fullmatch(buffer, 0, end)
        if found is None:
            raise BadRequest(400, "a chunk size is malformed")
        self._left = int(found[1], 16)
        del buffer[: end + 2]
        if self.received + self._left > self._limits.max_body:
            raise BadRequest(413, f"the body is larger than {self._limits.max_body} bytes")
        self._stage = "data" if self._left else "trailers"
        return True

    def _read_trailers(self) -> bool:
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):
            del buffer[:2]
            return True
        # What was looked at is not looked at again: the trailers may come byte by byte.
        end = buffer.find(b"\r\n\r\n", max(0, self._seen - 3), _MAX_TRAILERS + 4)
        if end < 0:
            if len(buffer) > _MAX_TRAILERS:
                raise BadRequest(431, "the trailers are too large")
            if find_broken(buffer, max(0, self._seen - 1)):
                raise BadRequest(400, "lines must end with CR LF, and hold no CR, LF or NUL")
            self._seen = len(buffer)
            return False
        self._seen = 0
        parse_trailers(bytes(buffer[: end + 2]))
        del buffer[: end + 4]
        return True
