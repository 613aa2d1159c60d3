"""Clients that read slowly or not at all, and what tests need to know of their servers."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from daebus import Daebus
from daebus.websocket.api.context import context_of
from daebus.websocket.connection.link import Link
from daebus.websocket.hub import Hub
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


def hub_of(app: Daebus) -> Hub:
    """Return the running side of the WebSockets of an app."""
    hub = context_of(app.websocket).hub
    assert hub is not None
    return hub


def connections(app: Daebus) -> tuple[Link, ...]:
    """Return the server's side of the open connections, in order of arrival."""
    hub = context_of(app.websocket).hub
    return () if hub is None else hub.registry.snapshot()


def stuff(app: Daebus, send: Callable[[], object] | None = None) -> Link:
    """Send until something waits in the outbox of the app's first client; return that."""
    (connection, *_) = connections(app)
    for _ in range(2000):
        if connection.writer.queued()[1]:
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


def waiting_handler(app: Daebus) -> tuple[threading.Event, threading.Event]:
    """Register ``wait``; return the events that it has begun, and that lets it go."""
    begun, release = threading.Event(), threading.Event()

    @app.socket("wait")
    def wait(req: Any) -> str:
        begun.set()
        assert release.wait(20)
        return "waited"

    return begun, release


class Records(logging.Handler):
    """Collects log records; ``wait_for`` waits for one that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def wait_for(self, part: str, timeout: float = 5.0) -> str:
        found = eventually(lambda: [text for text in self.texts if part in text], timeout)
        assert found, f"nothing was logged with {part!r}: {self.texts}"
        return str(found[0])


@contextmanager
def records(level: int = logging.WARNING) -> Iterator[Records]:
    """Collect what daebus logs."""
    logger, handler = logging.getLogger("daebus"), Records()
    handler.setLevel(level)
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
