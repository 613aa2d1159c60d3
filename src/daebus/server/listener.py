"""Opening a listening socket."""

from __future__ import annotations

import errno
import os
import socket

from ..errors import AddressInUseError

__all__ = ["BACKLOG", "listen"]

# The kernel caps it at net.core.somaxconn; a burst of browsers after a restart
# must not see refused connections.
BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen.

    Args:
        host: name or address; an IPv6 address is recognised by its colon.
        port: 0 lets the system choose.

    Returns:
        A non-blocking listening socket.

    Raises:
        AddressInUseError: the port is taken.
        OSError: the address cannot be bound for another reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows the option lets two programs share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise AddressInUseError(
                errno.EADDRINUSE,
                f"port {port} on {host} is in use; stop the other program or choose another "
                f"port (port=0 takes a free one)",
            ) from None
        raise
    return sock
