"""Where each thing that comes from the server goes to, in the reader's thread."""

from __future__ import annotations

from collections.abc import Callable

from ..server.threads.safelog import get_logger
from ..websocket.protocol.envelope import BadMessage
from .callbacks import Callbacks
from .message import Message, decode
from .queues import Queue
from .requests import Requests
from .session import ClientStatus
from .subscriptions import Subscriptions

__all__ = ["Router"]

logger = get_logger("daebus.client")


class Router:
    """Hands over messages, and tells of the status.

    Args:
        requests, subscriptions, callbacks: are asked in this order.
        messages: gets the rest.

    Attributes:
        on_goodbye: called with the data of a ``goodbye``.
    """

    def __init__(
        self,
        requests: Requests,
        subscriptions: Subscriptions,
        callbacks: Callbacks,
        messages: Queue[Message],
    ) -> None:
        self._requests = requests
        self._subscriptions = subscriptions
        self._callbacks = callbacks
        self._messages = messages
        self._statuses: tuple[Callable[[ClientStatus], object], ...] = ()
        self._asked: frozenset[str] = frozenset()  # replaced, never changed
        self._asked_all = False
        self.on_goodbye: Callable[[object], None] = lambda data: None

    def add_status(self, function: Callable[[ClientStatus], object]) -> None:
        """Have a function called with every status."""
        self._statuses = (*self._statuses, function)
        self._callbacks.need()

    def came(self, message: str | bytes) -> object:
        """Take a message as it came; return its id if it may answer a heartbeat."""
        if isinstance(message, bytes):
            logger.warning("a binary message of the server was dropped: it has no type")
            return None
        try:
            found = decode(message)
        except BadMessage as exc:
            logger.warning("a message of the server was dropped: %s", exc)
            return None
        size = len(message)
        if self._requests.take(found) or self._subscriptions.take(found, size):
            return found.id
        if found.type == "goodbye":
            self.on_goodbye(found.data)
        if not self._callbacks.offer(found, size) and found.type not in ("goodbye", "heartbeat"):
            self._messages.put(found, size)
        return found.id if found.type == "heartbeat" else None

    def ask(self, message_type: str | None) -> None:
        """Note that somebody takes messages of a type, None for all; they are never dropped."""
        if message_type is None:
            self._asked_all = True
        elif message_type not in self._asked:
            self._asked = self._asked | {message_type}

    def drop(self) -> bool:
        """Drop the oldest message that nobody has asked for; False if there is none.

        Where the program uses nothing else it may still ask for it.
        """
        if self._asked_all or not (
            self._callbacks or self._subscriptions or self._requests.waited_for
        ):
            return False
        asked = self._asked
        if not self._messages.drop(lambda message: message.type not in asked):
            return False
        logger.warning(
            "messages of the server are dropped, since many wait that nobody has asked for; "
            "take them: for message in client, or @client.on('*')"
        )
        return True

    def changed(self, status: ClientStatus) -> None:
        """Tell the program's functions of a status."""
        for function in self._statuses:
            self._callbacks.later(function, status)

    def ended(self) -> None:
        """Note that nothing more will come."""
        self._messages.end()
