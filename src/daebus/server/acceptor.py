"""Accepting connections, and holding those that have nothing to say yet.

Rules of this module:

1. A socket without a complete request waits here, in the selector; no worker is held
   by a client that is silent, slow or idle.
2. The acceptor owns a parked socket. Handing it out passes the ownership; whoever
   finishes with it parks it again, lets it linger, or closes it.
3. Out of descriptors, the accept loop pauses: it neither ends nor spins.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from .transport import RECV_SIZE
from .wakeup import Wakeup

__all__ = ["Acceptor", "Client", "Intake"]

logger = logging.getLogger("daebus.server")

# Seconds to wait when the process is out of descriptors; one is likely to come free.
_PAUSE = 0.5
# Connections taken in one go before others get their turn.
_BURST = 64
# How long unread input of a finished connection is drained, in seconds and bytes.
_LINGER = 2.0
_LINGER_BYTES = 1 << 20

_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Client:
    """A connection that speaks no WebSocket (yet).

    Attributes:
        sock: the socket.
        address: of the peer, as ``accept`` gave it.
        port: local port number of the listener.
        buffer: bytes that were read and belong to the next request.
        requests: how many requests have been answered on it.
    """

    __slots__ = (
        "address",
        "buffer",
        "deadline",
        "discarded",
        "lingers",
        "port",
        "requests",
        "sock",
    )

    def __init__(self, sock: socket.socket, address: object, port: int) -> None:
        self.sock = sock
        self.address = address
        self.port = port
        self.buffer = b""
        self.requests = 0
        self.deadline = 0.0
        self.lingers = False
        self.discarded = 0

    @property
    def host(self) -> str:
        """Host of the peer, an empty string where there is none."""
        return str(self.address[0]) if isinstance(self.address, tuple) else ""


class Intake(Protocol):
    """What the acceptor asks of the protocol spoken on its connections."""

    def has_request(self, buffer: bytes) -> bool:
        """Tell whether a worker could go on: a whole head, or one that is broken."""

    def dispatch(self, client: Client) -> None:
        """Take over the client; called on the acceptor's thread, must not wait."""

    def late(self, client: Client) -> bytes:
        """Return the answer to a client whose request did not come in time."""


