"""``DaebusHttp``: what an app attaches to have a port."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..server.handoff import Upgrades
from ..server.listener import listen
from ..server.loop import LoopThread
from .limits import Limits
from .routing import Router
from .server import HttpServer

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from ..app import Daebus

__all__ = ["DaebusHttp"]

View = TypeVar("View", bound=Callable[..., Any])

_DEFAULTS = Limits()

# Connections when nothing else is said, and descriptors that are left to the rest of the
# program: its files, its WebSockets.
MAX_CONNECTIONS = 4096
RESERVED_DESCRIPTORS = 128


def _possible(wanted: int | None) -> int:
    """Return how many connections to allow: what was asked for, else what is possible."""
    if wanted is not None:
        return wanted
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(soft // 2, soft - RESERVED_DESCRIPTORS))


class DaebusHttp:
    """The HTTP side of an app, and the port of both sides.

    Args:
        port: 0 lets the system choose; the real one is in ``port`` once the app runs.
        host: address to listen on; the default is reachable from this machine alone,
            ``"0.0.0.0"`` from everywhere.
        static: folder whose files are served where no route matches.
        workers: requests that are handled at once, a thread each, started when needed.
        backlog: requests that may wait for a worker; more are answered 503.
        head_timeout: seconds for a whole request head; one deadline, however it comes.
        idle_timeout: seconds an idle connection is kept for its next request.
        max_connections: HTTP connections at once, idle ones included; more are answered
            503. None takes 4,096, or what the process may open if that is less: a
            thousand browsers with a few connections each, at 2 KiB a silent one.
        max_body: bytes of a request body; a larger one is answered 413, unread.
        body_timeout: seconds for a whole request body.
        min_rate: bytes a second at which bodies must come and answers be taken, after a
            grace; who is slower is sent away.
        write_timeout: seconds in which a client must take each part of a streamed answer.
        max_line: bytes of a request line (414) or header line (431).
        max_headers: header lines of a request; more are answered 431.
        max_head: bytes of a request head; a larger one is answered 431.

    The reasons of the defaults stand in ``daebus.http.limits``. None of these limits lets
    a client hold a worker: it gets requests that are complete, and what a client takes
    slowly is written elsewhere. Only a view that streams holds its worker as it streams.

    Raises:
        ValueError: an argument makes no sense; the message says which.
    """

    def __init__(
        self,
        port: int = 8080,
        *,
        host: str = "127.0.0.1",
        static: str | Path | None = None,
        workers: int = 8,
        backlog: int = 64,
        max_connections: int | None = None,
        head_timeout: float = _DEFAULTS.head_timeout,
        idle_timeout: float = _DEFAULTS.idle_timeout,
        max_body: int = _DEFAULTS.max_body,
        body_timeout: float = _DEFAULTS.body_timeout,
        min_rate: float = _DEFAULTS.min_rate,
        write_timeout: float = _DEFAULTS.write_timeout,
        max_line: int = _DEFAULTS.max_line,
        max_headers: int = _DEFAULTS.max_headers,
        max_head: int = _DEFAULTS.max_head,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be between 0 and 65535, not {port!r}")
        self._limits = Limits(
            max_line=max_line,
            max_headers=max_headers,
            max_head=max_head,
            max_body=max_body,
            head_timeout=head_timeout,
            body_timeout=body_timeout,
            min_rate=min_rate,
            write_timeout=write_timeout,
            idle_timeout=idle_timeout,
        )
        numbers = {"workers": workers, "backlog": backlog, **asdict(self._limits)}
        if max_connections is not None:
            numbers["max_connections"] = max_connections
        for name, value in numbers.items():
            if not value > 0:
                raise ValueError(f"{name} must be greater than 0, not {value!r}")
        if static is not None and not Path(static).is_dir():
            raise ValueError(f"static must name a folder, and there is none at {str(static)!r}")
        self.host = host
        self._configured_port = port
        self._port: int | None = None
        self._workers = workers
        self._backlog = backlog
        self._max_connections = max_connections
        self._router = Router(None if static is None else str(static), max_body)
        self._server: HttpServer | None = None
        self._loop: LoopThread | None = None

    @property
    def port(self) -> int:
        """The port; the real one once the app runs, if 0 was asked for."""
        return self._configured_port if self._port is None else self._port

    @property
    def configured_port(self) -> int:
        """The port that was asked for."""
        return self._configured_port

    def route(self, path: str, methods: Iterable[str] = ("GET",)) -> Callable[[View], View]:
        """Decorate a view; the same as ``app.route``.

        The view gets the ``Request`` and the parts of the path that Werkzeug's routing
        found, such as ``id`` of ``"/items/<int:id>"``. It may be async. It returns a dict
        or list (sent as JSON), str (HTML), bytes, a generator, ``(body, status)``,
        ``(body, status, headers)`` or a Werkzeug ``Response``.

        Raises:
            DuplicateHandlerError: the path has a view for that method already.
            ValueError: the path does not start with a slash.
        """

        def register(view: View) -> View:
            self._router.add(path, view, methods)
            return view

        return register

    # --- for the app ------------------------------------------------------------

    def attached(self, app: Daebus, *, debug: bool) -> None:
        """Note how much an error tells."""
        self._router.debug = debug

    def start(
        self,
        loop: LoopThread,
        *,
        port: int | None = None,
        upgrades: Upgrades | None = None,
        upgrade_port: int | None = None,
    ) -> int:
        """Bind, and make everything ready; nothing is accepted before ``accept``.

        Args:
            loop: for async views.
            port: in place of the one that was asked for; tests use 0.
            upgrades: takes the WebSockets.
            upgrade_port: None if they share the port, else another port to listen on.

        Returns:
            The port on which WebSockets are taken.

        Raises:
            OSError: a port cannot be bound; none is then.
        """
        main = listen(self.host, self._configured_port if port is None else port)
        with contextlib.ExitStack() as on_error:
            on_error.callback(main.close)
            self._loop = loop
            http_port = main.getsockname()[1]
            others = []
            if upgrade_port is not None:
                others.append(listen(self.host, upgrade_port))
                on_error.callback(others[0].close)
            ws_port: int = others[0].getsockname()[1] if others else http_port
            self._server = HttpServer(
                main,
                others,
                self._wsgi,
                upgrades=upgrades,
                upgrade_port=ws_port,
                workers=self._workers,
                backlog=self._backlog,
                max_connections=_possible(self._max_connections),
                limits=self._limits,
            )
            on_error.pop_all()
        self._port = http_port
        return ws_port

    def accept(self) -> None:
        """Start the threads."""
        assert self._server is not None
        self._server.begin()

    def begin_stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.begin_stop()

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the requests in flight; return the threads that would not end."""
        left = [] if self._server is None else self._server.finish_stop(deadline)
        self._server = None
        self._port = None
        return left

    def forget(self) -> None:
        """Drop the server in a forked child, and its copy of the port with it."""
        server, self._server = self._server, None
        if server is not None:
            server.forget()

    def _wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        assert self._loop is not None
        return self._router.wsgi(environ, start_response, self._loop)
