"""The part of ``Daebus`` that puts an app together: components, handlers, views, tasks."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast, overload

from .blueprint import COMPONENTS, Blueprint, Step
from .errors import AttachError, DuplicateHandlerError, name_of
from .http.component import DaebusHttp
from .http.site.decorators import View as _View
from .tasks.registry import BackgroundFunction as _Background
from .tasks.registry import Tasks
from .tasks.registry import ThreadFunction as _Thread
from .websocket.api.context import context_of
from .websocket.api.decorators import SocketHandler as _SocketHandler
from .websocket.component import DaebusWebSocket
from .websocket.messages.options import Allow as _Allow
from .websocket.messages.options import RunIn as _RunIn

if TYPE_CHECKING:
    from .app import Daebus

__all__ = ["Scaffold"]


class Scaffold(ABC):
    """Base of ``Daebus``: what it is made of, and what is registered with it.

    Args:
        debug: of the app; the components are told.
    """

    def __init__(self, *, debug: bool) -> None:
        self.debug = debug
        self._http: DaebusHttp | None = None
        self._websocket: DaebusWebSocket | None = None
        self._tasks = Tasks()
        self._blueprints: list[Blueprint] = []
        self._waiting: list[Step] = []  # for a component that is not attached yet

    @abstractmethod
    def _check_at_rest(self) -> None:
        """Raise ``AttachError`` if the app runs."""

    @overload
    def attach(self, component: DaebusHttp) -> DaebusHttp: ...

    @overload
    def attach(self, component: DaebusWebSocket) -> DaebusWebSocket: ...

    def attach(self, component: DaebusHttp | DaebusWebSocket) -> DaebusHttp | DaebusWebSocket:
        """Add a component: ``DaebusHttp`` first, then ``DaebusWebSocket``.

        Returns:
            The component.

        Raises:
            AttachError: the order is wrong, there is one already, or the app runs.
            TypeError: it is no component.
        """
        self._check_at_rest()
        if isinstance(component, DaebusHttp):
            if self._http is not None:
                raise AttachError("a DaebusHttp is attached already; an app has one")
            self._http = component
        elif isinstance(component, DaebusWebSocket):
            if self._http is None:
                raise AttachError(
                    "DaebusWebSocket needs an HTTP component; attach DaebusHttp first: "
                    "app.attach(DaebusHttp(port=8080))"
                )
            if self._websocket is not None:
                raise AttachError("a DaebusWebSocket is attached already; an app has one")
            self._websocket = component
        else:
            raise TypeError(
                f"{component!r} is no component; attach DaebusHttp() or DaebusWebSocket()"
            )
        if isinstance(component, DaebusWebSocket):
            context_of(component).attached(
                debug=self.debug, forked=lambda: cast("Daebus", self).forked
            )
        else:
            component.attached(cast("Daebus", self), debug=self.debug)
        self._take_steps(self._waiting)
        return component

    @property
    def http(self) -> DaebusHttp:
        """The HTTP component.

        Raises:
            AttachError: none is attached.
        """
        if self._http is None:
            raise AttachError("no HTTP component; write app.attach(DaebusHttp(port=8080)) first")
        return self._http

    @property
    def websocket(self) -> DaebusWebSocket:
        """The WebSocket component.

        Raises:
            AttachError: none is attached.
        """
        if self._websocket is None:
            raise AttachError("no WebSocket component; write app.attach(DaebusWebSocket()) first")
        return self._websocket

    def socket(
        self,
        message_type: str,
        *,
        timeout: float | None = None,
        run_in: _RunIn = "connection",
        allow: _Allow | None = None,
        rate: str | None = None,
    ) -> Callable[[_SocketHandler], _SocketHandler]:
        """Decorate the handler of a message type, sync or async.

        It gets a ``WebSocketRequest``; what it returns, unless None, is sent to the
        client with type ``response``. For the options see ``DaebusWebSocket.socket``.

        Raises:
            AttachError: no WebSocket component is attached.
            DuplicateHandlerError: the type has a handler already.
        """
        return self.websocket.socket(
            message_type,
            timeout=timeout,
            run_in=run_in,
            allow=allow,
            rate=rate,
        )

    def route(self, path: str, methods: Iterable[str] = ("GET",)) -> Callable[[_View], _View]:
        """Decorate the view of a path; see ``DaebusHttp.route``.

        Raises:
            AttachError: no HTTP component is attached.
            DuplicateHandlerError: the path has a view for that method already.
        """
        return self.http.route(path, methods)

    def before_request(self, hook: _View) -> _View:
        """Decorate a hook that runs before each request; see ``DaebusHttp.before_request``.

        Raises:
            AttachError: no HTTP component is attached.
        """
        return self.http.before_request(hook)

    def after_request(self, hook: _View) -> _View:
        """Decorate a hook that runs after each request; see ``DaebusHttp.after_request``.

        Raises:
            AttachError: no HTTP component is attached.
        """
        return self.http.after_request(hook)

    def error_handler(self, error: int | type[Exception]) -> Callable[[_View], _View]:
        """Decorate the handler of a status or exception; see ``DaebusHttp.error_handler``.

        Raises:
            AttachError: no HTTP component is attached.
            DuplicateHandlerError: it has a handler already.
        """
        return self.http.error_handler(error)

    def mount(self, prefix: str, wsgi_app: Callable[..., Any]) -> None:
        """Give all requests below a prefix to another WSGI app; see ``DaebusHttp.mount``.

        Raises:
            AttachError: no HTTP component is attached.
            DuplicateHandlerError: an app is mounted there already.
        """
        self.http.mount(prefix, wsgi_app)

    def register(self, blueprint: Blueprint) -> None:
        """Put in what a blueprint holds, before or after the components are attached.

        What needs a component waits until that is attached, which must be before the
        start.

        Raises:
            DuplicateHandlerError: the blueprint, or one of that name, is registered
                already; or the app has a handler for one of its types, paths or names.
                What came before that one stays registered.
            TypeError: it is no blueprint.
        """
        if not isinstance(blueprint, Blueprint):
            raise TypeError(f"{blueprint!r} is no blueprint; write app.register(Blueprint('chat'))")
        for known in self._blueprints:
            if known is blueprint:
                raise DuplicateHandlerError(f"{blueprint!r} is registered already")
            if known.name == blueprint.name:
                raise DuplicateHandlerError(
                    f"two blueprints are named {blueprint.name!r}; give one of them another name"
                )
        self._blueprints.append(blueprint)
        self._take_steps(self._waiting + blueprint.take())

    def _take_steps(self, steps: list[Step]) -> None:
        attached = {None: True, "http": self._http, "websocket": self._websocket}
        self._waiting = [step for step in steps if not attached[step.needs]]
        for step in steps:
            if attached[step.needs]:
                step.take(self)

    def _check_complete(self) -> None:
        """Raise ``AttachError`` if a blueprint waits for a component."""
        for step in self._waiting:
            assert step.needs is not None
            component = COMPONENTS[step.needs]
            raise AttachError(
                f"blueprint {step.blueprint!r} needs a {component} for {name_of(step.function)}; "
                f"attach it before the start: app.attach({component}())"
            )

    def background(self, name: str, interval: float) -> Callable[[_Background], _Background]:
        """Decorate a function that is called every ``interval`` seconds while the app runs.

        It runs in a thread of its own, ``daebus-background-NAME``; if it is async, on the
        loop. The first call comes one interval after the start. Calls keep to their
        moments and never overlap: those that a long call has missed are left out. What it
        raises is logged, and the next call comes. ``send`` has no client in there.

        Args:
            name: for logs, ``stats`` and ``dump``.
            interval: seconds.

        Raises:
            ValueError: the interval is no time that one can wait.
            TypeError: the function needs arguments.
            DuplicateHandlerError: a background function has that name already.
        """
        if not 0 < interval <= threading.TIMEOUT_MAX:
            raise ValueError(
                f"interval is a number of seconds above 0, not {interval!r}; write "
                f"@app.background({name!r}, 1.0)"
            )

        def register(function: _Background) -> _Background:
            self._tasks.add("background", name, function, interval=interval)
            return function

        return register

    def thread(self, name: str, auto_start: bool = True) -> Callable[[_Thread], _Thread]:
        """Decorate a function that has a thread of its own while the app runs.

        It gets ``running``: ``running()`` is True until the app stops, and
        ``running.wait(seconds)`` is a sleep that ends early then and returns the same. If
        it raises it is called again, a second later at first and 30 at most; if it
        returns it is done. An async one runs on the loop and is cancelled at the stop.

        Args:
            name: of the thread, ``daebus-thread-NAME``.
            auto_start: False waits for ``start_thread``.

        Raises:
            TypeError: the function does not take one argument.
            DuplicateHandlerError: a thread has that name already.
        """

        def register(function: _Thread) -> _Thread:
            self._tasks.add("thread", name, function, auto_start=auto_start)
            return function

        return register

    def start_thread(self, name: str) -> bool:
        """Start a function of ``thread`` that does not run: it returned, or never began.

        Returns:
            False if it runs.

        Raises:
            LookupError: no thread has that name.
            StateError: the app does not run.
        """
        return self._tasks.start_one(name)

    def stop_thread(self, name: str, timeout: float = 5.0) -> bool:
        """Have ``running()`` of a function of ``thread`` become False, and wait for its end.

        Args:
            name: as it was registered.
            timeout: seconds.

        Returns:
            True if it has ended; False if it did not run, or would not end in time.

        Raises:
            LookupError: no thread has that name.

        Threads:
            Any; the thread itself is not waited for.
        """
        return self._tasks.stop_one(name, timeout)
