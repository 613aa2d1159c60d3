"""The opening handshake of RFC 6455 section 4.2, as a function of values.

The ``websockets`` package does the checks; the statuses of refusals and the comparison of
origins are ours. No socket, no thread, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidHeader
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from ...server.handoff import Refusal, Upgrade

__all__ = ["Accepted", "negotiate", "origin_allowed"]

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


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


def origin_allowed(origin: str | None, host: str | None, allowed: Sequence[str] | None) -> bool:
    """Tell whether a page of that origin may connect.

    CORS does not bind WebSockets: without this check any page that a user opens could
    talk to the server in the user's name.

    Args:
        origin: value of the ``Origin`` header; None from programs, which pass.
        host: the host that the client asked for, from ``Host`` or a trusted proxy's header.
        allowed: origins such as ``https://example.com``; ``"*"`` allows all; None
            allows the host's own only, whatever the scheme (a proxy may end TLS).
    """
    if origin is None:
        return True
    if allowed is not None:
        return "*" in allowed or origin.lower() in {entry.lower().rstrip("/") for entry in allowed}
    if host is None:
        return False
    try:
        ours, theirs = urlsplit(f"//{host}"), urlsplit(origin)
        default = _DEFAULT_PORTS.get(theirs.scheme)
        if default is None or not theirs.hostname:
            return False
        return (ours.hostname, ours.port or default) == (theirs.hostname, theirs.port or default)
    except ValueError:  # a port that is not a number
        return False


def negotiate(
    upgrade: Upgrade,
    *,
    origins: Sequence[str] | None,
    deflate: bool,
    subprotocols: Sequence[str] = (),
) -> Accepted | Refusal:
    """Accept or refuse a request to upgrade.

    Args:
        upgrade: the request.
        origins: see ``origin_allowed``.
        deflate: offer permessage-deflate (RFC 7692).
        subprotocols: those supported, the preferred first.

    Returns:
        The answer, either way.
    """
    if upgrade.method != "GET":
        return Refusal(
            405, "method_not_allowed", "a WebSocket handshake is a GET request", (("Allow", "GET"),)
        )
    versions = [value.strip() for name, value in upgrade.headers if name == "sec-websocket-version"]
    if versions and versions != ["13"]:
        return Refusal(
            426,
            "unsupported_version",
            "only version 13 of the WebSocket protocol is spoken here",
            (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")),
        )
    headers = Headers()
    for name, value in upgrade.headers:
        headers.set_insecure(name, value)
    protocol = _Negotiation(deflate, subprotocols)
    request = Request(upgrade.target, headers, upgrade.method, f"HTTP/{upgrade.http_version}")
    try:
        accept, extensions, subprotocol = protocol.process_request(request)
    except InvalidHandshake as exc:
        return Refusal(
            400, "bad_handshake", f"this is not a WebSocket handshake: {_printable(exc)}"
        )
    host = upgrade.forwarded_host or upgrade.header("host")
    if not origin_allowed(upgrade.header("origin"), host, origins):
        return Refusal(
            403, "origin_not_allowed", "pages of this origin may not connect; see origins="
        )
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


class _Negotiation(ServerProtocol):
    """The part of ``ServerProtocol`` that checks a request, without its parser.

    What ``process_request`` needs is set here; the rest of the object (stream buffer,
    parser, identifier) would cost more than the handshake and is never used.
    """

    def __init__(self, deflate: bool, subprotocols: Sequence[str]) -> None:
        self.origins = None
        self.available_extensions = [_deflate_factory()] if deflate else None
        self.available_subprotocols = [Subprotocol(name) for name in subprotocols] or None
        self.extensions = []

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Choose the first of ours that the client offers, or None, which is not an error."""
        for name in self.available_subprotocols or ():
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
