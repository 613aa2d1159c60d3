"""What is still to be done in a running app, for tests that wait until nothing is."""

from __future__ import annotations

from ..websocket.connection.link import Link
from ..websocket.hub import Hub
from ..websocket.messages.activity import Activity

__all__ = ["progress", "unfinished"]


def unfinished(hub: Hub) -> str | None:
    """Return the first thing found that is not finished, or None.

    A message that a thread has just read and not begun to handle is not seen: look again
    after a moment, and compare ``progress``.

    Threads:
        Any; takes the lock of each connection briefly.
    """
    for link in hub.registry.snapshot():
        found = _busy(link)
        if found is not None:
            return f"{found} client {link.client_id}"
    leaving = hub.leaving()
    if leaving:
        return f"{leaving} clients are coming or leaving"
    return None if hub.has_told_all() else "a hook about a slow client or handler runs"


def progress(hub: Hub) -> object:
    """Return a value that differs once anything has been received or sent meanwhile."""
    return [
        (
            link.client_id,
            link.reader.turn,
            link.reader.messages_in,
            link.reader.bytes_in,
            link.writer.outlet.bytes_out,  # unguarded: compared, no more
        )
        for link in hub.registry.snapshot()
    ]


def _busy(link: Link) -> str | None:
    activity, writer = Activity.of(link), link.writer
    if activity is None:
        return "the thread ends of"
    running = activity.running
    # A raw handler runs for as long as its client is there.
    if running is not None and (not link.peer.raw or running == "on_connect"):
        return f"{running!r} runs for"
    if activity.has_work():
        return "a job or a call runs for"
    if link.reader.inbox or (not link.peer.raw and writer.transport.wait_readable(0.0)):
        return "messages wait of"
    if writer.outlet.queued() != (0, 0) or writer.outlet.held:  # unguarded: looked at twice
        return "messages wait for"
    return None
