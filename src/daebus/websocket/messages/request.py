"""What a handler is given."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from ..connection.connection import Connection
from ..connection.outbox import TAKEN
from ..protocol import envelope
from ..protocol.codec import TEXT
from .activity import Activity
from .cancellation import CancelToken

__all__ = ["WebSocketRequest", "asked"]

# The request that is being handled, where it is not the one that its connection's thread
# handles: in jobs, and in what an async handler starts.
asked: ContextVar[WebSocketRequest] = ContextVar("daebus_request")


class WebSocketRequest:
    """One message of one client.

    Attributes:
        message_type: the ``"type"`` of the message.
        data: its ``"data"``, any JSON value; an empty dict if the message has none.
        payload: the whole message.
    """

    __slots__ = ("_activity", "_token", "data", "message_type", "payload")

    def __init__(self, activity: Activity, message_type: str, payload: dict[str, Any]) -> None:
        self._activity = activity
        self.message_type = message_type
        self.payload = payload
        # Not get(), for which the empty dict would be made with every message.
        self.data: Any = payload["data"] if "data" in payload else {}  # noqa: SIM401
        self._token: CancelToken | None = None  # made when something may stop it

    @property
    def websocket(self) -> Connection:
        """The raw connection, to send other things than JSON or to close."""
        return self._activity.connection

    @property
    def id(self) -> str | int | float | None:
        """The ``"id"`` that the client gave the message, None if it gave none.

        Every reply repeats it.
        """
        return self.payload.get("id")

    @property
    def client_id(self) -> str:
        """Identifier of the connection that the message came on."""
        return self._activity.link.client_id

    @property
    def identity(self) -> Any:
        """Who the client is: what ``authenticate`` returned; None without one."""
        return self._activity.link.identity

    @property
    def user(self) -> str | None:
        """The name that ``identify`` gave the client, or None."""
        return self._activity.link.user

    @property
    def session(self) -> dict[str, Any]:
        """A dict of the client's own, for as long as it is connected; handlers share it."""
        return self._activity.link.session

    @property
    def cancelled(self) -> threading.Event:
        """Set when the handler should end, while it still runs.

        Because the client sent a ``cancel`` with the request's id, has left, the handler's
        ``timeout`` is over, or the app stops.
        """
        return self._begin()

    def check(self) -> None:
        """Go on, or end here if ``cancelled`` is set.

        Raises:
            Cancelled: which the client gets as an error, ``cancelled`` or ``timeout``.
        """
        self._begin().check()

    def progress(
        self, done: float | None = None, total: float | None = None, note: str | None = None
    ) -> bool:
        """Tell the client how far its request is, with a message of type ``progress``.

        What is None is left out. For a client that reads slowly a newer one takes the
        place of an older one that still waits.

        Returns:
            False if the client has left, or its outbox is full.

        Threads:
            Any; never waits.
        """
        fields = {"done": done, "total": total, "note": note}
        data = {name: value for name, value in fields.items() if value is not None}
        writer = self._activity.writer
        sent = writer.reply(
            writer.compress(TEXT, self._stamped(envelope.encode("progress", data))),
            droppable=True,
            conflate=f"daebus.progress.{id(self)}",
        )
        return sent in TAKEN

    def __repr__(self) -> str:
        return f"<WebSocketRequest {self.message_type!r} from {self.client_id}>"

    # --- for this room ----------------------------------------------------------

    def _begin(self) -> CancelToken:
        """Have what stops this request noticed from now on."""
        token = self._token
        if token is None:
            activity = self._activity
            token = activity.pending.enlist(self)
            # A cancel may have been read with the request.
            if self.id is not None and activity.writer.is_owner():
                activity.link.reader.look_aside()
        return token

    def _stamped(self, message: bytes) -> bytes:
        """Return an envelope with the request's id, if it has one."""
        ident = self.id
        return message if ident is None else envelope.stamp(message, ident)

    def _reply(self, message: bytes) -> bool:
        """Send an envelope as a reply to this request.

        Returns:
            False if the client has left.
        """
        writer = self._activity.writer
        sent = writer.reply(
            writer.compress(TEXT, self._stamped(message)),
            patient=not self._activity.runtime.loop.is_current(),
        )
        return sent in TAKEN
