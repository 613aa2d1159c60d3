"""What the app uses of its HTTP side: start, answer, stop, any number of times."""

from __future__ import annotations

import contextlib
import math
import ssl
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.encoder import Encoder
from ...interrupts.flag import Flag
from ...server.handoff import DRAINING, STOPPING, UpgradeHandler
from ...server.sockets.addresses import Addresses
from ...server.sockets.listener import Listener
from ...server.threads.loop import LoopThread
from ...server.threads.minder import Minder
from ...server.watching import TopicReader
from ..protocol.forwarded import TrustedProxies
from ..protocol.limits import Limits
from ..site.router import Router
from .access import AccessLog
from .certificates import choose_context
from .entrance import Entrance
from .server import HttpServer
from .topics import TopicPages

if sys.platform != "win32":
    import resource

__all__ = ["Serving", "ServingOptions"]

# Connections when nothing else is said.
MAX_CONNECTIONS = 4096
# Descriptors that are left to the rest of the program, such as for its files; and what we
# need beside clients and bodies: listeners, pollers, the loop.
RESERVED_DESCRIPTORS = 128
OWN_DESCRIPTORS = 32


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """Where and how to serve: the arguments of ``DaebusHttp``, checked.

    Attributes:
        addresses: to listen on.
        workers: requests that are handled at once.
        backlog: requests that may wait for a worker.
        max_connections: None for 4,096; never more than the process may open.
        limits: of one connection.
        tls: certificate file, key file and context, as ``choose_context`` takes them.
        proxies: whose headers are believed; None to believe no one's.
        entrance: judges requests by the host that they ask for.
        access_log: log a line for each request.
        topics: path below which topics are; None for none.
        max_watchers: clients that watch topics at once.
    """

    addresses: Addresses
    workers: int
    backlog: int
    max_connections: int | None
    limits: Limits
    tls: tuple[str | Path | None, str | Path | None, ssl.SSLContext | None]
    proxies: TrustedProxies | None
    entrance: Entrance
    access_log: bool
    topics: str | None
    max_watchers: int


