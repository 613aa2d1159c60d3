"""One request on one connection: Werkzeug's handler, with our reading and writing.

Werkzeug's own ``run_wsgi`` closes every connection after a pause of 10 ms in which it
drains the input, so it would eat WebSocket frames and lose keep-alive. Only its
``make_environ`` is used; parsing is ``wire``'s and writing is here.
"""

from __future__ import annotations

import contextlib
import email.utils
import io
import json
import logging
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from werkzeug.datastructures import Headers
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.serving import WSGIRequestHandler

from ..server.acceptor import Client
from ..server.handoff import Refusal, Upgrade
from .wire import BadRequest, Body, Head, read_head, status_code_name

if TYPE_CHECKING:
    from .server import HttpServer

__all__ = ["RequestHandler", "error_response"]

logger = logging.getLogger("daebus.http")

# An unread body up to this size is read and dropped to keep the connection; of a
# larger one nothing is read and the connection closes.
MAX_DRAIN = 65536

# Seconds in which one write must be taken by the client.
WRITE_TIMEOUT = 30.0


class _ClientGone(Exception):
    """The client does not take the answer: it left, or does not read."""


_UNSAFE = re.compile(r"[\r\n\0]")


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


class RequestHandler(WSGIRequestHandler):
    """Handles the request whose head is in the client's buffer.

    The connection goes on as these say once ``finish`` has run:

    Attributes:
        upgrade: the client wants to change to WebSocket; nothing was answered yet.
        keep: the connection can take another request; the client's buffer holds what
            came of it.
    """

    server: HttpServer
    protocol_version = "HTTP/1.1"

    def __init__(self, client: Client, server: HttpServer) -> None:
        self.client = client
        self.upgrade: Upgrade | None = None
        self.keep = False
        self._head: Head | None = None
        self._body: Body | None = None
        self._status: str | None = None
        self._headers: list[tuple[str, str]] = []
        self._sent = False
        self._chunked = False
        super().__init__(client.sock, client.address, server)

    def setup(self) -> None:
        """Take the socket; reading and writing need no buffers of their own."""
        self.connection = self.client.sock
        self.connection.settimeout(WRITE_TIMEOUT)

    def finish(self) -> None:
        """Leave the socket as it is: what happens next is the server's decision."""

    def handle(self) -> None:
        """Parse one request and answer it, or note the upgrade."""
        try:
            head = self._head = read_head(self.client.buffer)
            self.client.buffer = b""
            self._body = Body(
                head, self.connection, max_size=self.server.max_body, on_expect=self._continue
            )
            if head.length is not None and head.length > self.server.max_body:
                raise BadRequest(413, f"the body is larger than {self.server.max_body} bytes")
            if head.version == "1.1" and "websocket" in head.tokens("upgrade"):
                self._note_upgrade(head)
            elif self.server.only_upgrades(self.client):
                raise BadRequest(426, "only WebSockets are served on this port")
            else:
                self.run_wsgi()
        except BadRequest as exc:
            self._reject(exc)
        except (_ClientGone, OSError):
            self.keep = False

    def _note_upgrade(self, head: Head) -> None:
        if head.length != 0:
            raise BadRequest(400, "a WebSocket handshake has no body")
        self.upgrade = Upgrade(
            sock=self.client.sock,
            method=head.method,
            path=unquote(urlsplit(head.target).path),
            target=head.target,
            http_version=head.version,
            headers=head.headers,
            early=head.rest,
            remote_address=self.client.host,
            port=self.client.port,
        )

    # --- WSGI -------------------------------------------------------------------

    def run_wsgi(self) -> None:
        """Have the app answer, and decide whether the connection goes on."""
        head, body = self._head, self._body
        assert head is not None
        assert body is not None
        self.command, self.path = head.method, head.target
        self.request_version = f"HTTP/{head.version}"
        self.headers = Headers(head.headers)  # type: ignore[assignment]  # get and items serve
        self.rfile = io.BufferedReader(body)
        self.environ = environ = self.make_environ()
        self.keep = head.keep_alive and not self.server.draining
        result: Any = None
        try:
            result = self.server.app(environ, self._start_response)
            self._write_all(result)
        except (BadRequest, _ClientGone):
            raise
        except Exception:
            logger.exception("%s %r failed while it was written", head.method, head.target)
            self.keep = False
            if not self._sent:
                self._send(error_response(500, "internal_server_error", "the view failed"))
        finally:
            if hasattr(result, "close"):
                result.close()
        self.keep = self.keep and self._drain(head, body)

    def make_environ(self) -> dict[str, Any]:
        """Build the WSGI environment."""
        environ = super().make_environ()
        del environ["werkzeug.socket"]  # the view must not take the connection over
        environ["wsgi.input"] = self.rfile
        environ["wsgi.input_terminated"] = True
        environ["SERVER_PORT"] = str(self.client.port)
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

    def _write_all(self, result: Iterable[bytes]) -> None:
        for data in result:
            if data:
                self._write(data)
        if not self._sent:
            self._send(self._response_head(b"", last=True))
        elif self._chunked:
            self._send(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        """Send a part of the body, the head before the first one."""
        if not self._sent:
            self._send(self._response_head(data, last=False))
        elif self._head is not None and self._head.method != "HEAD":
            self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def _response_head(self, data: bytes, *, last: bool) -> bytes:
        """Build status line and headers, with the first part of the body behind."""
        head, status = self._head, self._status
        assert head is not None
        if status is None:
            raise AssertionError("the app wrote before start_response")
        names = {name.lower() for name, _ in self._headers}
        code = int(status[:3])
        bodiless = head.method == "HEAD" or code in (204, 304) or code < 200
        lines = [f"HTTP/1.1 {status}"]
        lines += [f"{name}: {value}" for name, value in self._headers]
        if "date" not in names:
            lines.append(f"Date: {self.server.http_date()}")
        if not bodiless and "content-length" not in names:
            if last:
                lines.append("Content-Length: 0")
            elif head.version == "1.1":
                self._chunked = True
                lines.append("Transfer-Encoding: chunked")
            else:
                self.keep = False  # the end of the body is the end of the connection
        if "connection" in names:
            self.keep = False
        elif not self.keep:
            lines.append("Connection: close")
        elif head.version == "1.0":
            lines.append("Connection: keep-alive")
        for line in lines:
            if _UNSAFE.search(line):
                raise ValueError(f"a response header holds a line break: {line!r}")
        block = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        if bodiless or not data:
            return block
        return block + (b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    # --- the socket -------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        self._sent = True
        try:
            self.connection.settimeout(WRITE_TIMEOUT)
            self.connection.sendall(data)
        except OSError as exc:
            raise _ClientGone(str(exc)) from exc

    def _continue(self) -> None:
        if not self._sent:
            head = self._head
            assert head is not None
            self.connection.sendall(head.go_on())

    def _drain(self, head: Head, body: Body) -> bool:
        """Read and drop what the app left of the body; False if that is too much."""
        if not body.done and head.connection.they_are_waiting_for_100_continue:
            return False
        if head.length is not None and head.length > MAX_DRAIN and not body.done:
            return False
        buffer, total = memoryview(bytearray(16384)), 0
        started = time.monotonic()
        while not body.done:
            total += body.readinto(buffer)
            if total > MAX_DRAIN or time.monotonic() - started > 1.0:
                return False
        self.client.buffer = body.trailing()
        return True

    def _reject(self, exc: BadRequest) -> None:
        self.keep = False
        logger.debug("refused a request from %s: %s", self.address_string(), exc.text)
        if not self._sent:
            with contextlib.suppress(_ClientGone):
                self._send(error_response(exc.status, status_code_name(exc.status), exc.text))

    def refuse_upgrade(self, refusal: Refusal) -> None:
        """Answer an upgrade that was not admitted."""
        with contextlib.suppress(_ClientGone):
            self._send(error_response(refusal.status, refusal.code, refusal.text, refusal.headers))

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log below our own name: Werkzeug would install a handler of its own."""
        logger.debug(message.rstrip(), *args)
