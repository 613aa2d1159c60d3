"""From a message to its handler and back to a reply.

Rules of this module:

1. Each message gets at most one automatic answer: the returned value, or one error.
2. Whatever a handler raises, its connection goes on. What it raised is logged here,
   once; on the wire it shows only with ``debug``.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import traceback
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

from ..errors import ClientError, DuplicateHandlerError, EncodeError
from ..server.loop import LoopThread
from . import envelope
from .connection import Connection
from .info import Times
from .request import WebSocketRequest

__all__ = ["Dispatcher"]

logger = logging.getLogger("daebus.websocket")

# Longer names are not compared with the known ones: difflib is quadratic.
_MAX_SUGGEST = 64


class Dispatcher:
    """The handlers by message type.

    Args:
        debug: put exception texts into error messages.

    Threads:
        ``add`` belongs to the program's start; ``handle`` runs in connection threads.
    """

    def __init__(self, *, debug: bool = False) -> None:
        self.debug = debug
        self._handlers: dict[str, Callable[[WebSocketRequest], Any]] = {}

    def add(self, kind: str, handler: Callable[[WebSocketRequest], Any]) -> None:
        """Register a handler, sync or async.

        Raises:
            TypeError: the type is no string, or the handler cannot be called.
            DuplicateHandlerError: the type has one already.
        """
        if not isinstance(kind, str):
            raise TypeError(
                f"a message type is a string, not {kind!r}; write @app.socket('my_type')"
            )
        if not callable(handler):
            raise TypeError(f"the handler of {kind!r} cannot be called: {handler!r}")
        if kind in self._handlers:
            known = getattr(self._handlers[kind], "__qualname__", self._handlers[kind])
            raise DuplicateHandlerError(
                f"message type {kind!r} has a handler already: {known}; use another type, or one "
                f"handler that tells the cases apart"
            )
        # One assignment of a new dict: connection threads look things up meanwhile.
        self._handlers = {**self._handlers, kind: handler}

    def types(self) -> Iterable[str]:
        """Return the registered message types."""
        return tuple(self._handlers)

    def handle(self, connection: Connection, message: str | bytes, loop: LoopThread) -> None:
        """Answer one message; never raises.

        Threads:
            The connection's own; waits for the handler, an async one included.
        """
        if message.__class__ is bytes:
            self._refuse(connection, "binary_not_supported", "send JSON in text messages")
            return
        try:
            kind, payload = envelope.decode(message)  # type: ignore[arg-type]  # bytes is done
        except envelope.BadMessage as exc:
            self._refuse(connection, exc.code, exc.text)
            return
        handler = self._handlers.get(kind)
        if handler is None:
            self._refuse(connection, "unknown_type", self._unknown(kind), kind)
            return
        connection.running = kind
        started = perf_counter()
        try:
            result = handler(WebSocketRequest(connection, kind, payload))
            if result is None:
                return
            if hasattr(result, "__await__"):
                result = loop.submit(_await(result, connection)).result()
                if result is None:
                    return
            connection.answer(connection.text_frame(envelope.encode("response", result)))
        except BaseException as exc:  # a SystemExit must not end the connection's thread
            self._failed(connection, kind, exc)
        finally:
            connection.running = None
            times = connection.times.get(kind)
            if times is None:
                times = connection.times[kind] = Times()
            elapsed = perf_counter() - started
            if elapsed < 0.001:
                times.seconds += elapsed
                times.buckets[0] += 1
            else:
                times.add(elapsed)

    def _failed(self, connection: Connection, kind: str, exc: BaseException) -> None:
        if isinstance(exc, ClientError):
            self._refuse(connection, exc.code, exc.text, kind)
            return
        if connection.open or not isinstance(exc, EncodeError):
            logger.error(
                "handler for %r failed for client %s", kind, connection.client_id, exc_info=exc
            )
        text = "the handler failed"
        if self.debug:
            text = "".join(traceback.format_exception(exc)).rstrip()
        self._refuse(connection, "handler_error", text, kind)

    def _refuse(
        self, connection: Connection, code: str, text: str, kind: str | None = None
    ) -> None:
        try:
            data = envelope.error(text, code, kind)
        except EncodeError:  # a ClientError with a text or code that JSON cannot carry
            logger.error("error %r for client %s cannot be sent", code, connection.client_id)
            code = "handler_error"
            data = envelope.error("the handler failed", code, kind)
        connection.errors[code] = connection.errors.get(code, 0) + 1
        connection.answer(connection.text_frame(data))

    def _unknown(self, kind: str) -> str:
        if len(kind) > _MAX_SUGGEST:
            return "unknown message type"
        close = difflib.get_close_matches(kind, self._handlers, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"unknown message type {kind!r}{hint}"


async def _await(awaitable: Any, connection: Connection) -> Any:
    connection.task = asyncio.current_task()
    try:
        return await awaitable
    finally:
        connection.task = None
