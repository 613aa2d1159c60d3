"""Origins of pages and names of hosts: one parser for both sides. Pure.

Rules of this module:

1. An origin is a scheme, a host and a port (RFC 6454), and two are compared as these, never as
   text: ``HTTPS://Example.com:443`` is ``https://example.com``.
2. What somebody typed is normalised if it can mean one thing only, and refused otherwise, with
   what to type. What a client sent and cannot be read matches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

__all__ = [
    "Hosts",
    "Origin",
    "Origins",
    "is_address",
    "is_own_origin",
    "parse_origin",
    "split_host",
]

# Bytes of a name in the DNS; a longer one is nobody's.
MAX_NAME = 253

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SCHEME = r"([A-Za-z][A-Za-z0-9+.-]*)"
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[^/?#@:\[\]\\\s]*)"
_ORIGIN = re.compile(rf"{_SCHEME}://{_HOST}(?::([0-9]{{1,5}}))?")
_HOST_AND_PORT = re.compile(rf"{_HOST}(?::([0-9]{{0,5}}))?")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


class Origin(NamedTuple):
    """An origin in the form in which two can be compared.

    Attributes:
        scheme: in lower case; empty for ``null``.
        host: in lower case; that of a wildcard begins with ``*.``.
        port: None for schemes that have no port of their own and name none.
    """

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        if not self.scheme:
            return "null"
        port = "" if self.port in (None, _DEFAULT_PORTS.get(self.scheme)) else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


NULL = Origin("", "", None)


def parse_origin(text: str) -> Origin | None:
    """Return the origin that a browser sent; None if it is none."""
    if text == "null":
        return NULL
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, host, port = found[1].lower(), _bare(found[2]), int(found[3] or 0)
    default = _DEFAULT_PORTS.get(scheme)
    if host is None or port > 65535 or (default is not None and not host):
        return None
    return Origin(scheme, host, port or default)


def split_host(text: str) -> tuple[str, int | None] | None:
    """Return name and port of a ``Host`` header; None if it is not a host.

    The name is in lower case, without the dot that may stand at its end.
    """
    found = _HOST_AND_PORT.fullmatch(text)
    host = None if found is None else _bare(found[1])
    if found is None or host is None or int(found[2] or 0) > 65535:
        return None
    return host.removesuffix("."), int(found[2]) if found[2] else None


def is_own_origin(origin: str, host: str | None) -> bool:
    """Return whether a page came from the host and port that it asks for something.

    Its scheme does not matter, since a proxy may end TLS.

    Args:
        origin: value of the ``Origin`` header.
        host: value of the ``Host`` header, or what a trusted proxy says of it.
    """
    theirs = parse_origin(origin)
    if theirs is None or host is None or theirs.scheme not in _DEFAULT_PORTS:
        return False
    ours = split_host(host)
    if ours is None:
        return False
    name, port = ours
    return (name, port or _DEFAULT_PORTS[theirs.scheme]) == (
        theirs.host.removesuffix("."),
        theirs.port,
    )


class Origins:
    """The pages that somebody has named.

    Args:
        entries: such as ``https://example.com``, ``https://*.example.com`` for its subdomains,
            ``file://``, ``app://name`` and ``null``; ``"*"`` among them is every page.
        argument: that they were given in, for errors.

    Attributes:
        any: every page is meant.

    Raises:
        ValueError: an entry is not an origin; the message says what to type.
    """

    def __init__(self, entries: Iterable[object], argument: str) -> None:
        entries = tuple(entries)
        self.any = "*" in entries
        parsed = [_read_entry(entry, argument) for entry in entries if entry != "*"]
        self._exact = frozenset(o for o in parsed if not o.host.startswith("*."))
        self._below = tuple(o._replace(host=o.host[1:]) for o in parsed if o not in self._exact)

    def allow(self, text: str) -> bool:
        """Return whether a page with that ``Origin`` header is one of them."""
        if self.any:
            return True
        origin = parse_origin(text)
        if origin is None:
            return False
        return origin in self._exact or any(
            (origin.scheme, origin.port) == (entry.scheme, entry.port)
            and origin.host.endswith(entry.host)
            for entry in self._below
        )


class Hosts:
    """The names that a server answers to.

    Addresses always pass: a page whose name was made to lead here (DNS rebinding) sends its
    name, and cannot send an address. A request that names no host passes too; browsers name one.

    Args:
        entries: names such as ``example.com``, ``.example.com`` for its subdomains; ``"*"``
            among them is every name.
        argument: that they were given in, for errors.

    Raises:
        ValueError: an entry is not the name of a host; the message says what to type.
    """

    def __init__(self, entries: Iterable[object], argument: str) -> None:
        entries = tuple(entries)
        self.any = "*" in entries
        names = [_read_name(entry, argument) for entry in entries if entry != "*"]
        self._exact = frozenset(name for name in names if not name.startswith("."))
        self._below = tuple(name for name in names if name.startswith("."))

    def allow(self, text: str) -> bool:
        """Return whether a request with that ``Host`` header is meant for the server."""
        if self.any or not text:
            return True
        found = split_host(text)
        if found is None:
            return False
        name = found[0]
        return (
            name in self._exact
            or (name.endswith(self._below) and name[:1] != ".")
            or not name
            or is_address(name)
        )


def is_address(name: str) -> bool:
    """Return whether a name is an IP address, one of IPv6 in brackets."""
    if name.startswith("["):
        return True  # was parsed already
    if not name[-1:].isdigit():  # ip_address is slow to say no
        return False
    try:
        return ip_address(name).version == 4
    except ValueError:
        return False


def _bare(host: str) -> str | None:
    """Return a host in lower case, with IPv6 in its shortest form; None if it is too long."""
    if host.startswith("["):
        try:
            return f"[{IPv6Address(host[1:-1])}]"
        except ValueError:
            return None
    return host.lower() if len(host) <= MAX_NAME + 1 else None


def _to_ascii(host: str) -> str | None:
    """Return a name as browsers send it, in lower case; None if it is not one."""
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return None
    name = name.lower()
    return name if len(name) <= MAX_NAME and _NAME.fullmatch(name) else None


def _read_entry(entry: object, argument: str) -> Origin:
    """Return the origin that somebody typed.

    Raises:
        ValueError: it is not one.
    """
    example = "https://example.com"
    if not isinstance(entry, str):
        raise ValueError(f"{argument} holds {entry!r}, not a string; write it like {example!r}")
    text = entry.strip(" ")
    scheme, separator, rest = text.partition("://")
    if text == "null":
        return NULL
    if not separator:
        better = _with_scheme(text) or example
        raise ValueError(
            f"{argument} holds {entry!r}, and an origin begins with a scheme; "
            f"write it like {better!r}"
        )
    scheme = scheme.lower()
    if scheme in ("ws", "wss"):
        better = _with_scheme(text) or example
        raise ValueError(
            f"{argument} holds {entry!r}, and the origin is the page's; write it like {better!r}"
        )
    if scheme not in ("http", "https"):
        origin = parse_origin(text)
        if origin is None:
            better = "file://" if scheme == "file" else "app://name"
            raise ValueError(f"{argument} holds {entry!r}; write it like {better!r}")
        return origin
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if rest not in (authority, authority + "/"):
        better = f"{scheme}://{authority.rpartition('@')[2]}"
        raise ValueError(
            f"{argument} holds {entry!r}, and an origin has no path; write it like {better!r}"
        )
    found = _HOST_AND_PORT.fullmatch(authority)
    host, port = ("", "") if found is None else (found[1], found[2] or "")
    star = "*." if host.startswith("*.") else ""
    name = _bare(host) if host.startswith("[") else _to_ascii(host.removeprefix("*."))
    if found is None or name is None or int(port or 1) not in range(1, 65536):
        wildcard = "*" in authority
        better = "https://*.example.com" if wildcard else f"{scheme}://example.com:8080"
        if _in_brackets(authority) != authority:
            better = f"{scheme}://{_in_brackets(authority)}"
        raise ValueError(
            f"{argument} holds {entry!r}, which is not an origin; write it like {better!r}"
        )
    return Origin(scheme, star + name, int(port or _DEFAULT_PORTS[scheme]))


def _with_scheme(text: str) -> str | None:
    """Return the origin that a text without ``://`` seems to mean, or None."""
    found = re.match(r"(?:(http|ws)(s?):)?/*([^/?#]*)", text, re.IGNORECASE)
    assert found is not None  # all of it may be missing
    rest = _in_brackets(found[3])
    local = re.match(r"(localhost|[0-9.]+|\[[0-9A-Fa-f:.]+\])(:|$)", rest)
    secure = bool(found[2]) if found[1] else not local
    better = f"{'https' if secure else 'http'}://{rest}"
    return better if parse_origin(better.replace("://*.", "://")) is not None else None


