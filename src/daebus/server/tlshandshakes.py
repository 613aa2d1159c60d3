"""TLS handshakes of new connections, in threads that wait for no client.

A new connection waits in the acceptor as any other. What it sends is worked on by a few
threads of their own: neither do views that take long keep clients from connecting, nor
does a crowd of clients that connect hold up requests.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
import threading
from collections.abc import Callable

from ..waits import monotonic
from .acceptor import Acceptor
from .conn import Conn
from .sockets.tlssocket import PlainTextError, TlsSocket
from .sockets.transport import NOSIGNAL
from .threads.pool import WorkerPool
from .threads.safelog import get_logger
from .threads.vitals import Vitals

__all__ = ["TLS_REFUSAL", "TlsHandshakes"]

logger = get_logger("daebus.server")

# A handshake computes for a millisecond and releases the GIL meanwhile: two threads do
# more than a thousand a second, and leave cores to the rest of the program.
THREADS = 2

# The alert internal_error (RFC 8446 section 6.2), for a client that cannot be served:
# a handshake only to say so would cost more than serving it.
TLS_REFUSAL = b"\x15\x03\x03\x00\x02\x02\x50"


class TlsHandshakes:
    """Takes new connections through their TLS handshake.

    Args:
        context: for servers.
        acceptor: holds the clients meanwhile.
        timeout: seconds for a whole handshake, however it comes.
        most: connections that may be in a handshake at once.
        done: takes over a client with what came behind the handshake.
        plain: makes the answer to a client that does not speak TLS.
        vitals: watches over the threads.

    Threads:
        ``begin`` and ``proceed`` belong to the acceptor's; ``done`` is called on threads
        named ``daebus-tls-N``, and must not wait.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        acceptor: Acceptor,
        *,
        timeout: float,
        most: int,
        done: Callable[[Conn, bytes], None],
        plain: Callable[[], bytes],
        vitals: Vitals | None = None,
    ) -> None:
        self._context = context
        self._acceptor = acceptor
        self._timeout = timeout
        self._done = done
        self._plain = plain
        self._pool = WorkerPool("daebus-tls", THREADS, most, vitals=vitals)

    def begin(self, client: Conn) -> None:
        """Put TLS around a new connection, and have the acceptor wait for its first byte."""
        client.sock = TlsSocket(client.raw, self._context)
        self._acceptor.await_handshake(client, monotonic() + self._timeout)

    def proceed(self, client: Conn, deadline: float) -> None:
        """Have a thread continue a handshake; never wait for it."""
        if not self._pool.submit(functools.partial(self._step, client, deadline)):
            with contextlib.suppress(OSError):
                client.raw.send(TLS_REFUSAL, NOSIGNAL)
            client.sock = client.raw  # nothing more is sent through TLS
            self._acceptor.linger(client)

    def stop(self) -> list[threading.Thread]:
        """Take no more clients; return the threads, to be joined."""
        return self._pool.stop()

    def _step(self, client: Conn, deadline: float) -> None:
        tls = client.sock
        assert isinstance(tls, TlsSocket)
        try:
            step = self._try(client, tls)
            if step == "done":
                self._done(client, tls.take())
            elif step != "failed":
                # If the deadline has passed meanwhile, the acceptor sees it at once.
                self._acceptor.await_handshake(client, deadline, write=step == "write")
        except BaseException:
            logger.exception("a TLS handshake failed")
            self._acceptor.close(client)

    def _try(self, client: Conn, tls: TlsSocket) -> str:
        try:
            return tls.handshake()
        except PlainTextError:
            self._answer_plainly(client)
        except OSError as exc:
            logger.debug("the TLS handshake with %s failed: %s", client.host, exc)
            self._acceptor.linger(client)
        return "failed"

    def _answer_plainly(self, client: Conn) -> None:
        logger.debug("%s does not speak TLS", client.host)
        client.sock = client.raw
        try:
            client.raw.send(self._plain(), NOSIGNAL)
        except OSError:
            self._acceptor.close(client)
        else:
            self._acceptor.linger(client)
