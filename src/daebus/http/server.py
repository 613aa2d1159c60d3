"""The running side of HTTP: listener, acceptor and workers around Werkzeug's server object.

Rules of this module:

1. A socket is the acceptor's, then a worker's, then the acceptor's again or, after an
   upgrade, its connection's. There is no instant with two owners.
2. The worker has left the request handler before an upgraded socket is handed on: the
   handler's buffers would otherwise be alive while another thread reads.
"""

from __future__ import annotations

import contextlib
import email.utils
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from werkzeug.serving import BaseWSGIServer

from ..server.acceptor import Acceptor, Client
from ..server.handoff import Refusal, Upgrade
from ..server.workers import WorkerPool, join_all
from .handler import RequestHandler, error_response
from .wire import has_head

__all__ = ["HttpServer"]

logger = logging.getLogger("daebus.http")

WSGI = Callable[[dict[str, Any], Any], Any]


class HttpServer(BaseWSGIServer):
    """Serves one WSGI app on listening sockets that are bound already.

    Args:
        listener: the main one; the server takes it over.
        others: further listeners, for upgrades alone.
        app: the WSGI app.
        upgrade: takes an upgraded connection, or refuses it; None if nobody does.
        upgrade_port: the only local port on which upgrades are taken.
        workers: most requests that are handled at once.
        backlog: most requests that wait for a worker; more are answered 503.
        head_timeout: seconds for a whole request head.
        idle_timeout: seconds between two requests.
        max_body: bytes of a request body.
    """

    multithread = True

    def __init__(
        self,
        listener: socket.socket,
        others: Sequence[socket.socket],
        app: WSGI,
        *,
        upgrade: Callable[[Upgrade], Refusal | None] | None,
        upgrade_port: int | None,
        workers: int,
        backlog: int,
        head_timeout: float,
        idle_timeout: float,
        max_body: int,
    ) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__(host, port, app, RequestHandler, fd=listener.fileno())
        listener.close()  # Werkzeug works on a duplicate
        self.socket.setblocking(False)
        self.max_body = max_body
        self.draining = False
        self._upgrade = upgrade
        self._upgrade_port = upgrade_port
        self._only_upgrades = {sock.getsockname()[1] for sock in others}
        self._lock = threading.Lock()
        self._active: set[Client] = set()  # guarded by: _lock; those that workers own
        self._date: tuple[int, str] = (0, "")
        self._pool = WorkerPool("daebus-http", workers, backlog)
        self._listeners = [self.socket, *others]
        self._acceptor = Acceptor(
            self._listeners, self, head_timeout=head_timeout, idle_timeout=idle_timeout
        )

    def begin(self) -> None:
        """Start accepting."""
        self._acceptor.start()

    def http_date(self) -> str:
        """Return the ``Date`` of this second."""
        now = int(time.time())
        second, text = self._date
        if second != now:
            text = email.utils.formatdate(now, usegmt=True)
            self._date = (now, text)
        return text

    # --- what the acceptor asks -------------------------------------------------

    def has_request(self, buffer: bytes) -> bool:
        """Tell whether a worker can answer what has come so far."""
        return has_head(buffer)

    def dispatch(self, client: Client) -> None:
        """Give the client to a worker, or refuse it: all are busy and the queue is full."""
        with self._lock:
            self._active.add(client)
        if self._pool.submit(lambda: self._work(client)):
            return
        self._leave(client)
        with contextlib.suppress(OSError):
            client.sock.send(
                error_response(
                    503, "overloaded", "the server is overloaded", [("Retry-After", "1")]
                )
            )
        self._acceptor.linger(client)

    def late(self, client: Client) -> bytes:
        """Return the answer to a client that did not send a whole head in time."""
        return error_response(408, "request_timeout", "the request did not come in time")

    # --- in a worker ------------------------------------------------------------

    def _work(self, client: Client) -> None:
        """Answer one request, then pass the socket on."""
        handed_over = keep = False
        try:
            handler = RequestHandler(client, self)
            keep = handler.keep
            if handler.upgrade is not None:
                refusal = self._admit(handler.upgrade, client)
                handed_over = refusal is None
                if refusal is not None:
                    handler.refuse_upgrade(refusal)
        finally:
            client.requests += 1
            self._leave(client)
            if not handed_over:
                if keep:
                    self._acceptor.park(client)
                else:
                    self._acceptor.linger(client)

    def _admit(self, upgrade: Upgrade, client: Client) -> Refusal | None:
        if self._upgrade is None:
            return Refusal(501, "not_implemented", "there are no WebSockets on this server")
        if client.port != self._upgrade_port:
            return Refusal(
                404, "not_found", f"WebSockets are on port {self._upgrade_port} of this server"
            )
        return self._upgrade(upgrade)

    def _leave(self, client: Client) -> None:
        with self._lock:
            self._active.discard(client)

    def only_upgrades(self, client: Client) -> bool:
        """Tell whether the client came to a port that speaks WebSocket alone."""
        return client.port in self._only_upgrades

    # --- the end ----------------------------------------------------------------

    def forget(self) -> None:
        """Close this process's copies of the listeners; for the child of a fork."""
        for listener in self._listeners:
            listener.close()

    def begin_stop(self) -> None:
        """Close the listeners and the connections without a request."""
        self.draining = True
        self._acceptor.stop()

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the requests in flight, then cut them.

        Returns:
            The threads that would not end.
        """
        threads = [*self._pool.stop(), self._acceptor.thread]
        threads = [thread for thread in threads if thread.ident is not None]
        if join_all(threads, time.monotonic() + 0.75 * (deadline - time.monotonic())):
            with self._lock:
                active = list(self._active)
            for client in active:
                with contextlib.suppress(OSError):
                    client.sock.shutdown(socket.SHUT_RDWR)
        return join_all(threads, deadline)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log below our own name: Werkzeug would install a handler of its own."""
        logger.debug(message.rstrip(), *args)
