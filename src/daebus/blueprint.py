"""``Blueprint``: handlers, views and hooks that are written down before there is an app.

A blueprint remembers what was asked of it as steps, and an app takes them once the
component that a step needs is attached.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .errors import DuplicateHandlerError, StateError
from .http.site.decorators import View as _View
from .tasks.registry import BackgroundFunction as _Background
from .tasks.registry import ThreadFunction as _Thread
from .websocket.api.decorators import Decorators
from .websocket.api.decorators import Hook as _Hook
from .websocket.api.decorators import RawHandler as _RawHandler
from .websocket.api.decorators import SocketHandler as _SocketHandler
from .websocket.api.rooms import JoinHook as _JoinHook

if TYPE_CHECKING:
    from .scaffold import Scaffold

__all__ = ["Blueprint", "Step"]

Needs = Literal["http", "websocket"]

COMPONENTS: dict[Needs, str] = {"http": "DaebusHttp", "websocket": "DaebusWebSocket"}


@dataclass(frozen=True)
class Step:
    """One thing to register.

    Attributes:
        blueprint: its name.
        function: what was decorated.
        needs: the component that must be attached first, None for none.
        register: does it.
    """

    blueprint: str
    function: Callable[..., Any]
    needs: Needs | None
    register: Callable[[Scaffold], object]

    def take(self, app: Scaffold) -> None:
        """Register it.

        Raises:
            DuplicateHandlerError: the app has one already; both are named.
        """
        try:
            self.register(app)
        except DuplicateHandlerError as exc:
            raise DuplicateHandlerError(f"blueprint {self.blueprint!r}: {exc}") from None


def _hook(name: str, needs: Needs = "websocket") -> Callable[[Blueprint, _Hook], _Hook]:
    """Make the method of a blueprint that stands for a decorator of a component."""

    def remember(self: Blueprint, hook: _Hook) -> _Hook:
        self._remember(hook, needs, lambda app: getattr(getattr(app, needs), name)(hook))
        return hook

    remember.__name__ = name
    remember.__qualname__ = f"Blueprint.{name}"
    remember.__doc__ = f"Decorate a hook; see ``{COMPONENTS[needs]}.{name}``."
    return remember


class Blueprint:
    """A part of an app, in a module of its own: ``app.register(blueprint)`` puts it in.

    Its decorators are those of the app and of the components. Hooks, error handlers and
    middleware are for the whole app, whoever registers them.

    Args:
        name: for messages; an app takes each name once.
        prefix: of its message types: with ``"chat"`` the type ``"say"`` is ``"chat.say"``.
        url_prefix: of its paths, such as ``"/chat"``.

    Raises:
        ValueError: a prefix has the wrong form.

    Threads:
        Belongs to the program's start. One blueprint may serve several apps.
    """

    def __init__(self, name: str, *, prefix: str = "", url_prefix: str = "") -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"a blueprint has a name, not {name!r}; write Blueprint('chat')")
        if url_prefix and (not url_prefix.startswith("/") or url_prefix.endswith("/")):
            raise ValueError(
                f"url_prefix starts with a slash and does not end with one; write "
                f"url_prefix={'/' + url_prefix.strip('/')!r}"
            )
        if prefix.endswith("."):
            raise ValueError(f"the dot is added; write prefix={prefix.rstrip('.')!r}")
        self.name = name
        self._prefix = prefix + "." if prefix else ""
        self._url_prefix = url_prefix
        self._steps: list[Step] = []
        self._taken = False

    def __repr__(self) -> str:
        return f"<Blueprint {self.name!r}>"

    def socket(
        self, message_type: str, **options: Any
    ) -> Callable[[_SocketHandler], _SocketHandler]:
        """Decorate the handler of a message type; arguments are those of ``Daebus.socket``.

        Raises:
            TypeError: the type is no string, or ``socket`` has no such argument.
            ValueError: ``"*"``, which is for all types, in a blueprint with a prefix.
        """
        inspect.signature(Decorators.socket).bind(None, message_type, **options)
        if not isinstance(message_type, str):
            raise TypeError(
                f"a message type is a string, not {message_type!r}; write "
                f"@blueprint.socket('my_type')"
            )
        if message_type == "*" and self._prefix:
            raise ValueError(
                f"'*' takes every type, not those of {self._prefix!r} alone; register it with "
                f"the app, or in a blueprint without a prefix"
            )
        kind = self._prefix + message_type

        def remember(handler: _SocketHandler) -> _SocketHandler:
            self._remember(
                handler, "websocket", lambda app: app.websocket.socket(kind, **options)(handler)
            )
            return handler

        return remember

    def raw(self, path: str) -> Callable[[_RawHandler], _RawHandler]:
        """Decorate a function that gets each connection to a path; see ``DaebusWebSocket.raw``."""
        full = self._path(path)

        def remember(handler: _RawHandler) -> _RawHandler:
            self._remember(handler, "websocket", lambda app: app.websocket.raw(full)(handler))
            return handler

        return remember

    def on_join(self, room_pattern: str) -> Callable[[_JoinHook], _JoinHook]:
        """Decorate a function that is asked who may enter; see ``DaebusWebSocket.on_join``."""

        def remember(hook: _JoinHook) -> _JoinHook:
            self._remember(hook, "websocket", lambda app: app.websocket.on_join(room_pattern)(hook))
            return hook

        return remember

    def route(self, path: str, methods: Iterable[str] = ("GET",)) -> Callable[[_View], _View]:
        """Decorate the view of a path; see ``DaebusHttp.route``."""
        full, methods = self._path(path), tuple(methods)

        def remember(view: _View) -> _View:
            self._remember(view, "http", lambda app: app.http.route(full, methods)(view))
            return view

        return remember

    def error_handler(self, error: int | type[Exception]) -> Callable[[_View], _View]:
        """Decorate the handler of a status or an exception; see ``DaebusHttp.error_handler``."""

        def remember(handler: _View) -> _View:
            self._remember(handler, "http", lambda app: app.http.error_handler(error)(handler))
            return handler

        return remember

    def mount(self, prefix: str, wsgi_app: Callable[..., Any]) -> None:
        """Give all requests below a prefix to another WSGI app; see ``DaebusHttp.mount``."""
        full = self._path(prefix)
        self._remember(wsgi_app, "http", lambda app: app.http.mount(full, wsgi_app))

    def background(self, name: str, interval: float) -> Callable[[_Background], _Background]:
        """Decorate a function that is called every ``interval`` seconds; see ``Daebus``."""

        def remember(function: _Background) -> _Background:
            self._remember(function, None, lambda app: app.background(name, interval)(function))
            return function

        return remember

    def thread(self, name: str, auto_start: bool = True) -> Callable[[_Thread], _Thread]:
        """Decorate a function that has a thread of its own; see ``Daebus``."""

        def remember(function: _Thread) -> _Thread:
            self._remember(function, None, lambda app: app.thread(name, auto_start)(function))
            return function

        return remember

    before_request = _hook("before_request", "http")
    after_request = _hook("after_request", "http")
    on_connect = _hook("on_connect")
    on_disconnect = _hook("on_disconnect")
    on_slow_consumer = _hook("on_slow_consumer")
    on_slow_handler = _hook("on_slow_handler")
    on_error = _hook("on_error")
    on_binary = _hook("on_binary")
    middleware = _hook("middleware")

    # --- for the app ------------------------------------------------------------

    def take(self) -> list[Step]:
        """Return what to register; from now on nothing can be added."""
        self._taken = True
        return list(self._steps)

    def _path(self, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError(f"path must start with a slash; write {'/' + path!r}")
        return self._url_prefix + path

    def _remember(
        self,
        function: Callable[..., Any],
        needs: Needs | None,
        register: Callable[[Scaffold], object],
    ) -> None:
        if self._taken:
            raise StateError(
                f"blueprint {self.name!r} is registered already; decorate its functions before "
                f"app.register(blueprint)"
            )
        if not callable(function):
            raise TypeError(f"blueprint {self.name!r} cannot call this: {function!r}")
        self._steps.append(Step(self.name, function, needs, register))
