"""The methods of ``DaebusWebSocket`` that ask clients and wait for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ...checks.arguments import check_client_id, check_ids, check_name, seconds
from ...errors import CallError, CallTimeout, ClientGone
from ...waits import monotonic, until
from ..cluster.queries import Answers, What
from ..messages.pending import Answer, PendingCall
from ..messages.questions import ask
from .cluster import members, members_async
from .context import Section

__all__ = ["Calls"]

# Seconds in which the other processes say which clients they have.
MEMBERS = 1.0

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
            ClientGone: the client is not connected, or left before it answered; with a backplane
                also, if the process that it is connected to is gone.
            CallTimeout: it did not answer in time.
            CallError: it answered with an error, or too many calls to it wait already.
            StateError: called in an async handler; write ``await call_async(...)``.
            EncodeError: the data has no JSON form.
            TooLargeError: the client is another process's, and the question larger than the
                backplane's ``max_frame``.

        Threads:
            Any but the loop's. In the client's own handler too: other messages of the client
                wait meanwhile. There it may first wait for room in the client's outbox, as
                ``send`` does.
        """
        seconds("timeout", timeout)
        self._context.check_blocking("call", "call_async")
        return self._ask(client_id, message_type, data, timeout).result(timeout)

    async def call_async(
        self, client_id: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> Any:
        """Ask a client and await its answer; as ``call``, for coroutines."""
        seconds("timeout", timeout)
        return await self._ask(client_id, message_type, data, timeout).result_async(timeout)

    def call_room(
        self, room: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> Answers:
        """Ask every client in a room at once and wait for all answers.

        Args:
            room: its name; a room that does not exist has no clients.
            message_type: the ``"type"`` of the question.
            data: what JSON can carry.
            timeout: seconds for all answers together.

        Returns:
            The answer of each client, or the exception that ``call`` would have raised. With a
                backplane the clients of all processes are asked: each process first for those
                that it has, a second at most. ``missing`` names the processes that did not say.

        Raises:
            StateError: called in an async handler; write ``await call_room_async(...)``.
            EncodeError: the data has no JSON form.
            TooLargeError: some are clients of other processes, and the question is larger than
                the backplane's ``max_frame``; nobody was asked.

        Threads:
            Any but the loop's.
        """
        self._context.check_blocking("call_room", "call_room_async")
        check_name(room, "call_room({}, message_type)")
        return self._ask_members("room", room, message_type, data, timeout)

    async def call_room_async(
        self, room: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> Answers:
        """Ask every client in a room; as ``call_room``, for coroutines."""
        check_name(room, "call_room_async({}, message_type)")
        return await self._ask_members_async("room", room, message_type, data, timeout)

    def call_user(
        self, user: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> Answers:
        """Ask every client that was identified as a user, such as its tabs; as ``call_room``.

        Raises:
            StateError: called in an async handler; write ``await call_user_async(...)``.
            EncodeError: the data has no JSON form.

        Threads:
            Any but the loop's.
        """
        self._context.check_blocking("call_user", "call_user_async")
        check_name(user, "call_user({}, message_type)")
        return self._ask_members("user", user, message_type, data, timeout)

    async def call_user_async(
        self, user: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> Answers:
        """Ask every client of a user; as ``call_user``, for coroutines."""
        check_name(user, "call_user_async({}, message_type)")
        return await self._ask_members_async("user", user, message_type, data, timeout)

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
        self._context.check_blocking("call_clients", "call_clients_async")
        ids = check_ids(client_ids, "call_clients({}, message_type)")
        seconds("timeout", timeout)
        return self._ask_and_wait(ids, message_type, data, monotonic() + timeout)

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
        seconds("timeout", timeout)
        return await self._ask_and_await(ids, message_type, data, monotonic() + timeout)

    def _ask_members(
        self, what: What, name: str, message_type: str, data: Any, timeout: float
    ) -> Answers:
        seconds("timeout", timeout)
        deadline = monotonic() + timeout
        ids = members(self._context, what, name, min(timeout, MEMBERS))
        return Answers(self._ask_and_wait(ids, message_type, data, deadline), ids.missing)

    async def _ask_members_async(
        self, what: What, name: str, message_type: str, data: Any, timeout: float
    ) -> Answers:
        seconds("timeout", timeout)
        deadline = monotonic() + timeout
        ids = await members_async(self._context, what, name, min(timeout, MEMBERS))
        return Answers(await self._ask_and_await(ids, message_type, data, deadline), ids.missing)

    def _ask_and_wait(
        self, client_ids: Iterable[str], message_type: str, data: Any, deadline: float
    ) -> dict[str, Any]:
        asked = self._ask_all(client_ids, message_type, data, until(deadline))
        answers: dict[str, Any] = {}
        try:
            for client_id, call in asked.items():
                try:
                    answers[client_id] = (
                        call.result(until(deadline)) if isinstance(call, PendingCall) else call
                    )
                except FAILURES as exc:
                    answers[client_id] = exc
        finally:  # Ctrl-C may end the wait
            _forget(asked.values())
        return answers

    async def _ask_and_await(
        self, client_ids: Iterable[str], message_type: str, data: Any, deadline: float
    ) -> dict[str, Any]:
        timeout = until(deadline)
        asked = self._ask_all(client_ids, message_type, data, timeout)

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

    def _ask(self, client_id: str, message_type: str, data: Any, timeout: float) -> PendingCall:
        asked = self._ask_all([check_client_id(client_id)], message_type, data, timeout)[client_id]
        if isinstance(asked, PendingCall):
            return asked
        raise asked

    def _ask_all(
        self, client_ids: Iterable[str], message_type: str, data: Any, timeout: float
    ) -> dict[str, PendingCall | Exception]:
        message = self._context.encode(message_type, data)
        self._context.check_fork()
        asked: dict[str, PendingCall | Exception] = {}
        routes, ids = self._context.routes, [*dict.fromkeys(client_ids)]
        if routes is not None:
            asked.update(routes.ask_each(ids, message_type, message, timeout))
        for client_id in ids:
            if client_id in asked:
                continue
            answer = Answer()
            try:
                link = self._context.link(client_id)
                forget = ask(link, client_id, message_type, message, answer)
            except FAILURES as exc:
                asked[client_id] = exc
            else:
                asked[client_id] = PendingCall(client_id, message_type, answer, forget)
        return {client_id: asked[client_id] for client_id in ids}


def _forget(asked: Iterable[PendingCall | Exception]) -> None:
    for call in asked:
        if isinstance(call, PendingCall):
            call.forget()
