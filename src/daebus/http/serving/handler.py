"""One request on one connection: Werkzeug's handler, with reading and writing of our own.

Werkzeug's own ``run_wsgi`` closes every connection after a pause of 10 ms in which it
drains the input, so it would eat WebSocket frames and lose keep-alive; its parsing is
lenient and slow. So the request comes parsed (``parser``), and writing is here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler

from ...server.conn import Conn
from ...server.handoff import Refusal
from ...server.sockets.transport import NOSIGNAL, wait_for
from ...server.threads.pool import WorkerPool
from ...server.threads.safelog import get_logger
from ...waits import monotonic
from ..protocol.parser import Request
from .coming import ComingBody
from .environ import add_forwarded, add_request
from .exchange import Exchange
from .hangup import Hangup
from .writes import BytesRest, FileBody, FileRest, Rest, error_response

__all__ = ["RequestHandler"]

logger = get_logger("daebus.http")


class _ClientGone(Exception):
    """The client does not take the answer: it has left, or does not read."""


_UPGRADE_REQUIRED = Refusal(
    426,
    "upgrade_required",
    "only WebSockets are served on this port",
    (("Upgrade", "websocket"),),
)
_VIEW_FAILED = Refusal(500, "internal_server_error", "the view failed")

# Headers about the connection are the server's to write.
_HOP_BY_HOP = frozenset(("connection", "keep-alive", "transfer-encoding"))


class RequestHandler(WSGIRequestHandler):
    """Answers one request, as far as the client takes the answer at once.

    Of Werkzeug's class these are used: the constructor, which calls ``setup``, ``handle`` and
    ``finish`` in turn; all of them are replaced here.

    Args:
        client: owned by the caller.
        request: whole.
        server: whose app answers.
        exchange: what the connections share.
        pool: whose worker this is.

    Attributes, once the constructor has returned:
        rest: what is left to write of the answer.
        keep: the connection can take another request.
    """

    protocol_version = "HTTP/1.1"

    def __init__(
        self,
        client: Conn,
        request: Request,
        server: BaseWSGIServer,
        exchange: Exchange,
        *,
        pool: WorkerPool,
    ) -> None:
        self._exchange = exchange
        self._pool = pool
        self._leaves_at = math.inf  # the moment at which a stream has held its worker for long
        self.client = client
        self.connection = client.sock
        self.head = request.head
        self.body = request.body
        self._coming = request.body if isinstance(request.body, ComingBody) else None
        self.size = request.size
        self.seen = request.seen
        self.rest: Rest | None = None
        self.keep = False
        self._status: str | None = None
        self._headers: list[tuple[str, str]] = []
        self._sent = False
        self._chunked = False
        self._bodiless = False
        self._hangup: Hangup | None = None
        self._size = 0  # bytes of the body: promised by Content-Length, or sent in chunks so far
        self._left: int | None = None  # bytes that Content-Length still promises
        super().__init__(client.raw, client.address, server)

    @property
    def status(self) -> str:
        """The status of the answer, with its phrase; empty if nothing was sent."""
        return self._status or "" if self._sent else ""

    @property
    def size_sent(self) -> int:
        """Bytes of the body that were sent, or are left to the acceptor."""
        return 0 if self._bodiless else self._size - (self._left or 0)

    def setup(self) -> None:
        """Do nothing: reading and writing need no further buffers."""

    def finish(self) -> None:
        """Leave the socket open: the server decides what happens next."""

    def handle(self) -> None:
        """Answer the request."""
        try:
            if self._exchange.only_upgrades(self.client):
                self._send_refusal(_UPGRADE_REQUIRED)
            else:
                self.run_wsgi()
        except (_ClientGone, OSError):
            self.keep = False
        finally:
            self.body.close()

    # --- WSGI -------------------------------------------------------------------

    def run_wsgi(self) -> None:
        """Call the app, and decide whether the connection goes on."""
        head = self.head
        self.keep = head.keep_alive
        result: Any = None
        try:
            result = self.server.app(self.make_environ(), self._start_response)
            if isinstance(result, FileBody) and self._send_file(result):
                result = None  # the rest of the answer closes it
            else:
                self._write_all(result)
        except _ClientGone:
            self.keep = False
        except BaseException:  # a SystemExit in a generator must not end a worker
            logger.exception("%s %r failed while it was written", head.method, head.target)
            self.keep = False
            if not self._sent:
                self._send_refusal(_VIEW_FAILED)
        finally:
            self._close_result(result)

    def _send_refusal(self, refusal: Refusal) -> None:
        data = error_response(refusal)
        self._status, self._size = str(refusal.status), len(data.partition(b"\r\n\r\n")[2])
        self._bodiless, self._left = False, None
        self._send(data)

    def _close_result(self, result: Any) -> None:
        if hasattr(result, "close"):
            try:
                result.close()
            except BaseException:
                logger.exception("%s %r failed at its end", self.head.method, self.head.target)

    def make_environ(self) -> dict[str, Any]:
        """Build the WSGI environment (PEP 3333)."""
        environ = self._exchange.environ_of(self.client)
        add_request(environ, self.head, self.body, self.size)
        if self._coming is not None:
            self._coming.enter(environ, self._pool.step_aside)
        if self.seen is not None:
            add_forwarded(environ, self.seen)
        return environ

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        if exc_info is not None and self._sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if self._status is not None and exc_info is None:
            raise AssertionError("start_response was called twice")
        self._status, self._headers = status, headers
        return self._write

    # --- the answer -------------------------------------------------------------

    def _write_all(self, result: Iterable[bytes]) -> None:
        for data in result:
            if data:
                self._write(data)
                if self._bodiless:
                    break
        if not self._sent:
            self._send(self._response_head(last=True), final=True)
        elif self._chunked:
            self._send(b"0\r\n\r\n", final=True)
        if self._left and not self._bodiless:
            logger.error("%s %r ended before its length", self.head.method, self.head.target)
            self.keep = False

    def _write(self, data: bytes) -> None:
        """Send a part of the body, and the head before the first part."""
        start = b"" if self._sent else self._response_head(last=False)
        final = False
        if self._bodiless:
            data = b""
        elif self._left is None:
            self._size += len(data)
            if self._chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data)
        else:
            if len(data) > self._left:
                logger.error("%s %r exceeds its length", self.head.method, self.head.target)
                data = data[: self._left]
            self._left -= len(data)
            final = self._left == 0
        if start or data:
            self._send(start + data if start else data, final=final)
            if not final and not self._bodiless:
                self._note_stream()
                self._hangup = self._hangup or Hangup(self.client.raw)
                if self._hangup.has_left():
                    raise _ClientGone("the client left")

    def _note_stream(self) -> None:
        """Leave the pool when others need the worker, and in any case after a while."""
        now = monotonic()
        if self._leaves_at == math.inf:
            self._leaves_at = now + self._exchange.limits.stream_timeout
            # The next part may come now, in an hour, or never.
            self._stay_if(self._pool.may_last())
        elif now >= self._leaves_at:
            self._leave_pool()

    def _leave_pool(self) -> None:
        """Give the worker's place to another one: a stream must not keep requests waiting."""
        self._stay_if(self._pool.step_aside())

    def _stay_if(self, has_place: bool) -> None:
        if not has_place:
            logger.debug("%s %r is cut: too many streams", self.head.method, self.head.target)
            raise _ClientGone("too many streams")

    def _send_file(self, body: FileBody) -> bool:
        """Send a file without holding the worker; return False if it must be read instead."""
        if self._status is None or not body.can_be_sent():
            return False
        head = self._response_head(last=False)
        if self._bodiless or self._left is None:
            self._send(head)
            return False
        self._sent = True
        rest = FileRest(self.client, self._exchange.limits, memoryview(head), body, self._left)
        self._left = 0
        try:
            if rest.proceed():
                rest.close()
            else:
                self.rest = rest
        except BaseException as exc:
            rest.close()
            raise _ClientGone(str(exc)) from exc
        return True

    def _response_head(self, *, last: bool) -> bytes:
        """Build status line and headers.

        Args:
            last: nothing follows.
        """
        head, status = self.head, self._status
        if status is None:
            raise AssertionError("the app wrote before it called start_response")
        code = status[:3]
        if code < "200":
            raise ValueError(f"{status!r} is not a final status: the client would go on waiting")
        self._bodiless = head.method == "HEAD" or code in ("204", "205", "304")
        lines = [f"HTTP/1.1 {status}"]
        dated = False
        for name, value in self._headers:
            lowered = name.lower()
            if lowered == "content-length":
                if code in ("204", "205"):  # RFC 9110 sections 8.6 and 15.3.6
                    continue
                self._left = self._size = int(value)
            elif lowered == "date":
                dated = True
            elif lowered in _HOP_BY_HOP:
                if lowered == "connection" and "close" in value.lower():
                    self.keep = False
                continue
            lines.append(f"{name}: {value}")
        if not dated:
            lines.append(self._exchange.date_line())
        if code == "205":
            lines.append("Content-Length: 0")
        elif self._left is None and not self._bodiless:
            if last:
                lines.append("Content-Length: 0")
            elif head.version == "1.1":
                self._chunked = True
                lines.append("Transfer-Encoding: chunked")
            else:
                self.keep = False  # the end of the body is the end of the connection
        unfinished = self._coming is not None and self._coming.unfinished
        if self._exchange.leaving is not None or unfinished:
            self.keep = False
        if not self.keep:
            lines.append("Connection: close")
        elif head.version == "1.0":
            lines.append("Connection: keep-alive")
        lines.append("\r\n")
        text = "\r\n".join(lines)
        breaks = len(lines)
        if text.count("\r") != breaks or text.count("\n") != breaks or "\0" in text:
            raise ValueError("a response header holds a line break or a NUL")
        return text.encode("latin-1")

    # --- the socket -------------------------------------------------------------

    def _send(self, data: bytes, *, final: bool = False) -> None:
        """Write; leave what the client does not take of the final part to the acceptor."""
        self._sent = True
        try:
            sent = self.connection.send(data, NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as exc:
            raise _ClientGone(str(exc)) from exc
        if sent == len(data):
            return
        left = memoryview(data)[sent:]
        if final:
            self.rest = BytesRest(self.connection, self._exchange.limits, left)
        else:
            self._send_slowly(left)

    def _send_slowly(self, left: memoryview) -> None:
        """Wait until the client has taken a part of a streamed answer."""
        self._leave_pool()
        try:
            while left:
                timeout = self._exchange.limits.write_timeout
                if not wait_for(self.connection.fileno(), timeout, write=True):
                    raise _ClientGone("the client does not read")
                try:
                    left = left[self.connection.send(left, NOSIGNAL) :]
                except BlockingIOError:  # it took ciphertext of what came before
                    continue
        except OSError as exc:
            raise _ClientGone(str(exc)) from exc

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log below our own name: Werkzeug would install a handler of its own."""
        logger.debug(message.rstrip(), *args)
