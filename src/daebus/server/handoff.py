"""What crosses from the HTTP side to the WebSocket side.

A value, so that ``http/`` and ``websocket/`` need not know each other: the HTTP
handler notes the upgrade and finishes, and only then the socket changes hands.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

__all__ = ["Refusal", "Upgrade"]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A request to change a connection from HTTP to WebSocket.

    Attributes:
        sock: the connected socket; it belongs to the worker until it is admitted.
        method: of the request.
        path: target without the query, percent-decoded.
        target: target as it was sent, query included.
        http_version: such as ``"1.1"``.
        headers: names in lower case, in order, duplicates kept.
        early: bytes that came behind the request head in the same read.
        remote_address: host of the peer.
        port: local port number; tells apart several listeners of one app.
    """

    sock: socket.socket
    method: str
    path: str
    target: str
    http_version: str
    headers: tuple[tuple[str, str], ...]
    early: bytes
    remote_address: str
    port: int

    def header(self, name: str) -> str | None:
        """Return the first header of that (lower case) name, or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an upgrade is not taken: an ordinary HTTP answer.

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
