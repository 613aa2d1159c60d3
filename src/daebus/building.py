"""The part of ``Daebus`` that puts an app together: components, handlers, views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast, overload

from .errors import AttachError
from .http.component import DaebusHttp
from .http.component import View as _View
from .websocket.component import DaebusWebSocket
from .websocket.decorators import SocketHandler as _SocketHandler

if TYPE_CHECKING:
    from .app import Daebus

__all__ = ["Building"]


class Building(ABC):
    """Base of ``Daebus``: what it is made of, and what is registered with it.

    Args:
        debug: of the app; the components are told.
    """

    def __init__(self, *, debug: bool) -> None:
        self.debug = debug
        self._http: DaebusHttp | None = None
        self._websocket: DaebusWebSocket | None = None

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
        component.attached(cast("Daebus", self), debug=self.debug)
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
        self, message_type: str, *, background: bool = False
    ) -> Callable[[_SocketHandler], _SocketHandler]:
        """Decorate the handler of a message type, sync or async.

        It gets a ``WebSocketRequest``; what it returns, unless None, is sent to the
        client with type ``response``. For the options see ``DaebusWebSocket.socket``.

        Raises:
            AttachError: no WebSocket component is attached.
            DuplicateHandlerError: the type has a handler already.
        """
        return self.websocket.socket(message_type, background=background)

    def route(self, path: str, methods: Iterable[str] = ("GET",)) -> Callable[[_View], _View]:
        """Decorate the view of a path; see ``DaebusHttp.route``.

        Raises:
            AttachError: no HTTP component is attached.
            DuplicateHandlerError: the path has a view for that method already.
        """
        return self.http.route(path, methods)
