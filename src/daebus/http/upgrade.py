"""From a request to the value that crosses to the WebSocket side."""

from __future__ import annotations

from urllib.parse import unquote

from ..server.client import Client
from ..server.handoff import Upgrade
from .environ import split_target
from .reader import Request

__all__ = ["note_upgrade"]


def note_upgrade(client: Client, request: Request) -> Upgrade:
    """Note what the client asks for, and take the bytes that came behind its request."""
    head = request.head
    request.body.close()
    return Upgrade(
        sock=client.sock,
        method=head.method,
        path=unquote(split_target(head)[0]),
        target=head.target,
        http_version=head.version,
        headers=tuple(head.headers),
        early=client.state.reader.take_rest(),
        remote_address=client.host,
        port=client.listener.port,
        secure=client.secure,
    )
