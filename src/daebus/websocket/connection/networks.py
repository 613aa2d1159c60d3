"""What counts as one address. Pure."""

from __future__ import annotations

import ipaddress

__all__ = ["network_of"]

# Who has one IPv6 address has at least this network of them (RFC 6177).
_IPV6_PREFIX = 64


def network_of(address: str) -> str:
    """Return what is counted for an address.

    Returns:
        An IPv4 address, the /64 of an IPv6 one, or what is neither as it is; empty if
        there is none, as on a Unix socket.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), _IPV6_PREFIX), strict=False))
