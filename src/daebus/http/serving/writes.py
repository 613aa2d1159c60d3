"""Errors as bytes, answers that are finished but not taken yet, files sent by the kernel.

What a client does not take at once is left to the acceptor: a worker is not held by a
client that reads slowly.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import select
import time
from collections.abc import Iterable

from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wsgi import FileWrapper

from ...server.conn import Conn
from ...server.sockets.transport import Stream
from ..protocol.limits import Limits

__all__ = ["BytesRest", "FileBody", "FileRest", "Rest", "error_response", "wait_for"]

# Bytes written in one go before other clients get their turn.
_BURST = 1 << 20


def error_response(
    status: int, code: str, text: str, headers: Iterable[tuple[str, str]] = ()
) -> bytes:
    """Build a whole JSON error response that closes the connection."""
    body = json.dumps({"error": text, "code": code}).encode()
    lines = [f"HTTP/1.1 {status} {HTTP_STATUS_CODES.get(status, 'Unknown')}"]
    fields = {
        "Date": email.utils.formatdate(usegmt=True),
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **dict(headers),
    }
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Rest:
    """The rest of an answer; see ``Flush``. The acceptor's thread writes it.

    Attributes:
        deadline: moves on as the client takes the answer at the least rate or faster.
    """

    def __init__(self, sock: Stream, limits: Limits) -> None:
        self._sock = sock
        self._rate = limits.min_rate
        self.deadline = time.monotonic() + limits.write_timeout

    def proceed(self) -> bool:
        """Write what can be written without waiting; True when nothing is left."""
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
        """Release what the rest was made of."""

    def _write(self) -> int:
        """Write once; 0 when nothing is left."""
        raise NotImplementedError


class BytesRest(Rest):
    """The rest of an answer in memory."""

    def __init__(self, sock: Stream, limits: Limits, data: memoryview) -> None:
        super().__init__(sock, limits)
        self._data = data

    def _write(self) -> int:
        if not self._data:
            return 0
        sent = self._sock.send(self._data)
        self._data = self._data[sent:]
        return sent


class FileRest(Rest):
    """The rest of an answer in a file, behind the rest of its head.

    The kernel sends it, unless TLS is around the socket.
    """

    def __init__(
        self, client: Conn, limits: Limits, head: memoryview, body: FileBody, left: int
    ) -> None:
        super().__init__(client.sock, limits)
        self._secure = client.secure
        self._head = head
        self._body = body
        self._offset = body.file.tell()
        self._left = left

    def _write(self) -> int:
        if self._head:
            sent = self._sock.send(self._head)
            self._head = self._head[sent:]
            return sent
        if not self._left:
            return 0
        size = min(self._left, 1 << 18)
        fd = self._body.file.fileno()
        if self._secure:
            data = os.pread(fd, size, self._offset)
            sent = self._sock.send(data) if data else 0
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
    """``wsgi.file_wrapper``: a file that the server may send by itself."""

    def can_be_sent(self) -> bool:
        """Tell whether the kernel can do it: a real file, on a system that knows how."""
        try:
            self.file.fileno()
        except (AttributeError, OSError):
            return False
        return hasattr(os, "sendfile")


def wait_for(sock: Stream, timeout: float, *, write: bool) -> bool:
    """Wait until a socket can be written or read; False if the time passed first."""
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(sock, select.POLLOUT if write else select.POLLIN)
        return bool(poller.poll(timeout * 1000))
    to_write = [sock] if write else []
    to_read = [] if write else [sock]
    return any(select.select(to_read, to_write, [], timeout))
