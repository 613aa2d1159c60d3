"""Turn a request into the value that is handed to the WebSocket side."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote

from ...server.conn import Conn
from ...server.handoff import TOKEN_SUBPROTOCOL, Handshake, Refusal, Upgrade
from ..protocol.forwarded import Seen
from ..protocol.heads import Head
from ..protocol.parser import Request as RawRequest
from ..protocol.paths import fault_in_path
from ..site.request import Request
from .environ import add_forwarded, add_request, split_target

__all__ = [
    "BAD_TARGET",
    "UpgradeRequest",
    "checked_target",
    "is_preflight",
    "note_check",
    "note_upgrade",
    "note_visit",
]

_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*")

_PREFLIGHT = "access-control-request-method"

BAD_TARGET = Refusal(
    400, "bad_request", "path= must be a path, perhaps with a query, as a WebSocket would be asked"
)


class UpgradeRequest(Request):
    """The request with which a WebSocket begins: Werkzeug's, without a body."""

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, in its order.

        Only one that ``subprotocols=`` lists, or ``daebus``, is selected in the answer.
        """
        offered = self.headers.get("Sec-WebSocket-Protocol", "").split(",")
        return [name for name in map(str.strip, offered) if name]

    @property
    def token(self) -> str | None:
        """The token with which the client proves who it is; None if it sends none.

        Programs send ``Authorization: Bearer TOKEN``. A page can choose no header but the
        subprotocols, so there it is ``daebus.token.`` and the token in Base64 for URLs:
        ``new WebSocket(url, ["daebus", "daebus.token.YWJj"])``, as ``client.js`` does. It may be
        any text, and is neither selected in the answer nor logged.
        """
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and value.strip():
            return value.strip()
        for name in self.subprotocols:
            if name.startswith(TOKEN_SUBPROTOCOL):
                return _decode_token(name.removeprefix(TOKEN_SUBPROTOCOL))
        return None


def _decode_token(encoded: str) -> str | None:
    """Return a token that came as a subprotocol, None if it is not one."""
    padding = "=" * (-len(encoded) % 4)
    try:
        raw = base64.b64decode(encoded + padding, altchars="-_", validate=True)
        return raw.decode() or None
    except ValueError:  # not Base64, or not UTF-8
        return None


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
    request.body.close()
    handshake = _note(client, request.head, request.seen, environ_of)
    return handshake.upgrade(client.sock, client.state.parser.take_rest())


def note_check(
    client: Conn,
    request: RawRequest,
    environ_of: Callable[[Conn], dict[str, Any]],
) -> Handshake | Refusal:
    """Describe the upgrade that a client asks about; its connection stays what it is."""
    head = request.head
    target = checked_target(split_target(head)[1])
    if target is None:
        return BAD_TARGET
    if head.authority is not None:
        target = f"http://{head.authority}{target}"
    method = "OPTIONS" if is_preflight(head) else "GET"
    return _note(client, replace(head, method=method, target=target), request.seen, environ_of)


def is_preflight(head: Head) -> bool:
    """Tell whether a browser asks for a page of another site if it may ask with a token."""
    return head.method == "OPTIONS" and head.first(_PREFLIGHT) is not None


def note_visit(
    client: Conn,
    request: RawRequest,
    environ_of: Callable[[Conn], dict[str, Any]],
) -> Handshake:
    """Describe a request that is judged as an upgrade would be."""
    return _note(client, request.head, request.seen, environ_of)


def checked_target(query: str) -> str | None:
    """Return the target that a check asks about, ``/`` if it does not say; None if it is none."""
    target = parse_qs(query).get("path", ["/"])[0]
    if not _TARGET.fullmatch(target) or fault_in_path(target.partition("?")[0]) is not None:
        return None
    return target


def _note(
    client: Conn,
    head: Head,
    said: Seen | None,
    environ_of: Callable[[Conn], dict[str, Any]],
) -> Handshake:
    seen = said or Seen(client.host)

    def make() -> UpgradeRequest:
        environ = environ_of(client)
        add_request(environ, head, io.BytesIO(), 0)
        if said is not None:
            add_forwarded(environ, said)
        return UpgradeRequest(environ)

    return Handshake(
        method=head.method,
        path=unquote(split_target(head)[0]),
        target=head.target,
        http_version=head.version,
        headers=tuple(head.headers),
        remote_address=seen.remote_address,
        port=client.listener.port,
        request=make,
        secure=client.secure if seen.scheme is None else seen.scheme == "https",
        asked_host=seen.host or head.authority,
    )
