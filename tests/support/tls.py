"""Certificates for the tests, and TLS clients that take every byte into their own hands."""

from __future__ import annotations

import functools
import socket
import ssl
from typing import TYPE_CHECKING, Any

from daebus import Daebus
from tests.support.raw import server_of

if TYPE_CHECKING:
    from trustme import CA as CA  # exported
else:
    try:
        from trustme import CA
    except ModuleNotFoundError:  # by way of cryptography it has no wheels for some builds
        from tests.support.certificates import CA

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@functools.cache
def authority() -> CA:
    """The one that everybody in the tests trusts."""
    return CA()


@functools.cache
def server_context() -> ssl.SSLContext:
    """A context for 127.0.0.1 and localhost, as a user would make it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


def client_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A context that trusts the authority; of one version, if that is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks, and trusts nobody else
    authority().configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def dial(
    port: int, context: ssl.SSLContext | None = None, *, receive_buffer: int | None = None
) -> ssl.SSLSocket:
    """Connect to 127.0.0.1 and shake hands; every wait takes at most 10 s."""
    sock = socket.socket()
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", port))
        return (context or client_context()).wrap_socket(
            sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False
        )
    except BaseException:
        sock.close()
        raise


def narrow(app: Daebus) -> None:
    """Have the kernel buffer little for clients that come from now on."""
    server = server_of(app)
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)


class Sealer:
    """A client whose records go onto the wire when and how the test says.

    Args:
        sock: a connected raw socket; blocking, with a timeout.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.engine = (context or client_context()).wrap_bio(
            self._incoming, self._outgoing, server_hostname="127.0.0.1"
        )

    def hello(self) -> bytes:
        """Begin the handshake: return the first flight."""
        try:
            self.engine.do_handshake()
        except ssl.SSLWantReadError:
            return self._outgoing.read()
        raise AssertionError("a handshake without the server")

    def shake(self) -> bytes:
        """Shake hands up to the last flight, which is returned and not sent."""
        flight = self.hello()
        while True:
            self.sock.sendall(flight)
            try:
                self._more()
                self.engine.do_handshake()
            except ssl.SSLWantReadError:
                flight = self._outgoing.read()
            else:
                return self._outgoing.read()

    def join(self) -> Sealer:
        """Shake hands to the end."""
        self.sock.sendall(self.shake())
        return self

    def seal(self, data: bytes) -> bytes:
        """Return the record of the data."""
        self.engine.write(data)
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """Return the record of close_notify."""
        try:
            self.engine.unwrap()
        except ssl.SSLError:
            pass
        return self._outgoing.read()

    def read(self, size: int = 65536) -> bytes:
        """Wait for plaintext; empty for the server's close_notify."""
        while True:
            try:
                return self.engine.read(size)
            except ssl.SSLWantReadError:
                self._more()
            except ssl.SSLZeroReturnError:
                return b""

    # As a socket, for ``Peer`` and ``Raw``.
    def sendall(self, data: bytes) -> None:
        self.sock.sendall(self.seal(data))

    def recv(self, size: int) -> bytes:
        return self.read(size)

    def close(self) -> None:
        self.sock.close()

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the server has closed the connection without close_notify")
        self._incoming.write(data)


def secure(**options: Any) -> dict[str, Any]:
    """Arguments for ``DaebusHttp``: TLS, and what else is given."""
    return {"ssl_context": server_context(), **options}
