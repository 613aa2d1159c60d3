"""The running server: listeners, acceptor and workers around Werkzeug's server object.

Rules of this module:

1. A socket belongs to the acceptor, then to a worker, then to the acceptor again or,
   after an upgrade, to its connection. There is no instant with two owners.
2. An upgrade needs no worker: the thread that admits it runs its connection, so that
   neither user code in the handshake nor a crowd of handshakes holds up requests.
3. A worker gets whole requests only, and leaves what a client takes slowly behind.
4. What daebus answers itself needs no worker either: it comes from whoever has the request.
"""

from __future__ import annotations

import functools
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from werkzeug.serving import BaseWSGIServer

from ...interrupts.flag import Flag
from ...server.acceptor import Acceptor
from ...server.conn import Conn
from ...server.handoff import OVERLOADED, Refusal, UpgradeHandler
from ...server.sockets.listener import Listener
from ...server.sockets.transport import NOSIGNAL
from ...server.threads.pool import WorkerPool, join_all
from ...server.threads.safelog import get_logger
from ...server.threads.vitals import Vitals
from ...server.tlshandshakes import TLS_REFUSAL, TlsHandshakes
from ...waits import monotonic
from ..protocol.forwarded import TrustedProxies
from ..protocol.limits import Limits
from ..protocol.parser import IDLE, Request
from ..site.own import NO_WEBSOCKETS, OwnAnswer
from ..site.router import Router
from .access import AccessLog
from .entrance import Entrance
from .exchange import Exchange, Job
from .handler import RequestHandler
from .keepalive import KeepAlive
from .topics import TopicPages
from .upgrade import note_upgrade
from .visitors import Visitors
from .writes import BytesRest, error_response, own_response

__all__ = ["HttpServer"]

logger = get_logger("daebus.http")

_SPEAK_TLS = Refusal(
    400,
    "https_required",
    "this port speaks TLS; write https:// in place of http://, and wss:// for ws://",
)
_LATE = Refusal(408, "request_timeout", "the request did not come in time")

# Answers of our own to one client, which sent the requests in one go, before others get
# their turn; then its connection ends.
_OWN_BURST = 16

WSGI = Callable[[dict[str, Any], Any], Any]


