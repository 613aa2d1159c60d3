"""The part of ``DaebusWebSocket`` that sends: to one client, to some, to all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...arguments import check_ids, check_name
from ...errors import NoClientError
from ..clients.broadcast import ALL, OUTCOMES, Door, Policy, SendResult, Target
from ..connection.outbox import GONE
from ..messages.activity import Handled, current
from ..messages.request import asked
from ..protocol import envelope
from .context import Section

__all__ = ["Sending"]


class Sending(Section):
    """Sending, from any thread."""

    def send(
        self,
        data: Any,
        message_type: str = "response",
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> SendResult:
        """Send to the client whose message is being handled.

        Args:
            data: what JSON can carry; see the guide for dataclasses and the like.
            message_type: the ``"type"`` of the message. A ``response`` carries the id of
                the message that is being handled, if that has one.
            droppable: drop it rather than wait or cut, if the client is too slow.
            conflate: a key; a message that still waits with the same key is replaced by
                this newer one.

        Returns:
            1, or 0 if that client has left or the message was dropped.

        Raises:
            NoClientError: called outside of a handler or hook.
            EncodeError: the data has no JSON form.

        Threads:
            The handler's, an async handler's included. A sync handler waits here when
            its own client does not read, ``send_timeout`` at most.
        """
        self._context.check_fork()
        activity = current.get(None)
        if activity is None:
            raise NoClientError(
                "send() answers the client whose message is being handled, and here is none; "
                "to reach all clients write app.websocket.broadcast_to_all(data)"
            )
        payload = envelope.encode(message_type, data)
        req = asked.get(None)
        patient = req is not None and not activity.runtime.loop.is_current()
        if message_type == "response":
            handled: Handled | None = req
            if req is None and activity.writer.is_owner():
                handled = activity.request
            if handled is not None:
                payload = handled._stamped(payload)
        return Door.reply(activity.writer, payload, Policy(droppable, conflate), patient=patient)

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
        policy = Policy(droppable, conflate)
        return self._context.deliver(Target("client", client_id), message_type, data, policy)

    def broadcast_to_clients(
        self,
        client_ids: Iterable[str],
        data: Any,
        message_type: str = "broadcast",
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
        self._context.check_fork()
        payload = envelope.encode(message_type, data)
        ids = check_ids(client_ids, "broadcast_to_clients({}, data)")
        hub = self._context.hub
        if hub is None:
            return dict.fromkeys(ids, OUTCOMES[GONE])
        return hub.door.deliver_each(ids, payload, Policy(droppable, conflate))

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
        policy = Policy(droppable, conflate, _excluded(exclude))
        return self._context.deliver(ALL, message_type, data, policy)

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
        check_name(room, "broadcast_to_room({}, data)")
        policy = Policy(droppable, conflate, _excluded(exclude))
        return self._context.deliver(Target("room", room), message_type, data, policy)

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
        check_name(user, "send_to_user({}, data)")
        policy = Policy(droppable, conflate, _excluded(exclude))
        return self._context.deliver(Target("user", user), message_type, data, policy)


def _excluded(exclude: Iterable[str]) -> frozenset[str]:
    return frozenset(check_ids(exclude, "exclude={}"))
