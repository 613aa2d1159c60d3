"""Turn a request into the value that is handed to the WebSocket side."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from ...server.conn import Conn
from ...server.handoff import Upgrade
from ..protocol.forwarded import Seen
from ..protocol.parser import Request as RawRequest
from ..site.request import Request
from .environ import add_forwarded, add_request, split_target

__all__ = ["UpgradeRequest", "note_upgrade"]


class UpgradeRequest(Request):
    """The request with which a WebSocket begins: Werkzeug's, without a body."""

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, in its order.

        A page can send a token here, and nowhere else: ``new WebSocket(url, ["mine",
        "token.abc"])``. Only one that ``subprotocols=`` lists is selected in the answer.
        """
        offered = self.headers.get("Sec-WebSocket-Protocol", "").split(",")
        return [name for name in map(str.strip, offered) if name]


def note_upgrade(
    client: Conn,
    request: RawRequest,
    environ_of: Callable[[Conn], dict[str, Any]],
) -> Upgrade:
    """Describe what the client asks for, and take the bytes that came after its request.

    Args:
        client: owned by the caller.
        request: its body is closed.
        environ_of: makes the WSGI environment of a client, without a request.
    """
    head, said = request.head, request.seen
    seen = said or Seen(client.host)
    request.body.close()

    def make() -> UpgradeRequest:
        environ = environ_of(client)
        add_request(environ, head, io.BytesIO(), 0)
        if said is not None:
            add_forwarded(environ, said)
        return UpgradeRequest(environ)

    return Upgrade(
        sock=client.sock,
        method=head.method,
        path=unquote(split_target(head)[0]),
        target=head.target,
        http_version=head.version,
        headers=tuple(head.headers),
        early=client.state.parser.take_rest(),
        remote_address=seen.remote_address,
        port=client.listener.port,
        request=make,
        secure=client.secure if seen.scheme is None else seen.scheme == "https",
        asked_host=seen.host or head.authority,
    )
