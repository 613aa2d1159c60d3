"""What a handler is given."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from . import envelope
from .connection import Connection
from .sending import TAKEN

__all__ = ["WebSocketRequest", "asked"]

# The request that is being handled, where it is not the one that its connection's thread
# handles: in jobs, and in what an async handler starts.
asked: ContextVar[WebSocketRequest] = ContextVar("daebus_request")


class WebSocketRequest:
    """One message of one client.

    Attributes:
        client_id: identifier of the connection that the message came on.
        message_type: the ``"type"`` of the message.
        data: its ``"data"``, any JSON value; an empty dict if the message has none.
        payload: the whole message.
        websocket: the raw connection, to send other things than JSON or to close.
        id: the ``"id"`` that the client gave the message, None if it gave none; every
            reply repeats it.
    """

    __slots__ = ("data", "message_type", "payload", "websocket")

    def __init__(self, websocket: Connection, message_type: str, payload: dict[str, Any]) -> None:
        self.websocket = websocket
        self.message_type = message_type
        self.payload = payload
        self.data: Any = payload.get("data", {})

    @property
    def id(self) -> str | int | float | None:
        """The ``"id"`` that the client gave the message, None if it gave none."""
        return self.payload.get("id")

    @property
    def client_id(self) -> str:
        """Identifier of the connection that the message came on."""
        return self.websocket.client_id

    @property
    def cancelled(self) -> threading.Event:
        """Set once the client has left or the app stops, while the handler still runs."""
        return self.websocket.cancelled

    # --- for the library --------------------------------------------------------

    def stamped(self, message: bytes) -> bytes:
        """Return an envelope with the request's id, if it has one."""
        ident = self.id
        return message if ident is None else envelope.stamp(message, ident)

    def reply(self, message: bytes) -> bool:
        """Send an envelope as a reply to this request.

        Returns:
            False if the client has left.
        """
        connection = self.websocket
        return connection.reply(connection.text_frame(self.stamped(message))) in TAKEN

    def __repr__(self) -> str:
        return f"<WebSocketRequest {self.message_type!r} from {self.client_id}>"
