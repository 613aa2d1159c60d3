"""What crosses from the HTTP side to the WebSocket side.

Values, so that ``http/`` and ``websocket/`` need not know each other. The thread that
judges an upgrade is the one that runs the connection afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .sockets.transport import Stream

__all__ = ["OVERLOADED", "STOPPING", "Refusal", "Upgrade", "UpgradeHandler"]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A request to change a connection from HTTP to WebSocket.

    Attributes:
        sock: the connected socket; it belongs to HTTP until it is admitted.
        method: of the request.
        path: target without the query, percent-decoded.
        target: target as it was sent, query included.
        http_version: such as ``"1.1"``.
        headers: names in lower case, in order, duplicates kept.
        early: bytes that came behind the request head in the same read.
        remote_address: host of the peer, an empty string on a Unix socket; behind a
            trusted proxy, of the client.
        port: local port number, 0 on a Unix socket.
        request: makes the request as the user's code is to see it, when that is asked.
        secure: the client speaks TLS, as ``wss``: to us, or to a trusted proxy.
        forwarded_host: that a trusted proxy was asked for, in place of the ``Host`` header.
    """

    sock: Stream
    method: str
    path: str
    target: str
    http_version: str
    headers: tuple[tuple[str, str], ...]
    early: bytes
    remote_address: str
    port: int
    request: Callable[[], Any]
    secure: bool = False
    forwarded_host: str | None = None

    def header(self, name: str) -> str | None:
        """Return the first header of that (lower case) name, or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request or an upgrade is not taken: an ordinary HTTP answer.

    Attributes:
        status: HTTP status code.
        code: stable identifier for programs.
        text: for people.
        headers: to be added to the answer.
    """

    status: int
    code: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()


# By the next attempt a service that restarts is back, or another one has taken its place.
STOPPING = Refusal(503, "stopping", "the app is stopping", (("Retry-After", "5"),))
OVERLOADED = Refusal(503, "overloaded", "the server is overloaded", (("Retry-After", "1"),))


class UpgradeHandler(Protocol):
    """What the HTTP side asks of the one that takes upgraded connections."""

    def start(self, job: Callable[[], Callable[[], None] | None]) -> Refusal | None:
        """Run the job, which admits one upgrade, in a thread that may become its connection's.

        What the job returns, that of ``admit``, runs next, and nothing is kept of the job
        meanwhile. Never waits. Returns a refusal if there is no thread for it.
        """

    def admit(self, upgrade: Upgrade) -> Refusal | Callable[[], None]:
        """Take over a connection, or say why not.

        Returns:
            What the calling thread runs next, until the connection has ended: the socket
            is no longer the caller's. Or a refusal, and it still is.
        """
