"""The facts about a client, as a dict."""

from __future__ import annotations

import time
from typing import Any

from ..connection.link import Link

__all__ = ["KEYS", "describe"]

# The names that daebus fills; an app may note entries under other names.
KEYS = (
    "client_id",
    "user",
    "path",
    "remote_address",
    "secure",
    "user_agent",
    "subprotocol",
    "connected_at",
    "last_activity",
    "messages_in",
    "messages_out",
    "bytes_in",
    "bytes_out",
    "dropped",
    "queued_bytes",
    "queued_messages",
    "round_trip",
)


def describe(link: Link) -> dict[str, Any]:
    """Return the facts about a client: ``KEYS``, then what the app noted.

    Threads:
        Any; takes the connection's lock briefly.
    """
    counts = link.account()
    peer = link.peer
    queued_bytes, queued_messages = link.writer.queued()
    return {
        "client_id": link.client_id,
        "user": link.user,
        "path": peer.path,
        "remote_address": peer.remote_address,
        "secure": peer.secure,
        "user_agent": peer.user_agent,
        "subprotocol": peer.subprotocol,
        "connected_at": peer.connected_at,
        "last_activity": time.time() - (time.monotonic() - link.reader.last_in),
        "messages_in": counts.messages_in,
        "messages_out": counts.messages_out,
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
        "dropped": counts.dropped,
        "queued_bytes": queued_bytes,
        "queued_messages": queued_messages,
        "round_trip": link.round_trip,
        **link.notes(),
    }
