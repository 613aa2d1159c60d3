"""What reverse proxies say of the client behind them.

Rules of this module:

1. Headers count only from a peer that is trusted, and what they list only as far as
   trusted proxies vouch for it: from the right, up to the first stranger.
2. What cannot be read ends the list there; it is never an error.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from .heads import is_host
from .paths import fault_in_path

__all__ = ["MAX_HOPS", "Seen", "TrustedProxies"]

# Proxies in a row that are believed; real chains have two or three.
MAX_HOPS = 32

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_FIELDS = frozenset(
    (
        "forwarded",
        "host",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
    )
)

# An address with or without a port; ports may be hidden (RFC 7239 section 6).
_NODE = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?|([0-9A-Fa-f:.]+)"
)
_LABEL = r"[A-Za-z0-9_-]{1,63}"
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{{1,5}}))?")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+;=:@%-]+)+/?")
_MAX_HOST = 260  # a name of 253 characters with its port, and a little more

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rf'(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
_PAIR = rf"{_TOKEN}={_VALUE}"
# Read from the right: what a client wrote before it cannot change how the last element
# is read, not even with a quote that is never closed.
_LAST_ELEMENT = re.compile(rf"(?:(.*),)?[ \t]*({_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*)", re.DOTALL)
_EACH_PAIR = re.compile(rf"({_TOKEN})=({_VALUE})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Seen:
    """A client as trusted proxies saw it.

    Attributes:
        remote_address: of the client, or of the last proxy that can be believed; an empty
            string for the peer of a Unix socket.
        scheme: ``http`` or ``https``; None if no proxy says so.
        host: that the client asked for, with the port unless it is the scheme's; None to
            keep to the request.
        prefix: of the paths that the client asked for, which the proxy has taken away, still
            encoded; empty for none.
    """

    remote_address: str
    scheme: str | None = None
    host: str | None = None
    prefix: str = ""


class TrustedProxies:
    """The proxies whose headers are believed.

    Args:
        entries: addresses, networks such as ``10.0.0.0/8``, and ``"unix"`` for the peers
            of Unix sockets.

    Raises:
        ValueError: an entry is not one of these.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        if isinstance(entries, str):
            raise ValueError(f"trusted_proxies must be a list; write trusted_proxies=[{entries!r}]")
        self._unix = False
        self._networks = []
        for entry in entries:
            if entry == "unix":
                self._unix = True
                continue
            try:
                self._networks.append(ip_network(entry))
            except ValueError as exc:
                raise ValueError(
                    f"trusted_proxies takes addresses, networks such as '10.0.0.0/8' and 'unix', "
                    f"not {entry!r}: {exc}"
                ) from None

    def look(
        self, peer: str, headers: Iterable[tuple[str, str]], authority: str | None = None
    ) -> Seen | None:
        """Find out who is behind a peer.

        ``Forwarded`` (RFC 7239) counts where there is no ``X-Forwarded-For``.

        Args:
            peer: address; empty on a Unix socket.
            headers: of the request, names in lower case.
            authority: of the request target, which outranks the ``Host`` header.

        Returns:
            None if the request is as it looks.
        """
        if not self._trusts(peer):
            return None
        fields: dict[str, str] = {}
        for name, value in headers:
            if name in _FIELDS:
                fields[name] = f"{fields[name]},{value}" if name in fields else value
        asked = authority or fields.pop("host", "")
        fields.pop("host", None)
        if not fields:
            return None
        prefix = _prefix(_last(fields, "x-forwarded-prefix"))
        if "forwarded" in fields and "x-forwarded-for" not in fields:
            seen = self._forwarded(peer, fields["forwarded"])
        else:
            seen = self._x_forwarded(peer, fields, asked)
        return replace(seen, prefix=prefix) if prefix else seen

    def _trusts(self, peer: str) -> bool:
        return self._includes(ip_address(peer)) if peer else self._unix

    def _includes(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)

    def _x_forwarded(self, peer: str, fields: dict[str, str], asked: str) -> Seen:
        remote = peer
        hops = fields.get("x-forwarded-for", "").rsplit(",", MAX_HOPS)[-MAX_HOPS:]
        for text in map(str.strip, reversed(hops)):
            if not text:
                continue
            address = _address(text)
            if address is None:
                break
            remote = str(address)
            if not self._includes(address):
                break
        # Of the others the last value is the one that our own proxy wrote.
        scheme = _SCHEMES.get(_last(fields, "x-forwarded-proto").lower())
        port = _last(fields, "x-forwarded-port")
        host = _host(_last(fields, "x-forwarded-host"), port, scheme)
        if host is None and port:
            host = _host(asked, port, scheme)
        return Seen(remote, scheme, host)

    def _forwarded(self, peer: str, text: str) -> Seen:
        remote, scheme, host = peer, None, None
        for _ in range(MAX_HOPS):
            found = _LAST_ELEMENT.fullmatch(text.rstrip(", \t"))
            pairs = {} if found is None else _pairs(found[2])
            if found is None or not pairs:
                break
            scheme = _SCHEMES.get(pairs.get("proto", "").lower(), scheme)
            host = _host(pairs.get("host", ""), "", scheme) or host
            address = _address(pairs.get("for", ""))
            if address is None:  # hidden, or unknown
                break
            remote = str(address)
            if found[1] is None or not self._includes(address):
                break
            text = found[1]
        return Seen(remote, scheme, host)


def _prefix(text: str) -> str:
    """Return a prefix without a slash at its end; empty if it is none."""
    if not _PREFIX.fullmatch(text) or fault_in_path(text) is not None:
        return ""
    return text.rstrip("/")


def _last(fields: dict[str, str], name: str) -> str:
    return fields.get(name, "").rpartition(",")[2].strip(" \t")


@functools.lru_cache(maxsize=256)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address, with or without a port."""
    found = _NODE.fullmatch(text)
    if found is None:
        return None
    try:
        address = ip_address(found[1] or found[2] or found[3])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _host(text: str, port: str, scheme: str | None) -> str | None:
    """Return host and port as a browser would write them; None if it is not a host.

    Args:
        text: host, perhaps with a port.
        port: for a host without one; ignored if it is not a port.
        scheme: whose default port is left out.
    """
    found = _HOST.fullmatch(text)
    if found is None or len(text) > _MAX_HOST or not int(found[2] or 1) or not is_host(text):
        return None
    if found[2] or not re.fullmatch("[1-9][0-9]{0,4}", port) or int(port) > 65535:
        return text
    return text if port == _DEFAULT_PORTS.get(scheme or "") else f"{text}:{port}"


def _pairs(element: str) -> dict[str, str]:
    """Return the parameters of an element; none at all if one comes twice."""
    pairs: dict[str, str] = {}
    for name, value in _EACH_PAIR.findall(element):
        if name.lower() in pairs:
            return {}
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
        pairs[name.lower()] = value
    return pairs