class Acceptor:
    """One thread, the listeners, and every connection without a complete request.

    Args:
        listeners: non-blocking listening sockets; closed by ``stop``.
        intake: the protocol.
        head_timeout: seconds for a whole request head, from the first moment.
        idle_timeout: seconds between two requests of one connection.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        intake: Intake,
        *,
        head_timeout: float,
        idle_timeout: float,
    ) -> None:
        self._listeners = list(listeners)
        self._ports = {listener: listener.getsockname()[1] for listener in listeners}
        self._intake = intake
        self._head_timeout = head_timeout
        self._idle_timeout = idle_timeout
        self._lock = threading.Lock()
        self._inbox: deque[Client] = deque()  # guarded by: _lock
        self._stopping = False  # guarded by: _lock
        self._closed = False  # guarded by: _lock
        self._number = itertools.count()
        self._deadlines: list[tuple[float, int, Client]] = []
        self._resume: float | None = None  # when to accept again
        self._warned = False
        self._selector = selectors.DefaultSelector()
        self._wakeup = Wakeup(self._selector)
        self._thread = threading.Thread(target=self._run, name="daebus-accept", daemon=True)

    @property
    def thread(self) -> threading.Thread:
        """The thread, for joining and for reports."""
        return self._thread

    def start(self) -> None:
        """Start accepting."""
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ, listener)
        self._thread.start()

    def park(self, client: Client) -> None:
        """Hold a connection until its next request.

        Threads:
            Any; the ownership of the socket passes to the acceptor.
        """
        self._give(client, lingers=False)

    def linger(self, client: Client) -> None:
        """Close a connection without destroying the answer that is on its way.

        A close with unread input would send a reset; so the write side is shut and the
        input drained, for two seconds and 1 MiB at most.

        Threads:
            Any; the ownership of the socket passes to the acceptor.
        """
        with contextlib.suppress(OSError):
            client.sock.shutdown(socket.SHUT_WR)
        self._give(client, lingers=True)

    def stop(self) -> None:
        """Close the listeners and every parked connection, and end the thread."""
        with self._lock:
            self._stopping = True
        self._wakeup.set()
        if not self._thread.is_alive():  # never started: nobody else cleans up
            self._close()

    def _give(self, client: Client, *, lingers: bool) -> None:
        with self._lock:
            if not self._closed:
                client.lingers = lingers
                client.sock.setblocking(False)
                self._inbox.append(client)
                self._wakeup.set()
                return
        client.sock.close()

    # --- the thread -------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                self._wakeup.clear()
                with self._lock:
                    if self._stopping:
                        return
                    inbox, self._inbox = self._inbox, deque()
                for client in inbox:
                    self._guarded(self._admit, client)
                for key, _ in self._selector.select(self._expire()):
                    if isinstance(key.data, Client):
                        self._guarded(self._read, key.data)
                    elif key.data is not None:
                        self._guarded(self._accept, key.data)
        finally:
            self._close()

    def _guarded(self, function: Callable[..., None], argument: object) -> None:
        try:
            function(argument)
        except Exception:
            logger.exception("the acceptor's %s failed", function)
            if isinstance(argument, Client):
                self._drop(argument)

    def _close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            inbox, self._inbox = self._inbox, deque()
        for client in inbox:
            client.sock.close()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, Client):
                key.data.sock.close()
        for listener in self._listeners:
            listener.close()
        self._wakeup.close()
        self._selector.close()

    def _accept(self, listener: socket.socket) -> None:
        port = self._ports[listener]
        for _ in range(_BURST):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in _OUT_OF_DESCRIPTORS:
                    self._pause(exc)
                    return
                continue  # this one went away before it was accepted
            self._warned = False
            client = Client(sock, address, port)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:  # gone already
                sock.close()
                continue
            self._guarded(self._admit, client)

    def _pause(self, exc: OSError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("cannot accept: %s; trying again every %s s", exc, _PAUSE)
        for listener in self._listeners:
            self._selector.unregister(listener)
        self._resume = time.monotonic() + _PAUSE

    def _admit(self, client: Client) -> None:
        """Start to wait for a client; often its request is there already."""
        now = time.monotonic()
        if client.lingers:
            client.deadline = now + _LINGER
        elif client.requests and not client.buffer:
            client.deadline = now + self._idle_timeout
        else:
            client.deadline = now + self._head_timeout
        if not client.lingers and client.buffer and self._intake.has_request(client.buffer):
            self._intake.dispatch(client)
            return
        if not self._receive(client):
            return
        self._selector.register(client.sock, selectors.EVENT_READ, client)
        self._remember(client)

    def _remember(self, client: Client) -> None:
        """Note the deadline; entries of clients served meanwhile are swept now and then."""
        heapq.heappush(self._deadlines, (client.deadline, next(self._number), client))
        if len(self._deadlines) > 2 * len(self._selector.get_map()) + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[0] == entry[2].deadline]
            heapq.heapify(self._deadlines)

    def _read(self, client: Client) -> None:
        first = not client.buffer
        if not self._receive(client, parked=True):
            return
        if first and client.requests and not client.lingers:
            # The next request has begun: from now on the deadline is that of its head.
            client.deadline = time.monotonic() + self._head_timeout
            self._remember(client)

    def _receive(self, client: Client, *, parked: bool = False) -> bool:
        """Read what is there; False if the client is not (or no longer) to be waited for."""
        try:
            data = client.sock.recv(RECV_SIZE)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            data = b""
        if client.lingers:
            client.discarded += len(data)
            if data and client.discarded < _LINGER_BYTES:
                return True
            data = b""
        if not data:
            if parked:
                self._selector.unregister(client.sock)
            client.deadline = 0.0
            client.sock.close()
            return False
        client.buffer += data
        if not self._intake.has_request(client.buffer):
            return True
        if parked:
            self._selector.unregister(client.sock)
        client.deadline = 0.0
        self._intake.dispatch(client)
        return False

    def _expire(self) -> float | None:
        """Act on deadlines that have passed; return how long the selector may wait."""
        now = time.monotonic()
        if self._resume is not None and self._resume <= now:
            self._resume = None
            for listener in self._listeners:
                self._selector.register(listener, selectors.EVENT_READ, listener)
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, _, client = heapq.heappop(self._deadlines)
            if client.deadline == deadline:  # else it was served or moved meanwhile
                self._guarded(self._time_out, client)
        with self._lock:
            if self._inbox or self._stopping:
                return 0.0
        moments = [moment for moment in (self._resume,) if moment is not None]
        if self._deadlines:
            moments.append(self._deadlines[0][0])
        return max(0.0, min(moments) - now) if moments else None

    def _time_out(self, client: Client) -> None:
        self._selector.unregister(client.sock)
        client.deadline = 0.0
        if client.lingers or (client.requests and not client.buffer):
            client.sock.close()
            return
        with contextlib.suppress(OSError):
            client.sock.send(self._intake.late(client))
        self.linger(client)

    def _drop(self, client: Client) -> None:
        client.deadline = 0.0
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.sock)
        client.sock.close()
