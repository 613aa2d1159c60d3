"""The values that the HTTP side and the WebSocket side hand each other.

They are here so that ``http/`` and ``websocket/`` need not know each other. The thread
that admits an upgrade is the one that runs the connection afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .sockets.transport import Stream

__all__ = [
    "DRAINING",
    "OVERLOADED",
    "STOPPING",
    "TOKEN_SUBPROTOCOL",
    "Checked",
    "Handshake",
    "Refusal",
    "Upgrade",
    "UpgradeHandler",
]

# A page's token comes behind this among the subprotocols that it offers, in Base64 for URLs.
TOKEN_SUBPROTOCOL = "daebus.token."


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client says that wants a WebSocket, or asks whether it could have one.

    Attributes:
        method: of the request.
        path: target without the query, percent-decoded.
        target: target as it was sent, query included.
        http_version: such as ``"1.1"``.
        headers: names in lower case, in order, duplicates kept.
        remote_address: host of the peer, an empty string on a Unix socket; behind a
            trusted proxy, of the client.
        port: local port number, 0 on a Unix socket.
        request: makes the request that the user's code sees, when it is needed.
        secure: the client speaks TLS (``wss``), to us or to a trusted proxy.
        asked_host: what counts in place of the ``Host`` header: a trusted proxy's word, or an
            absolute target's.
    """

    method: str
    path: str
    target: str
    http_version: str
    headers: tuple[tuple[str, str], ...]
    remote_address: str
    port: int
    request: Callable[[], Any]
    secure: bool = False
    asked_host: str | None = None

    def header(self, name: str) -> str | None:
        """Return the first header of that (lower case) name, or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def host(self) -> str | None:
        """The host that the client asked for, perhaps with a port, as far as it is known."""
        return self.asked_host or self.header("host")

    def upgrade(self, sock: Stream, early: bytes) -> Upgrade:
        """Return the request to change the connection that it came on."""
        return Upgrade(
            self.method,
            self.path,
            self.target,
            self.http_version,
            self.headers,
            self.remote_address,
            self.port,
            self.request,
            self.secure,
            self.asked_host,
            sock=sock,
            early=early,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade(Handshake):
    """A request to change a connection from HTTP to WebSocket.

    Attributes:
        sock: the connected socket; it belongs to HTTP until it is admitted.
        early: bytes that came behind the request head in the same read.
    """

    sock: Stream
    early: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request or an upgrade is refused, as an HTTP answer.

    Attributes:
        status: HTTP status code.
        code: stable identifier for programs.
        text: for people.
        headers: to be added to the answer.
        traceback: of what was raised, if the client may see it.
    """

    status: int
    code: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What an upgrade would have been answered.

    Attributes:
        refusal: None if it would have been admitted.
        headers: to be added to the answer, either way.
    """

    refusal: Refusal | None
    headers: tuple[tuple[str, str], ...] = ()


# By the next attempt a service that restarts is back, or another one has taken its place.
STOPPING = Refusal(503, "stopping", "the app is stopping", (("Retry-After", "5"),))
DRAINING = Refusal(503, "draining", "the app is about to stop", (("Retry-After", "5"),))
OVERLOADED = Refusal(503, "overloaded", "the server is overloaded", (("Retry-After", "1"),))


class UpgradeHandler(Protocol):
    """What the HTTP side asks of the side that takes upgraded connections."""

    def start(self, job: Callable[[], Callable[[], None] | None]) -> Refusal | None:
        """Run a job that admits or checks one upgrade, in a thread that may run its connection.

        The job returns what ``admit`` returned, and the thread runs that next, without
        keeping a reference to the job. Never waits.

        Returns:
            A refusal if there is no thread for the job.
        """

    def descriptors(self) -> int:
        """Return how many sockets it has, those that it is about to admit included."""

    def admit(self, upgrade: Upgrade) -> Refusal | Callable[[], None]:
        """Take over a connection, or refuse it.

        Returns:
            What the calling thread runs next, until the connection has ended; the caller
            no longer owns the socket. Or a refusal, and the caller still owns it.
        """

    def check(self, handshake: Handshake) -> Checked:
        """Judge a handshake as ``admit`` does, and open nothing; waits for user code.

        One whose method is OPTIONS is only asked whether pages of its origin may ask so.
        """
