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
        # Sets, so that who counts a client out may do it again, if a signal handler's
        # exception came amid it.
        self._clients: dict[str, set[object]] = {}  # guarded by: _lock

    def enter(self, address: str, place: object) -> bool:
        """Count a client in; return False, without counting it, if its network is full.

        Args:
            address: of the client.
            place: any object of this client alone.
        """
        if self._most is None:
            return True
        network = network_of(address)
        if not network:
            return True
        with self._lock:
            clients = self._clients.setdefault(network, set())
            if len(clients) >= self._most:
                return False
            clients.add(place)
            return True

    def leave(self, address: str, place: object) -> None:
        """Count a client out, unless that was done."""
        if self._most is None:
            return
        network = network_of(address)
        if not network:
            return
        with self._lock:
            clients = self._clients.get(network)
            if clients is not None:
                clients.discard(place)
                if not clients:
                    self._clients.pop(network, None)
