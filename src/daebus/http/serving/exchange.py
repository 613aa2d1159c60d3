"""What the connections of a server share, and what happens between two of their requests."""

from __future__ import annotations

import contextlib
import email.utils
import io
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import IO, Any, cast

from ...server.acceptor import Acceptor
from ...server.conn import Conn
from ...server.handoff import DRAINING, STOPPING, Refusal, UpgradeHandler
from ...server.sockets.listener import Listener
from ...server.sockets.transport import NOSIGNAL, RECV_SIZE, SMALL_READ, wait_for
from ...server.threads.safelog import get_logger
from ..protocol.errors import status_code_name
from ..protocol.forwarded import Seen, TrustedProxies
from ..protocol.heads import BadRequest, Head
from ..protocol.limits import Limits
from ..protocol.parser import IDLE, Parser, Request
from ..site.router import BodyReader
from .access import AccessLog
from .coming import ComingBody, say_continue
from .entrance import Entrance
from .environ import add_forwarded, add_request, common_environ
from .keepalive import KeepAlive
from .writes import error_response

__all__ = ["Exchange", "Job"]

logger = get_logger("daebus.http")

# Seconds that a worker with nothing else to do waits for the client's next request: a
# program that asks again at once is served without two changes of thread (measured:
# 20 % more requests a second).
NEXT_REQUEST = 0.001

# Bytes read at once of a body that comes in small chunks: a few hundred of the smallest.
CRUMBS = 2048


# Begins an upgrade, and returns what the thread runs next.
Job = Callable[[Conn, Request], Callable[[], None] | None]


