"""Addresses that listen, as URLs that a person can open."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable

from .listener import Listener

__all__ = ["of_websockets", "urls"]

_URL = re.compile(r"http(s?)://(\[.*\]|[^:/]*)(?::[0-9]+)?/")

_DEFAULT_PORTS = {"http": 80, "https": 443}

# What stands for every address of the machine: the one to open on the machine itself, and an
# address of somebody else (RFC 5737, RFC 3849), whose route tells which one others reach.
_ANY = {"0.0.0.0": ("127.0.0.1", "192.0.2.1"), "::": ("::1", "2001:db8::1")}


def urls(listeners: Iterable[Listener], *, secure: bool) -> list[str]:
    """Return what to open in a browser; nothing for socket files.

    Args:
        listeners: open ones.
        secure: they speak TLS.
    """
    scheme = "https" if secure else "http"
    found: dict[str, None] = {}
    for listener in listeners:
        if not listener.port:
            continue
        end = "/" if listener.port == _DEFAULT_PORTS[scheme] else f":{listener.port}/"
        for host in _openable(listener.host):
            found[f"{scheme}://{f'[{host}]' if ':' in host else host}{end}"] = None
    return list(found)


def of_websockets(found: Iterable[str], port: int) -> list[str]:
    """Return the URLs of a port for WebSockets alone, beside those of ``urls``."""
    both = (_URL.sub(rf"ws\1://\2:{port}/", url) for url in found)
    return list(dict.fromkeys(both))


def _openable(host: str) -> list[str]:
    if host not in _ANY:
        return [host]
    here, elsewhere = _ANY[host]
    outside = _own_address(elsewhere)
    return [here] if outside in (None, here) else [here, outside]


def _own_address(peer: str) -> str | None:
    """Return the address with which this machine would reach a peer; nothing is sent."""
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, 9))
            return str(probe.getsockname()[0])
    except OSError:  # there is no network
        return None
