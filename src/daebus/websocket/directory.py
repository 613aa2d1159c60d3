"""The part of ``DaebusWebSocket`` that tells who is there."""

from __future__ import annotations

from typing import Any

from . import envelope
from .parts import Part

__all__ = ["Directory"]


class Directory(Part):
    """Asking, from any thread."""

    def get_clients(self) -> list[str]:
        """Return the ids of all connected clients, in order of arrival."""
        hub = self._hub
        return [] if hub is None else [c.client_id for c in hub.registry.snapshot()]

    def get_client_count(self) -> int:
        """Return how many clients are connected."""
        hub = self._hub
        return 0 if hub is None else len(hub.registry)

    def is_client_connected(self, client_id: str) -> bool:
        """Tell whether a client of that id is connected."""
        hub = self._hub
        return hub is not None and hub.registry.get(client_id) is not None

    def stats(self) -> dict[str, Any]:
        """Return counts since the start; empty if the app does not run.

        Keys: ``connections``, ``connections_total``, ``messages_in``, ``messages_out``,
        ``bytes_in``, ``bytes_out``, ``dropped``, ``queued_bytes``, ``queued_messages``,
        ``lost_notices`` (of slow clients and handlers, when too many came at once),
        ``slow_consumers``, ``disconnects`` (by reason), ``refused`` (by code), ``errors``
        (by code), ``handlers`` (by type: ``count``, ``seconds``, ``buckets`` by upper bound
        in seconds) and ``json`` (the package in use).

        Threads:
            Any; looks at each connection briefly.
        """
        hub = self._hub
        if hub is None:
            return {}
        return {
            "connections": len(hub.registry),
            **hub.tally.report(),
            "json": envelope.package(),
        }
