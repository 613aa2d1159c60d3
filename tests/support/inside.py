"""What an app has inside, for tests that look there: in one place, should it move."""

from __future__ import annotations

from typing import Any

from daebus import Daebus
from daebus.testing import AppClient
from daebus.websocket.api.context import context_of
from daebus.websocket.connection.link import Link
from daebus.websocket.hub import Hub
from daebus.websocket.messages.activity import Activity

__all__ = [
    "activity_of",
    "addresses_of",
    "connections",
    "handed_over",
    "hub_of",
    "is_pumped",
    "kept_by",
    "running_of",
]


def hub_of(app: Daebus) -> Hub:
    """Return the running side of the WebSockets of an app."""
    hub = context_of(app.websocket).hub
    assert hub is not None
    return hub


def connections(app: Daebus) -> tuple[Link, ...]:
    """Return the server's side of the open connections, in order of arrival."""
    hub = context_of(app.websocket).hub
    return () if hub is None else hub.registry.snapshot()


def activity_of(link: Link) -> Activity:
    """Return what the thread of an open connection is at."""
    activity = Activity.of(link)
    assert activity is not None
    return activity


def handed_over(app: Daebus) -> int:
    """Count the calls that wait for the main thread."""
    return len(hub_of(app).runtime.pump._calls)


def is_pumped(app: Daebus) -> bool:
    """Tell whether a thread waits for such calls, or runs one."""
    return hub_of(app).runtime.pump._runner is not None


def kept_by(client: AppClient) -> list[Any]:
    """Return the messages that have come to a test client and that nobody has asked for."""
    return list(client._kept)


def running_of(app: Daebus) -> set[Link]:
    """Return the connections that have not ended, those that close included."""
    return hub_of(app)._alive


def addresses_of(app: Daebus) -> dict[str, int]:
    """Return how many clients each address has, as ``max_clients_per_ip`` counts them."""
    clients = hub_of(app)._admission._per_address._clients
    return {address: len(places) for address, places in clients.items()}
