"""The argument of a handler."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic

from ..clients.broadcast import Policy, reply
from ..connection.connection import Connection
from ..protocol import envelope
from ..protocol.opening import Headers, Values
from .activity import Activity
from .cancellation import CancelToken
from .pending import KINDS

if TYPE_CHECKING:
    # With the default, who does not name the type of the data need not know that there is one.
    # Type checkers bring the module; nothing imports it when a program runs.
    from typing_extensions import TypeVar

    Data = TypeVar("Data", default=Any)
else:
    from typing import TypeVar

    Data = TypeVar("Data")

__all__ = ["WebSocketRequest", "asked"]

# The request being handled, where that is not the one of the connection's thread: in jobs,
# and in tasks that an async handler starts.
asked: ContextVar[WebSocketRequest] = ContextVar("daebus_request")


class WebSocketRequest(Generic[Data]):
    """One message of one client.

    ``WebSocketRequest[Chat]``, of a ``TypedDict`` say, tells type checkers what ``data`` is. It
    promises them, and checks nothing: it is the client that sends.

    Attributes:
        message_type: the ``"type"`` of the message.
        data: its ``"data"``, any JSON value; an empty dict if the message has none.
        payload: the whole message.
    """

    __slots__ = ("_activity", "_responded", "_token", "data", "message_type", "payload")

    _responded: bool  # there once a response was sent: setting it would cost each message

    def __init__(self, activity: Activity, message_type: str, payload: dict[str, Any]) -> None:
        self._activity = activity
        self.message_type = message_type
        self.payload = payload
        # Not get(), for which the empty dict would be made with every message.
        self.data: Data = payload["data"] if "data" in payload else {}  # noqa: SIM401
        self._token: CancelToken | None = None  # made when something may first stop it

    @property
    def websocket(self) -> Connection:
        """The connection, to send something other than JSON or to close it."""
        return self._activity.connection

    @property
    def id(self) -> str | int | float | None:
        """The ``"id"`` of the message, or None.

        Every reply repeats it.
        """
        return self.payload.get("id")

    @property
    def client_id(self) -> str:
        """The id of the client that sent the message."""
        return self._activity.link.client_id

    @property
    def identity(self) -> Any:
        """The client's identity: what ``authenticate`` returned; None without one."""
        return self._activity.link.identity

    @property
    def user(self) -> str | None:
        """The name that ``identify`` gave the client, or None."""
        return self._activity.link.user

    @property
    def path(self) -> str:
        """Path of the upgrade request, without the query."""
        return self._activity.link.peer.path

    @property
    def path_params(self) -> Mapping[str, Any]:
        """The parameters of ``path="/device/<name>"``; empty without any."""
        return self._activity.link.peer.path_params

    @property
    def headers(self) -> Headers:
        """The headers with which the client connected; see ``Connection.headers``."""
        return self._activity.connection.headers

    @property
    def query(self) -> Values:
        """The query with which the client connected; see ``Connection.query``."""
        return self._activity.connection.query

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies with which the client connected."""
        return self._activity.connection.cookies

    @property
    def session(self) -> dict[str, Any]:
        """A dict of this client, shared by its handlers for as long as it is connected."""
        return self._activity.link.session

    @property
    def cancelled(self) -> threading.Event:
        """Set when the handler should end, while it still runs.

        That is when the client sends a ``cancel`` with the request's id or leaves, when the
        handler's ``timeout`` has passed, or when the app stops.
        """
        return self._begin()

    def check(self) -> None:
        """Raise ``Cancelled`` if ``cancelled`` is set, else return.

        Raises:
            Cancelled: the client gets it as an error, ``cancelled`` or ``timeout``.
        """
        self._begin().check()

    def progress(
        self, done: float | None = None, total: float | None = None, note: str | None = None
    ) -> bool:
        """Report progress to the client, with a message of type ``progress``.

        Arguments that are None are left out. If the client reads slowly, a newer report
        replaces an older one that still waits.

        Returns:
            False if the client has left, or its outbox is full.

        Threads:
            Any; never waits.
        """
        fields = {"done": done, "total": total, "note": note}
        data = {name: value for name, value in fields.items() if value is not None}
        message = self._stamped(envelope.encode("progress", data, self._activity.runtime.encoder))
        policy = Policy(droppable=True, conflate=f"daebus.progress.{id(self)}")
        return bool(reply(self._activity.writer, message, policy))

    def __repr__(self) -> str:
        return f"<WebSocketRequest {self.message_type!r} from {self.client_id}>"

    # --- for this room ----------------------------------------------------------

    def _begin(self) -> CancelToken:
        """Return the token; make this request stoppable if it is not yet."""
        token = self._token
        if token is None:
            activity = self._activity
            token = activity.pending.enlist(self)
            # Its cancel may have been read together with the request.
            if self.id is not None and activity.writer.is_owner():
                activity.link.reader.take_cancels()
        return token

    def _stamped(self, message: bytes) -> bytes:
        """Return an envelope with the request's id, if it has one."""
        ident = self.id
        return message if ident is None else envelope.stamp(message, ident)

    def _as_response(self, message: bytes) -> bytes:
        """Return an envelope with the request's id; it is an answer to this request."""
        self._responded = True
        return self._stamped(message)

    def _wants_answer(self) -> bool:
        """Tell whether the client waits for an answer that nobody has sent yet.

        An id of an answer or a cancel is that of another message.

        Raises:
            Cancelled: the handler has nothing to say since it was told to end.
        """
        if (
            self.id is None
            or self.message_type in KINDS
            or getattr(self, "_responded", False)  # there once a response was sent
        ):
            return False
        if self._token is not None:
            self._token.check()
        return True

    def _respond(self, data: Any) -> None:
        """Send a response to this request.

        Raises:
            EncodeError: the data has no JSON form.
        """
        activity = self._activity
        message = envelope.encode("response", data, activity.runtime.encoder)
        patient = not activity.runtime.loop.is_current()
        reply(activity.writer, self._as_response(message), patient=patient)
