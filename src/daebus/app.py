"""``Daebus``: the app, as users see it.

Nothing starts at import or attach. States and their order are in ``lifecycle``, the
decorators in ``scaffold``.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TextIO, TypedDict, TypeVar, overload

from .backplane.protocol import Backplane
from .blueprint import Blueprint, take_steps
from .checks.annotations import checked
from .checks.arguments import header_text
from .checks.functions import check_function
from .components import Components, Needs
from .data.encoder import Encoder
from .errors import DuplicateHandlerError
from .http.component import DaebusHttp
from .interrupts.stack import check_outside
from .lifecycle import Lifecycle
from .monitoring.dump import describe
from .scaffold import Decorator, Scaffold
from .server.sockets.urls import of_websockets
from .server.threads.track import roles
from .signals import Foreground
from .tasks.registry import TasksStats
from .waits import lock_timeout
from .websocket.cluster.info import BackplaneStats
from .websocket.component import DaebusWebSocket
from .websocket.stats import WebSocketStats

if TYPE_CHECKING:
    from .testing import AppClient

__all__ = ["AppStats", "Daebus"]

AnyBackplane = TypeVar("AnyBackplane", bound=Backplane)


class AppStats(TypedDict):
    """The counts of ``Daebus.stats``, which describes them."""

    name: str
    state: str
    seconds: float
    threads: dict[str, int]
    tasks: TasksStats
    websocket: NotRequired[WebSocketStats]
    backplane: NotRequired[BackplaneStats]


class Daebus(Scaffold):
    """An HTTP and WebSocket server inside a synchronous program.

    Args:
        name: the app's name in logs.
        debug: send clients the traceback of what was raised, in the field ``traceback`` of the
            error; never in production.
        version: of the program, such as ``"1.4.2"``: clients are told it by the check
            (``/_daebus/check``) and by each heartbeat, so that a page can reload itself.
        nan: what NaN and the infinities become in JSON: ``"null"``, or ``"error"`` to raise an
            ``EncodeError`` where they are sent.
        json_default: a function that returns a JSON form of what has none otherwise, or
            raises ``TypeError``; as ``default`` of ``json.dumps``.

    Raises:
        ValueError: the version is not of 1 to 128 printable ASCII characters.
        TypeError: an argument is of another type; the message names it.
        ValueError: ``nan`` is neither of the two.
    """

    @checked
    def __init__(
        self,
        name: str,
        *,
        debug: bool = False,
        version: str | None = None,
        nan: Literal["null", "error"] = "null",
        json_default: Callable[[Any], Any] | None = None,
    ) -> None:
        self.name = name
        self.debug = debug
        self.version = header_text("version", version)
        if json_default is not None:
            check_function("json_default", json_default, ("value",), kinds=("plain",))
        self._encoder = Encoder(nan, json_default)
        self._components = Components()
        self._lifecycle = Lifecycle(name, self._components)
        self._blueprints: dict[str, tuple[Blueprint]] = {}

    def __repr__(self) -> str:
        return f"<Daebus {self.name!r} {self._lifecycle.state}>"

    # --- what it is made of -----------------------------------------------------

    @overload
    def attach(self, component: DaebusHttp) -> DaebusHttp: ...

    @overload
    def attach(self, component: DaebusWebSocket) -> DaebusWebSocket: ...

    @overload
    def attach(self, component: AnyBackplane) -> AnyBackplane: ...

    def attach(
        self, component: DaebusHttp | DaebusWebSocket | AnyBackplane
    ) -> DaebusHttp | DaebusWebSocket | AnyBackplane:
        """Add a component: ``DaebusHttp`` first, then ``DaebusWebSocket``, then a backplane.

        Returns:
            The component.

        Raises:
            AttachError: the order is wrong, one of this kind is attached, or the app runs.
            TypeError: the argument is not a component.
        """
        self._lifecycle.check_at_rest()
        self._components.attach(
            component,
            self.name,
            debug=self.debug,
            version=self.version,
            encoder=self._encoder,
        )
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
        """Register everything of a blueprint, before or after the components are attached.

        Handlers that need a component are registered once it is attached, which must be
        before the start.

        Raises:
            DuplicateHandlerError: the blueprint, or one of that name, is registered
                already; or the app has a handler for one of its types, paths or names.
                The handlers before that one stay registered.
            TypeError: the argument is not a blueprint.
        """
        if not isinstance(blueprint, Blueprint):
            raise TypeError(
                f"{blueprint!r} is not a blueprint; write app.register(Blueprint('chat'))"
            )
        mine = (blueprint,)  # another one each time: whoever was first finds its own
        first = self._blueprints.setdefault(blueprint.name, mine)
        if first[0] is not blueprint:
            raise DuplicateHandlerError(
                f"two blueprints are named {blueprint.name!r}; give one of them another name"
            )
        if first is not mine:
            raise DuplicateHandlerError(f"{blueprint!r} is registered already")
        self._components.register(take_steps(blueprint))

    def _decorator(self, needs: Needs | None, find: Callable[[Components], Decorator]) -> Decorator:
        return find(self._components)

    @checked
    def start_thread(self, name: str) -> bool:
        """Start a function of ``thread`` that has returned, or was never started.

        Returns:
            False if it runs already.

        Raises:
            LookupError: no function of ``thread`` has that name.
            StateError: the app does not run.
        """
        return self._components.tasks.start_one(name)

    @checked
    def stop_thread(self, name: str, timeout: float = 5.0) -> bool:
        """Tell a function of ``thread`` to end (``running()`` is False), and wait for that.

        Args:
            name: the name that it was registered with.
            timeout: seconds to wait.

        Returns:
            True if it has ended; False if it did not run, or did not end in time.

        Raises:
            LookupError: no function of ``thread`` has that name.

        Threads:
            Any; a thread that stops itself does not wait.
        """
        return self._components.tasks.stop_one(name, timeout)

    # --- lifecycle --------------------------------------------------------------

    @property
    def running(self) -> bool:
        """True between a successful start and the beginning of the stop.

        False as well once a signal has asked for the end (see ``serve``), or one of the app's
        own threads has died, which is logged; call ``stop`` then, and start again if you like.
        """
        return self._lifecycle.running

    @checked
    def start(self, *, port: int | None = None, notify: bool = False) -> None:
        """Listen and serve, in threads of the app's own; return once it listens.

        Args:
            port: listen on this port alone, whatever the arguments of ``DaebusHttp`` say; 0
                lets the system choose, which suits tests.
            notify: tell systemd when the app is ready, and when it stops, after which the
                program should end. For units with ``Type=notify``; no effect elsewhere.

        Raises:
            AttachError: nothing is attached.
            AddressInUseError: the port or the socket file is taken (an ``OSError``).
            OSError: it cannot listen for another reason; then it listens on no port.
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
            start_response: see PEP 3333.

        Raises:
            AttachError: no HTTP component is attached.
            StateError: the app listens on a port of its own.
            ForkedError: it was started before this process was forked.

        Threads:
            Those of a threaded server, any number at once.
        """
        return self._lifecycle.wsgi(environ, start_response)

    @checked
    def drain(self, spread: float = 10.0, restart: bool = True) -> None:
        """Send the clients away little by little, let no others in, and go on until ``stop``.

        Each WebSocket gets a ``goodbye``, which says when to come back, and a close frame, at
        its own random moment; one whose request is being worked on gets them after that, or at
        the end of the time. New ones and new connections are answered 503, and so is the health
        check; what is asked on open connections is answered, and these end with it. Where the
        listening socket is somebody else's (``fd=``, ``sock=``) nothing more is accepted, and
        who comes waits for the next process. Called again it can only hurry.

        Args:
            spread: seconds until all have been told.
            restart: the program will be back, so the close code is 1012 rather than 1001.

        Threads:
            Any, also where it interrupts one; returns at once. Nothing happens while the app
            does not run; within its start, once that is done.
        """
        self._lifecycle.drain(spread, restart=restart)

    def stop(self, timeout: float = 10.0, spread: float = 0.0, restart: bool = False) -> list[str]:
        """Say goodbye to the WebSockets (code 1001), finish requests, end the threads.

        Clients that do not answer and requests that do not finish are cut in time. Calling
        it again, or when the app does not run, only waits for a stop that is under way, whose
        spread ends a second before the time of whoever waits for it.

        Args:
            timeout: seconds after which it returns, whatever handlers do.
            spread: seconds of these, the last one excluded, in which the clients are sent away
                as ``drain`` does, so that they do not all come back at once.
            restart: the program will be back, so the close code is 1012 rather than 1001; it is
                if ``drain`` has said so.

        Returns:
            Names of the threads that did not end, because user code runs in them. They are
                daemons, so they do not keep the program alive.

        Threads:
            Any, including those of handlers. It does not wait for the calling thread. If two
                handlers call it, the second call returns at once; in an async handler it returns
                at once too, and the stop goes on in a thread of its own.
            So it is in a signal handler or destructor that interrupted this thread within a
            start, or within another call of ours at a moment when that cannot wait: the result
            is an empty list then, and ``wait`` tells when the stop has ended.
        """
        return self._lifecycle.stop(timeout, spread, restart=restart)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the app has stopped; a host's loop can use it to sleep.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            True if the app does not run any more, one of its threads has died, or a signal
                has asked for the end (see ``serve``).

        Raises:
            StateError: the app was never started; or it is to wait without a time, in what
                interrupted this very thread within a call of ours, which goes on only after that.
        """
        return self._lifecycle.wait(timeout)

    def heartbeat(self) -> None:
        """Tell systemd that the program's own loop still runs.

        For units with ``WatchdogSec=``: systemd restarts the program if this is not called
        for so long. The app never does it by itself, as its threads go on when the loop
        hangs. Call it at least twice in that time, or as often as you like: most calls only
        look at the clock.

        Threads:
            Any, at any time, whether or not the app runs; never waits.
        """
        self._lifecycle.heartbeat()

    def pump(self, timeout: float = 0.0) -> int:
        """Run the waiting handlers with ``run_in="main"`` in the calling thread.

        A host whose main thread must run them calls this in its loop. It runs those that
        wait at the time of the call, then returns. When the app stops it returns and runs
        none: ``while app.running: app.pump(0.1)`` is a whole main loop.

        Args:
            timeout: seconds to wait for the first handler, if none waits.

        Returns:
            How many handlers were run.

        Raises:
            StateError: the app was never started, another thread or a handler pumps
                already, or this is a thread of the app's own.
            AttachError: no WebSocket component is attached.
            KeyboardInterrupt, SystemExit: raised while a handler or a hook ran, which has
                ended. What else a signal handler raised meanwhile comes here as well.

            Threads:
                One of the host's; always the same one if the handlers need that.
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

    @checked
    def run(self, *, timeout: float = 10.0, notify: bool = False) -> None:
        """Start the app unless it runs, and wait until it is stopped.

        It says where it listens, as URLs to open: in the log, if that has a handler for
        ``daebus`` at INFO, or else on standard error.

        In the main thread SIGINT and SIGTERM stop it; a second signal exits at once.
        SIGUSR1 calls ``dump``. The previous signal handlers are restored. In another thread
        signals are left alone.

        Args:
            timeout: seconds for the stop.
            notify: see ``start``.

        Raises:
            SystemExit: in the main thread, with a sentence, if it cannot listen: the program
                ends with code 1 and no traceback. To go on instead, call ``start`` first,
                which raises the ``OSError``.
            OSError: the same in another thread.
        """
        with self._foreground(timeout, notify=notify, watched=True):
            self.wait()

    @checked
    def serve(
        self, *, timeout: float = 10.0, notify: bool = False
    ) -> AbstractContextManager[None, bool]:
        """Start the app unless it runs, for the loop in a ``with`` block, and stop it after that.

        ::

            with app.serve():
                while not app.wait(1.0):
                    measure()

        In the main thread SIGINT and SIGTERM leave the block, and the program goes on behind
        it. ``wait`` returns True then, so a loop that asks it ends its round. A loop that asks
        neither ``wait`` nor ``pump`` is interrupted where it is, also in a ``time.sleep``, by
        ``KeyboardInterrupt`` or ``SystemExit``. A second signal ends the program at once.
        SIGUSR1 calls ``dump``. Where it listens and what becomes of signal handlers and errors
        is as in ``run``.

        Args:
            timeout: seconds for the stop.
            notify: see ``start``.

        Raises:
            SystemExit, OSError: see ``run``.
        """
        return self._foreground(timeout, notify=notify, watched=False)

    def _foreground(self, timeout: float, *, notify: bool, watched: bool) -> Foreground:
        check_outside("app.run()" if watched else "app.serve()")
        lock_timeout(timeout)  # now, and not when it is to stop

        def begin() -> None:
            if not self.running:
                self.start(notify=notify)
            elif notify:
                self._lifecycle.announce()

        return Foreground(
            self,
            self._lifecycle.ending,
            begin=begin,
            places=self._places,
            timeout=timeout,
            watched=watched,
        )

    def _places(self) -> list[str]:
        """Return where the app listens, as a person or a page can open it."""
        found = [*(self.http.urls or self.http.addresses)]
        context = self._components.context
        if context is not None and context.port and context.port != self.http.port:
            found += of_websockets(self.http.urls, context.port)
        return found

    def stats(self) -> AppStats:
        """Return counts and times of the app.

        Keys: ``name``, ``state``, ``seconds`` since the start, ``threads`` (by role),
        ``tasks`` (counts of background functions and threads) and, where one is attached,
        ``websocket`` (see ``DaebusWebSocket.stats``) and ``backplane`` (see ``BackplaneStats``).

        Threads:
            Any; cheap enough to call every second.
        """
        stats: AppStats = {
            "name": self.name,
            "state": self._lifecycle.state,
            "seconds": self._lifecycle.seconds,
            "threads": dict(sorted(roles().items())),
            "tasks": self._components.tasks.stats(),
        }
        context = self._components.context
        if context is not None:
            stats["websocket"] = self.websocket.stats()
            backplane = context.backplane_stats()
            if backplane is not None:
                stats["backplane"] = backplane
        return stats

    def dump(self, file: TextIO | None = None) -> None:
        """Print every thread with its stack, every connection and its queue.

        ``run()`` does this when the process gets SIGUSR1.

        Args:
            file: the file to print to; None for standard error.
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

        Use it as a context manager. It starts the app on a free port if it does not run.
        """
        from .testing import AppClient

        check_outside("app.test_client()")
        return AppClient(
            self,
            path,
            headers=headers,
            subprotocols=subprotocols,
            timeout=timeout,
            ssl_context=ssl_context,
        )
