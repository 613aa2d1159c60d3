"""Accept connections, and hold those that need no worker.

Rules of this module:

1. A socket without a complete request waits here, in the poller; no worker is held by a
   client that is silent, slow or idle, nor by one that takes a finished answer slowly.
2. The acceptor owns a parked socket. Handing it out passes the ownership; the new owner
   gives it back (``park``, ``flush``, ``linger``) or ends it (``release``, ``close``).
3. Sockets stay non-blocking under every owner.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections.abc import Callable, Sequence

from ..interrupts.flag import Flag
from ..waits import monotonic
from .conn import FLUSHING, HANDSHAKING, LINGERING, READING, WORKING, Conn, Flush, Intake
from .deadlines import Deadlines
from .listeners import Listeners
from .sockets.listener import Listener
from .sockets.poller import make_poller
from .sockets.transport import NOSIGNAL, RECV_SIZE
from .threads.safelog import get_logger
from .threads.track import track
from .threads.vitals import Vitals

__all__ = ["Acceptor"]

logger = get_logger("daebus.server")

# Bytes of unread input of a finished connection that are drained.
_LINGER_BYTES = 1 << 20
# Late clients that are answered before others get their turn: a crowd that came together
# is late together.
_LATE_BURST = 64
# Refused connections that may linger, beside the others; more are cut.
_REFUSED_ROOM = 128


class Acceptor:
    """One thread, the listeners, and every connection that needs no worker.

    Args:
        listeners: closed by ``stop``.
        intake: the protocol.
        max_connections: most connections at once; more are refused with an answer.
        max_descriptors: most descriptors for these and ``others`` together.
        others: tells how many descriptors the rest of the server has.
        vitals: watches over the thread.
        linger_timeout: seconds in which a refused client can still read the answer.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        intake: Intake,
        *,
        max_connections: int,
        linger_timeout: float,
        max_descriptors: float = math.inf,
        others: Callable[[], int] = lambda: 0,
        vitals: Vitals | None = None,
    ) -> None:
        self._intake = intake
        self._max_connections = max_connections
        self._max_descriptors = max_descriptors
        self._others = others
        self._linger_timeout = linger_timeout
        self._lock = threading.Lock()
        self._clients: dict[int, Conn] = {}  # guarded by: _lock; open ones, by descriptor
        self._turned_away: set[Conn] = set()  # guarded by: _lock; refused, still open
        self._deadlines = Deadlines()  # guarded by: _lock
        self._sleeps_until = 0.0  # guarded by: _lock
        self._stopping = False  # guarded by: _lock; no new connection
        self._ending = False  # guarded by: _lock; ends once no answer is being flushed
        self._closed = False  # guarded by: _lock
        self._poller = make_poller()
        self._listeners = Listeners(
            listeners,
            self._poller,
            admit=self._admit,
            refuse=self._refuse,
            close=self.close,
        )
        thread = threading.Thread(
            target=(vitals or Vitals()).guard, args=(self._run,), name="daebus-accept", daemon=True
        )
        self._thread = track(thread, "accept")

    @property
    def thread(self) -> threading.Thread:
        """The thread, for joining and for reports."""
        return self._thread

    def start(self) -> None:
        """Start accepting."""
        self._listeners.open()
        self._thread.start()

    def has_room(self) -> bool:
        """Tell whether the server may open another descriptor.

        Threads:
            Any; never waits.
        """
        with self._lock:
            clients = len(self._clients)
        return clients + self._others() < self._max_descriptors

    # --- any thread; the ownership of the socket passes -------------------------

    def park(self, client: Conn, deadline: float) -> None:
        """Hold a connection until its client sends more.

        Args:
            client: its socket becomes the acceptor's.
            deadline: moment of ``time.monotonic()`` at which it is late.
        """
        self._wait(client, READING, deadline)

    def await_handshake(self, client: Conn, deadline: float, *, write: bool = False) -> None:
        """Hold a connection until its TLS handshake can go on.

        Args:
            client: as for ``park``.
            deadline: as for ``park``; it is closed then.
            write: it must take bytes first.
        """
        self._wait(client, HANDSHAKING, deadline, write=write)

    def flush(self, client: Conn, flush: Flush) -> None:
        """Write the rest of an answer as fast as the client takes it."""
        client.flush = flush
        self._wait(client, FLUSHING, flush.deadline, write=True)

    def linger(self, client: Conn) -> None:
        """Close a connection without destroying the answer that is on its way.

        A close with unread input would send a reset; so the write side is shut and the
        input drained, for a short time and 1 MiB at most.
        """
        try:
            client.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close(client)
            return
        # No time to wait then: what is there is read, and that is all.
        if self._stopping:  # unguarded: one look
            with contextlib.suppress(OSError):
                client.raw.recv(RECV_SIZE)
            self.close(client)
        else:
            self._wait(client, LINGERING, monotonic() + self._linger_timeout)

    def release(self, client: Conn) -> None:
        """Give up the ownership of an open socket without closing it."""
        if client.known:
            self._poller.forget(client.fd)
            client.known = False
        with self._lock:
            self._clients.pop(client.fd, None)

    def close(self, client: Conn) -> None:
        """Close a connection now."""
        with self._lock:
            self._clients.pop(client.fd, None)
            self._turned_away.discard(client)
            client.deadline = math.inf
        # A process that was forked meanwhile may hold the socket too.
        with contextlib.suppress(OSError):
            client.sock.shutdown(socket.SHUT_WR)
        client.sock.close()
        if client.flush is not None:
            client.flush.close()
        if client.state is not None:
            client.state.close()
        self._listeners.left(client)

    def _wait(self, client: Conn, doing: str, deadline: float, *, write: bool = False) -> None:
        with self._lock:
            closed = self._closed
            if not closed:
                self._clients[client.fd] = client
                client.doing = doing
                client.deadline = deadline
                self._deadlines.note(client)
                early = deadline < self._sleeps_until
        if closed:
            self.close(client)
            return
        known, client.known = client.known, True
        # The moment it is armed, the acceptor may hand the client to another thread.
        self._poller.arm(client.fd, known=known, write=write)
        if early:
            self._poller.wake()

    # --- stopping ---------------------------------------------------------------

    def leave(self) -> Flag:
        """Close the listeners that are somebody else's: who comes waits for the next process.

        Returns:
            Set once all who came before that have said what they want, or do not hurry.
        """
        self._listeners.leaving = True
        self._poller.wake()
        return self._listeners.settled

    def stop(self) -> None:
        """Close the listeners.

        Connections are served until ``end``, so that what they still ask can be refused.
        """
        with self._lock:
            self._stopping = True
        self._poller.wake()
        if self._thread.ident is None:  # never started, so no thread cleans up
            self._close()

    def end(self) -> None:
        """End the thread, and close what is open, once no answer is being written."""
        with self._lock:
            self._ending = True
        self._poller.wake()

    def cut(self) -> None:
        """Shut every connection down; their owners notice and close them."""
        with self._lock:
            clients = list(self._clients.values())
        for client in clients:
            with contextlib.suppress(OSError):
                client.raw.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Close a forked child's copies of the sockets, without ending the parent's TLS."""
        self._lock = threading.Lock()  # the thread that held it does not exist in the child
        self._listeners.abandon()
        for client in self._clients.values():
            client.raw.close()
        self._poller.abandon()

    # --- the thread -------------------------------------------------------------

    def _run(self) -> None:
        listeners = self._listeners
        try:
            while True:
                timeout = self._expire()
                with self._lock:
                    stopping, ending = self._stopping, self._ending
                    flushing = ending and any(c.flush for c in self._clients.values())
                    clients = list(self._clients.values()) if listeners.leaving else []
                if listeners.leaving:
                    timeout = listeners.leave(self._intake.expected(clients), timeout)
                if stopping:
                    listeners.close()
                if ending and not flushing:
                    return
                ready = self._poller.wait(timeout)
                with self._lock:
                    self._sleeps_until = -math.inf  # awake: no wake-up is needed
                for fd in ready:
                    listener = listeners.open_ones.get(fd)
                    if listener is None:
                        self._attend(fd)
                    else:
                        listeners.accept(listener)
        finally:
            self._close()

    def _attend(self, fd: int) -> None:
        with self._lock:
            client = self._clients.get(fd)
            if client is None or client.doing == WORKING:
                return
            doing, client.doing = client.doing, WORKING
            deadline, client.deadline = client.deadline, math.inf
        try:
            if doing == FLUSHING:
                self._flush(client)
            elif doing == HANDSHAKING:
                self._intake.handshake(client, deadline)
            else:
                self._read(client, doing, deadline)
        except Exception:
            logger.exception("the acceptor failed on a connection")
            self.close(client)

    def _read(self, client: Conn, doing: str, deadline: float) -> None:
        try:
            data = client.sock.recv(client.appetite)
        except (BlockingIOError, InterruptedError):  # a false alarm, or a part of a TLS record
            self._wait(client, doing, deadline)
            return
        except OSError:
            data = b""
        if doing == LINGERING:
            client.discarded += len(data)
        if not data or client.discarded > _LINGER_BYTES:
            self.close(client)
        elif doing == LINGERING:
            self._wait(client, LINGERING, deadline)
        else:
            self._intake.received(client, data)

    def _flush(self, client: Conn) -> None:
        flush = client.flush
        assert flush is not None
        try:
            done = flush.proceed()
        except OSError:
            self.close(client)
            return
        if not done:
            self._wait(client, FLUSHING, flush.deadline, write=True)
            return
        client.flush = None
        flush.close()
        self._intake.flushed(client)

    # --- accepting --------------------------------------------------------------

    def _admit(self, client: Conn) -> None:
        """Start to wait for a client, or refuse it; often its request is there already."""
        crowded = not self.has_room()
        with self._lock:
            refused = len(self._turned_away)
            full = crowded or len(self._clients) - refused >= self._max_connections
            self._clients[client.fd] = client
            if full:
                self._turned_away.add(client)
        try:
            if crowded:  # it must not keep its descriptor, not even to read the answer
                self._dismiss(client)
            elif not full:
                if self._intake.opened(client):
                    self._read_first(client)
            else:
                self._refuse(client, "too many connections")
                if refused >= _REFUSED_ROOM:
                    self.close(client)
        except Exception:
            logger.exception("the acceptor failed on a new connection")
            self.close(client)

    def _read_first(self, client: Conn) -> None:
        try:
            data = client.sock.recv(client.appetite)
        except (BlockingIOError, InterruptedError):
            self._intake.received(client, b"")
            return
        except OSError:
            data = b""
        if data:
            self._intake.received(client, data)
        else:
            self.close(client)

    def _dismiss(self, client: Conn) -> None:
        with contextlib.suppress(OSError):
            client.raw.recv(RECV_SIZE)  # unread input would turn the close into a reset
        with contextlib.suppress(OSError):
            client.raw.send(self._intake.refused("too many connections"), NOSIGNAL)
        self.close(client)

    def _refuse(self, client: Conn, text: str) -> None:
        with contextlib.suppress(OSError):
            client.sock.send(self._intake.refused(text), NOSIGNAL)
        self.linger(client)

    # --- deadlines --------------------------------------------------------------

    def _expire(self) -> float | None:
        """Act on deadlines that have passed; return how long the poller may wait."""
        now = monotonic()
        if self._listeners.resume <= now:
            self._listeners.go_on()
        with self._lock:
            late = self._deadlines.due(now, _LATE_BURST)
        for client in late:
            self._poller.forget(client.fd)
            client.known = False
            doing, client.doing = client.doing, WORKING
            try:
                if doing == READING:
                    self._intake.late(client)
                else:
                    self.close(client)
            except Exception:
                logger.exception("the acceptor failed on a late client")
                self.close(client)
        with self._lock:
            self._sleeps_until = min(self._deadlines.next(), self._listeners.resume)
            until = self._sleeps_until
        return None if until == math.inf else max(0.0, until - monotonic())

    # --- the end ----------------------------------------------------------------

    def _close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._stopping = self._closed = True
            parked = [client for client in self._clients.values() if client.doing != WORKING]
        self._listeners.close()
        for client in parked:
            self._poller.forget(client.fd)
            with contextlib.suppress(OSError):
                client.raw.recv(RECV_SIZE)  # unread input would turn the close into a reset
            self.close(client)
        self._poller.close()
