"""The facts about a client, as a dict."""

from __future__ import annotations

import time
from typing import TypedDict, cast

from ...waits import monotonic
from ..connection.link import Link

__all__ = ["KEYS", "ClientMetadata", "describe"]


class ClientMetadata(TypedDict):
    """The facts about a client that daebus knows; see ``get_client_metadata``.

    What the app itself has noted is there too, and is had with ``get``: its names are not known
    to the types.
    """

    client_id: str
    user: str | None
    path: str
    remote_address: str
    secure: bool
    user_agent: str
    subprotocol: str | None
    connected_at: float
    last_activity: float
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    dropped: int
    queued_bytes: int
    queued_messages: int
    round_trip: float | None


# The names that daebus fills; an app may note entries under other names.
KEYS = tuple(ClientMetadata.__annotations__)


def describe(link: Link) -> ClientMetadata:
    """Return the facts about a client: ``KEYS``, then what the app noted.

    Threads:
        Any; takes the connection's lock briefly.
    """
    counts = link.account()
    peer = link.peer
    queued_bytes, queued_messages = link.writer.outlet.queued()
    facts: ClientMetadata = {
        "client_id": link.client_id,
        "user": link.user,
        "path": peer.path,
        "remote_address": peer.remote_address,
        "secure": peer.secure,
        "user_agent": peer.user_agent,
        "subprotocol": peer.subprotocol,
        "connected_at": peer.connected_at,
        "last_activity": time.time() - (monotonic() - link.reader.last_in),
        "messages_in": counts.messages_in,
        "messages_out": counts.messages_out,
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
        "dropped": counts.dropped,
        "queued_bytes": queued_bytes,
        "queued_messages": queued_messages,
        "round_trip": link.round_trip,
    }
    return cast("ClientMetadata", {**facts, **link.notes()})