def _in_brackets(host: str) -> str:
    """Return an address of IPv6 as it is written in URLs, and anything else as it is."""
    try:
        return f"[{IPv6Address(host)}]"
    except ValueError:
        return host


def _read_name(entry: object, argument: str) -> str:
    """Return the name of a host, or of a domain behind a dot, that somebody typed.

    Raises:
        ValueError: it is not one.
    """
    text = entry.strip(" ") if isinstance(entry, str) else ""
    name = _to_name(text)
    if name is not None:
        return name
    # Perhaps a URL, a name with a port, or one with a wildcard.
    guess = re.split(r"[/?#]", text.partition("://")[2] or text, maxsplit=1)[0]
    guess = _in_brackets(guess.rpartition("@")[2])
    guess = re.sub(r":[0-9]*$", "", guess).removeprefix("*")
    better = _to_name(guess)
    if better is None:
        raise ValueError(
            f"{argument} holds {entry!r}, which is not the name of a host; write it like "
            f"'example.com', or '.example.com' for its subdomains"
        )
    raise ValueError(f"{argument} holds {entry!r}, and a host is a name alone; write {better!r}")


def _to_name(text: str) -> str | None:
    if text.startswith("["):
        return _bare(text) if text.endswith("]") else None
    dot = "." if text.startswith(".") else ""
    name = _to_ascii(text.removeprefix(".").removesuffix("."))
    return None if name is None else dot + name
