"""What an app has inside, for tests that look there: in one place, should it move."""

from __future__ import annotations

from daebus import Daebus
from daebus.websocket.api.context import context_of
from daebus.websocket.connection.link import Link
from daebus.websocket.hub import Hub

__all__ = ["connections", "hub_of"]


def hub_of(app: Daebus) -> Hub:
    """Return the running side of the WebSockets of an app."""
    hub = context_of(app.websocket).hub
    assert hub is not None
    return hub


def connections(app: Daebus) -> tuple[Link, ...]:
    """Return the server's side of the open connections, in order of arrival."""
    hub = context_of(app.websocket).hub
    return () if hub is None else hub.registry.snapshot()