class HttpServer(BaseWSGIServer):
    """Serves one WSGI app on sockets that listen already.

    Of Werkzeug's class these are used: the constructor and the attributes that its request
    handler reads (``app``, ``multithread``); ``log`` is replaced.

    Args:
        listeners: one at least; the server takes them over.
        others: further ones, for upgrades alone, which ``listeners`` then do not take.
        app: the WSGI app.
        router: what else is known of the requests: paths that are answered without the app,
            bodies that nobody wants, and where the others go.
        upgrades: takes upgraded connections, or refuses them; None if there are none.
        workers: most requests that are handled at once.
        backlog: most requests that wait for a worker; more are answered 503.
        max_connections: most connections at once; more are answered 503.
        max_descriptors: the same for connections, WebSockets and files of bodies together.
        limits: of one connection.
        tls: for TLS on all listeners; None without TLS.
        proxies: whose headers are believed; None to believe no one's.
        vitals: watches over the threads.
        entrance: judges requests by the host that they ask for.
        access: has a line for each request; None for none.
        topics: answers requests for topics; None if there are none.
    """

    multithread = True

    def __init__(
        self,
        listeners: Sequence[Listener],
        others: Sequence[Listener],
        app: WSGI,
        *,
        router: Router,
        upgrades: UpgradeHandler | None,
        workers: int,
        backlog: int,
        max_connections: int,
        max_descriptors: float,
        limits: Limits,
        tls: ssl.SSLContext | None,
        proxies: TrustedProxies | None,
        vitals: Vitals,
        entrance: Entrance,
        access: AccessLog | None,
        topics: TopicPages | None,
    ) -> None:
        main = listeners[0]
        # Werkzeug knows a Unix socket by this prefix; of any it makes a duplicate.
        host = main.host or "unix://"
        super().__init__(host, main.port, app, RequestHandler, fd=main.fileno())
        self.socket.close()
        self.socket = main.sock
        self._own = router.own
        self._spool = router.spool
        self._upgrades = upgrades
        self._takes_upgrades = frozenset(others or listeners)
        self._upgrade_ports = [listener.port for listener in others]
        self._pool = WorkerPool(
            "daebus-http", workers, backlog, max_aside=limits.max_streams, vitals=vitals
        )
        self._acceptor = Acceptor(
            [*listeners, *others],
            self,
            max_connections=max_connections,
            max_descriptors=max_descriptors,
            others=self._other_descriptors,
            linger_timeout=limits.linger_timeout,
            vitals=vitals,
        )
        self._exchange = Exchange(
            self._acceptor,
            [*listeners, *others],
            only_upgrades=others,
            limits=limits,
            secure=tls is not None,
            proxies=proxies,
            who_reads=router.who_reads,
            entrance=entrance,
            access=access,
        )
        self._visitors: Visitors | None = None
        if upgrades is not None:
            self._visitors = Visitors(
                self._acceptor, self._exchange, upgrades, topics, self._answered
            )
        self._spool.has_room = self._acceptor.has_room
        self._handshakes = None
        if tls is not None:
            self._handshakes = TlsHandshakes(
                tls,
                self._acceptor,
                timeout=limits.head_timeout,
                most=max_connections,
                done=self.received,
                plain=lambda: error_response(_SPEAK_TLS),
                vitals=vitals,
            )

    def _other_descriptors(self) -> int:
        upgraded = 0 if self._upgrades is None else self._upgrades.descriptors()
        watching = 0 if self._visitors is None else self._visitors.streams()
        return upgraded + watching + self._spool.files

    def begin(self) -> None:
        """Start accepting."""
        self._acceptor.start()

    # --- what the acceptor asks; a worker between two requests too --------------

    def opened(self, client: Conn) -> bool:
        """Note a new connection."""
        newcomer = self._exchange.leaving is not None
        client.state = KeepAlive(self._exchange.limits, self._spool.open, newcomer=newcomer)
        if self._handshakes is None:
            return True
        self._handshakes.begin(client)
        return False

    def handshake(self, client: Conn, deadline: float) -> None:
        """Continue a TLS handshake."""
        assert self._handshakes is not None
        self._handshakes.proceed(client, deadline)

    def received(self, client: Conn, data: bytes) -> None:
        """Hand a whole request to a worker, or wait for more of it."""
        self._dispatch(client, self._exchange.read(client, data))

    def flushed(self, client: Conn) -> None:
        """Continue with a client that has taken its whole answer."""
        if client.state.phase == "keep":
            client.state.phase = ""
            self.received(client, b"")
        else:
            self._acceptor.linger(client)

    def late(self, client: Conn) -> None:
        """Refuse a client that did not send a whole request in time."""
        if client.state.phase == IDLE:
            self._acceptor.close(client)
        else:
            self._exchange.refuse(client, _LATE, client.state.parser.head, client.state.seen)

    def refused(self, text: str) -> bytes:
        """Return the answer to a client that cannot be served for that reason."""
        if self._handshakes is not None:
            return TLS_REFUSAL
        return error_response(replace(OVERLOADED, text=text))

    def _dispatch(self, client: Conn, request: Request | None) -> None:
        """Answer a request, or pass it on to who does; and those that came with it."""
        left = _OWN_BURST
        while request is not None:
            answer = self._find_own(client, request)
            if answer is None:
                self._pass_on(client, request)
                return
            left -= 1
            request = self._answer_own(client, request, answer, last=not left)

    def _find_own(self, client: Conn, request: Request) -> OwnAnswer | None:
        head = request.head
        if head.upgrade or self._exchange.only_upgrades(client) or self._visit(request) is not None:
            return None
        path = head.target.partition("?")[0]
        if path not in self._own:
            return None
        return self._own.answer(path, head.method, head.first("if-none-match"))

    def _answer_own(
        self, client: Conn, request: Request, answer: OwnAnswer, *, last: bool
    ) -> Request | None:
        """Write an answer of our own, and return the request behind it if that is there."""
        request.body.close()
        keep = request.head.keep_alive and not last and self._exchange.leaving is None
        data = own_response(answer, request.head, keep=keep)
        if self._exchange.access is not None:
            size = 0 if request.head.method == "HEAD" else len(answer.body)
            status = str(answer.status)
            self._exchange.access.note(client, request.head, request.seen, status, size)
        try:
            sent = client.sock.send(data, NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._acceptor.close(client)
            return None
        if sent < len(data):
            client.state.phase = "keep" if keep else ""
            rest = BytesRest(client.sock, self._exchange.limits, memoryview(data)[sent:])
            self._acceptor.flush(client, rest)
            return None
        if keep:
            return self._exchange.read(client, b"")
        self._acceptor.linger(client)
        return None

    def _pass_on(self, client: Conn, request: Request) -> None:
        visit = self._visit(request)
        job = self._upgrade if request.head.upgrade else visit
        refusal = self._exchange.refusal_of(client, opens=job is not None)
        if refusal is None and job is not None:
            refusal = self._start_upgrade(client, request, job)
        elif refusal is None and not self._pool.submit(
            functools.partial(self._work, client, request)
        ):
            refusal = OVERLOADED
        if refusal is not None:
            request.body.close()
            self._exchange.refuse(client, refusal, request.head, request.seen)

    # --- upgrades ---------------------------------------------------------------

    def _start_upgrade(self, client: Conn, request: Request, job: Job) -> Refusal | None:
        if self._upgrades is None:
            return NO_WEBSOCKETS
        if client.listener not in self._takes_upgrades:
            port = min(self._upgrade_ports)
            return Refusal(404, "not_found", f"WebSockets are on port {port} of this server")
        return self._exchange.start_upgrade(self._upgrades, job, client, request)

    def _upgrade(self, client: Conn, request: Request) -> Callable[[], None] | None:
        """Admit an upgrade, in a thread of the WebSocket side, which runs the connection next."""
        assert self._upgrades is not None
        exchange = self._exchange
        try:
            upgrade = note_upgrade(client, request, exchange.environ_of)
            self._acceptor.release(client)
            admitted = self._upgrades.admit(upgrade)
            if isinstance(admitted, Refusal):
                client.sock.setblocking(False)  # it may have been made ready for its connection
                exchange.refuse(client, admitted, request.head, request.seen)
                return None
            if exchange.access is not None:
                exchange.access.note(client, request.head, request.seen, "101", 0)
            client.state.close()
            return admitted
        except BaseException:
            logger.exception("a handshake failed")
            self._acceptor.close(client)
            return None

    def _visit(self, request: Request) -> Callable[[Conn, Request], None] | None:
        return None if self._visitors is None else self._visitors.find(request)

    def _answered(self, client: Conn, request: Request, answer: OwnAnswer) -> None:
        """Write an answer to one whom the WebSocket side has judged, and go on with it."""
        self._dispatch(client, self._answer_own(client, request, answer, last=False))

    # --- in a worker ------------------------------------------------------------

    def _work(self, client: Conn, request: Request | None) -> None:
        """Answer requests of one client until it sends no more or other clients wait."""
        try:
            while request is not None:
                request = self._answer(client, request)
                if request is not None and (
                    self._pool.busy
                    or self._exchange.leaving is not None
                    or request.head.upgrade
                    or self._visit(request) is not None
                ):
                    self._dispatch(client, request)
                    return
        except BaseException:
            logger.exception("a worker failed on a connection")
            self._acceptor.close(client)

    def _answer(self, client: Conn, request: Request) -> Request | None:
        """Answer a request and pass the socket on, or return the next one."""
        handler = RequestHandler(client, request, self, self._exchange, pool=self._pool)
        if self._exchange.access is not None:
            self._exchange.access.note(
                client, request.head, request.seen, handler.status, handler.size_sent
            )
        if handler.rest is not None:
            client.state.phase = "keep" if handler.keep else ""
            self._acceptor.flush(client, handler.rest)
            return None
        if handler.keep:
            return self._exchange.read_next(client, wait=not self._pool.busy)
        self._acceptor.linger(client)
        return None

    # --- the end ----------------------------------------------------------------

    def expected(self, clients: Iterable[Conn]) -> Iterable[Conn]:
        """Return who has just come: to send a first request soon, or with an upgrade under way."""
        return self._exchange.expected(clients)

    def leave(self) -> Flag:
        """Refuse newcomers; see ``Acceptor.leave`` for those who come by foreign listeners."""
        self._exchange.leave()
        return self._acceptor.leave()

    def hurry(self, spread: float, *, passed_on: bool) -> Flag | None:
        """Send those who watch topics away within so many seconds.

        Args:
            spread: seconds.
            passed_on: who comes back is left to the next process, and not refused.

        Returns:
            Set once that is done; None if nobody can watch.
        """
        if self._visitors is None:
            return None
        return self._visitors.leave(spread, refused=not passed_on)

    def begin_stop(self) -> None:
        """Close the listeners, and refuse what still comes on open connections."""
        self._exchange.stop()
        if self._visitors is not None:
            self._visitors.stop()
        self._acceptor.stop()

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the requests in flight, then cut them.

        Returns:
            The threads that would not end.
        """
        self._exchange.over = True
        workers = self._pool.stop()
        if self._handshakes is not None:
            workers += self._handshakes.stop()
        polite = monotonic() + 0.75 * (deadline - monotonic())
        busy = join_all(workers, polite)
        if busy:
            self._acceptor.cut()
        self._acceptor.end()
        if join_all([self._acceptor.thread], polite):
            self._acceptor.cut()
        return join_all([*busy, self._acceptor.thread], deadline)

    def forget(self) -> None:
        """Close a forked child's copies of the sockets."""
        if self._visitors is not None:
            self._visitors.abandon()
        self._acceptor.forget()

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log below our own name: Werkzeug would install a handler of its own."""
        logger.debug(message.rstrip(), *args)
