"""The part of ``DaebusWebSocket`` that sends: to one client, to all."""

from __future__ import annotations

from typing import Any

from ..errors import NoClientError
from . import envelope
from .codec import TEXT, frame
from .connection import Connection, current
from .parts import Part
from .request import asked
from .sending import offer_to_all

__all__ = ["Addressing"]


class Addressing(Part):
    """Sending, from any thread."""

    def send(
        self,
        data: Any,
        message_type: str = "response",
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> bool:
        """Send to the client whose message is being handled.

        Args:
            data: what JSON can carry; see the README for dataclasses and the like.
            message_type: the ``"type"`` of the message. A ``response`` carries the id of
                the message that is being handled, if that has one.
            droppable: drop it rather than wait or cut, if the client is too slow.
            conflate: a key; a message that still waits with the same key is replaced by
                this newer one.

        Returns:
            False if that client has left, or the message was dropped.

        Raises:
            NoClientError: called outside of a handler or hook.
            EncodeError: the data has no JSON form.

        Threads:
            The handler's, an async handler's included. A sync handler waits here when
            its own client does not read, ``send_timeout`` at most.
        """
        self._check_fork()
        connection = current.get(None)
        if connection is None:
            raise NoClientError(
                "send() answers the client whose message is being handled, and here is none; "
                "to reach all clients write app.websocket.broadcast_to_all(data)"
            )
        payload = envelope.encode(message_type, data)
        if message_type == "response":
            req = asked.get(None)
            if req is None and connection.is_owner():
                req = connection.request
            if req is not None:
                payload = req.stamped(payload)
        return connection.reply(
            connection.text_frame(payload), droppable=droppable, conflate=conflate
        )

    def broadcast_to_all(
        self,
        data: Any,
        message_type: str = "broadcast",
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> int:
        """Send to every connected client, the one being handled included.

        The message is encoded once. A client that does not read costs the others
        nothing: what it does not take is queued for it, up to ``max_outbox``.

        Args:
            data: what JSON can carry.
            message_type: the ``"type"`` of the message.
            droppable: drop it for clients that are too slow, rather than cut them.
            conflate: a key; where a message with the same key still waits, this newer one
                replaces it. For values of which only the latest matters.

        Returns:
            How many clients it was sent to or queued for; 0 if the app does not run.

        Raises:
            EncodeError: the data has no JSON form.

        Threads:
            Any; never waits for a client.
        """
        self._check_fork()
        payload = envelope.encode(message_type, data)
        hub = self._hub
        if hub is None:
            return 0
        connections = hub.registry.snapshot()
        if not self._settings.deflate:
            return offer_to_all(connections, frame(TEXT, payload), droppable, conflate)
        groups: dict[object, list[Connection]] = {}
        for connection in connections:
            groups.setdefault(connection.compression, []).append(connection)
        return sum(
            offer_to_all(group, group[0].text_frame(payload), droppable, conflate)
            for group in groups.values()
        )
