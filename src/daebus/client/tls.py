"""TLS of a client, for one thread that reads and others that send.

CPython does not let two threads use one ``SSLSocket`` at once before 3.13.1: records are torn, and
answers lost. So each use of the TLS engine is under a lock, which nobody holds while waiting.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ..interrupts.stack import held
from ..waits import monotonic, until

__all__ = ["SharedTls"]

T = TypeVar("T")


class SharedTls:
    """A socket with TLS, with those methods of a socket that clients use.

    Args:
        sock: has made its handshake.

    Threads:
        One at a time reads, any send.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._timeout = sock.gettimeout()
        sock.settimeout(0)
        self._sock = sock
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        """Leave what neither reads nor writes to the socket, such as ``getpeername``."""
        return getattr(self._sock, name)

    def settimeout(self, seconds: float | None) -> None:
        """Set how long to wait at most; None for ever."""
        self._timeout = seconds

    def recv(self, size: int) -> bytes:
        """Return what there is, at least one byte; ``b""`` at the end."""
        return self._use(partial(self._sock.recv, size))

    def send(self, data: bytes) -> int:
        """Send all of it."""
        view = memoryview(data)
        while view:
            view = view[self._use(partial(self._sock.send, view)) :]
        return len(data)

    sendall = send

    def shutdown(self, how: int) -> None:
        """Shut the connection down; who waits in another thread sees it."""
        socket.socket.shutdown(self._sock, how)

    def _use(self, step: Callable[[], T]) -> T:
        deadline = None if self._timeout is None else monotonic() + self._timeout
        while True:
            with held, self._lock:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    event = selectors.EVENT_READ
                except ssl.SSLWantWriteError:
                    event = selectors.EVENT_WRITE
            self._wait(event, deadline)

    def _wait(self, event: int, deadline: float | None) -> None:
        with selectors.DefaultSelector() as selector:
            try:
                selector.register(self._sock, event)
            except ValueError:
                raise OSError("the socket is closed") from None
            if not selector.select(None if deadline is None else until(deadline)):
                raise TimeoutError("timed out")
