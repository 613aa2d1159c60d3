"""The addresses to listen on: their arguments checked, and all of them opened or none."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ...errors import AddressInUseError
from .listener import AF_UNIX, Listener, adopt, listen, listen_unix
from .systemd import passed_descriptors

__all__ = ["DEFAULT_PORT", "Addresses"]

DEFAULT_PORT = 8080

# With port=0 the port that the system gives one host may be taken on the next one.
_ATTEMPTS = 8


class Addresses:
    """Every address to listen on.

    Args:
        hosts: names or addresses, one at least; all with the same port.
        port: None for the default, or for none if another place is given.
        unix: path of a socket file.
        unix_mode: its permissions.
        socks: sockets that belong to the caller.
        fd: a descriptor that belongs to the caller, or ``"systemd"`` for those it passed.
        reuse_port: share the port with other processes that say so.

    Attributes:
        hosts: as a tuple.
        port: the one that is asked for; None for none.
        is_shared: other processes may listen on the port as well.

    Raises:
        ValueError, TypeError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        hosts: str | Sequence[str],
        port: int | None,
        *,
        unix: str | Path | None,
        unix_mode: int,
        socks: socket.socket | Sequence[socket.socket],
        fd: int | Literal["systemd"] | None,
        reuse_port: bool,
    ) -> None:
        self.hosts = (hosts,) if isinstance(hosts, str) else tuple(hosts)
        # What is neither a socket nor several of them is refused below, by name.
        self._socks = tuple(socks) if isinstance(socks, Iterable) else (socks,)
        self._unix = None if unix is None else os.fspath(unix)
        self._unix_mode = unix_mode
        self._fd = fd
        self.is_shared = reuse_port
        if port is None and unix is None and fd is None and not self._socks:
            port = DEFAULT_PORT
        self.port = port
        self._check()

    def _check(self) -> None:
        if not self.hosts or not all(isinstance(host, str) and host for host in self.hosts):
            raise ValueError(
                f"host must be an address or a list of them, not {self.hosts!r}; write "
                f"host='0.0.0.0' for all of IPv4"
            )
        for host in self.hosts:
            try:
                host.encode("idna")  # as every look-up does
            except UnicodeError as exc:
                raise ValueError(
                    f"host must be a name or an address, not {host!r}: {exc}"
                ) from None
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ValueError(f"port must be between 0 and 65535, not {self.port!r}")
        if self._unix is not None and (not self._unix or AF_UNIX is None):
            raise ValueError(
                f"unix must be a path, on a system with Unix sockets, not {self._unix!r}"
            )
        if not 0 <= self._unix_mode <= 0o777:
            raise ValueError(
                f"unix_mode must be between 0 and 0o777, not {self._unix_mode:#o}; write it in "
                f"octal: 0o660"
            )
        for sock in self._socks:
            if not isinstance(sock, socket.socket):
                raise TypeError(f"sock must be a socket or a list of them, not {sock!r}")
        fd: Any = self._fd
        if not (fd is None or fd == "systemd" or (isinstance(fd, int) and 0 <= fd < 1 << 31)):
            raise ValueError(f"fd must be the number of a socket or 'systemd', not {fd!r}")
        if self.is_shared and not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("this system cannot share a port; leave reuse_port out")

    def open(self) -> list[Listener]:
        """Listen on all of them.

        Raises:
            OSError: one cannot be opened; none is open then.
        """
        listeners: list[Listener] = []
        with contextlib.ExitStack() as on_error:
            for listener in self._each():
                on_error.callback(listener.close)
                listeners.append(listener)
            on_error.pop_all()
        return listeners

    def _each(self) -> Iterator[Listener]:
        if self.port is not None:
            yield from self.open_port(self.port)
        if self._unix is not None:
            yield listen_unix(self._unix, self._unix_mode)
        for sock in self._socks:
            yield adopt(_duplicate(sock, "sock"), "sock")
        if self._fd is not None:
            fds = passed_descriptors() if self._fd == "systemd" else [self._fd]
            for fd in fds:
                yield adopt(_duplicate(fd, f"fd {fd}"), f"fd {fd}")

    def open_port(self, port: int) -> list[Listener]:
        """Listen on a port of every host, the same one if the system chooses.

        Raises:
            OSError: one cannot be opened; none is open then.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._open_port(port)
            except AddressInUseError:
                if port or len(self.hosts) == 1 or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _open_port(self, port: int) -> list[Listener]:
        listeners: list[Listener] = []
        with contextlib.ExitStack() as on_error:
            for host in self.hosts:
                listeners.append(listen(host, port, reuse_port=self.is_shared))
                on_error.callback(listeners[-1].close)
                port = listeners[0].port
            on_error.pop_all()
        return listeners


def _duplicate(given: socket.socket | int, name: str) -> socket.socket:
    """Return a duplicate; the caller keeps and closes the original."""
    try:
        if isinstance(given, socket.socket):
            return given.dup()
        copy = os.dup(given)
        try:
            return socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            raise
    except OSError as exc:
        raise OSError(
            exc.errno or errno.EBADF, f"{name} is not an open socket: {exc.strerror}"
        ) from None
