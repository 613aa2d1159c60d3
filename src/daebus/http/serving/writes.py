"""Errors as bytes, and the rest of an answer that a client has not taken yet.

What a client does not take at once is left to the acceptor: a client that reads slowly
holds no worker.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import signal

from werkzeug.wsgi import FileWrapper

from ...server.conn import Conn
from ...server.handoff import Refusal
from ...server.sockets.transport import NOSIGNAL, Stream
from ...waits import monotonic
from ..protocol.errors import error_body, status_line
from ..protocol.heads import Head
from ..protocol.limits import Limits
from ..site.own import OwnAnswer

__all__ = ["BytesRest", "FileBody", "FileRest", "Rest", "error_response", "own_response"]

# Bytes written in one go before other clients get their turn.
_BURST = 1 << 20
# Bytes of one call: through TLS, or to a client that reads fast, a call writes all it is given.
_PIECE = 1 << 18


def error_response(refusal: Refusal) -> bytes:
    """Build a whole JSON error response that closes the connection."""
    body = error_body(refusal.text, refusal.code, refusal.traceback)
    lines = [f"HTTP/1.1 {status_line(refusal.status)}"]
    fields = {
        "Date": email.utils.formatdate(usegmt=True),
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **dict(refusal.headers),
    }
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def own_response(answer: OwnAnswer, head: Head, *, keep: bool) -> bytes:
    """Build the whole response with an answer of our own.

    Args:
        answer: what is said.
        head: of the request.
        keep: the connection goes on.
    """
    lines = [
        f"HTTP/1.1 {status_line(answer.status)}",
        f"Date: {email.utils.formatdate(usegmt=True)}",
    ]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if answer.status not in (204, 304):  # RFC 9110 section 8.6
        lines.append(f"Content-Length: {len(answer.body)}")
    if not keep:
        lines.append("Connection: close")
    elif head.version == "1.0":
        lines.append("Connection: keep-alive")
    body = b"" if head.method == "HEAD" else answer.body
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Rest:
    """The rest of an answer, written by the acceptor's thread; see ``Flush``.

    Attributes:
        deadline: moves on as long as the client takes the answer at ``min_rate`` or faster.
    """

    def __init__(self, sock: Stream, limits: Limits) -> None:
        self._sock = sock
        self._rate = limits.min_rate
        self.deadline = monotonic() + limits.write_timeout

    def proceed(self) -> bool:
        """Write what can be written without waiting; return True when nothing is left."""
        budget = _BURST
        with contextlib.suppress(BlockingIOError, InterruptedError):
            while budget > 0:
                sent = self._write()
                if not sent:
                    return True
                budget -= sent
                self.deadline += sent / self._rate
        return False

    def close(self) -> None:
        """Release what the rest consists of, such as a file."""

    def _write(self) -> int:
        """Write once; return 0 when nothing is left."""
        raise NotImplementedError


class BytesRest(Rest):
    """The rest of an answer in memory."""

    def __init__(self, sock: Stream, limits: Limits, data: memoryview) -> None:
        super().__init__(sock, limits)
        self._data = data

    def _write(self) -> int:
        if not self._data:
            return 0
        sent = self._sock.send(self._data[:_PIECE], NOSIGNAL)
        self._data = self._data[sent:]
        return sent


class FileRest(Rest):
    """The rest of an answer in a file, after the rest of its head.

    The kernel sends it, unless the connection uses TLS.
    """

    def __init__(
        self, client: Conn, limits: Limits, head: memoryview, body: FileBody, left: int
    ) -> None:
        super().__init__(client.sock, limits)
        # sendfile cannot be told to spare a host that has SIGPIPE end it.
        self._copies = client.secure or signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL
        self._head = head
        self._body = body
        self._offset = body.file.tell()
        self._left = left

    def _write(self) -> int:
        if self._head:
            sent = self._sock.send(self._head, NOSIGNAL)
            self._head = self._head[sent:]
            return sent
        if not self._left:
            return 0
        size = min(self._left, _PIECE)
        fd = self._body.file.fileno()
        if self._copies:
            data = os.pread(fd, size, self._offset)
            sent = self._sock.send(data, NOSIGNAL) if data else 0
        else:
            sent = os.sendfile(self._sock.fileno(), fd, self._offset, size)
        if not sent:
            raise OSError("the file has become shorter")
        self._offset += sent
        self._left -= sent
        return sent

    def close(self) -> None:
        """Close the file."""
        self._body.close()


class FileBody(FileWrapper):
    """``wsgi.file_wrapper``: a file that the kernel may send."""

    def can_be_sent(self) -> bool:
        """Return whether the kernel can send it: a real file, on a system with ``sendfile``."""
        try:
            self.file.fileno()
        except (AttributeError, OSError):
            return False
        return hasattr(os, "sendfile")
