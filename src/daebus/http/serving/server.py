"""The running side of HTTP: listener, acceptor and workers around Werkzeug's server object.

Rules of this module:

1. A socket is the acceptor's, then a worker's, then the acceptor's again or, after an
   upgrade, its connection's. There is no instant with two owners.
2. An upgrade needs no worker: the thread that judges it runs its connection, so that
   neither user code in the handshake nor a crowd of handshakes holds up requests.
3. A worker gets whole requests only, and leaves what a client takes slowly behind.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from werkzeug.serving import BaseWSGIServer

from ...server.acceptor import Acceptor
from ...server.conn import Conn
from ...server.handoff import STOPPING, Refusal, UpgradeHandler
from ...server.sockets.listener import Listener
from ...server.sockets.transport import RECV_SIZE
from ...server.threads.pool import WorkerPool, join_all
from ...server.threads.safelog import get_logger
from ...server.tlshandshakes import TLS_REFUSAL, TlsHandshakes
from ..protocol.forwarded import Seen, TrustedProxies
from ..protocol.heads import BadRequest, Head, status_code_name
from ..protocol.limits import Limits
from ..protocol.parser import IDLE, Parser, Request
from .environ import common_environ
from .handler import RequestHandler
from .keepalive import KeepAlive
from .upgrade import note_upgrade
from .writes import error_response, wait_for

__all__ = ["HttpServer"]

logger = get_logger("daebus.http")

# Seconds that a worker with nothing else to do waits for the client's next request: a
# program that asks again at once is served without two changes of thread (measured:
# 20 % more requests a second).
NEXT_REQUEST = 0.001

_SPEAK_TLS = "this port speaks TLS; write https:// in place of http://, and wss:// for ws://"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

WSGI = Callable[[dict[str, Any], Any], Any]


class HttpServer(BaseWSGIServer):
    """Serves one WSGI app on sockets that listen already.

    Args:
        listeners: one at least; the server takes them over.
        others: further ones, for upgrades alone, which ``listeners`` then do not take.
        app: the WSGI app.
        upgrades: takes upgraded connections, or refuses them; None if nobody does.
        workers: most requests that are handled at once.
        backlog: most requests that wait for a worker; more are answered 503.
        max_connections: most connections at once; more are answered 503.
        limits: of one connection.
        tls: to speak TLS on all listeners.
        proxies: whose word on clients counts; None for nobody's.
    """

    multithread = True

    def __init__(
        self,
        listeners: Sequence[Listener],
        others: Sequence[Listener],
        app: WSGI,
        *,
        upgrades: UpgradeHandler | None,
        workers: int,
        backlog: int,
        max_connections: int,
        limits: Limits,
        tls: ssl.SSLContext | None,
        proxies: TrustedProxies | None,
    ) -> None:
        main = listeners[0]
        # Werkzeug knows a Unix socket by this prefix; of any it makes a duplicate.
        host = main.host or "unix://"
        super().__init__(host, main.port, app, RequestHandler, fd=main.fileno())
        self.socket.close()
        self.socket = main.sock
        self.limits = limits
        self.draining = False
        self._proxies = proxies
        self._upgrades = upgrades
        self._takes_upgrades = frozenset(others or listeners)
        self._only_upgrades = frozenset(others)
        self._date: tuple[int, str] = (0, "")
        scheme = "http" if tls is None else "https"
        self._environs = {
            listener: common_environ(listener.host, listener.port, scheme)
            for listener in (*listeners, *others)
        }
        self._pool = WorkerPool("daebus-http", workers, backlog)
        self._acceptor = Acceptor(
            [*listeners, *others],
            self,
            max_connections=max_connections,
            linger_timeout=limits.linger_timeout,
        )
        self._handshakes = None
        if tls is not None:
            self._handshakes = TlsHandshakes(
                tls,
                self._acceptor,
                timeout=limits.head_timeout,
                most=max_connections,
                done=self.received,
                plain=lambda: error_response(400, "https_required", _SPEAK_TLS),
            )

    def begin(self) -> None:
        """Start accepting."""
        self._acceptor.start()

    def date_line(self) -> str:
        """Return the ``Date`` header of this second."""
        now = int(time.time())
        second, text = self._date
        if second != now:
            text = f"Date: {email.utils.formatdate(now, usegmt=True)}"
            self._date = (now, text)
        return text

    def environ_of(self, client: Conn) -> dict[str, Any]:
        """Return a new WSGI environment with what is known of the connection."""
        environ = self._environs[client.listener].copy()
        environ["REMOTE_ADDR"] = client.host
        if isinstance(client.address, tuple):
            environ["REMOTE_PORT"] = str(client.address[1])
        return environ

    def seen(self, client: Conn, head: Head) -> Seen | None:
        """Return the client behind a trusted proxy; None if the request is as it looks."""
        if self._proxies is None:
            return None
        return self._proxies.look(client.host, head.headers, head.authority)

    def only_upgrades(self, client: Conn) -> bool:
        """Tell whether the client came to a port that speaks WebSocket alone."""
        return client.listener in self._only_upgrades

    # --- what the acceptor asks; a worker between two requests too --------------

    def opened(self, client: Conn) -> bool:
        """Note a new connection."""
        client.state = KeepAlive(self.limits)
        if self._handshakes is None:
            return True
        self._handshakes.begin(client)
        return False

    def handshake(self, client: Conn, deadline: float) -> None:
        """Have the TLS handshake go on."""
        assert self._handshakes is not None
        self._handshakes.proceed(client, deadline)

    def received(self, client: Conn, data: bytes) -> None:
        """Give the client to a worker, answer it, or wait for more."""
        request = self._read(client, data)
        if request is not None:
            self._dispatch(client, request)

    def flushed(self, client: Conn) -> None:
        """Go on with a client that has taken its whole answer."""
        if client.state.phase == "keep":
            client.state.phase = ""
            self.received(client, b"")
        else:
            self._acceptor.linger(client)

    def late(self, client: Conn) -> None:
        """Send a client away that did not send a whole request in time."""
        if client.state.phase == IDLE:
            self._acceptor.close(client)
        else:
            self._refuse(client, 408, "request_timeout", "the request did not come in time")

    def refused(self, text: str) -> bytes:
        """Return the answer to a client for which there is no room."""
        if self._handshakes is not None:
            return TLS_REFUSAL
        return error_response(503, "overloaded", text, [("Retry-After", "1")])

    def _read(self, client: Conn, data: bytes) -> Request | None:
        """Return the next request; if there is none, the client is parked or refused."""
        kept: KeepAlive = client.state
        parser = kept.parser
        try:
            request = parser.feed(data)
        except BadRequest as exc:
            self._refuse(client, exc.status, status_code_name(exc.status), exc.text)
            return None
        if request is not None:
            kept.phase = ""
            kept.served = True
            return request
        if parser.wants_continue:
            parser.wants_continue = False
            if not self._say_continue(client):
                self._acceptor.close(client)
                return None
        client.appetite = parser.appetite
        self._acceptor.park(client, kept.deadline(self.limits))
        return None

    def _say_continue(self, client: Conn) -> bool:
        """Ask for the body; False if the client cannot be told."""
        try:
            return client.sock.send(_CONTINUE) == len(_CONTINUE)
        except BlockingIOError:
            return True  # it sends the body after a while all the same
        except OSError:
            return False

    def _dispatch(self, client: Conn, request: Request) -> None:
        refusal: Refusal | None
        if self.draining:
            refusal = STOPPING
        elif request.head.upgrade:
            refusal = self._start_upgrade(client, request)
        elif self._pool.submit(functools.partial(self._work, client, request)):
            return
        else:
            refusal = Refusal(
                503, "overloaded", "the server is overloaded", (("Retry-After", "1"),)
            )
        if refusal is not None:
            request.body.close()
            self._refuse(client, refusal.status, refusal.code, refusal.text, refusal.headers)

    def _refuse(
        self,
        client: Conn,
        status: int,
        code: str,
        text: str,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Send a client away; it must not be asked for anything again."""
        logger.debug("refused a request from %s: %s", client.host, text)
        with contextlib.suppress(OSError):
            client.sock.send(error_response(status, code, text, headers))
        self._acceptor.linger(client)

    # --- upgrades ---------------------------------------------------------------

    def _start_upgrade(self, client: Conn, request: Request) -> Refusal | None:
        if self._upgrades is None:
            return Refusal(501, "not_implemented", "there are no WebSockets on this server")
        if client.listener not in self._takes_upgrades:
            port = min(listener.port for listener in self._only_upgrades)
            return Refusal(404, "not_found", f"WebSockets are on port {port} of this server")
        return self._upgrades.start(functools.partial(self._upgrade, client, request))

    def _upgrade(self, client: Conn, request: Request) -> Callable[[], None] | None:
        """Judge an upgrade; in a thread of the WebSocket side, which runs its connection next."""
        assert self._upgrades is not None
        try:
            seen = self.seen(client, request.head)
            upgrade = note_upgrade(client, request, seen, self.environ_of)
            self._acceptor.release(client)
            admitted = self._upgrades.admit(upgrade)
            if isinstance(admitted, Refusal):
                refusal = admitted
                self._refuse(client, refusal.status, refusal.code, refusal.text, refusal.headers)
                return None
            client.state.close()
            return admitted
        except BaseException:
            logger.exception("a handshake failed")
            self._acceptor.close(client)
            return None

    # --- in a worker ------------------------------------------------------------

    def _work(self, client: Conn, request: Request | None) -> None:
        """Answer requests of one client until it has no further one or others wait."""
        try:
            while request is not None:
                request = self._answer(client, request)
                if request is not None and (
                    self._pool.busy or self.draining or request.head.upgrade
                ):
                    self._dispatch(client, request)
                    return
        except BaseException:
            logger.exception("a worker failed on a connection")
            self._acceptor.close(client)

    def _answer(self, client: Conn, request: Request) -> Request | None:
        """Answer a request and pass the socket on, or return the next one."""
        handler = RequestHandler(client, request, self)
        if handler.rest is not None:
            client.state.phase = "keep" if handler.keep else ""
            self._acceptor.flush(client, handler.rest)
            return None
        if handler.keep:
            return self._next(client)
        self._acceptor.linger(client)
        return None

    def _next(self, client: Conn) -> Request | None:
        """Return the client's next request if it is there, or comes at once."""
        parser: Parser = client.state.parser
        if (
            parser.phase != IDLE
            or self._pool.busy
            or not wait_for(client.sock, NEXT_REQUEST, write=False)
        ):
            return self._read(client, b"")
        try:
            data = client.sock.recv(RECV_SIZE)
        except BlockingIOError:  # a part of a TLS record
            return self._read(client, b"")
        except OSError:
            data = b""
        if data:
            return self._read(client, data)
        self._acceptor.close(client)
        return None

    # --- the end ----------------------------------------------------------------

    def begin_stop(self) -> None:
        """Close the listeners; what comes on open connections is refused from now on."""
        self.draining = True
        self._acceptor.stop()

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the requests in flight, then cut them.

        Returns:
            The threads that would not end.
        """
        workers = self._pool.stop()
        if self._handshakes is not None:
            workers += self._handshakes.stop()
        polite = time.monotonic() + 0.75 * (deadline - time.monotonic())
        busy = join_all(workers, polite)
        if busy:
            self._acceptor.cut()
        self._acceptor.end()
        if join_all([self._acceptor.thread], polite):
            self._acceptor.cut()
        return join_all([*busy, self._acceptor.thread], deadline)

    def forget(self) -> None:
        """Close a forked child's copies of the sockets."""
        self._acceptor.forget()

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log below our own name: Werkzeug would install a handler of its own."""
        logger.debug(message.rstrip(), *args)
