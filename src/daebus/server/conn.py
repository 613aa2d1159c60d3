"""A connection before it speaks WebSocket, and what the acceptor asks of its protocol."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterable
from typing import Any, Protocol

from .sockets.listener import Listener
from .sockets.transport import SMALL_READ, Stream

__all__ = [
    "FLUSHING",
    "HANDSHAKING",
    "LINGERING",
    "READING",
    "WORKING",
    "Conn",
    "Flush",
    "Intake",
]

# What a connection is doing: only the first is with a worker, the others are parked.
WORKING, HANDSHAKING, READING = "working", "handshaking", "reading"
FLUSHING, LINGERING = "flushing", "lingering"


class Flush(Protocol):
    """The rest of an answer, written as its client takes it."""

    deadline: float

    def proceed(self) -> bool:
        """Write what can be written without waiting; return True when nothing is left.

        Raises:
            OSError: the client left.
        """

    def close(self) -> None:
        """Release what the rest consists of, such as a file."""


class Conn:
    """A connection before its upgrade to WebSocket, or one that is never upgraded.

    Attributes:
        raw: the socket, non-blocking.
        sock: what is read and written: the same, or TLS around it.
        fd: its descriptor.
        address: of the peer, as ``accept`` gave it.
        listener: where it came in.
        appetite: most bytes that the acceptor reads before others get their turn.
        state: what the protocol keeps about the connection; closed with it.
        doing: one of the constants above.
        deadline: moment until which the acceptor waits for it; infinity while it does not.
        alarm: moment at which the acceptor checks the deadline next.
        known: the poller knows the descriptor.
        flush: what is left to write while it is FLUSHING.
        discarded: bytes drained while it is LINGERING.
    """

    __slots__ = (
        "address",
        "alarm",
        "appetite",
        "deadline",
        "discarded",
        "doing",
        "fd",
        "flush",
        "known",
        "listener",
        "raw",
        "sock",
        "state",
    )

    def __init__(self, sock: socket.socket, address: Any, listener: Listener) -> None:
        self.raw = sock
        self.sock: Stream = sock
        self.fd = sock.fileno()
        self.address = address
        self.listener = listener
        self.appetite = SMALL_READ
        self.state: Any = None
        self.doing = WORKING
        self.deadline = math.inf
        self.alarm = math.inf
        self.known = False
        self.flush: Flush | None = None
        self.discarded = 0

    @property
    def secure(self) -> bool:
        """True if the connection uses TLS."""
        return self.sock is not self.raw

    @property
    def host(self) -> str:
        """Host of the peer, an empty string on a Unix socket."""
        if not isinstance(self.address, tuple):
            return ""
        host = str(self.address[0])
        # An IPv4 peer of a socket that takes IPv6 as well, as systemd opens them.
        return host[7:] if host.startswith("::ffff:") and "." in host else host


class Intake(Protocol):
    """What the acceptor asks of the protocol spoken on its connections.

    All are called on the acceptor's thread and must not wait.
    """

    def opened(self, client: Conn) -> bool:
        """Note a new connection.

        Returns:
            True to have it read; False if it was taken over, for a TLS handshake.
        """

    def handshake(self, client: Conn, deadline: float) -> None:
        """Take over a client whose TLS handshake can go on; ``deadline`` is for all of it."""

    def received(self, client: Conn, data: bytes) -> None:
        """Take over the client with what it sent; park it again if that is not enough."""

    def flushed(self, client: Conn) -> None:
        """Take over a client that has taken its whole answer."""

    def late(self, client: Conn) -> None:
        """Take over a client whose request did not come in time."""

    def refused(self, text: str) -> bytes:
        """Return the answer to a client that cannot be served for that reason."""

    def expected(self, clients: Iterable[Conn]) -> Iterable[Conn]:
        """Return who has just come: to send a first request soon, or with an upgrade under way."""
