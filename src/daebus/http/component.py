"""``DaebusHttp``: what an app attaches to have a port."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from ..server.handoff import UpgradeHandler
from ..server.sockets.addresses import Addresses
from ..server.sockets.listener import Listener
from ..server.threads.loop import LoopThread
from .protocol.cors import Cors
from .protocol.forwarded import TrustedProxies
from .protocol.limits import Limits
from .serving.certificates import choose_context
from .serving.server import HttpServer
from .site.decorators import HttpDecorators
from .site.router import Router

if sys.platform != "win32":
    import resource

__all__ = ["DaebusHttp"]

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


class DaebusHttp(HttpDecorators):
    """The HTTP side of an app, and where both sides listen.

    ``port``, ``unix``, ``sock`` and ``fd`` may be combined.

    Args:
        port: 0 lets the system choose; the real one is in ``port`` once the app runs.
            None takes 8080, or no port at all if another place is given.
        host: address to listen on, or several; the default is reachable from this
            machine alone, ``["0.0.0.0", "::"]`` from everywhere.
        unix: path of a socket file to listen on. One that nobody listens on any more is
            replaced; ``stop`` removes it.
        unix_mode: permissions of that file; the default is for its user and group.
        sock: a socket, or several, that you have bound.
        fd: number of such a socket, or ``"systemd"`` for all that a socket unit passes.
            These and ``sock`` stay yours: the app listens on duplicates and makes them
            non-blocking. After ``stop`` clients wait there until you start it again or
            close them.
        reuse_port: let other processes that say so listen on the port too; the system
            spreads new connections over them.
        trusted_proxies: addresses and networks of reverse proxies, such as
            ``["127.0.0.1", "10.0.0.0/8"]``; ``"unix"`` is whoever connects to a socket
            file. What they say of the client in ``X-Forwarded-For``, ``-Proto``,
            ``-Host`` and ``-Port``, or else in ``Forwarded``, counts.
        static: folder whose files are served where no route matches; symbolic links in it
            are followed.
        cors: which pages of other sites may read answers, as a dict of
            ``allowed_origins`` (needed), ``allowed_methods``, ``allowed_headers``,
            ``expose_headers``, ``allow_credentials`` and ``max_age``.
        health: path that answers 200 while the app serves and 503 while it stops; None
            for none.
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
        certfile: PEM file with the certificate, and the chain behind it; the port speaks
            TLS then, ``https`` and ``wss``. It is read here and again by each start.
        keyfile: PEM file with its private key; None if that is in ``certfile``.
        ssl_context: in place of these, a context of your own.

    The reasons of the defaults stand in ``daebus.http.protocol.limits``. None of these limits lets
    a client hold a worker: it gets requests that are complete, and what a client takes
    slowly is written elsewhere. Only a view that streams holds its worker as it streams.

    Raises:
        ValueError: an argument makes no sense; the message says which.
    """

    def __init__(
        self,
        port: int | None = None,
        *,
        host: str | Sequence[str] = "127.0.0.1",
        unix: str | Path | None = None,
        unix_mode: int = 0o660,
        sock: socket.socket | Sequence[socket.socket] = (),
        fd: int | Literal["systemd"] | None = None,
        reuse_port: bool = False,
        trusted_proxies: Sequence[str] = (),
        static: str | Path | None = None,
        cors: Mapping[str, Any] | None = None,
        health: str | None = "/_daebus/health",
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
        certfile: str | Path | None = None,
        keyfile: str | Path | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._places = Addresses(
            host,
            port,
            unix=unix,
            unix_mode=unix_mode,
            socks=sock,
            fd=fd,
            reuse_port=reuse_port,
        )
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
        if health is not None and not health.startswith("/"):
            raise ValueError(f"health must start with a slash; write health={'/' + health!r}")
        proxies = TrustedProxies(trusted_proxies)
        self._proxies = proxies if trusted_proxies else None
        self._listeners: list[Listener] = []  # open while the app runs
        self._tls = (certfile, keyfile, ssl_context)
        choose_context(*self._tls)
        self._workers = workers
        self._backlog = backlog
        self._max_connections = max_connections
        super().__init__(
            Router(
                None if static is None else str(static),
                max_body,
                cors=None if cors is None else Cors(cors),
                health=health,
            )
        )
        self._server: HttpServer | None = None
        self._loop: LoopThread | None = None

    @property
    def port(self) -> int:
        """The port, the first of several; 0 if there is none.

        Before the app runs, the one that was asked for.
        """
        if not self._listeners:
            return self._places.port or 0
        return next((listener.port for listener in self._listeners if listener.port), 0)

    @property
    def host(self) -> str:
        """The address that goes with ``port``."""
        with_port = (listener.host for listener in self._listeners if listener.port)
        return next(with_port, self._places.hosts[0])

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every place where HTTP is served; empty while the app does not run.

        Such as ``127.0.0.1:8080``, ``[::1]:8080`` and ``unix:/run/x.sock``.
        """
        return tuple(listener.address for listener in self._listeners)

    @property
    def configured_port(self) -> int | None:
        """The port that was asked for."""
        return self._places.port

    @property
    def secure(self) -> bool:
        """True if the port speaks TLS: ``https`` and ``wss``."""
        return self._tls != (None, None, None)

    # --- for the app ------------------------------------------------------------

    def attached(self, *, debug: bool) -> None:
        """Note how much an error tells."""
        self._router.debug = debug

    def start(
        self,
        loop: LoopThread,
        *,
        port: int | None = None,
        upgrades: UpgradeHandler | None = None,
        upgrade_port: int | None = None,
    ) -> int:
        """Bind, and make everything ready; nothing is accepted before ``accept``.

        Args:
            loop: for async views.
            port: in place of everything that was asked for; tests use 0.
            upgrades: takes the WebSockets.
            upgrade_port: None if they share the port, else another port to listen on.

        Returns:
            The port on which WebSockets are taken, 0 for none.

        Raises:
            OSError: one of them cannot be had; none is open then.
            ValueError: the certificate cannot be read any more.
        """
        tls = choose_context(*self._tls)  # a certificate may have been renewed
        self._router.draining = False
        places, others = self._places, []
        with contextlib.ExitStack() as on_error:
            listeners = places.open() if port is None else places.open_port(port)
            for listener in listeners:
                on_error.callback(listener.close)
            if upgrade_port is not None:
                others = places.open_port(upgrade_port)
                for listener in others:
                    on_error.callback(listener.close)
            self._loop = loop
            self._server = HttpServer(
                listeners,
                others,
                self.answer,
                upgrades=upgrades,
                workers=self._workers,
                backlog=self._backlog,
                max_connections=_possible(self._max_connections),
                limits=self._limits,
                tls=tls,
                proxies=self._proxies,
            )
            on_error.pop_all()
        self._listeners = listeners
        return others[0].port if others else self.port

    def be_guest(self, loop: LoopThread) -> None:
        """Answer the requests of another server: nothing is bound."""
        self._router.draining = False
        self._loop = loop

    def accept(self) -> None:
        """Start the threads."""
        assert self._server is not None
        self._server.begin()

    def begin_stop(self) -> None:
        """Stop listening; what still comes on open connections is refused."""
        self._router.draining = True
        if self._server is not None:
            self._server.begin_stop()

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the requests in flight; return the threads that would not end."""
        left = [] if self._server is None else self._server.finish_stop(deadline)
        self._server = None
        self._listeners = []
        return left

    def forget(self) -> None:
        """Drop the server in a forked child, and its copies of the sockets with it."""
        server, self._server = self._server, None
        self._listeners = []
        if server is not None:
            server.forget()

    def answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request; see PEP 3333."""
        assert self._loop is not None
        return self._router.wsgi(environ, start_response, self._loop)
