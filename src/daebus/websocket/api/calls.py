"""The part of ``DaebusWebSocket`` that asks clients and waits for their answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from ...arguments import check_name, positive
from ...errors import CallError, CallTimeout, ClientGone, StateError
from ..messages.calls import PendingCall
from ..protocol import envelope
from .context import Context

__all__ = ["Calls"]

# How a call fails; in a ``broadcast_call`` it stands in the place of the answer.
FAILURES = (ClientGone, CallError, CallTimeout)


class Calls(Context):
    """Questions, from any thread."""

    def call(
        self, client_id: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> Any:
        """Ask a client and wait for its answer.

        The client gets a message of that type with an ``"id"``, and answers with type
        ``response`` (or ``error``) and the same id.

        Args:
            client_id: whom to ask.
            message_type: the ``"type"`` of the question.
            data: what JSON can carry.
            timeout: seconds; people who are to click something need some.

        Returns:
            The ``"data"`` of the answer, None if it has none.

        Raises:
            ClientGone: the client is not connected, or left before it answered.
            CallTimeout: it did not answer in time.
            CallError: it answered with an error; or too many calls to it wait already.
            StateError: called in an async handler; write ``await call_async(...)``.
            EncodeError: the data has no JSON form.

        Threads:
            Any but the loop's. In the client's own handler too: what else the client
            sends meanwhile waits for its turn. There it may first wait for room in the
            client's outbox, as ``send`` does.
        """
        positive("timeout", timeout)
        self._check_blocking("call")
        return self._ask(client_id, message_type, data).result(timeout)

    async def call_async(
        self, client_id: str, message_type: str, data: Any = None, *, timeout: float = 30.0
    ) -> Any:
        """Ask a client, in an async handler or any other coroutine; as ``call``."""
        positive("timeout", timeout)
        return await self._ask(client_id, message_type, data).result_async(timeout)

    def broadcast_call(
        self,
        to: str | Iterable[str],
        message_type: str,
        data: Any = None,
        *,
        timeout: float = 30.0,
    ) -> dict[str, Any]:
        """Ask several clients at once and wait for all answers.

        Args:
            to: the name of a room, or client ids such as ``get_clients()``.
            message_type: the ``"type"`` of the question.
            data: what JSON can carry.
            timeout: seconds for all of them.

        Returns:
            By client id the answer, or the exception that ``call`` would have raised.

        Raises:
            StateError: called in an async handler; write ``await broadcast_call_async(...)``.
            EncodeError: the data has no JSON form.

        Threads:
            Any but the loop's.
        """
        positive("timeout", timeout)
        self._check_blocking("broadcast_call")
        deadline = time.monotonic() + timeout
        asked = self._ask_all(to, message_type, data)
        answers: dict[str, Any] = {}
        try:
            for client_id, call in asked.items():
                try:
                    rest = max(0.0, deadline - time.monotonic())
                    answers[client_id] = (
                        call.result(rest) if isinstance(call, PendingCall) else call
                    )
                except FAILURES as exc:
                    answers[client_id] = exc
        finally:  # Ctrl-C may end the wait
            _forget(asked.values())
        return answers

    async def broadcast_call_async(
        self,
        to: str | Iterable[str],
        message_type: str,
        data: Any = None,
        *,
        timeout: float = 30.0,
    ) -> dict[str, Any]:
        """Ask several clients in a coroutine; as ``broadcast_call``."""
        positive("timeout", timeout)
        asked = self._ask_all(to, message_type, data)

        async def answer(call: PendingCall | Exception) -> Any:
            try:
                return await call.result_async(timeout) if isinstance(call, PendingCall) else call
            except FAILURES as exc:
                return exc

        try:
            answers = await asyncio.gather(*map(answer, asked.values()))
        finally:  # whoever is cancelled before it began forgets nothing
            _forget(asked.values())
        return dict(zip(asked, answers, strict=True))

    def _ask(self, client_id: str, message_type: str, data: Any) -> PendingCall:
        return self._send_question(client_id, message_type, envelope.encode(message_type, data))

    def _ask_all(
        self, to: str | Iterable[str], message_type: str, data: Any
    ) -> dict[str, PendingCall | Exception]:
        message = envelope.encode(message_type, data)
        client_ids: Iterable[str] = to if not isinstance(to, str) else self._members(to)
        asked: dict[str, PendingCall | Exception] = {}
        for client_id in dict.fromkeys(client_ids):
            try:
                asked[client_id] = self._send_question(client_id, message_type, message)
            except FAILURES as exc:
                asked[client_id] = exc
        return asked

    def _members(self, room: str) -> list[str]:
        check_name(room, "broadcast_call({}, message_type)")
        hub = self._hub
        return [] if hub is None else hub.registry.rooms.members(room)

    def _send_question(self, client_id: str, message_type: str, message: bytes) -> PendingCall:
        self._check_fork()
        hub = self._hub
        connection = None if hub is None else hub.registry.get(client_id)
        if connection is None:
            raise ClientGone(client_id)
        if connection.path in self._settings.raw:
            raise CallError(
                f"client {client_id} is on the raw path {connection.path!r}, where nobody looks "
                f"for answers; ask with connection.send() and recv()",
                "raw_path",
            )
        return PendingCall(connection, message_type, message)

    def _check_blocking(self, name: str) -> None:
        hub = self._hub
        if hub is not None and hub.loop.is_current():
            raise StateError(
                f"{name}() would block the loop that all async handlers share; "
                f"write: await app.websocket.{name}_async(...)"
            )


def _forget(asked: Iterable[PendingCall | Exception]) -> None:
    for call in asked:
        if isinstance(call, PendingCall):
            call.forget()
