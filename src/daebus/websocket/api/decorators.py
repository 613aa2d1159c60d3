"""The decorators of ``DaebusWebSocket``, which register handlers and hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, TypeVar

from ...checks.annotations import checked
from ...checks.arguments import check_path, seconds_or_none
from ...checks.functions import check_function
from ...errors import DuplicateHandlerError
from ...interrupts.stack import check_outside
from ..cluster.info import BackplaneInfo
from ..connection.connection import Connection
from ..connection.events import DisconnectInfo, SlowConsumerInfo, SlowHandlerInfo
from ..messages.handlers import Middleware
from ..messages.options import Allow, RunIn
from ..messages.ratelimit import Per, parse_rate
from ..messages.request import WebSocketRequest
from ..messages.shared_rate import AnyRate, shared
from ..messages.signature import hook_call
from ..protocol.patterns import Pattern
from .context import Section

__all__ = [
    "BackplaneHook",
    "ConnectHook",
    "Decorators",
    "DisconnectHook",
    "ErrorHook",
    "MiddlewareFunction",
    "RawHandler",
    "RequestHandler",
    "SlowConsumerHook",
    "SlowHandlerHook",
    "SocketHandler",
]

SocketHandler = TypeVar(
    "SocketHandler", bound=Callable[[WebSocketRequest], Any] | Callable[[Any, str], Any]
)
RequestHandler = TypeVar("RequestHandler", bound=Callable[[WebSocketRequest], Any])
MiddlewareFunction = TypeVar("MiddlewareFunction", bound=Middleware)
ErrorHook = TypeVar("ErrorHook", bound=Callable[[WebSocketRequest, Exception], Any])
ConnectHook = TypeVar("ConnectHook", bound=Callable[[str], Any])
DisconnectHook = TypeVar(
    "DisconnectHook", bound=Callable[[str], Any] | Callable[[str, DisconnectInfo], Any]
)
SlowConsumerHook = TypeVar(
    "SlowConsumerHook", bound=Callable[[str], Any] | Callable[[str, SlowConsumerInfo], Any]
)
SlowHandlerHook = TypeVar(
    "SlowHandlerHook", bound=Callable[[str], Any] | Callable[[str, SlowHandlerInfo], Any]
)
BackplaneHook = TypeVar(
    "BackplaneHook", bound=Callable[[Any], Any] | Callable[[Any, BackplaneInfo], Any]
)
RawHandler = TypeVar("RawHandler", bound=Callable[Concatenate[Connection, ...], Any])


class Decorators(Section):
    """Decorators, for use before the start or while the app runs."""

    @checked
    def socket(
        self,
        message_type: str,
        *,
        timeout: float | None = None,
        run_in: RunIn = "connection",
        allow: Allow | None = None,
        rate: str | None = None,
        per: Per = "client",
    ) -> Callable[[SocketHandler], SocketHandler]:
        """Decorate the handler of a message type; the same as ``app.socket``.

        The handler gets a ``WebSocketRequest``, or its data and the client's id if its
        parameters are called ``data`` and ``client_id``. It may be async. What it returns,
        unless None, is sent to the client with type ``response``; of a generator, sync or
        async, each item is sent so.

        Args:
            message_type: the ``"type"`` of the messages; ``"*"`` for all without a handler of
                their own, except ``cancel``, ``response``, ``error`` and ``heartbeat``.
            timeout: seconds after which ``req.cancelled`` is set, and an async handler is
                cancelled; None never.
            run_in: ``"connection"`` runs the handler in its client's own thread, one
                message after the other. ``"pool"`` runs it in a pool for jobs
                (``background_workers``) while the client's next messages are handled; if
                too many wait, the client is told ``busy``. ``"main"`` runs it in the thread
                of the host that calls ``app.pump()``, while its client waits; a call that
                is not started within ``main_timeout`` seconds is answered ``busy``.
            allow: a function of the request, sync or async, that says whether this client
                may send this message. If it returns something falsy, ``None`` included, the
                    client is told ``forbidden``. It may raise ``ClientError``.
            rate: how often each client may send this type: ``"10/s"``, ``"100/m"`` (a
                minute) or ``"5/h"``, and as many at once after a pause. Beyond that the
                client is told ``rate_limited``, and in how many seconds to try again.
            per: whose messages ``rate`` counts together. ``"client"``: those of one
                connection. ``"user"``: those of all connections with the name that
                ``identify`` gave, or without one with the same identity, if that is a string
                or a number, or else of the same address. ``"address"``: those of all
                connections from an address, of IPv6 from a /64. With the last two, a client
                that reconnects does not start afresh.

        Raises:
            ValueError: ``run_in`` or ``per`` is not one of its three, ``rate`` is not of the
                form "10/s", or there is a ``per`` without it.
            TypeError: the handler takes other arguments or is async with
                ``run_in="main"``; ``allow`` cannot be called; or ``rate`` is not a string.
            DuplicateHandlerError: the type has a handler already.
        """
        parsed: AnyRate | None = None
        if rate is not None:
            parsed = shared(parse_rate(rate, per))
        elif per != "client":
            raise ValueError(f"per={per!r} is for a rate; write rate='10/s', per={per!r}")
        seconds_or_none("timeout", timeout)

        def register(handler: SocketHandler) -> SocketHandler:
            self._context.dispatcher.table.add(
                message_type,
                handler,
                timeout=timeout,
                run_in=run_in,
                allow=allow,
                rate=parsed,
            )
            return handler

        return register

    @checked
    def on_binary(self, handler: RequestHandler) -> RequestHandler:
        """Decorate the handler of binary messages, where clients also send JSON.

        It works like the handler of a message type, with ``bytes`` as ``req.data``. Bytes
        that it returns are sent as a binary message, anything else as ``response``. Without
        such a handler, binary messages are refused.

        Raises:
            DuplicateHandlerError: there is one already.
        """
        self._context.dispatcher.table.add_binary(handler)
        return handler

    @checked
    def middleware(self, function: MiddlewareFunction) -> MiddlewareFunction:
        """Decorate a function that wraps every handler, also those registered later.

        It is called with the request and ``next``, and returns what ``next(req)`` returned,
        or something else in its place; or it raises ``ClientError`` and the handler is not
        called. The first to be registered is the outermost. It runs in the thread of the
        handler, as ``run_in`` says.

        For an async handler ``next(req)`` returns an awaitable, which an async middleware
        awaits and a sync one returns. An async middleware needs async handlers; for an async
        generator, awaiting ``next(req)`` gives the generator.

        Raises:
            TypeError: it takes other arguments, or is async while there is a sync handler.
        """
        self._context.dispatcher.table.add_middleware(function)
        return function

    @checked
    def on_error(self, hook: ErrorHook) -> ErrorHook:
        """Decorate a function that is called with what a handler raised, and its request.

        It is not called for a ``ClientError``, which is an answer. The exception has been
        logged. If the hook returns a dict, its fields are added to the error's data, beside
        text and code; of a field that several hooks return, the first one's value counts. It
        runs in the handler's thread, and may be async.
        """
        check_function("an on_error hook", hook, ("req", "exc"))
        self._context.dispatcher.on_error.append(hook)
        return hook

    @checked
    def raw(self, path: str) -> Callable[[RawHandler], RawHandler]:
        """Decorate a function that gets each raw connection to that path.

        It iterates over the messages, ``str`` and ``bytes``, and sends what it likes; when
        it returns, the connection is closed. JSON handlers do not get messages of this path,
        nor of others that begin with its fixed part: those are answered 404.

        Args:
            path: perhaps with parameters, which the handler gets by name, as views do:
                ``"/device/<name>"``; also ``<int:n>``, ``<float:x>``, ``<uuid:u>`` and
                ``<path:rest>``, which may hold slashes.

        Raises:
            ValueError: the path does not start with a slash, or a parameter is malformed.
            TypeError: the handler does not take the connection and these parameters, or is async.
            DuplicateHandlerError: the path has a handler already.
        """
        pattern = Pattern(check_path(path))

        def register(handler: RawHandler) -> RawHandler:
            check_function(
                f"the raw handler of {path!r}",
                handler,
                ("connection",),
                named=pattern.names,
                kinds=("plain",),
            )
            settings = self._context.settings
            check_outside(f"registering the raw handler of {path!r}", settings.lock)
            with settings.lock:
                known = settings.raw.add(pattern, handler)
            if known is not None:
                raise DuplicateHandlerError(
                    f"path {known.text!r} has a raw handler already; use another path"
                )
            return handler

        return register

    @checked
    def on_connect(self, hook: ConnectHook) -> ConnectHook:
        """Decorate a function that is called with the id of each new client.

        It runs in the client's thread, after the client is registered and before its
        first message. It may be async, broadcast, and ``send`` to the new client.
        """
        check_function("an on_connect hook", hook, ("client_id",))
        self._context.settings.on_connect.append(lambda client_id, info: hook(client_id))
        return hook

    @checked
    def on_disconnect(self, hook: DisconnectHook) -> DisconnectHook:
        """Decorate a function that is called with the id of each client that left.

        It runs once for each connection, after the client's last handler; the client no
        longer counts as connected. It may be async. A function of two arguments gets a
        ``DisconnectInfo`` as the second, with the reason.
        """
        self._context.settings.on_disconnect.append(hook_call("an on_disconnect hook", hook))
        return hook

    @checked
    def on_slow_consumer(self, hook: SlowConsumerHook) -> SlowConsumerHook:
        """Decorate a function that is called with the id of a client whose outbox is full.

        It is called once until the outbox has emptied. A function of two arguments gets a
        ``SlowConsumerInfo`` as the second. It runs in one of two threads for such notices;
        if it is slow, later notices wait.
        """
        self._context.settings.on_slow_consumer.append(hook_call("an on_slow_consumer hook", hook))
        return hook

    @checked
    def on_slow_handler(self, hook: SlowHandlerHook) -> SlowHandlerHook:
        """Decorate a function that is called when a handler has run ``slow_handler`` seconds.

        It gets the client's id (an empty string if the loop of the async handlers is
        blocked) and, if it takes two arguments, a ``SlowHandlerInfo`` with the stack. It
        runs in a thread for such notices, while the handler goes on.
        """
        self._context.settings.on_slow_handler.append(hook_call("an on_slow_handler hook", hook))
        return hook

    @checked
    def on_backplane(self, hook: BackplaneHook) -> BackplaneHook:
        """Decorate a function that is told what happens between the processes of the app.

        It is called with the event, ``"up"`` and ``"down"`` for the backplane, ``"node_up"`` and
        ``"node_down"`` for another process, ``"gap"`` for frames of another process that did not
        arrive, and if it takes two arguments with a ``BackplaneInfo``. It may be async. It runs
        in a thread for such notices, for one event after the other.
        """
        call = hook_call("an on_backplane hook", hook, "event")
        self._context.settings.on_backplane.append(call)
        return hook
