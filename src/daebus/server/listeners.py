"""The listening sockets, and what happens to clients when descriptors run out.

Out of descriptors, clients are refused one by one with a spare descriptor; without that
one the listeners rest for a moment. Neither ends the acceptor's loop, nor makes it spin.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from collections.abc import Callable, Iterable, Sequence

from ..interrupts.flag import Flag
from ..waits import monotonic
from .conn import Conn
from .sockets.listener import AF_UNIX, Listener
from .sockets.poller import Poller
from .threads.safelog import LogThrottle, get_logger

__all__ = ["Listeners"]

logger = get_logger("daebus.server")

# Seconds to rest when not even the spare descriptor is left; one is likely to be freed.
_PAUSE = 0.5
# Seconds between two looks whether those who came last have said what they want.
_LOOK = 0.02
# Connections taken in one go before others get their turn; each is read at once.
_BURST = 16

_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class _SpareDescriptor:
    """A descriptor kept back, and freed when the process has none left to accept with.

    Without it clients would wait in the kernel's queue and never get an answer.
    """

    def __init__(self) -> None:
        self._fd = -1
        self.regain()

    def lend(self) -> bool:
        """Free the descriptor; return False if it is in use already."""
        if self._fd < 0:
            return False
        self.close()
        return True

    def regain(self) -> None:
        """Open it again, if the process may."""
        if self._fd < 0:
            try:
                self._fd = os.open(os.devnull, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except OSError:
                self._fd = -1

    def close(self) -> None:
        """Close it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Listeners:
    """Accepts connections.

    Args:
        listeners: closed by ``close``.
        poller: reports them.
        admit: takes over a new connection.
        refuse: takes over one that cannot be served, and answers it with that text.
        close: closes a connection.

    Attributes:
        open_ones: listeners by descriptor; empty once closed.
        resume: moment of ``time.monotonic()`` at which to accept again; infinity while
            it accepts.
        leaving: those of somebody else are to be closed; set by any thread.
        settled: set once those of somebody else are closed, and nobody who came in by them
            is still about to say what it wants.

    Threads:
        All else belongs to the acceptor's; ``abandon`` to a forked child.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        poller: Poller,
        *,
        admit: Callable[[Conn], None],
        refuse: Callable[[Conn, str], None],
        close: Callable[[Conn], None],
    ) -> None:
        self.open_ones = {listener.fileno(): listener for listener in listeners}
        self.resume = math.inf
        self.leaving = False
        self.settled = Flag()
        self._poller = poller
        self._admit = admit
        self._refuse = refuse
        self._close = close
        self._warnings = LogThrottle()
        self._last_refused: Conn | None = None  # it holds the spare descriptor
        self._spare = _SpareDescriptor()

    def open(self) -> None:
        """Have the poller report the listeners."""
        for fd in self.open_ones:
            self._poller.listen(fd)

    def accept(self, listener: Listener) -> None:
        """Accept connections that wait at a listener, up to a limit."""
        for _ in range(_BURST):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in _OUT_OF_DESCRIPTORS:
                    self._accept_without_room(listener, exc)
                    return
                continue  # this one went away before it was accepted
            try:
                sock.setblocking(False)
                if sock.family != AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:  # gone already
                sock.close()
                continue
            self._admit(Conn(sock, address, listener))

    def _accept_without_room(self, listener: Listener, exc: OSError) -> None:
        """Refuse one client by means of the spare descriptor, or else rest."""
        if self._warnings.is_due():
            logger.warning("cannot accept: %s; clients are refused until it is over", exc)
        if self._last_refused is not None:
            self._close(self._last_refused)
        if self._spare.lend():
            try:
                sock, address = listener.accept()
                sock.setblocking(False)
            except (BlockingIOError, InterruptedError):
                self._spare.regain()
                return
            except OSError:
                self._spare.regain()
            else:
                self._last_refused = Conn(sock, address, listener)
                self._refuse(self._last_refused, "the server is out of descriptors")
                return
        for fd in self.open_ones:
            self._poller.forget(fd)
        self.resume = monotonic() + _PAUSE

    def left(self, client: Conn) -> None:
        """Note that a client is closed; its descriptor may have been the spare one."""
        if client is self._last_refused:
            self._last_refused = None
            self._spare.regain()

    def go_on(self) -> None:
        """Accept again after a rest."""
        self.resume = math.inf
        self._spare.regain()
        self.open()

    def leave(self, expected: Iterable[Conn], timeout: float | None) -> float | None:
        """Close those of somebody else, which the next process goes on with.

        Args:
            expected: clients that are waited for.
            timeout: seconds that the poller may wait.

        Returns:
            The same, or less to look again.
        """
        for fd, listener in list(self.open_ones.items()):
            if listener.foreign:
                del self.open_ones[fd]
                self._poller.forget(fd)
                listener.close()
        if any(client.listener.foreign for client in expected):
            return _LOOK if timeout is None else min(timeout, _LOOK)
        self.leaving = False
        self.settled.set()
        return timeout

    def close(self) -> None:
        """Close the listeners; once is enough."""
        listeners, self.open_ones = self.open_ones, {}
        for fd, listener in listeners.items():
            self._poller.forget(fd)
            listener.close()
        self.resume = math.inf
        self._last_refused = None  # whose close would take the spare descriptor again
        self._spare.close()

    def abandon(self) -> None:
        """Close a forked child's copies."""
        for listener in self.open_ones.values():
            listener.abandon()
        self._spare.close()
