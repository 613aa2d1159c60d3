"""The parts of an app: its HTTP side, its WebSocket side, its tasks.

A blueprint may be registered before the components are attached. Its steps wait here until
the component that a step needs is attached.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from .backplane.protocol import Backplane
from .data.encoder import Encoder
from .errors import AttachError, DuplicateHandlerError, name_of
from .http.component import DaebusHttp, serving_of
from .interrupts.stack import check_outside
from .tasks.registry import Tasks
from .websocket.api.context import Context, context_of
from .websocket.component import DaebusWebSocket

__all__ = ["Components", "Needs", "Step"]

Needs = Literal["http", "websocket"]

_CLASSES: dict[Needs, str] = {"http": "DaebusHttp", "websocket": "DaebusWebSocket"}


class Components:
    """The components of one app, and the steps that wait for them.

    Attributes:
        tasks: always present, without being attached.

    Threads:
        Attaching belongs to the program's start; any thread may register and read.
    """

    def __init__(self) -> None:
        self.tasks = Tasks()
        self._http: DaebusHttp | None = None
        self._websocket: DaebusWebSocket | None = None
        self._lock = threading.Lock()
        self._waiting: list[Step] = []  # guarded by: _lock

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

    @property
    def context(self) -> Context | None:
        """The context of the WebSocket component, to start and stop it; None without one."""
        return None if self._websocket is None else context_of(self._websocket)

    def attach(
        self,
        component: DaebusHttp | DaebusWebSocket | Backplane,
        name: str,
        *,
        debug: bool,
        version: str | None,
        encoder: Encoder,
    ) -> None:
        """Add a component, and take the steps that wait for it.

        Args:
            component: the component.
            name: of the app.
            debug: errors tell clients what was raised.
            version: of the program, for clients; None for none.
            encoder: makes JSON of what is sent.

        Raises:
            AttachError: the order is wrong, or there is one already.
            TypeError: the argument is not a component.
            DuplicateHandlerError: a step that waits for it clashes with another handler.
        """
        if isinstance(component, DaebusHttp):
            if self._http is not None:
                raise AttachError("a DaebusHttp is attached already; use it as app.http")
            self._http = component
        elif isinstance(component, DaebusWebSocket):
            if self._http is None:
                raise AttachError(
                    "DaebusWebSocket needs an HTTP component; attach DaebusHttp first: "
                    "app.attach(DaebusHttp(port=8080))"
                )
            if self._websocket is not None:
                raise AttachError("a DaebusWebSocket is attached already; use it as app.websocket")
            self._websocket = component
        elif isinstance(component, Backplane):
            if self._websocket is None:
                raise AttachError(
                    f"{component!r} needs a WebSocket component; attach that first: "
                    f"app.attach(DaebusWebSocket())"
                )
            context_of(self._websocket).join(name, component)
            return
        else:
            raise TypeError(
                f"{component!r} is not a component; attach DaebusHttp() or DaebusWebSocket()"
            )
        if isinstance(component, DaebusWebSocket):
            context_of(component).attached(debug=debug, version=version, encoder=encoder)
        else:
            serving_of(component).attached(name, debug=debug, encoder=encoder)
        self._take(())

    def register(self, steps: Iterable[Step]) -> None:
        """Take the steps of a blueprint, at once or once their component is attached.

        Raises:
            DuplicateHandlerError: a step clashes; those before it stay registered.
        """
        self._take(steps)

    def _take(self, more: Iterable[Step]) -> None:
        """Take the steps that can be taken, those that waited first."""
        check_outside("registering a blueprint", self._lock)
        with self._lock:
            attached = {None: True, "http": self._http, "websocket": self._websocket}
            steps = [*self._waiting, *more]
            self._waiting = [step for step in steps if not attached[step.needs]]
        for step in steps:
            if attached[step.needs]:
                step.take(self)

    def check_complete(self) -> None:
        """Check that an app can start with what is attached.

        Raises:
            AttachError: nothing is attached, or a blueprint waits for a component.
        """
        if self._http is None:
            raise AttachError("nothing to start; write app.attach(DaebusHttp(port=8080)) first")
        for step in self._waiting:  # unguarded: it is replaced as a whole
            assert step.needs is not None
            component = _CLASSES[step.needs]
            raise AttachError(
                f"blueprint {step.blueprint!r} needs a {component} for {name_of(step.function)}; "
                f"attach it before the start: app.attach({component}())"
            )

    def forget(self) -> None:
        """Drop all running parts in a forked child, where their threads do not exist."""
        self.tasks.forget()
        if self._http is not None:
            serving_of(self._http).forget()
        if self.context is not None:
            self.context.forget()


@dataclass(frozen=True)
class Step:
    """One thing that a blueprint registers.

    Attributes:
        blueprint: its name.
        function: the decorated function.
        needs: the component that must be attached first, or None.
        decorator: finds the component's decorator.
    """

    blueprint: str
    function: Callable[..., Any]
    needs: Needs | None
    decorator: Callable[[Components], Callable[[Any], object]]

    def take(self, components: Components) -> None:
        """Register it.

        Raises:
            DuplicateHandlerError: the app has one already; both are named.
        """
        try:
            self.decorator(components)(self.function)
        except DuplicateHandlerError as exc:
            raise DuplicateHandlerError(f"blueprint {self.blueprint!r}: {exc}") from None
