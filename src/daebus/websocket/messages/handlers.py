"""The table of registered handlers, each compiled with its options and the middleware.

Each is compiled into one callable: the options (``options``) wrap the middleware, which
wraps the user's function. So a message costs no more than the options of its handler;
registering a middleware compiles all handlers again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, get_args

from ...checks.functions import Kind, check_function, is_async
from ...errors import DuplicateHandlerError, name_of
from .options import Handler, Run, bytes_as_message, compile_handler
from .pending import KINDS
from .request import WebSocketRequest
from .signature import of_request

__all__ = ["ANY", "BINARY", "HandlerTable", "Middleware"]

# The type of the handler that gets all messages without a handler of their own.
ANY: Final = "*"

# The message type that the handler of binary messages sees; JSON messages never reach it.
BINARY: Final = "<binary>"

Next = Callable[[WebSocketRequest], Any]
Middleware = Callable[[WebSocketRequest, Next], Any]


@dataclass(frozen=True)
class _Registered:
    """A function and its options, kept to be compiled again when a middleware is added."""

    kind: str
    function: Callable[..., Any]
    handler: Handler
    options: dict[str, Any]


class HandlerTable:
    """The handlers by message type.

    Args:
        run: handles a request outside of its connection's thread.

    Attributes:
        by_type: the compiled handler of each message type.
        binary: the compiled handler of binary messages, or None.

    Threads:
        Handlers are registered by one thread at a time, also while messages arrive.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._registered: dict[str, _Registered] = {}
        self._registered_binary: _Registered | None = None
        self._middleware: tuple[Middleware, ...] = ()
        # Each is replaced by one assignment: connection threads read them meanwhile.
        self.by_type: dict[str, Handler] = {}
        self.binary: Handler | None = None

    def add(self, kind: str, function: Callable[..., Any], **options: Any) -> None:
        """Register a handler, sync or async.

        Args:
            kind: the message type; ``"*"`` for all without a handler of their own.
            function: takes a request, or ``data`` and ``client_id``.
            options: see ``compile_handler``.

        Raises:
            TypeError: the type is not a string, or the handler takes other arguments.
            DuplicateHandlerError: the type has one already.
        """
        new = _Registered(kind, function, of_request(kind, function), options)
        known = self._registered.get(kind)
        if known is not None:
            raise DuplicateHandlerError(
                f"message type {kind!r} has a handler already: {name_of(known.function)}; "
                f"use another type for {name_of(function)}"
            )
        compiled = self._compile(new, self._middleware)
        self._registered[kind] = new
        self.by_type = {**self.by_type, kind: compiled}

    def add_binary(self, function: Callable[..., Any]) -> None:
        """Register the handler of binary messages.

        Raises:
            TypeError: it cannot be called with a request.
            DuplicateHandlerError: there is one already.
        """
        handler = bytes_as_message(of_request(BINARY, function))
        known = self._registered_binary
        if known is not None:
            raise DuplicateHandlerError(
                f"binary messages have a handler already: {name_of(known.function)}; they have no "
                f"type to tell them apart, so call {name_of(function)} from there"
            )
        new = _Registered(BINARY, function, handler, {})
        self.binary = self._compile(new, self._middleware)
        self._registered_binary = new

    def add_middleware(self, middleware: Middleware) -> None:
        """Put a function around every handler, inside of those that came before.

        Raises:
            TypeError: it does not take a request and the next handler, or it is async and
                there are sync handlers.
        """
        check_function("a middleware", middleware, ("req", "next"), kinds=get_args(Kind))
        chain = (*self._middleware, middleware)
        compiled = {kind: self._compile(new, chain) for kind, new in self._registered.items()}
        binary = self._registered_binary
        if binary is not None:
            self.binary = self._compile(binary, chain)
        self.by_type = compiled
        self._middleware = chain

    def _compile(self, new: _Registered, chain: Iterable[Middleware]) -> Handler:
        handler = new.handler
        for middleware in reversed(tuple(chain)):
            if is_async(middleware) and not is_async(new.function):
                raise TypeError(
                    f"{name_of(middleware)} is async and {name_of(new.function)} is not, so the "
                    f"handler would block the loop; write the middleware with def, or the handler "
                    f"with async def"
                )
            handler = _around(handler, middleware)
        compiled = compile_handler(handler, self._run, **new.options)
        return _after_us(new.kind, compiled) if new.kind in KINDS else compiled


def _around(handler: Handler, middleware: Middleware) -> Handler:
    if is_async(middleware):
        handler = _to_await(handler)

    @functools.wraps(handler)
    def call(req: WebSocketRequest) -> Any:
        return middleware(req, handler)

    return call


def _to_await(handler: Handler) -> Handler:
    """Make every handler awaitable for an async middleware; an async generator is not."""

    @functools.wraps(handler)
    async def call(req: WebSocketRequest) -> Any:
        result = handler(req)
        return await result if hasattr(result, "__await__") else result

    return call


def _after_us(kind: str, handler: Handler) -> Handler:
    """Give a program's own ``response``, ``error`` or ``cancel`` handler the rest only."""

    @functools.wraps(handler)
    def look(req: WebSocketRequest) -> Any:
        if req._activity.take_pending(kind, req.payload):
            return None
        return handler(req)

    return look
