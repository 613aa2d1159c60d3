"""The methods of ``DaebusWebSocket`` that ask clients and wait for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ...arguments import check_ids, check_name, seconds
from ...errors import CallError, CallTimeout, ClientGone, StateError
from ...interrupts.stack import check_outside
from ...waits import monotonic
from ..messages.activity import Activity
from ..messages.pending import PendingCall
from .context import Section

__all__ = ["Calls"]

# How a call fails; ``call_room`` and the like return these in place of an answer.
FAILURES = (ClientGone, CallError, CallTimeout)


class Calls(Section):
    """Calls to clients, from any thread."""

    def call(
        self, client_id: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> Any:
        """Ask a client and wait for its answer.

        The client gets a message of that type with an ``"id"``, and answers with type
        ``response`` (or ``error``) and the same id.

        Args:
            client_id: the client to ask.
            message_type: the ``"type"`` of the question.
            data: what JSON can carry.
            timeout: seconds; allow enough if a person has to click something.

        Returns:
            The ``"data"`` of the answer, None if it has none.

        Raises:
            ClientGone: the client is not connected, or left before it answered.
            CallTimeout: it did not answer in time.
            CallError: it answered with an error, or too many calls to it wait already.
            StateError: called in an async handler; write ``await call_async(...)``.
            EncodeError: the data has no JSON form.

        Threads:
            Any but the loop's. In the client's own handler too: other messages of the client
                wait meanwhile. There it may first wait for room in the client's outbox, as
                ``send`` does.
        """
        seconds("timeout", timeout)
        self._check_blocking("call")
        return self._ask(client_id, message_type, data).result(timeout)

    async def call_async(
        self, client_id: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> Any:
        """Ask a client and await its answer; as ``call``, for coroutines."""
        seconds("timeout", timeout)
        return await self._ask(client_id, message_type, data).result_async(timeout)

    def call_room(
        self, room: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> dict[str, Any]:
        """Ask every client in a room at once and wait for all answers.

        Args:
            room: its name; a room that does not exist has no clients.
            message_type: the ``"type"`` of the question.
            data: what JSON can carry.
            timeout: seconds for all answers together.

        Returns:
            The answer of each client, or the exception that ``call`` would have raised.

        Raises:
            StateError: called in an async handler; write ``await call_room_async(...)``.
            EncodeError: the data has no JSON form.

        Threads:
            Any but the loop's.
        """
        self._check_blocking("call_room")
        return self._ask_and_wait(self._in_room(room), message_type, data, timeout)

    async def call_room_async(
        self, room: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> dict[str, Any]:
        """Ask every client in a room; as ``call_room``, for coroutines."""
        return await self._ask_and_await(self._in_room(room), message_type, data, timeout)

    def call_user(
        self, user: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> dict[str, Any]:
        """Ask every client that was identified as a user, such as its tabs; as ``call_room``.

        Raises:
            StateError: called in an async handler; write ``await call_user_async(...)``.
            EncodeError: the data has no JSON form.

        Threads:
            Any but the loop's.
        """
        self._check_blocking("call_user")
        return self._ask_and_wait(self._of_user(user), message_type, data, timeout)

    async def call_user_async(
        self, user: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> dict[str, Any]:
        """Ask every client of a user; as ``call_user``, for coroutines."""
        return await self._ask_and_await(self._of_user(user), message_type, data, timeout)

    def call_clients(
        self,
        client_ids: Iterable[str],
        message_type: str,
        data: Any = None,
        *,
        timeout: float = 30.0,
    ) -> dict[str, Any]:
        """Ask several clients, such as ``get_clients()``, at once; as ``call_room``.

        Raises:
            StateError: called in an async handler; write ``await call_clients_async(...)``.
            EncodeError: the data has no JSON form.
            TypeError: the ids are one string.

        Threads:
            Any but the loop's.
        """
        self._check_blocking("call_clients")
        ids = check_ids(client_ids, "call_clients({}, message_type)")
        return self._ask_and_wait(ids, message_type, data, timeout)

    async def call_clients_async(
        self,
        client_ids: Iterable[str],
        message_type: str,
        data: Any = None,
        *,
        timeout: float = 30.0,
    ) -> dict[str, Any]:
        """Ask several clients; as ``call_clients``, for coroutines."""
        ids = check_ids(client_ids, "call_clients_async({}, message_type)")
        return await self._ask_and_await(ids, message_type, data, timeout)

    def _in_room(self, room: str) -> list[str]:
        check_name(room, "call_room({}, message_type)")
        hub = self._context.hub
        return [] if hub is None else hub.registry.rooms.members(room)

    def _of_user(self, user: str) -> list[str]:
        check_name(user, "call_user({}, message_type)")
        hub = self._context.hub
        return [] if hub is None else hub.registry.users.members(user)

    def _ask_and_wait(
        self, client_ids: Iterable[str], message_type: str, data: Any, timeout: float
    ) -> dict[str, Any]:
        seconds("timeout", timeout)
        deadline = monotonic() + timeout
        asked = self._ask_all(client_ids, message_type, data)
        answers: dict[str, Any] = {}
        try:
            for client_id, call in asked.items():
                try:
                    rest = max(0.0, deadline - monotonic())
                    answers[client_id] = (
                        call.result(rest) if isinstance(call, PendingCall) else call
                    )
                except FAILURES as exc:
                    answers[client_id] = exc
        finally:  # Ctrl-C may end the wait
            _forget(asked.values())
        return answers

    async def _ask_and_await(
        self, client_ids: Iterable[str], message_type: str, data: Any, timeout: float
    ) -> dict[str, Any]:
        seconds("timeout", timeout)
        asked = self._ask_all(client_ids, message_type, data)

        async def answer(call: PendingCall | Exception) -> Any:
            try:
                return await call.result_async(timeout) if isinstance(call, PendingCall) else call
            except FAILURES as exc:
                return exc

        try:
            answers = await asyncio.gather(*map(answer, asked.values()))
        finally:  # a task that was cancelled before it began has forgotten nothing
            _forget(asked.values())
        return dict(zip(asked, answers, strict=True))

    def _ask(self, client_id: str, message_type: str, data: Any) -> PendingCall:
        return self._send_question(
            client_id, message_type, self._context.encode(message_type, data)
        )

    def _ask_all(
        self, client_ids: Iterable[str], message_type: str, data: Any
    ) -> dict[str, PendingCall | Exception]:
        message = self._context.encode(message_type, data)
        asked: dict[str, PendingCall | Exception] = {}
        for client_id in dict.fromkeys(client_ids):
            try:
                asked[client_id] = self._send_question(client_id, message_type, message)
            except FAILURES as exc:
                asked[client_id] = exc
        return asked

    def _send_question(self, client_id: str, message_type: str, message: bytes) -> PendingCall:
        self._context.check_fork()
        link = self._context.link(client_id)
        activity = None if link is None else Activity.of(link)
        if link is None or activity is None:
            raise ClientGone(client_id)
        if link.peer.raw:
            raise CallError(
                f"client {client_id} is on the raw path {link.peer.path!r}, which has no calls; "
                f"ask with connection.send() and connection.recv()",
                "raw_path",
            )
        return PendingCall(link, activity.pending, message_type, message)

    def _check_blocking(self, name: str) -> None:
        check_outside(f"{name}()")
        hub = self._context.hub
        if hub is not None and hub.runtime.loop.is_current():
            raise StateError(
                f"{name}() would block the loop that all async handlers share; "
                f"write: await app.websocket.{name}_async(...)"
            )


def _forget(asked: Iterable[PendingCall | Exception]) -> None:
    for call in asked:
        if isinstance(call, PendingCall):
            call.forget()
