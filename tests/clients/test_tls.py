"""TLS of a client, which one thread reads and others write."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest

from daebus import Client, Daebus, DaebusHttp, DaebusWebSocket
from daebus.client.tls import SharedTls
from tests.support.inside import connections
from tests.support.tls import client_context, server_context
from tests.support.waiting import eventually

MESSAGES = 100


class Watched:
    """A socket that notes when a thread uses it while another one does."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._free = threading.Lock()
        self.overlaps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, size: int) -> Any:
        return self._alone(self._sock.recv, size)

    def send(self, data: bytes) -> Any:
        return self._alone(self._sock.send, data)

    def _alone(self, step: Callable[..., Any], argument: object) -> Any:
        if not self._free.acquire(blocking=False):
            self.overlaps += 1
            return step(argument)
        try:
            threading.Event().wait(0.0005)  # so that the other one would come in between
            return step(argument)
        finally:
            self._free.release()


def test_no_two_threads_use_the_engine_at_once() -> None:
    ours, theirs = socket.socketpair()
    context = server_context()

    def echo() -> None:
        with context.wrap_socket(theirs, server_side=True) as sock:
            while data := sock.recv(4096):
                sock.sendall(data)

    server = threading.Thread(target=echo)
    server.start()
    inner = client_context().wrap_socket(ours, server_hostname="127.0.0.1")
    sock = SharedTls(inner)
    watched: Any = Watched(inner)
    sock._sock = watched
    sender = threading.Thread(target=lambda: [sock.sendall(b"x" * 1000) for _ in range(MESSAGES)])
    sender.start()
    left = 1000 * MESSAGES
    while left:
        left -= len(sock.recv(65536))
    sender.join()
    sock._sock = inner
    sock.settimeout(0.01)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.shutdown(socket.SHUT_WR)
    server.join()
    sock.close()
    assert watched.overlaps == 0
    with pytest.raises(OSError):  # noqa: PT011  # whatever the system says of it
        sock.recv(1)


def test_the_client_takes_it() -> None:
    app = Daebus("secure")
    app.attach(DaebusHttp(port=0, ssl_context=server_context()))
    app.attach(DaebusWebSocket())
    with (
        app,
        Client(f"https://127.0.0.1:{app.http.port}/", ssl_context=client_context()) as client,
        app.test_client() as other,
    ):
        assert eventually(lambda: len(connections(app)) == 2)
        wire: Any = client._session._open
        test_socket: Any = other._socket
        assert isinstance(wire._socket, SharedTls)
        assert isinstance(test_socket.sock, SharedTls)
