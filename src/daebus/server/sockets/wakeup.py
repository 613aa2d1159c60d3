"""Wake a thread that waits in a selector."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

__all__ = ["Wakeup"]


class Wakeup:
    """A pair of sockets whose ``set()``, from any thread, makes a selector return.

    Args:
        selector: it watches the receiving end, with None as data.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._lock = threading.Lock()
        self._pending = False  # guarded by: _lock
        self._closed = False  # guarded by: _lock
        selector.register(self._receiver, selectors.EVENT_READ, None)

    def set(self) -> None:
        """Wake the selector; cheap if it was woken already.

        Threads:
            Any; never waits. After ``close`` it does nothing.
        """
        # Whoever holds the lock is about to send, or to look at the inbox, where the
        # caller's entry is already; perhaps it is this very thread, interrupted.
        if self._lock.locked():
            return
        with self._lock:
            if self._pending or self._closed:
                return
            self._pending = True
            with contextlib.suppress(BlockingIOError):
                self._sender.send(b"\0")

    def clear(self) -> None:
        """Prepare for the next ``set``.

        The selector's thread calls this before it looks at its inbox, so that nothing
        put there later is missed.
        """
        # In one go: a byte sent in between would be read here, and every later ``set``
        # would rely on it.
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                self._receiver.recv(64)
            self._pending = False

    def abandon(self) -> None:
        """Close a forked child's copies."""
        self._lock = threading.Lock()  # the thread that held it does not exist in the child
        self.close()

    def close(self) -> None:
        """Close both ends; the selector's owner calls this after its loop."""
        with self._lock:
            self._closed = True
        self._receiver.close()
        self._sender.close()
