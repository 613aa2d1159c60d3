"""Clients that read slowly or not at all."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from daebus import Daebus
from daebus.websocket.connection.link import Link
from tests.support.inside import connections
from tests.support.peer import Peer
from tests.support.waiting import eventually

# Small, or the kernel would hold megabytes for a client that does not read.
RECEIVE_BUFFER = 4096
KILOBYTES_16 = "x" * 16384


@contextmanager
def narrow(app: Daebus, path: str = "/", behind: bytes = b"") -> Iterator[Peer]:
    """Connect a client for which the kernel buffers little; it reads when it is told to."""
    sock = socket.socket()
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.settimeout(10)
        before = len(connections(app))
        sock.connect(("127.0.0.1", app.http.port))
        peer = Peer.joined(sock, path, behind)
        # The 101 comes before the connection is registered.
        assert eventually(lambda: len(connections(app)) > before)
        yield peer


def stuff(app: Daebus, send: Callable[[], object] | None = None) -> Link:
    """Send until something waits in the outbox of the app's first client; return that."""
    (connection, *_) = connections(app)
    for _ in range(2000):
        if connection.writer.outlet.queued()[1]:
            return connection
        if send is None:
            app.websocket.broadcast_to_all(KILOBYTES_16, "stuffing")
        else:
            send()
    raise AssertionError("the kernel takes everything")


def reset(peer: Peer) -> None:
    """Vanish with a TCP reset."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.sock.close()
