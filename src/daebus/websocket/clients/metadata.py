"""What is known about a client, as a dict."""

from __future__ import annotations

import time
from typing import Any

from ..connection.connection import Connection

__all__ = ["KEYS", "describe"]

# What we know; an app may note other things under other names.
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


def describe(connection: Connection, user: str | None) -> dict[str, Any]:
    """Return what is known about a client: ``KEYS``, then what the app noted.

    Threads:
        Any; takes the connection's lock briefly.
    """
    counts = connection.account()
    queued_bytes, queued_messages = connection.queued()
    return {
        "client_id": connection.client_id,
        "user": user,
        "path": connection.path,
        "remote_address": connection.remote_address,
        "secure": connection.secure,
        "user_agent": connection.user_agent,
        "subprotocol": connection.subprotocol,
        "connected_at": connection.connected_time,
        "last_activity": time.time() - (time.monotonic() - connection.last_in),
        "messages_in": counts.messages_in,
        "messages_out": counts.messages_out,
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
        "dropped": counts.dropped,
        "queued_bytes": queued_bytes,
        "queued_messages": queued_messages,
        "round_trip": connection.round_trip,
        **connection.notes(),
    }
