"""A stand-in for the service manager: a datagram socket that gets notices."""

from __future__ import annotations

import select
import socket


class Manager:
    """Receives what services say.

    Args:
        name: of the socket, as in ``NOTIFY_SOCKET``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind("\0" + name[1:] if name.startswith("@") else name)
        self._sock.settimeout(5)

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def next(self) -> dict[str, str]:
        """Wait for the next notice; return its fields."""
        lines = self._sock.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def empty(self) -> bool:
        """Tell whether no notice waits."""
        return not select.select([self._sock], [], [], 0)[0]
