"""``Daebus``: the app, its components and its lifecycle.

::

    NEW -> STARTING -> RUNNING -> STOPPING -> STOPPED (-> STARTING ...)

Rules of this module:

1. Nothing starts at import or attach.
2. A start that fails releases everything and raises.
3. ``stop`` ends by its deadline whatever user code does.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from . import fork, signals
from .engine import Engine
from .errors import AttachError, ForkedError, StateError
from .http.component import DaebusHttp
from .monitoring.dump import describe
from .scaffold import Scaffold
from .server.sockets.systemd import Notifier
from .server.threads.pump import AFTER_STOP
from .server.threads.track import is_own, roles, track
from .websocket.api.context import Context, context_of
from .wsgi import WsgiAdapter

if TYPE_CHECKING:
    from .testing import AppClient

__all__ = ["Daebus"]

logger = logging.getLogger("daebus")

NEW, STARTING, RUNNING, STOPPING, STOPPED = "new", "starting", "running", "stopping", "stopped"

# Seconds that a request of another server waits for a start that an earlier one began.
_START_TIMEOUT = 10.0


class Daebus(Scaffold):
    """An HTTP and WebSocket server inside a synchronous program.

    Args:
        name: for logs.
        debug: send exception texts and tracebacks to clients; never in production.
    """

    def __init__(self, name: str, *, debug: bool = False) -> None:
        super().__init__(debug=debug)
        self.name = name
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._state = NEW  # guarded by: _lock
        self._stopped = threading.Event()  # set unless the app is up
        self._stopped.set()
        self._left: list[str] = []
        self._started = 0.0
        self._engine: Engine | None = None  # of the last start
        self._notifier = Notifier()
        self._notify = False  # this app speaks for the whole service
        self._wsgi = WsgiAdapter(self)
        self._is_guest = False  # guarded by: _lock; it has no port but another server's
        self.forked = False

    def __repr__(self) -> str:
        return f"<Daebus {self.name!r} {self._state}>"

    def _check_at_rest(self) -> None:
        if self._state not in (NEW, STOPPED):
            raise AttachError(f"the app is {self._state}; attach components before app.start()")

    # --- lifecycle --------------------------------------------------------------

    @property
    def running(self) -> bool:
        """True between a successful start and the beginning of the stop."""
        return self._state == RUNNING

    def start(self, *, notify: bool = False) -> None:
        """Listen and serve, in threads of the app's own; returns once it is listening.

        Args:
            notify: tell systemd when the app is ready, and when it stops: then the program
                is meant to end. For units with ``Type=notify``; nothing happens elsewhere.

        Raises:
            AttachError: nothing is attached.
            AddressInUseError: the port or the socket file is taken (an ``OSError``).
            OSError: it cannot listen for another reason; it listens nowhere then.
            StateError: the app runs already.
            ForkedError: it was started before this process was forked.
        """
        self._start(notify=notify)

    def _start(self, port: int | None = None, *, notify: bool = False) -> None:
        http = self._claim(guest=False)
        assert http is not None
        self._notify = notify
        self._begin(http, port)
        logger.info("%s %s", self.name, self._where())
        if self._websocket is not None and self._websocket.port != http.port:
            logger.info("%s takes WebSockets on port %s", self.name, self._websocket.port)

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
        return self._wsgi(environ, start_response)

    def start_as_guest(self) -> bool:
        """Be up, without a port; False if the app has been stopped since it was.

        Raises:
            AttachError, StateError, ForkedError: see ``wsgi``.
        """
        http = self._claim(guest=True)
        if http is not None:
            self._notify = False
            self._begin(http, None)
            logger.info("%s answers the requests of another server", self.name)
        return self.running

    def _claim(self, *, guest: bool) -> DaebusHttp | None:
        """Make the app's state STARTING; None for a guest that is up, or has been."""
        if self._http is None:
            raise AttachError("nothing to start; write app.attach(DaebusHttp(port=8080)) first")
        self._check_complete()
        with self._changed:
            if self.forked:
                raise ForkedError(
                    "this process was forked after the app was started; make a new app in the child"
                )
            if guest:  # the first requests may come together
                self._changed.wait_for(lambda: self._state != STARTING, _START_TIMEOUT)
                if self._is_guest:
                    return None
            if self._state not in (NEW, STOPPED):
                if guest:
                    raise StateError(
                        f"the app is {self._state} with a port of its own; use app.start() or "
                        f"app.wsgi, not both"
                    )
                where = " inside another server, which calls app.wsgi" if self._is_guest else ""
                raise StateError(
                    f"the app is {self._state}{where}; call app.stop() before another start"
                )
            self._state = STARTING
            self._is_guest = guest
        return self._http

    def _begin(self, http: DaebusHttp, port: int | None) -> None:
        engine: Engine | None = None
        try:
            engine = self._engine = Engine(
                http, self._context(), self._tasks, self._wsgi, is_guest=self._is_guest
            )
            engine.bind(port)
            self._started = time.monotonic()
            self._stopped.clear()
            fork.remember(self)
            engine.run()
            if self._notify:
                self._notifier.ready(self._where())
        except BaseException:
            if engine is not None:
                engine.abandon()
            fork.forget(self)
            with self._changed:
                self._state = STOPPED
                self._is_guest = False  # the next request may have more luck
                self._changed.notify_all()
            self._stopped.set()
            raise
        with self._changed:  # a stop that a first client's handler asked for waits for this
            self._state = RUNNING
            self._changed.notify_all()
        self._tasks.release()

    def announce(self) -> None:
        """Tell systemd that the app, which runs already, is ready."""
        self._notify = True
        self._notifier.ready(self._where())

    def _where(self) -> str:
        assert self._http is not None
        return "listens on " + ", ".join(self._http.addresses)

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
        deadline = time.monotonic() + timeout
        with self._changed:
            if self.forked:
                return []
            self._changed.wait_for(lambda: self._state != STARTING, timeout)
            if self._state in (NEW, STARTING, STOPPED):
                return []
            first = self._state == RUNNING
            if first:
                self._state = STOPPING
        assert self._engine is not None
        if self._engine.loop.is_current():
            if first:
                stopper = threading.Thread(
                    target=self._stop, args=(deadline,), name="daebus-stop", daemon=True
                )
                track(stopper, "stop").start()
            return []
        if first:
            return self._stop(deadline)
        if not is_own():
            # One of our own threads must not wait: the stop waits for it.
            self._stopped.wait(max(0.0, deadline - time.monotonic()))
        return list(self._left)

    def _stop(self, deadline: float) -> list[str]:
        assert self._engine is not None
        if self._notify:
            self._notifier.stopping()
        self._left = [thread.name for thread in self._engine.stop(deadline)]
        if self._left:
            logger.warning(
                "%s stopped, but user code holds these threads: %s",
                self.name,
                ", ".join(self._left),
            )
        else:
            logger.info("%s stopped", self.name)
        fork.forget(self)
        with self._lock:
            self._state = STOPPED
        self._stopped.set()
        return list(self._left)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the app has stopped; also the sleep of a host's own loop.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            True if the app does not run (any more).
        """
        if timeout is not None:
            return self._stopped.wait(timeout)
        while not self._stopped.wait(signals.SIGNAL_POLL):
            pass
        return True

    def heartbeat(self) -> None:
        """Tell systemd that the program's own loop still turns.

        For units with ``WatchdogSec=``: systemd restarts the program once this has not
        been called for so long. Nothing else says it, the app's own threads least of all,
        which go on when the loop hangs. Call it at least twice in that time, and as often
        as you like: most calls look at the clock and return.

        Threads:
            Any, at any time, with and without an app that runs; never waits.
        """
        self._notifier.heartbeat()

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
        if is_own():
            raise StateError("app.pump() belongs to a thread of the host, its main loop")
        if self.forked:
            raise ForkedError("this process was forked after the app was started; pump the parent")
        hub = context_of(self.websocket).hub
        if hub is not None:
            return hub.runtime.pump.run(timeout)
        if self._state == NEW:
            raise StateError("the app was not started; call app.start() before app.pump()")
        time.sleep(min(timeout, AFTER_STOP))
        return 0

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
        signals.run(self, timeout, notify=notify)

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
            "state": self._state,
            "seconds": 0.0 if self._stopped.is_set() else time.monotonic() - self._started,
            "threads": dict(sorted(roles().items())),
            "tasks": self._tasks.stats(),
        }
        if self._websocket is not None:
            stats["websocket"] = self._websocket.stats()
        return stats

    def dump(self, file: TextIO | None = None) -> None:
        """Print every thread with its stack, every connection and its queue.

        ``run()`` does this when the process gets SIGUSR1.

        Args:
            file: where to; None is standard error.
        """
        context = self._context()
        hub = None if context is None else context.hub
        target = sys.stderr if file is None else file
        if target is not None:  # a program without a console has no standard error
            print(describe(repr(self), self._tasks.describe(), hub), file=target, flush=True)

    def test_client(self, path: str = "/", **options: Any) -> AppClient:
        """Return a client for tests; see ``daebus.testing``.

        Used as a context manager. It starts the app on a free port if it does not run.
        """
        from .testing import AppClient

        return AppClient(self, path, **options)

    def after_fork(self) -> None:
        """Mark this copy as dead: its threads exist in the parent alone."""
        self._lock = threading.Lock()  # whoever held it does not exist here
        self._changed = threading.Condition(self._lock)
        self._state = STOPPED
        self._wsgi = WsgiAdapter(self)
        self.forked = True
        self._stopped = threading.Event()
        self._stopped.set()
        self._tasks.forget()
        for side in (self._http, self._context()):
            if side is not None:
                side.forget()

    def _context(self) -> Context | None:
        return None if self._websocket is None else context_of(self._websocket)
