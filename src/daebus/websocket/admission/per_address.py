"""Count the clients of each address."""

from __future__ import annotations

import threading

from ..connection.networks import network_of

__all__ = ["PerAddressLimit"]


class PerAddressLimit:
    """Counts clients by network; clients without an address are not counted.

    Args:
        most: clients of one network at most; None for no limit.

    Threads:
        Every method may be called from any thread and never waits.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}  # guarded by: _lock

    def enter(self, address: str) -> bool:
        """Count a client in; return False, without counting it, if its network is full."""
        if self._most is None:
            return True
        network = network_of(address)
        if not network:
            return True
        with self._lock:
            count = self._counts.get(network, 0)
            if count >= self._most:
                return False
            self._counts[network] = count + 1
            return True

    def leave(self, address: str) -> None:
        """Count a client out."""
        if self._most is None:
            return
        network = network_of(address)
        if not network:
            return
        with self._lock:
            self._counts[network] -= 1
            if not self._counts[network]:
                del self._counts[network]
