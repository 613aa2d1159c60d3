"""``DaebusHttp``: the component that gives an app its port."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from ..checks.annotations import checked
from ..checks.arguments import check_path, positive, positive_or_none, seconds
from ..data.depth import check_depth
from ..server.sockets.addresses import Addresses
from ..server.sockets.urls import urls
from .protocol.cors import Cors
from .protocol.forwarded import TrustedProxies
from .protocol.limits import Limits
from .protocol.paths import fault_in_path
from .serving.certificates import choose_context
from .serving.entrance import Entrance
from .serving.serving import Serving, ServingOptions
from .site.decorators import HttpDecorators
from .site.own import CHECK, CLIENT
from .site.router import Router

__all__ = ["DaebusHttp", "serving_of"]

_DEFAULTS = Limits()


class DaebusHttp(HttpDecorators):
    """The HTTP side of an app, and the addresses that both sides listen on.

    ``port``, ``unix``, ``sock`` and ``fd`` may be combined.

    Args:
        port: 0 lets the system choose; the real one is in ``port`` once the app runs.
            None takes 8080, or no port at all if another place is given.
        host: address to listen on, or several; the default is reachable from this
            machine alone, ``["0.0.0.0", "::"]`` from everywhere.
        unix: path of a socket file to listen on. One that no program listens on any more is
            replaced; ``stop`` removes it.
        unix_mode: permissions of that file; the default is for its user and group.
        sock: a socket, or several, that you have bound.
        fd: number of such a socket, or ``"systemd"`` for all that a socket unit passes.
            These and ``sock`` stay yours: the app listens on duplicates and makes them
            non-blocking. After ``stop`` clients wait there until you start it again or
            close them.
        reuse_port: let other processes that set it listen on the port too; the system
            spreads new connections over them.
        trusted_proxies: addresses and networks of reverse proxies, such as
            ``["127.0.0.1", "10.0.0.0/8"]``; ``"unix"`` is whoever connects to a socket
            file. What they say of the client in ``X-Forwarded-For``, ``-Proto``,
            ``-Host`` and ``-Port``, or else in ``Forwarded``, counts. ``X-Forwarded-Prefix`` is
            the part of the path that they have taken away, for links and redirects.
        allowed_hosts: names of this server, such as ``["meter.example.com"]``, beside the
            usual ones: addresses, ``localhost`` and its subdomains, the machine's name, with
            ``.local`` too, and names in ``host``. ``".example.com"`` is any subdomain,
            ``"*"`` every name. A request for another host is answered 421, since the page it
            comes from only pretends to be yours (DNS rebinding). From a trusted proxy the
            forwarded host counts; on a socket file all hosts pass, unless you give a list.
        static: folder whose files are served where no route matches; symbolic links in it
            are followed. What has a dot before its name is not shown, ``.well-known`` apart.
        cors: which pages of other sites may read answers, as a dict of
            ``allowed_origins`` (needed), ``allowed_methods``, ``allowed_headers``,
            ``expose_headers``, ``allow_credentials`` and ``max_age``.
        cross_site_requests: ``"refuse"`` answers 403 to methods other than GET, HEAD and
            OPTIONS that a page of another site sends, by a form say, also below mounted apps;
            views with ``cross_site=True`` take them, and pages that ``cors`` names may send
            them, with cookies if it says so. ``"allow"`` lets all pages. Programs always may.
        health: path that answers 200 while the app serves and 503 while it stops; None
            for none.
        topics: path below which clients read topics, such as ``"/_daebus/topics"``: each is a
            page of JSON there, and ``events?topic=NAME`` a stream for ``EventSource``. Who may
            read is judged as an upgrade is. None for nowhere.
        max_watchers: such streams at once; more are answered 503. A socket each, no thread.
        workers: requests that are handled at once, a thread each, started when needed.
        backlog: requests that may wait for a worker; more are answered 503.
        head_timeout: seconds for a whole request head; one deadline, however it comes.
        idle_timeout: seconds an idle connection is kept for its next request.
        max_connections: HTTP connections at once, idle ones included; more are answered
            503. None takes 4,096: a thousand browsers with a few connections each, at 2 KiB a
            silent one. Together with WebSockets and bodies on the disk they leave 128 of the
            descriptors that the process may open.
        max_body: bytes of a request body; a larger one is answered 413, unread.
        max_depth: levels of arrays and objects in a JSON body, 1,000 at most; a deeper one
            is 400 when the view asks for it.
        max_spool: bytes of all bodies and uploaded files that wait on the disk at once; what
            comes beyond is answered 503. Sixteen of the largest bodies fit by default.
        body_timeout: seconds for a whole request body.
        min_rate: bytes a second at which bodies must come and answers be taken, after a
            grace; slower clients are refused or cut.
        write_timeout: seconds in which a client must take each part of a streamed answer.
        max_line: bytes of a request line (414) or header line (431).
        max_headers: header lines of a request; more are answered 431.
        max_head: bytes of a request head; a larger one is answered 431.
        certfile: PEM file with the certificate, and the chain behind it; the port speaks
            TLS then, ``https`` and ``wss``. It is read here and again by each start.
        keyfile: PEM file with its private key; None if that is in ``certfile``.
        ssl_context: a context of your own, in place of these.
        access_log: log a line for each request to the logger ``daebus.access`` at INFO, in the
            common log format, WebSocket handshakes and refusals included. The host is the
            client's as ``trusted_proxies`` say.

    The reasons of the defaults stand in ``daebus.http.protocol.limits``. None of these limits lets
    a client hold a worker: it gets requests that are complete, and what a client takes
    slowly is written elsewhere. Only a view that streams holds its worker as it streams.

    Raises:
        ValueError: an argument is invalid; the message names it and the value.
        TypeError: an argument is of another type; the message names it.
    """

    @checked
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
        allowed_hosts: Sequence[str] | Literal["*"] | None = None,
        static: str | Path | None = None,
        cors: Mapping[str, Any] | None = None,
        cross_site_requests: Literal["refuse", "allow"] = "refuse",
        health: str | None = "/_daebus/health",
        topics: str | None = None,
        max_watchers: int = 1000,
        workers: int = 8,
        backlog: int = 64,
        max_connections: int | None = None,
        head_timeout: float = _DEFAULTS.head_timeout,
        idle_timeout: float = _DEFAULTS.idle_timeout,
        max_body: int = _DEFAULTS.max_body,
        max_depth: int = _DEFAULTS.max_depth,
        max_spool: int = 256 << 20,
        body_timeout: float = _DEFAULTS.body_timeout,
        min_rate: float = _DEFAULTS.min_rate,
        write_timeout: float = _DEFAULTS.write_timeout,
        max_line: int = _DEFAULTS.max_line,
        max_headers: int = _DEFAULTS.max_headers,
        max_head: int = _DEFAULTS.max_head,
        certfile: str | Path | None = None,
        keyfile: str | Path | None = None,
        ssl_context: ssl.SSLContext | None = None,
        access_log: bool = False,
    ) -> None:
        limits = Limits(
            max_line=max_line,
            max_headers=max_headers,
            max_head=max_head,
            max_body=max_body,
            max_depth=check_depth("max_depth", max_depth),
            head_timeout=head_timeout,
            body_timeout=body_timeout,
            min_rate=min_rate,
            write_timeout=write_timeout,
            idle_timeout=idle_timeout,
        )
        for name, value in asdict(limits).items():
            check = seconds if name.endswith("_timeout") else positive
            check(name, value)
        if static is not None and not Path(static).is_dir():
            raise ValueError(f"static must be a folder, and there is none at {str(static)!r}")
        if health is not None:
            check_path(health, "health={}")
        if cross_site_requests not in ("refuse", "allow"):
            raise ValueError(
                f"cross_site_requests is 'refuse' or 'allow', not {cross_site_requests!r}"
            )
        trusted = TrustedProxies(trusted_proxies)
        addresses = Addresses(
            host,
            port,
            unix=unix,
            unix_mode=unix_mode,
            socks=sock,
            fd=fd,
            reuse_port=reuse_port,
        )
        options = ServingOptions(
            addresses,
            workers=positive("workers", workers),
            backlog=positive("backlog", backlog),
            max_connections=positive_or_none("max_connections", max_connections),
            limits=limits,
            tls=(certfile, keyfile, ssl_context),
            proxies=trusted if trusted_proxies else None,
            entrance=Entrance(allowed_hosts, addresses.hosts),
            access_log=access_log,
            topics=None if topics is None else _check_topics_path(topics),
            max_watchers=positive("max_watchers", max_watchers),
        )
        choose_context(*options.tls)  # errors are raised here rather than by the start
        router = Router(
            None if static is None else str(static),
            max_body,
            max_depth,
            max_spool=positive("max_spool", max_spool),
            cors=None if cors is None else Cors(cors),
            health=health,
            cross_site=cross_site_requests == "allow",
        )
        super().__init__(router)
        self._serving = Serving(router, options)

    @property
    def port(self) -> int:
        """The first port; 0 if there is none.

        Before the app runs, the one that was asked for.
        """
        return self._serving.port

    @property
    def host(self) -> str:
        """The address that goes with ``port``."""
        serving = self._serving
        with_port = (listener.host for listener in serving.listeners if listener.port)
        return next(with_port, serving.options.addresses.hosts[0])

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses where HTTP is served; empty while the app does not run.

        Such as ``127.0.0.1:8080``, ``[::1]:8080`` and ``unix:/run/x.sock``.
        """
        return tuple(listener.address for listener in self._serving.listeners)

    @property
    def urls(self) -> tuple[str, ...]:
        """The same as a person can open them; a port on all addresses has several.

        Such as ``http://127.0.0.1:8080/`` and ``http://192.168.1.5:8080/`` for ``0.0.0.0``. None
        for socket files.
        """
        return tuple(urls(self._serving.listeners, secure=self.secure))

    @property
    def secure(self) -> bool:
        """True if the port speaks TLS: ``https`` and ``wss``."""
        return self._serving.options.tls != (None, None, None)


def _check_topics_path(path: str) -> str:
    """Return the path of the topics without a slash at its end."""
    check_path(path, "topics={}")
    taken = path.rstrip("/") in ("", CHECK, CLIENT, "/_daebus", "/_daebus/health")
    if taken or set(path) & {"<", "*"} or fault_in_path(path):
        raise ValueError(f"topics is a path, not {path!r}; write topics='/_daebus/topics'")
    return path.rstrip("/")


def serving_of(component: DaebusHttp) -> Serving:
    """Return the part of the component that starts and stops; for the app, not for users."""
    return component._serving
