"""What a handler is given."""

from __future__ import annotations

import threading
from typing import Any

from .connection import Connection

__all__ = ["WebSocketRequest"]


class WebSocketRequest:
    """One message of one client.

    Attributes:
        client_id: identifier of the connection that the message came on.
        message_type: the ``"type"`` of the message.
        data: its ``"data"``, any JSON value; an empty dict if the message has none.
        payload: the whole message.
        websocket: the raw connection, to send other things than JSON or to close.
    """

    __slots__ = ("data", "message_type", "payload", "websocket")

    def __init__(self, websocket: Connection, message_type: str, payload: dict[str, Any]) -> None:
        self.websocket = websocket
        self.message_type = message_type
        self.payload = payload
        self.data: Any = payload.get("data", {})

    @property
    def client_id(self) -> str:
        """Identifier of the connection that the message came on."""
        return self.websocket.client_id

    @property
    def cancelled(self) -> threading.Event:
        """Set once the client has left or the app stops, while the handler still runs."""
        return self.websocket.cancelled

    def __repr__(self) -> str:
        return f"<WebSocketRequest {self.message_type!r} from {self.client_id}>"
