"""The byte pipe of one connection.

Rules of this module:

1. One thread owns a transport, reads from it and closes it.
2. Any thread may ``try_send`` (under the lock that serialises the frames)
   and ``abort``; neither ever waits for the network.
3. A descriptor is closed once, by its owner, after all others have let go of it: a
   number that is reused too early would carry one client's data to another.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Protocol

from ...waits import monotonic, poll_timeout

__all__ = ["DONTWAIT", "NOSIGNAL", "RECV_SIZE", "SMALL_READ", "Stream", "Transport", "wait_for"]

# One read: large enough that bulk data costs few calls.
RECV_SIZE = 65536

# The same where little came the last time. Who waits for data holds the buffer meanwhile, and one
# of the size above begins a page that nothing else is in: 6 of 36 KiB of an idle connection.
IDLE_READ = 1000

# One read of what is looked at piece by piece in a thread that others wait for: more than
# most requests have, and in the smallest pieces a matter of a millisecond or two.
SMALL_READ = 16384

# Windows has no such flag; there the socket is made non-blocking instead.
# Nor may a send to a client that has left end a host that has SIGPIPE do so, which is its
# right: every send of ours says so.
NOSIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)
DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0) | NOSIGNAL


class Stream(Protocol):
    """The methods of a connected socket that daebus uses; ``TlsSocket`` has them too."""

    def fileno(self) -> int:
        """Like the method of a socket."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Like the method of a socket."""

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:
        """Like ``socket.send``; what is left over must be sent next."""

    def settimeout(self, seconds: float | None, /) -> None:
        """Like the method of a socket."""

    def setblocking(self, flag: bool, /) -> None:
        """Like the method of a socket."""

    def shutdown(self, how: int, /) -> None:
        """Like the method of a socket."""

    def close(self) -> None:
        """Like the method of a socket."""

    def detach(self) -> int:
        """Like the method of a socket."""


def wait_for(fd: int, timeout: float | None, *, write: bool = False) -> bool:
    """Wait until a socket can be read, or written, without blocking.

    ``select`` alone would fail on descriptors above 1,023, and Windows has no ``poll``.

    Args:
        fd: descriptor of the socket.
        timeout: seconds; None waits for ever.
        write: wait until it can be written.

    Returns:
        False if the time passed first.
    """
    while True:
        part = poll_timeout(timeout)
        if _wait_once(fd, part, write):
            return True
        if timeout is not None and part is not None:
            timeout -= part
            if not timeout > 0:
                return False


def _wait_once(fd: int, timeout: float | None, write: bool) -> bool:
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(fd, select.POLLOUT if write else select.POLLIN)
        return bool(poller.poll(None if timeout is None else timeout * 1000))
    to_read, to_write = ([], [fd]) if write else ([fd], [])
    return any(select.select(to_read, to_write, [], timeout))


class Transport:
    """A connected stream socket, read blocking and written without waiting.

    Args:
        sock: the socket; the transport becomes its owner.

    Attributes:
        send: ``send(data, DONTWAIT) -> int``, how much the kernel took at once; raises
            ``BlockingIOError`` for nothing. It is the socket's own method, because it is
            called once for every message.
    """

    __slots__ = ("_closed", "_least", "_recv", "_size", "_sock", "send")

    def __init__(self, sock: Stream) -> None:
        self._sock = sock
        self._closed = False
        # Of TLS a record is read, however many reads of the socket that takes.
        self._least = IDLE_READ if isinstance(sock, socket.socket) else RECV_SIZE
        self._size = self._least  # of the next ``read``
        self._recv: Callable[[int], bytes]
        self.send: Callable[[bytes | memoryview, int], int] = sock.send
        if DONTWAIT:
            sock.settimeout(None)
            self._recv = sock.recv
        else:
            sock.setblocking(False)
            self._recv = self._recv_when_readable

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._sock.fileno()

    def read(self) -> bytes:
        """Wait for data and return it; ``b""`` is the end of the stream."""
        data = self._recv(self._size)
        self._size = self._least if len(data) < self._least else RECV_SIZE
        return data

    def try_recv(self, size: int = RECV_SIZE) -> bytes | None:
        """Read what has arrived, without waiting.

        Returns:
            The bytes, ``b""`` at the end of the stream, None if there is nothing yet.

        Raises:
            OSError: the connection is broken.
        """
        try:
            return self._sock.recv(size, DONTWAIT)
        except BlockingIOError:
            return None

    def recv_until(self, deadline: float) -> bytes | None:
        """Wait for data until a moment of ``time.monotonic()``.

        Returns:
            As ``try_recv``; None if the time passed first.

        Raises:
            OSError: the connection is broken.
        """
        while self.wait_readable(deadline - monotonic()):
            data = self.try_recv()
            if data is not None:  # else a part of a TLS record
                return data
        return None

    def try_send(self, data: bytes | memoryview) -> int:
        """Hand over as many bytes as the kernel takes at once.

        Returns:
            How many bytes were taken; 0 if the buffer is full.

        Raises:
            OSError: the connection is broken.

        Threads:
            Any, one at a time. Never waits.
        """
        try:
            return self._sock.send(data, DONTWAIT)
        except BlockingIOError:
            return 0

    def wait_readable(self, timeout: float | None) -> bool:
        """Wait until a read would not block.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            False if the time passed first.
        """
        fd = self._sock.fileno()
        return fd < 0 or wait_for(fd, timeout)

    def shutdown_read(self) -> None:
        """Wake the owner out of ``recv`` as if the stream had ended; sending goes on."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more comes; what was sent still arrives."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Cut the connection now, both ways, and wake the owner.

        Threads:
            Any. Does not close the descriptor: only the owner does.
        """
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; only the owner calls this. A second call does nothing.

        It is shut down first: another process, forked meanwhile, may hold the socket too,
        and the client would not hear of the end before that one closes it.
        """
        if not self._closed:
            self._closed = True
            self.shutdown_write()
            self._sock.close()

    def abandon(self) -> None:
        """Close a forked child's copy of the descriptor; the connection goes on."""
        if not self._closed:
            self._closed = True
            fd = self._sock.detach()
            if fd >= 0:
                os.close(fd)

    def _recv_when_readable(self, size: int) -> bytes:
        while True:
            try:
                return self._sock.recv(size)
            except BlockingIOError:
                self.wait_readable(None)
