"""The methods of ``DaebusWebSocket`` that send: to one client, to several, to all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...checks.arguments import check_client_id, check_ids, check_name
from ...errors import NoClientError
from ..clients.broadcast import ALL, OUTCOMES, Policy, SendResult, Target, reply
from ..connection.outbox import GONE
from ..messages.activity import Handled, current
from ..messages.request import asked
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
            data: what JSON can carry, dataclasses and dates among others; docs/guide/messages.rst
                lists them.
            message_type: the ``"type"`` of the message. A ``response`` carries the id of
                the message that is being handled, if that has one.
            droppable: drop the message rather than wait or cut the client, if it is slow.
            conflate: a key; this message replaces a waiting one with the same key.

        Returns:
            1, or 0 if that client has left or the message was dropped.

        Raises:
            NoClientError: called outside of a handler or hook.
            EncodeError: the data has no JSON form.

        Threads:
            The handler's, sync or async. A sync handler waits here while its own client
                does not read, ``send_timeout`` at most.
        """
        self._context.check_fork()
        activity = current.get(None)
        if activity is None:
            raise NoClientError(
                "send() was called outside of a handler or hook, so it has no client; "
                "to reach all clients write app.websocket.broadcast_to_all(data)"
            )
        payload = self._context.encode(message_type, data)
        req = asked.get(None)
        patient = req is not None and not activity.runtime.loop.is_current()
        if message_type == "response":
            handled: Handled | None = req
            if req is None and activity.writer.is_owner():
                handled = activity.request
            if handled is not None:
                payload = handled._as_response(payload)
        return reply(activity.writer, payload, Policy(droppable, conflate), patient=patient)

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
            client_id: the client.
            data: what JSON can carry.
            message_type: the ``"type"`` of the message.
            droppable: as for ``send``.
            conflate: as for ``send``.

        Returns:
            1, or 0 if that client is not connected or the message was dropped. With a backplane
                1 for a client of another process too, if the message was handed to that
                (``nodes`` is 1 then).

        Raises:
            EncodeError: the data has no JSON form.
            TooLargeError: it is for another process, and larger than ``max_frame``.
            TypeError: the id or the type is not a string.

        Threads:
            Any. Waits only in a sync handler of that same client, as ``send`` does.
        """
        check_client_id(client_id)
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
        """Send to several clients; return a result for each.

        Args:
            client_ids: the clients; one that is named twice gets the message once.
            data: what JSON can carry; it is encoded once.
            message_type: the ``"type"`` of the message.
            droppable: as for ``broadcast_to_all``.
            conflate: as for ``broadcast_to_all``.

        Returns:
            For each client id, in the order given: what ``send_to_client`` returns.

        Raises:
            EncodeError: the data has no JSON form.
            TooLargeError: some are clients of other processes, and it is larger than
                ``max_frame``; nobody got it.

        Threads:
            Any; never waits for a client.
        """
        self._context.check_fork()
        payload = self._context.encode(message_type, data)
        ids = tuple(check_ids(client_ids, "broadcast_to_clients({}, data)"))
        hub, routes, policy = self._context.hub, self._context.routes, Policy(droppable, conflate)
        if hub is None:
            return dict.fromkeys(ids, OUTCOMES[GONE])
        if routes is not None:
            return routes.deliver_each(ids, payload, policy)
        return hub.door.deliver_each(ids, payload, policy)

    def broadcast_to_all(
        self,
        data: Any,
        message_type: str = "broadcast",
        exclude: Iterable[str] = (),
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> SendResult:
        """Send to every connected client, including the one being handled.

        With a backplane the clients of all processes get it, those of this one first. The
        message is encoded once. A client that does not read does not delay the others:
        the message is queued for it, up to ``max_outbox``.

        Args:
            data: what JSON can carry.
            message_type: the ``"type"`` of the message.
            exclude: ids of clients that do not get it.
            droppable: drop it for clients that are too slow, rather than cut them.
            conflate: a key; this message replaces a waiting one with the same key. For
                values of which only the latest matters.

        Returns:
            How many clients of this process it was sent to or queued for; 0 if the app does not
                run. ``nodes`` says to how many other processes it was handed.

        Raises:
            EncodeError: the data has no JSON form.
            TooLargeError: it is larger than the backplane's ``max_frame``; nobody got it.

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
        """Send to every client in a room, including the one being handled.

        With a backplane those of all processes get it, as with ``broadcast_to_all``.

        Args:
            room: its name; a room that does not exist has no clients.
            data: what JSON can carry.
            message_type: the ``"type"`` of the message.
            exclude: ids of clients that do not get it.
            droppable: drop it for clients that are too slow, rather than cut them.
            conflate: a key; where a message with the same key still waits, this newer one
                replaces it.

        Returns:
            How many clients of this process it was sent to or queued for.

        Raises:
            EncodeError: the data has no JSON form.
            TooLargeError: as with ``broadcast_to_all``.

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
        """Send to every client of a user, such as all of its tabs.

        With a backplane those of all processes get it, as with ``broadcast_to_all``.

        Args:
            user: the name given to ``identify``.
            data: what JSON can carry.
            message_type: the ``"type"`` of the message.
            exclude: ids of clients that do not get it, such as the tab that knows already.
            droppable: drop it for clients that are too slow, rather than cut them.
            conflate: a key; where a message with the same key still waits, this newer one
                replaces it.

        Returns:
            How many clients of this process it was sent to or queued for; 0 if the user has none
                here.

        Raises:
            EncodeError: the data has no JSON form.
            TooLargeError: as with ``broadcast_to_all``.

        Threads:
            Any; never waits for a client.
        """
        check_name(user, "send_to_user({}, data)")
        policy = Policy(droppable, conflate, _excluded(exclude))
        return self._context.deliver(Target("user", user), message_type, data, policy)


def _excluded(exclude: Iterable[str]) -> tuple[str, ...]:
    return tuple(check_ids(exclude, "exclude={}"))
