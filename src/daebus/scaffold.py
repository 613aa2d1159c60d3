"""Every decorator of apps and blueprints, once.

An app passes the decorated function to its component at once; a blueprint remembers it for
the apps that will register it. The signatures are those of the components.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .checks.annotations import checked
from .components import Components, Needs
from .http.serving.upgrade import UpgradeRequest
from .http.site.decorators import AfterHook, BeforeHook, ErrorHandler, View
from .tasks.registry import BackgroundFunction, ThreadFunction
from .websocket.api.decorators import (
    BackplaneHook,
    ConnectHook,
    DisconnectHook,
    ErrorHook,
    MiddlewareFunction,
    RawHandler,
    RequestHandler,
    SlowConsumerHook,
    SlowHandlerHook,
    SocketHandler,
)
from .websocket.api.presence import PresenceHook
from .websocket.api.rooms import JoinHook
from .websocket.api.topics import SubscribeHook
from .websocket.messages.options import Allow, RunIn
from .websocket.messages.ratelimit import Per

__all__ = ["Scaffold"]

Decorator = TypeVar("Decorator", bound=Callable[[Any], Any])

# Here and not in the WebSocket room, which does not know the request of the HTTP side.
Authenticate = TypeVar("Authenticate", bound=Callable[[UpgradeRequest], Any])


class Scaffold(ABC):
    """Base of ``Daebus`` and ``Blueprint``: all decorators.

    In an app each raises ``AttachError`` if the component is not attached yet.
    """

    @abstractmethod
    def _decorator(self, needs: Needs | None, find: Callable[[Components], Decorator]) -> Decorator:
        """Return the decorator of a component, or one that remembers the function.

        Args:
            needs: the component that must be attached, or None.
            find: returns the component's decorator.
        """

    def _type_of(self, message_type: str) -> str:
        """Return the message type as clients send it."""
        return message_type

    def _path_of(self, path: str) -> str:
        """Return the path as clients ask for it."""
        return path

    # --- WebSocket --------------------------------------------------------------

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
        """Decorate the handler of a message type, sync or async.

        It gets a ``WebSocketRequest``; its result, unless None, is sent to the client with
        type ``response``. For the options see ``DaebusWebSocket.socket``.

        Raises:
            DuplicateHandlerError: the type has a handler already.
        """
        kind = self._type_of(message_type)
        return self._decorator(
            "websocket",
            lambda parts: parts.websocket.socket(
                kind, timeout=timeout, run_in=run_in, allow=allow, rate=rate, per=per
            ),
        )

    @checked
    def raw(self, path: str) -> Callable[[RawHandler], RawHandler]:
        """Decorate a function that gets each connection to a path; see ``DaebusWebSocket.raw``.

        Raises:
            ValueError: the path does not start with a slash.
            DuplicateHandlerError: the path has a handler already.
        """
        full = self._path_of(path)
        return self._decorator("websocket", lambda parts: parts.websocket.raw(full))

    @checked
    def authenticate(self, check: Authenticate) -> Authenticate:
        """Decorate the function that says who a client is; see ``DaebusWebSocket.authenticate``.

        Raises:
            DuplicateHandlerError: there is one already.
        """
        return self._decorator("websocket", lambda parts: parts.websocket.authenticate)(check)

    @checked
    def on_join(self, room_pattern: str) -> Callable[[JoinHook], JoinHook]:
        """Decorate a function that decides who may join; see ``DaebusWebSocket.on_join``."""
        return self._decorator("websocket", lambda parts: parts.websocket.on_join(room_pattern))

    @checked
    def on_subscribe(self, topic_pattern: str) -> Callable[[SubscribeHook], SubscribeHook]:
        """Decorate a function that decides who may subscribe to a topic.

        See ``DaebusWebSocket.on_subscribe``.
        """
        return self._decorator(
            "websocket", lambda parts: parts.websocket.on_subscribe(topic_pattern)
        )

    @checked
    def on_presence(self, room_pattern: str) -> Callable[[PresenceHook], PresenceHook]:
        """Decorate a function that is told of users who come to rooms and leave them.

        See ``DaebusWebSocket.on_presence``.
        """
        return self._decorator("websocket", lambda parts: parts.websocket.on_presence(room_pattern))

    @checked
    def on_connect(self, hook: ConnectHook) -> ConnectHook:
        """Decorate a hook for new clients; see ``DaebusWebSocket.on_connect``."""
        return self._decorator("websocket", lambda parts: parts.websocket.on_connect)(hook)

    @checked
    def on_disconnect(self, hook: DisconnectHook) -> DisconnectHook:
        """Decorate a hook for clients that left; see ``DaebusWebSocket.on_disconnect``."""
        return self._decorator("websocket", lambda parts: parts.websocket.on_disconnect)(hook)

    @checked
    def on_slow_consumer(self, hook: SlowConsumerHook) -> SlowConsumerHook:
        """Decorate a hook for full outboxes; see ``DaebusWebSocket.on_slow_consumer``."""
        return self._decorator("websocket", lambda parts: parts.websocket.on_slow_consumer)(hook)

    @checked
    def on_slow_handler(self, hook: SlowHandlerHook) -> SlowHandlerHook:
        """Decorate a hook for handlers that take long; see ``DaebusWebSocket.on_slow_handler``."""
        return self._decorator("websocket", lambda parts: parts.websocket.on_slow_handler)(hook)

    @checked
    def on_backplane(self, hook: BackplaneHook) -> BackplaneHook:
        """Decorate a hook for what joins processes; see ``DaebusWebSocket.on_backplane``."""
        return self._decorator("websocket", lambda parts: parts.websocket.on_backplane)(hook)

    @checked
    def on_error(self, hook: ErrorHook) -> ErrorHook:
        """Decorate a hook for what handlers raise; see ``DaebusWebSocket.on_error``."""
        return self._decorator("websocket", lambda parts: parts.websocket.on_error)(hook)

    @checked
    def on_binary(self, handler: RequestHandler) -> RequestHandler:
        """Decorate the handler of binary messages; see ``DaebusWebSocket.on_binary``.

        Raises:
            DuplicateHandlerError: there is one already.
        """
        return self._decorator("websocket", lambda parts: parts.websocket.on_binary)(handler)

    @checked
    def middleware(self, function: MiddlewareFunction) -> MiddlewareFunction:
        """Decorate a function that wraps every handler; see ``DaebusWebSocket.middleware``."""
        return self._decorator("websocket", lambda parts: parts.websocket.middleware)(function)

    # --- HTTP -------------------------------------------------------------------

    @checked
    def route(
        self, path: str, methods: Iterable[str] = ("GET",), *, cross_site: bool = False
    ) -> Callable[[View], View]:
        """Decorate the view of a path; see ``DaebusHttp.route``.

        Raises:
            ValueError: the path does not start with a slash.
            DuplicateHandlerError: the path has a view for that method already.
        """
        full, all_methods = self._path_of(path), tuple(methods)
        return self._decorator(
            "http", lambda parts: parts.http.route(full, all_methods, cross_site=cross_site)
        )

    @checked
    def before_request(self, hook: BeforeHook) -> BeforeHook:
        """Decorate a hook that runs before each request; see ``DaebusHttp.before_request``."""
        return self._decorator("http", lambda parts: parts.http.before_request)(hook)

    @checked
    def after_request(self, hook: AfterHook) -> AfterHook:
        """Decorate a hook that runs after each request; see ``DaebusHttp.after_request``."""
        return self._decorator("http", lambda parts: parts.http.after_request)(hook)

    @checked
    def error_handler(self, error: int | type[Exception]) -> Callable[[ErrorHandler], ErrorHandler]:
        """Decorate the handler of a status or exception; see ``DaebusHttp.error_handler``.

        Raises:
            DuplicateHandlerError: it has a handler already.
        """
        return self._decorator("http", lambda parts: parts.http.error_handler(error))

    @checked
    def mount(self, prefix: str, wsgi_app: Callable[..., Any]) -> None:
        """Give all requests below a prefix to another WSGI app; see ``DaebusHttp.mount``.

        Raises:
            ValueError: the prefix does not start with a slash, or ends with one.
            DuplicateHandlerError: an app is mounted there already.
        """
        full = self._path_of(prefix)

        self._decorator("http", lambda parts: functools.partial(parts.http.mount, full))(wsgi_app)

    # --- tasks ------------------------------------------------------------------

    @checked
    def background(
        self, name: str, interval: float
    ) -> Callable[[BackgroundFunction], BackgroundFunction]:
        """Decorate a function that is called every ``interval`` seconds while the app runs.

        It runs in a thread of its own, ``daebus-background-NAME``; if it is async, on the
        loop. The first call comes one interval after the start. Calls keep to that schedule
        and never overlap: those missed during a long call are skipped. Exceptions are
        logged, and the calls go on. ``send`` has no client there.

        Args:
            name: for logs, ``stats`` and ``dump``.
            interval: seconds.

        Raises:
            ValueError: the interval is not a positive number of seconds.
            TypeError: the function needs arguments.
            DuplicateHandlerError: a background function has that name already.
        """
        return self._decorator(None, lambda parts: parts.tasks.background(name, interval))

    @checked
    def thread(
        self, name: str, auto_start: bool = True
    ) -> Callable[[ThreadFunction], ThreadFunction]:
        """Decorate a function that has a thread of its own while the app runs.

        It gets ``running``, a ``StopToken``: ``running()`` is True until the app stops;
        ``running.wait(seconds)`` sleeps, not beyond the stop, and returns False then. If the
        function raises, it is called again after a second, and after 30 at most; if it
        returns, it is done. An async one runs on the loop and is cancelled at the stop.

        Args:
            name: of the thread, ``daebus-thread-NAME``.
            auto_start: False waits for ``start_thread``.

        Raises:
            TypeError: the function does not take one argument.
            DuplicateHandlerError: a thread has that name already.
        """
        return self._decorator(None, lambda parts: parts.tasks.thread(name, auto_start))
