"""From a request to the value that crosses to the WebSocket side."""

from __future__ import annotations

from urllib.parse import unquote

from ..server.client import Client
from ..server.handoff import Upgrade
from .environ import split_target
from .forwarded import Seen
from .reader import Request

__all__ = ["note_upgrade"]


def note_upgrade(client: Client, request: Request, seen: Seen | None) -> Upgrade:
    """Note what the client asks for, and take the bytes that came behind its request.

    Args:
        client: owned by the caller.
        request: its body is closed.
        seen: what a trusted proxy says.
    """
    head = request.head
    seen = seen or Seen(client.host)
    request.body.close()
    return Upgrade(
        sock=client.sock,
        method=head.method,
        path=unquote(split_target(head)[0]),
        target=head.target,
        http_version=head.version,
        headers=tuple(head.headers),
        early=client.state.reader.take_rest(),
        remote_address=seen.remote_address,
        port=client.listener.port,
        secure=client.secure if seen.scheme is None else seen.scheme == "https",
        forwarded_host=seen.host,
    )
