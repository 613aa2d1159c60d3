"""The part of ``DaebusWebSocket`` that sends: to one client, to some, to all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...arguments import check_ids, check_name
from ...errors import NoClientError
from ..clients.broadcast import OUTCOMES, SendResult
from ..connection.connection import Connection, current
from ..connection.writer import GONE, TAKEN, offer_to_all
from ..messages.request import asked
from ..protocol import envelope
from ..protocol.codec import TEXT, frame
from .context import Context

__all__ = ["Sending"]


class Sending(Context):
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
            data: what JSON can carry; see the guide for dataclasses and the like.
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
        req = asked.get(None)
        patient = req is not None and not connection.hub.loop.is_current()
        if message_type == "response":
            if req is None and connection.is_owner():
                req = connection.request
            if req is not None:
                payload = req.stamped(payload)
        done = connection.reply(
            connection.text_frame(payload),
            droppable=droppable,
            conflate=conflate,
            patient=patient,
        )
        return done in TAKEN

    def send_to_client(
        self,
        client_id: str,
        data: Any,
        message_type: str = "message",
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> SendResult:
        """Send to one client.

        Args:
            client_id: whom to.
            data: what JSON can carry.
            message_type: the ``"type"`` of the message.
            droppable: as for ``send``.
            conflate: as for ``send``.

        Returns:
            1, or 0 if that client is not connected or the message was dropped.

        Raises:
            EncodeError: the data has no JSON form.

        Threads:
            Any. Waits only in a sync handler of that very client, as ``send`` does.
        """
        payload = self._encode(message_type, data)
        hub = self._hub
        connection = None if hub is None else hub.registry.get(client_id)
        if connection is None:
            return OUTCOMES[GONE]
        return OUTCOMES[
            connection.reply(connection.text_frame(payload), droppable=droppable, conflate=conflate)
        ]

    def broadcast_to_clients(
        self,
        client_ids: Iterable[str],
        data: Any,
        message_type: str = "message",
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> dict[str, SendResult]:
        """Send to several clients, and tell for each what became of it.

        Args:
            client_ids: whom to; one that is named twice gets it once.
            data: what JSON can carry; it is encoded once.
            message_type: the ``"type"`` of the message.
            droppable: as for ``broadcast_to_all``.
            conflate: as for ``broadcast_to_all``.

        Returns:
            By client id, in the order given: 1, or 0 if that client is not connected or
            the message was dropped.

        Raises:
            EncodeError: the data has no JSON form.

        Threads:
            Any; never waits for a client.
        """
        payload = self._encode(message_type, data)
        hub = self._hub
        frames: dict[object, bytes] = {}
        results: dict[str, SendResult] = {}
        for client_id in check_ids(client_ids, "broadcast_to_clients({}, data)"):
            if client_id in results:
                continue
            connection = None if hub is None else hub.registry.get(client_id)
            if connection is None:
                results[client_id] = OUTCOMES[GONE]
                continue
            data_frame = frames.get(connection.compression)
            if data_frame is None:
                data_frame = frames[connection.compression] = connection.text_frame(payload)
            results[client_id] = OUTCOMES[connection.offer(data_frame, droppable, conflate)]
        return results

    def broadcast_to_all(
        self,
        data: Any,
        message_type: str = "broadcast",
        exclude: Iterable[str] = (),
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> SendResult:
        """Send to every connected client, the one being handled included.

        The message is encoded once. A client that does not read costs the others
        nothing: what it does not take is queued for it, up to ``max_outbox``.

        Args:
            data: what JSON can carry.
            message_type: the ``"type"`` of the message.
            exclude: ids of clients that do not get it.
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
        payload = self._encode(message_type, data)
        hub = self._hub
        connections = () if hub is None else hub.registry.snapshot()
        return self._offer(connections, payload, exclude, droppable, conflate)

    def broadcast_to_room(
        self,
        room: str,
        data: Any,
        message_type: str = "broadcast",
        exclude: Iterable[str] = (),
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> SendResult:
        """Send to every client in a room, the one being handled included.

        Args:
            room: its name; nobody is in a room that does not exist.
            data: as for ``broadcast_to_all``, and the others too.
            message_type: the ``"type"`` of the message.
            exclude: ids of clients that do not get it.
            droppable: drop it for clients that are too slow, rather than cut them.
            conflate: a key; where a message with the same key still waits, this newer one
                replaces it.

        Returns:
            How many clients it was sent to or queued for.

        Raises:
            EncodeError: the data has no JSON form.

        Threads:
            Any; never waits for a client.
        """
        payload = self._encode(message_type, data)
        check_name(room, "broadcast_to_room({}, data)")
        hub = self._hub
        connections = () if hub is None else hub.registry.rooms.snapshot(room)
        return self._offer(connections, payload, exclude, droppable, conflate)

    def send_to_user(
        self,
        user: str,
        data: Any,
        message_type: str = "message",
        exclude: Iterable[str] = (),
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> SendResult:
        """Send to every client that was identified as that user: all of its tabs.

        Args:
            user: as given to ``identify``.
            data: as for ``broadcast_to_all``, and the others too.
            message_type: the ``"type"`` of the message.
            exclude: ids of clients that do not get it, such as the tab that knows already.
            droppable: drop it for clients that are too slow, rather than cut them.
            conflate: a key; where a message with the same key still waits, this newer one
                replaces it.

        Returns:
            How many clients it was sent to or queued for; 0 if the user is not there.

        Raises:
            EncodeError: the data has no JSON form.

        Threads:
            Any; never waits for a client.
        """
        payload = self._encode(message_type, data)
        check_name(user, "send_to_user({}, data)")
        hub = self._hub
        connections = () if hub is None else hub.registry.users.snapshot(user)
        return self._offer(connections, payload, exclude, droppable, conflate)

    def _encode(self, message_type: str, data: Any) -> bytes:
        self._check_fork()
        return envelope.encode(message_type, data)

    def _offer(
        self,
        connections: Sequence[Connection],
        payload: bytes,
        exclude: Iterable[str],
        droppable: bool,
        conflate: str | None,
    ) -> SendResult:
        """Offer one message to many: one frame for each kind of compression."""
        excluded = frozenset(check_ids(exclude, "exclude={}"))
        if excluded:
            connections = [c for c in connections if c.client_id not in excluded]
        if not self._settings.deflate:
            return SendResult(*offer_to_all(connections, frame(TEXT, payload), droppable, conflate))
        groups: dict[object, list[Connection]] = {}
        for connection in connections:
            groups.setdefault(connection.compression, []).append(connection)
        counts = [
            offer_to_all(group, group[0].text_frame(payload), droppable, conflate)
            for group in groups.values()
        ]
        return SendResult(*map(sum, zip(*counts, strict=True)))
