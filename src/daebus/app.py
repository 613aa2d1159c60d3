"""``Daebus``: the app, as users see it.

Nothing starts at import or attach. States and their order are in ``lifecycle``, the
decorators in ``scaffold``.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, overload

from . import signals
from .blueprint import Blueprint, take_steps
from .components import Components, Needs
from .errors import DuplicateHandlerError
from .http.component import DaebusHttp
from .lifecycle import Lifecycle
from .monitoring.dump import describe
from .scaffold import Decorator, Scaffold
from .server.threads.track import roles
from .websocket.component import DaebusWebSocket

if TYPE_CHECKING:
    from .testing import AppClient

__all__ = ["Daebus"]


class Daebus(Scaffold):
    """An HTTP and WebSocket server inside a synchronous program.

    Args:
        name: for logs.
        debug: send exception texts and tracebacks to clients; never in production.
    """

    def __init__(self, name: str, *, debug: bool = False) -> None:
        self.name = name
        self.debug = debug
        self._components = Components()
        self._lifecycle = Lifecycle(name, self._components)
        self._blueprints: list[Blueprint] = []

    def __repr__(self) -> str:
        return f"<Daebus {self.name!r} {self._lifecycle.state}>"

    # --- what it is made of -----------------------------------------------------

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
            TypeError: it is not a component.
        """
        self._lifecycle.check_at_rest()
        self._components.attach(component, debug=self.debug)
        return component

    @property
    def http(self) -> DaebusHttp:
        """The HTTP component.

        Raises:
            AttachError: none is attached.
        """
        return self._components.http

    @property
    def websocket(self) -> DaebusWebSocket:
        """The WebSocket component.

        Raises:
            AttachError: none is attached.
        """
        return self._components.websocket

    def register(self, blueprint: Blueprint) -> None:
        """Put in what a blueprint holds, before or after the components are attached.

        What needs a component waits until that is attached, which must be before the
        start.

        Raises:
            DuplicateHandlerError: the blueprint, or one of that name, is registered
                already; or the app has a handler for one of its types, paths or names.
                What came before that one stays registered.
            TypeError: it is not a blueprint.
        """
        if not isinstance(blueprint, Blueprint):
            raise TypeError(
                f"{blueprint!r} is not a blueprint; write app.register(Blueprint('chat'))"
            )
        for known in self._blueprints:
            if known is blueprint:
                raise DuplicateHandlerError(f"{blueprint!r} is registered already")
            if known.name == blueprint.name:
                raise DuplicateHandlerError(
                    f"two blueprints are named {blueprint.name!r}; give one of them another name"
                )
        self._blueprints.append(blueprint)
        self._components.register(take_steps(blueprint))

    def _decorator(self, needs: Needs | None, find: Callable[[Components], Decorator]) -> Decorator:
        return find(self._components)

    def start_thread(self, name: str) -> bool:
        """Start a function of ``thread`` that does not run: it returned, or never began.

        Returns:
            False if it runs.

        Raises:
            LookupError: no function of ``thread`` has that name.
            StateError: the app does not run.
        """
        return self._components.tasks.start_one(name)

    def stop_thread(self, name: str, timeout: float = 5.0) -> bool:
        """Have ``running()`` of a function of ``thread`` become False, and wait for its end.

        Args:
            name: as it was registered.
            timeout: seconds.

        Returns:
            True if it has ended; False if it did not run, or would not end in time.

        Raises:
            LookupError: no function of ``thread`` has that name.

        Threads:
            Any; the thread itself is not waited for.
        """
        return self._components.tasks.stop_one(name, timeout)

    # --- lifecycle --------------------------------------------------------------

    @property
    def running(self) -> bool:
        """True between a successful start and the beginning of the stop."""
        return self._lifecycle.running

    def start(self, *, port: int | None = None, notify: bool = False) -> None:
        """Listen and serve, in threads of the app's own; returns once it is listening.

        Args:
            port: listen on this port alone, in place of everything that ``DaebusHttp`` was
                told; 0 lets the system choose, which suits tests.
            notify: tell systemd when the app is ready, and when it stops: then the program
                is meant to end. For units with ``Type=notify``; nothing happens elsewhere.

        Raises:
            AttachError: nothing is attached.
            AddressInUseError: the port or the socket file is taken (an ``OSError``).
            OSError: it cannot listen for another reason; it listens nowhere then.
            StateError: the app runs already.
            ForkedError: it was started before this process was forked.
        """
        self._lifecycle.start(port, notify=notify)

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request of another server: a WSGI application, WebSockets included.

        The first call starts the app in this process, without a port of its own. A
        WebSocket stays in the thread that calls, until it has ended.

        Args:
            environ: see PEP 3333.
            start_response: likewise.

        Raises:
            AttachError: no HTTP component is attached.
            StateError: the app listens on a port of its own.
            ForkedError: it was started before this process was forked.

        Threads:
            Those of a threaded server, any number at once.
        """
        return self._lifecycle.wsgi(environ, start_response)

    def stop(self, timeout: float = 10.0) -> list[str]:
        """Say goodbye to the clients (close code 1001), finish requests, end the threads.

        Clients that do not answer and requests that do not finish are cut in time.
        Calling it again, or when the app does not run, does nothing but wait for a stop
        that is under way.

        Args:
            timeout: seconds; it returns by then, whatever handlers do.

        Returns:
            Names of the threads that would not end: user code holds them. They are
            daemons, so they do not keep the program alive.

        Threads:
            Any, handlers included: the calling thread is not waited for, and a second
            handler that calls it while the first does returns at once. In an async
            handler the stop goes on in a thread of its own, and this returns at once.
        """
        return self._lifecycle.stop(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the app has stopped; also the sleep of a host's own loop.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            True if the app does not run (any more).
        """
        return self._lifecycle.wait(timeout)

    def heartbeat(self) -> None:
        """Tell systemd that the program's own loop still turns.

        For units with ``WatchdogSec=``: systemd restarts the program once this has not
        been called for so long. Nothing else says it, the app's own threads least of all,
        which go on when the loop hangs. Call it at least twice in that time, and as often
        as you like: most calls look at the clock and return.

        Threads:
            Any, at any time, with and without an app that runs; never waits.
        """
        self._lifecycle.heartbeat()

    def pump(self, timeout: float = 0.0) -> int:
        """Run the handlers with ``run_in="main"`` that wait, in the calling thread.

        A host whose main thread must run them calls this in its loop. No more are run
        than wait at that moment, so it returns. It returns when the app stops, and then
        runs nothing: ``while app.running: app.pump(0.1)`` is a whole main loop.

        Args:
            timeout: seconds to wait for the first, if none waits.

        Returns:
            How many were run.

        Raises:
            StateError: the app was never started, a handler or another thread is at it
                already, or this is a thread of the app's own.
            AttachError: no WebSocket component is attached.
            KeyboardInterrupt, SystemExit: came while a handler ran, which has ended.

        Threads:
            One of the host's, always the same where that matters to the handlers.
        """
        return self._lifecycle.pump(timeout)

    def __enter__(self) -> Daebus:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    def run(self, *, timeout: float = 10.0, notify: bool = False) -> None:
        """Start unless it runs, wait until something stops the app, and return.

        In the main thread SIGINT and SIGTERM stop it; a second one leaves at once.
        SIGUSR1 prints what ``dump`` does. The previous handlers are restored. In another
        thread signals are left alone.

        Args:
            timeout: seconds for the stop.
            notify: see ``start``.
        """

        def begin() -> None:
            if not self.running:
                self.start(notify=notify)
            elif notify:
                self._lifecycle.announce()

        signals.run(self, begin, timeout)

    def stats(self) -> dict[str, Any]:
        """Return what the app does, in numbers.

        Keys: ``name``, ``state``, ``seconds`` since the start, ``threads`` (by role),
        ``tasks`` (counts of background functions and threads) and, where one is attached,
        ``websocket`` (see ``DaebusWebSocket.stats``).

        Threads:
            Any; cheap enough to be asked every second.
        """
        stats: dict[str, Any] = {
            "name": self.name,
            "state": self._lifecycle.state,
            "seconds": self._lifecycle.seconds,
            "threads": dict(sorted(roles().items())),
            "tasks": self._components.tasks.stats(),
        }
        if self._components.context is not None:
            stats["websocket"] = self.websocket.stats()
        return stats

    def dump(self, file: TextIO | None = None) -> None:
        """Print every thread with its stack, every connection and its queue.

        ``run()`` does this when the process gets SIGUSR1.

        Args:
            file: where to; None is standard error.
        """
        context = self._components.context
        hub = None if context is None else context.hub
        tasks = self._components.tasks.describe()
        target = sys.stderr if file is None else file
        if target is not None:  # a program without a console has no standard error
            print(describe(repr(self), tasks, hub), file=target, flush=True)

    def test_client(
        self,
        path: str = "/",
        *,
        headers: dict[str, str] | None = None,
        subprotocols: list[str] | None = None,
        timeout: float = 5.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> AppClient:
        """Return a client for tests; for the arguments see ``daebus.testing.AppClient``.

        Used as a context manager. It starts the app on a free port if it does not run.
        """
        from .testing import AppClient

        return AppClient(
            self,
            path,
            headers=headers,
            subprotocols=subprotocols,
            timeout=timeout,
            ssl_context=ssl_context,
        )
