"""The table of registered handlers, each compiled with its options and the middleware.

Each is compiled into one callable: the options (``options``) wrap the middleware, which
wraps the user's function. So a message costs no more than the options of its handler;
registering a middleware compiles all handlers again.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_args

from ...checks.functions import Kind, check_function, is_async
from ...errors import DuplicateHandlerError, name_of
from ...interrupts.stack import check_outside
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


@dataclass(frozen=True)
class _State:
    """All that is registered at one moment, and what it was compiled into."""

    handlers: dict[str, _Registered] = field(default_factory=dict)
    compiled: dict[str, Handler] = field(default_factory=dict)
    binary: _Registered | None = None
    compiled_binary: Handler | None = None
    middleware: tuple[Middleware, ...] = ()
    own: dict[str, Handler] = field(default_factory=dict)  # of daebus, without middleware


class HandlerTable:
    """The handlers by message type.

    Args:
        run: handles a request outside of its connection's thread.

    Attributes:
        by_type: the compiled handler of each message type.
        binary: the compiled handler of binary messages, or None.

    Threads:
        Any may register, also while messages arrive. Compiling may run code of the user's,
        so it is done without the lock, and again if another thread was quicker.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._state = _State()  # replaced under _lock; read by any
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

        def with_it(now: _State) -> _State:
            known = now.handlers.get(kind)
            if kind in now.own:
                raise DuplicateHandlerError(
                    f"messages of type {kind!r} are those of topics, which this app has; use "
                    f"another type for {name_of(function)}"
                )
            if known is not None:
                raise DuplicateHandlerError(
                    f"message type {kind!r} has a handler already: {name_of(known.function)}; "
                    f"use another type for {name_of(function)}"
                )
            compiled = self._compile(new, now.middleware)
            return replace(
                now,
                handlers={**now.handlers, kind: new},
                compiled={**now.compiled, kind: compiled},
            )

        self._change(f"registering a handler of {kind!r}", with_it)

    def reserve(self, own: dict[str, Handler]) -> None:
        """Take types for daebus itself; no middleware stands before their handlers.

        Args:
            own: the handlers by type.

        Raises:
            DuplicateHandlerError: the program has a handler for one of them.
        """

        def with_it(now: _State) -> _State:
            for kind in own:
                known = now.handlers.get(kind)
                if known is not None:
                    raise DuplicateHandlerError(
                        f"messages of type {kind!r} would be those of topics, and "
                        f"{name_of(known.function)} handles them; use another type for it"
                    )
            return replace(now, own=own, compiled={**now.compiled, **own})

        if self._state.own != own:
            self._change("declaring a topic", with_it)

    def add_binary(self, function: Callable[..., Any]) -> None:
        """Register the handler of binary messages.

        Raises:
            TypeError: it cannot be called with a request.
            DuplicateHandlerError: there is one already.
        """
        handler = bytes_as_message(of_request(BINARY, function))
        new = _Registered(BINARY, function, handler, {})

        def with_it(now: _State) -> _State:
            if now.binary is not None:
                raise DuplicateHandlerError(
                    f"binary messages have a handler already: {name_of(now.binary.function)}; they "
                    f"have no type to tell them apart, so call {name_of(function)} from there"
                )
            return replace(now, binary=new, compiled_binary=self._compile(new, now.middleware))

        self._change("registering a handler of binary messages", with_it)

    def add_middleware(self, middleware: Middleware) -> None:
        """Put a function around every handler, inside of those that came before.

        Raises:
            TypeError: it does not take a request and the next handler, or it is async and
                there are sync handlers.
        """
        check_function("a middleware", middleware, ("req", "next"), kinds=get_args(Kind))

        def with_it(now: _State) -> _State:
            chain, binary = (*now.middleware, middleware), now.binary
            return replace(
                now,
                compiled={
                    **{kind: self._compile(new, chain) for kind, new in now.handlers.items()},
                    **now.own,
                },
                compiled_binary=None if binary is None else self._compile(binary, chain),
                middleware=chain,
            )

        self._change("registering a middleware", with_it)

    def _change(self, what: str, with_it: Callable[[_State], _State]) -> None:
        """Replace the state by what a function makes of it, which may be called again."""
        check_outside(what, self._lock)
        while True:
            before = self._state
            after = with_it(before)
            with self._lock:
                if self._state is before:
                    self._state = after
                    self.by_type = after.compiled
                    self.binary = after.compiled_binary
                    return

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
