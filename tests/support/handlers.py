"""Handlers and hooks that tell a test when they run."""

from __future__ import annotations

import queue
import threading
from typing import Any

from daebus import Daebus, DisconnectInfo

__all__ = ["departures", "waiting_handler"]


def waiting_handler(app: Daebus) -> tuple[threading.Event, threading.Event]:
    """Register ``wait``; return the events that it has begun, and that lets it go."""
    begun, release = threading.Event(), threading.Event()

    @app.socket("wait")
    def wait(req: Any) -> str:
        begun.set()
        assert release.wait(20)
        return "waited"

    return begun, release


def departures(app: Daebus) -> queue.Queue[tuple[str, DisconnectInfo]]:
    """Return a queue of the clients that leave, each with why."""
    left = queue.Queue[tuple[str, DisconnectInfo]]()

    @app.websocket.on_disconnect
    def disconnected(client_id: str, info: DisconnectInfo) -> None:
        left.put((client_id, info))

    return left