class Exchange:
    """Reads the requests of clients, and knows what these share.

    Args:
        acceptor: holds the clients that have not sent a whole request.
        listeners: where clients may come from.
        only_upgrades: those of them that speak WebSocket alone.
        limits: of one connection.
        secure: clients speak TLS.
        proxies: whose headers are believed; None to believe no one's.
        who_reads: tells who reads a large body first; see ``Router.who_reads``.
        entrance: judges requests by the host that they ask for.
        access: has a line for each request; None for none.

    Attributes:
        limits: as given.
        access: as given.
        leaving: why newcomers are refused, as the app is to stop; None while it is not.
            Connections end with their next answer then.
        over: the requests in flight are the last ones.

    Threads:
        Whoever owns the client: the acceptor's thread, or a worker.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        listeners: Sequence[Listener],
        *,
        only_upgrades: Sequence[Listener],
        limits: Limits,
        secure: bool,
        proxies: TrustedProxies | None,
        who_reads: Callable[[dict[str, Any]], BodyReader],
        entrance: Entrance,
        access: AccessLog | None,
    ) -> None:
        self.limits = limits
        self.access = access
        self.leaving: Refusal | None = None
        self.over = False
        self._acceptor = acceptor
        self._proxies = proxies
        self._who_reads = who_reads
        self._entrance = entrance
        self._only_upgrades = frozenset(only_upgrades)
        self._date: tuple[int, str] = (0, "")
        self._upgrading: dict[Conn, None] = {}  # single operations only
        scheme = "https" if secure else "http"
        self._environs = {
            listener: common_environ(listener.host, listener.port, scheme) for listener in listeners
        }

    # --- what the handler of a request asks -------------------------------------

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

    def only_upgrades(self, client: Conn) -> bool:
        """Return whether the client came to a port for WebSockets alone."""
        return client.listener in self._only_upgrades

    def leave(self) -> None:
        """Refuse newcomers from now on."""
        self.leaving = self.leaving or DRAINING

    def stop(self) -> None:
        """Refuse all requests from now on."""
        self.leaving = STOPPING

    def refusal_of(self, client: Conn, *, opens: bool) -> Refusal | None:
        """Return why a request is too late, None if it is not.

        Who came in by a socket of somebody else would have been answered by the next process
        if it had come a moment later, so it is answered here for as long as that is possible.

        Args:
            client: it has sent a whole request.
            opens: the request is for a WebSocket, or asks about one.
        """
        if self.leaving is None or (client.listener.foreign and not self.over):
            return None
        if self.leaving is DRAINING and not (opens or client.state.newcomer):
            return None
        return self.leaving

    # --- who has just come ------------------------------------------------------

    def start_upgrade(
        self, upgrades: UpgradeHandler, job: Job, client: Conn, request: Request
    ) -> Refusal | None:
        """Have an upgrade begun, and note that it is under way until it is admitted or refused."""
        self._upgrading[client] = None
        refusal = upgrades.start(partial(self._upgrade, job, client, request))
        if refusal is not None:
            self._upgrading.pop(client, None)
        return refusal

    def _upgrade(self, job: Job, client: Conn, request: Request) -> Callable[[], None] | None:
        try:
            return job(client, request)
        finally:
            self._upgrading.pop(client, None)

    def expected(self, clients: Iterable[Conn]) -> Iterable[Conn]:
        """Return those who are to send a first request soon, or whose upgrade is under way."""
        fresh = [one for one in clients if one.state is not None and one.state.fresh]
        return [*fresh, *list(self._upgrading)]

    # --- between two requests ---------------------------------------------------

    def read(self, client: Conn, data: bytes) -> Request | None:
        """Return the next request; if there is none, the client is parked or refused.

        Args:
            client: owned by the caller; no longer if the result is None.
            data: what it sent, perhaps nothing.
        """
        kept: KeepAlive = client.state
        parser = kept.parser
        try:
            request = parser.feed(data)
        except BadRequest as exc:
            parser.close()  # not kept while the refusal is read
            self.refuse(client, Refusal(exc.status, status_code_name(exc.status), exc.text))
            return None
        head = parser.head if request is None else request.head
        if head is not None and not kept.judged:
            refusal = self._judge(client, kept, head)
            if refusal is not None:
                if request is not None:
                    request.body.close()
                self.refuse(client, refusal, head, kept.seen)
                return None
        if request is not None:
            return self._found(kept, request)
        large = parser.large
        if large is not None and not kept.weighed:
            kept.weighed = True
            request = self._weigh(client, kept, large)
            if request is not None:
                return self._found(kept, request)
        if parser.wants_continue:
            parser.wants_continue = False
            if not say_continue(client):
                self._acceptor.close(client)
                return None
        client.appetite = _appetite(parser)
        self._acceptor.park(client, kept.deadline(self.limits))
        return None

    def _weigh(self, client: Conn, kept: KeepAlive, head: Head) -> Request | None:
        """Return a request whose large body need not come first; None if it must."""
        nothing = io.BytesIO()
        environ = self.environ_of(client)
        add_request(environ, head, nothing, 0)
        if kept.seen is not None:
            add_forwarded(environ, kept.seen)
        reader = self._who_reads(environ)
        if reader == "view":
            return None
        if reader == "hooks":
            body = cast(IO[bytes], ComingBody(client, head, self.limits))
            return Request(head, body, head.length or 0)
        # It is answered by those who answer such a request in any case, at once.
        kept.parser.close()
        head.keep_alive = False
        return Request(head, nothing, 0)

    def _found(self, kept: KeepAlive, request: Request) -> Request:
        kept.phase = ""
        kept.served = True
        request.seen, kept.seen = kept.seen, None
        kept.judged = kept.weighed = False
        return request

    def _judge(self, client: Conn, kept: KeepAlive, head: Head) -> Refusal | None:
        """Look at a head, once: who sent it, and may it come in?"""
        kept.judged = True
        seen, peer = None, client.host
        if self._proxies is not None:
            seen = kept.seen = self._proxies.look(peer, head.headers, head.authority)
        host = head.host if seen is None or seen.host is None else seen.host
        return self._entrance.judge(host, peer)

    def read_next(self, client: Conn, *, wait: bool) -> Request | None:
        """Return the next request after an answer, as ``read`` does.

        Args:
            client: owned by the caller; no longer if the result is None.
            wait: give the client a moment to send it.
        """
        parser: Parser = client.state.parser
        if not wait or parser.phase != IDLE or not wait_for(client.sock.fileno(), NEXT_REQUEST):
            return self.read(client, b"")
        try:
            data = client.sock.recv(RECV_SIZE)
        except BlockingIOError:  # a part of a TLS record
            return self.read(client, b"")
        except OSError:
            data = b""
        if data:
            return self.read(client, data)
        self._acceptor.close(client)
        return None

    def refuse(
        self,
        client: Conn,
        refusal: Refusal,
        head: Head | None = None,
        seen: Seen | None = None,
    ) -> None:
        """Answer with a refusal; the connection is not read any more.

        Args:
            client: owned by the caller; no longer after this.
            refusal: what is said.
            head: of the request, if it could be read.
            seen: what a trusted proxy says of its client.
        """
        logger.debug("refused a request from %s: %s", client.host, refusal.text)
        data = error_response(refusal)
        if self.access is not None:
            size = len(data.partition(b"\r\n\r\n")[2])
            self.access.note(client, head, seen, str(refusal.status), size)
        with contextlib.suppress(OSError):
            client.sock.send(data, NOSIGNAL)
        self._acceptor.linger(client)


def _appetite(parser: Parser) -> int:
    """Return how much to read before other clients get their turn."""
    if parser.in_plain_body:
        return RECV_SIZE
    return CRUMBS if parser.in_crumbs else SMALL_READ