class Serving:
    """Starts and stops the server of one ``DaebusHttp``.

    Args:
        router: answers the requests.
        options: as they were given to ``DaebusHttp``.

    Attributes:
        options: as given.
        listeners: open ones; none while the app does not run.
        server: None while the app does not run, or runs as a guest.
    """

    def __init__(self, router: Router, options: ServingOptions) -> None:
        self.options = options
        self.listeners: list[Listener] = []
        self._router = router
        self.server: HttpServer | None = None
        self._loop: LoopThread | None = None

    @property
    def port(self) -> int:
        """The first port; the configured one before the app runs; 0 for none."""
        if not self.listeners:
            return self.options.addresses.port or 0
        return next((listener.port for listener in self.listeners if listener.port), 0)

    def attached(self, name: str, *, debug: bool, encoder: Encoder) -> None:
        """Note the name of the app, how much an error tells, and how JSON is made."""
        self._router.debug = self._router.front.debug = debug
        self._router.front.name = name
        self._router.encoder = encoder

    def start(
        self,
        loop: LoopThread,
        *,
        port: int | None = None,
        upgrades: UpgradeHandler | None = None,
        upgrade_port: int | None = None,
        topics: TopicReader | None = None,
        minder: Minder | None = None,
    ) -> int:
        """Bind, and make everything ready; nothing is accepted before ``accept``.

        Args:
            loop: for async views.
            port: in place of everything that was asked for; tests use 0.
            upgrades: takes the WebSockets.
            upgrade_port: None if they share the port, else another port to listen on.
            topics: has the topics; None without a WebSocket component.
            minder: writes to those who watch them.

        Returns:
            The port on which WebSockets are taken, 0 for none.

        Raises:
            OSError: an address cannot be bound; none is open then.
            ValueError: the certificate can no longer be read.
        """
        options, others = self.options, []
        tls = choose_context(*options.tls)  # a certificate may have been renewed
        self._router.health.leaving, self._router.health.failed = None, False
        self._router.front.websockets = upgrades is not None
        with contextlib.ExitStack() as on_error:
            addresses = options.addresses
            listeners = addresses.open() if port is None else addresses.open_port(port)
            for listener in listeners:
                on_error.callback(listener.close)
            if upgrade_port is not None:
                others = addresses.open_port(upgrade_port)
                for listener in others:
                    on_error.callback(listener.close)
            self._loop = loop
            self.server = HttpServer(
                listeners,
                others,
                self.answer,
                router=self._router,
                upgrades=upgrades,
                workers=options.workers,
                backlog=options.backlog,
                max_connections=options.max_connections or MAX_CONNECTIONS,
                max_descriptors=_possible_descriptors(),
                limits=options.limits,
                tls=tls,
                proxies=options.proxies,
                vitals=loop.vitals,
                entrance=options.entrance,
                access=self._access_log(),
                topics=None if topics is None else self.topic_pages(topics, minder),
            )
            on_error.pop_all()
        self.listeners = listeners
        return others[0].port if others else self.port

    def topic_pages(self, reader: TopicReader, minder: Minder | None) -> TopicPages | None:
        """Return who answers requests for topics; None if nobody is to.

        Args:
            reader: has the topics.
            minder: writes to those who watch them; None if nobody can.
        """
        options = self.options
        if options.topics is None:
            return None
        return TopicPages(options.topics, options.max_watchers, reader, minder, options.limits)

    def _access_log(self) -> AccessLog | None:
        if not self.options.access_log:
            return None
        access = AccessLog()
        access.check()
        return access

    def be_guest(self, loop: LoopThread) -> None:
        """Answer the requests of another server: nothing is bound."""
        self._router.health.leaving, self._router.health.failed = None, False
        self._loop = loop

    def fail(self) -> None:
        """Have the health check say that a thread has died; until the next start."""
        self._router.health.failed = True

    def watch_backplane(self, health: Callable[[], tuple[bool, bool]] | None) -> None:
        """Have the health check say how the backplane is; None if there is none."""
        self._router.health.backplane = health

    def accept(self) -> None:
        """Start the threads."""
        assert self.server is not None
        self.server.begin()

    @property
    def is_passed_on(self) -> bool:
        """True while it listens on a socket that the next process may go on with."""
        return any(listener.foreign for listener in self.listeners)

    def leave(self) -> Flag | None:
        """Refuse newcomers, or leave them to the next process.

        Returns:
            Set once those who came last by a socket of somebody else have said what they want;
                None without a server of our own.
        """
        self._router.health.leaving = self._router.health.leaving or DRAINING
        return None if self.server is None else self.server.leave()

    def hurry(self, spread: float) -> Flag | None:
        """Send those who watch topics away within so many seconds, or sooner if that was said.

        Returns:
            Set once that is done; None if nobody can watch.
        """
        if self.server is None:
            return None
        return self.server.hurry(spread, passed_on=self.is_passed_on)

    def begin_stop(self) -> None:
        """Stop listening; what still comes on open connections is refused."""
        self._router.health.leaving = STOPPING
        if self.server is not None:
            self.server.begin_stop()

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the requests in flight; return the threads that would not end."""
        left = [] if self.server is None else self.server.finish_stop(deadline)
        self.server = None
        self.listeners = []
        return left

    def forget(self) -> None:
        """Drop the server in a forked child, and its copies of the sockets with it."""
        server, self.server = self.server, None
        self.listeners = []
        if server is not None:
            server.forget()

    def answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request; see PEP 3333."""
        assert self._loop is not None
        return self._router.wsgi(environ, start_response, self._loop)


def _possible_descriptors() -> float:
    """Return how many descriptors clients and their bodies may have together."""
    if sys.platform == "win32":
        return math.inf
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return math.inf
    return max(soft // 2, soft - RESERVED_DESCRIPTORS - OWN_DESCRIPTORS)
