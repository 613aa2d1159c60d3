"""One question to a client, and waiting for its answer."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from ...errors import CallTimeout
from ..connection.connection import Connection
from ..connection.writer import TAKEN
from ..protocol import envelope

__all__ = ["PendingCall"]


class PendingCall:
    """A question that has been sent.

    Args:
        connection: of the client.
        kind: the message type.
        message: the envelope, without an id.

    Raises:
        ClientGone: it is no longer open.
        CallError: too many calls wait already.
        CallTimeout: the client's outbox is full, and the question was dropped.
    """

    def __init__(self, connection: Connection, kind: str, message: bytes) -> None:
        self._connection = connection
        self._kind = kind
        self._ident, self._future = connection.aside.ask()
        question = connection.text_frame(envelope.stamp(message, self._ident))
        if connection.reply(question) not in TAKEN and connection.aside.forget(self._ident):
            raise CallTimeout(f"{kind!r} was dropped: client {connection.client_id} does not read")
        connection.listen()

    def result(self, timeout: float) -> Any:
        """Wait for the answer, that many seconds.

        Raises:
            ClientGone, CallTimeout, CallError: as ``DaebusWebSocket.call``.
        """
        try:
            return self._future.result(min(timeout, threading.TIMEOUT_MAX))  # also for ever
        except TimeoutError:
            self._give_up(timeout)
            return self._future.result()
        finally:
            self.forget()

    async def result_async(self, timeout: float) -> Any:
        """Wait for the answer in a coroutine."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self._future), timeout)
        except TimeoutError:
            self._give_up(timeout)
            return self._future.result()
        finally:
            self.forget()

    def forget(self) -> None:
        """Wait no longer."""
        self._connection.aside.forget(self._ident)

    def _give_up(self, timeout: float) -> None:
        """Raise, unless the answer came in the last moment."""
        if self._connection.aside.forget(self._ident):
            raise CallTimeout(
                f"client {self._connection.client_id} did not answer {self._kind!r} "
                f"within {timeout:g} s"
            )
