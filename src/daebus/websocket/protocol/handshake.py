"""The opening handshake of RFC 6455 section 4.2, as a function of values.

The ``websockets`` package does the checks; the statuses of refusals, and whose pages may
connect, are ours. No socket, no thread, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidHeader
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from ...origins import Origins, is_own_origin
from ...server.handoff import Handshake, Refusal

__all__ = [
    "SUBPROTOCOL",
    "WRONG_ORIGIN",
    "Accepted",
    "Pages",
    "negotiate",
    "referring_origin",
    "wrong_origin",
]

# What the clients that come with daebus offer.
SUBPROTOCOL = "daebus"

_PAGE = re.compile(r"https?://[^/?#]+")

WRONG_ORIGIN = Refusal(
    403, "origin_not_allowed", "pages of this origin may not connect; see origins="
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A handshake that succeeded.

    Attributes:
        response: the whole 101 response.
        extensions: for this connection alone.
        subprotocol: the one chosen, or None.
    """

    response: bytes
    extensions: Sequence[Extension]
    subprotocol: str | None


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages that may connect.

    CORS does not bind WebSockets: without this check any page that a user opens could
    talk to the server in the user's name.

    Attributes:
        named: those of other places.
        own: those of the host and port that they connect to as well.
    """

    named: Origins
    own: bool = True

    def allow(self, origin: str | None, host: str | None) -> bool:
        """Tell whether a page may connect.

        Args:
            origin: value of the ``Origin`` header; None from programs, which pass.
            host: the host that the client asked for, from ``Host`` or a trusted proxy's header.
        """
        return (
            origin is None or self.named.allow(origin) or (self.own and is_own_origin(origin, host))
        )


def negotiate(
    handshake: Handshake,
    *,
    pages: Pages,
    deflate: bool,
    subprotocols: Sequence[str] = (),
) -> Accepted | Refusal:
    """Accept or refuse a request to upgrade.

    Args:
        handshake: the request.
        pages: that may connect.
        deflate: offer permessage-deflate (RFC 7692).
        subprotocols: those supported, the preferred first; ``daebus`` comes last unasked.

    Returns:
        The answer, either way.
    """
    if handshake.method != "GET":
        return Refusal(
            405, "method_not_allowed", "a WebSocket handshake is a GET request", (("Allow", "GET"),)
        )
    versions = [
        value.strip() for name, value in handshake.headers if name == "sec-websocket-version"
    ]
    if versions and versions != ["13"]:
        return Refusal(
            426,
            "unsupported_version",
            "only version 13 of the WebSocket protocol is spoken here",
            (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")),
        )
    headers = Headers()
    for name, value in handshake.headers:
        headers.set_insecure(name, value)
    protocol = _Negotiation(deflate, subprotocols)
    request = Request(handshake.target, headers, handshake.method, f"HTTP/{handshake.http_version}")
    try:
        accept, extensions, subprotocol = protocol.process_request(request)
    except InvalidHandshake as exc:
        return Refusal(
            400, "bad_handshake", f"this is not a WebSocket handshake: {_printable(exc)}"
        )
    refusal = wrong_origin(handshake, pages)
    if refusal is not None:
        return refusal
    response = (
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n"
    )
    if extensions is not None:
        response += f"Sec-WebSocket-Extensions: {extensions}\r\n"
    if subprotocol is not None:
        response += f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    return Accepted((response + "\r\n").encode(), list(protocol.extensions), subprotocol)


def wrong_origin(handshake: Handshake, pages: Pages, origin: str | None = None) -> Refusal | None:
    """Return a refusal if the page that asks is not one of those that may connect.

    Args:
        handshake: what it asks.
        pages: that may connect.
        origin: of the page, if the handshake has no ``Origin``.
    """
    given = handshake.header("origin")
    if pages.allow(origin if given is None else given, handshake.host):
        return None
    return WRONG_ORIGIN


def referring_origin(handshake: Handshake) -> str | None:
    """Return the origin of the page in ``Referer``, None without one.

    A browser sends no ``Origin`` with a GET to the page's own server, where it does send one
    with a WebSocket.
    """
    found = _PAGE.match(handshake.header("referer") or "")
    return found and found[0]


class _Negotiation(ServerProtocol):
    """The part of ``ServerProtocol`` that checks a request, without its parser.

    What ``process_request`` needs is set here; the rest of the object (stream buffer,
    parser, identifier) would cost more than the handshake and is never used.
    """

    def __init__(self, deflate: bool, subprotocols: Sequence[str]) -> None:
        self.origins = None
        self.available_extensions = [_deflate_factory()] if deflate else None
        # A browser gives up if nothing that its page offers is selected, and a page that
        # sends a token offers ours beside it.
        names = [*subprotocols, SUBPROTOCOL]
        self.available_subprotocols = [Subprotocol(name) for name in names]
        self.extensions = []

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Choose the first of ours that the client offers, or None, which is not an error."""
        for name in self.available_subprotocols or ():  # typed as optional by websockets
            if name in subprotocols:
                return name
        return None


def _deflate_factory() -> ServerPerMessageDeflateFactory:
    # No context is kept between messages: a broadcast is then compressed once for all,
    # and an idle connection holds no 256 KiB of zlib state. Window and memory level
    # are those that websockets found best for small messages.
    return ServerPerMessageDeflateFactory(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=12,
        client_max_window_bits=12,
        compress_settings={"memLevel": 5},
    )


def _printable(exc: Exception) -> str:
    if isinstance(exc, InvalidHeader) and exc.name == "Sec-WebSocket-Protocol":
        # A page may send a secret there, which must not appear in an answer or a log.
        return "Sec-WebSocket-Protocol is not a list of tokens"
    text = str(exc)
    return text if len(text) <= 200 and text.isprintable() else "a header is invalid"
