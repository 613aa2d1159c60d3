"""The states of an app, and how it changes from one to the next.

::

    NEW -> STARTING -> RUNNING (-> DRAINING) -> STOPPING -> STOPPED (-> STARTING ...)

Rules of this module:

1. A start that fails releases everything and raises.
2. ``stop`` returns by its deadline, whatever user code does.
3. After a fork the child's copy is dead, and its methods raise ``ForkedError``.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from . import fork
from .components import Components
from .engine import Engine
from .errors import AttachError, ForkedError, StateError
from .http.component import serving_of
from .interrupts.flag import Flag
from .interrupts.stack import check_outside, inside
from .server.sockets.systemd import Notifier
from .server.threads.pump import AFTER_STOP
from .server.threads.safelog import flush_repeats, get_logger
from .server.threads.track import is_own, track
from .server.threads.vitals import Vitals
from .signals import FAREWELL, SIGNAL_POLL, Ending
from .waits import lock_timeout, monotonic, until
from .websocket.api.context import context_of
from .wsgi import WsgiAdapter

__all__ = ["Lifecycle"]

logger = get_logger("daebus")

NEW: Final = "new"
STARTING: Final = "starting"
RUNNING: Final = "running"
DRAINING: Final = "draining"
STOPPING: Final = "stopping"
STOPPED: Final = "stopped"

# Seconds of a stop that are left for its end when all clients have been sent away.
_REST = 1.0

# Seconds that another server's request waits for a start that an earlier request began.
_START_TIMEOUT = 10.0

# Seconds that clients and requests have to finish when another server's process ends.
_GUEST_FAREWELL = 5.0


class Lifecycle:
    """The state machine of one app; ``Daebus`` documents what users can rely on.

    Args:
        name: of the app, for logs.
        components: the components to start and stop.

    Attributes:
        heartbeat: feeds systemd's watchdog; see ``Daebus.heartbeat``.
        wsgi: answers a request of another server; see ``Daebus.wsgi``.
        forked: True in a child process, where this copy is dead.
        ending: whether a signal has asked the program to end.
    """

    def __init__(self, name: str, components: Components) -> None:
        self.name = name
        self._components = components
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._claimed: object = None  # whose start was the last one
        self._busy = 0  # the thread that starts or stops it
        # What was asked for during the start, by what interrupted it or by a first client.
        self._asked: list[Callable[[], object]] = []
        self._state = NEW  # written under _lock; one word, which any thread may read
        self._stopped = Flag()  # set unless the app is up
        self._stopped.set()
        self._over = Flag()  # set unless the app is up and all of its threads live
        self._over.set()
        self._left: list[str] = []
        self._started = 0.0
        self._engine: Engine | None = None  # of the last start
        self._notifier = Notifier()
        self._notify = False  # this app tells systemd about the service
        self.heartbeat = self._notifier.heartbeat
        self.wsgi = WsgiAdapter(self)
        self._is_guest = False  # guarded by: _lock; it runs inside another server
        self.forked = False
        self.ending = Ending()

    @property
    def state(self) -> str:
        """The state, in one word."""
        return self._state

    @property
    def running(self) -> bool:
        """True between a successful start and the beginning of the stop.

        And False as soon as one of the app's threads has died, or a signal asks for the end.
        """
        up = self._state in (RUNNING, DRAINING)
        return up and not self._over.is_set() and not self.ending.asked

    @property
    def seconds(self) -> float:
        """Seconds since the start; 0.0 while the app is not up."""
        return 0.0 if self._stopped.is_set() else monotonic() - self._started

    def check_at_rest(self) -> None:
        """Check that components may be attached now.

        Raises:
            AttachError: the app runs.
        """
        if self._state not in (NEW, STOPPED):
            raise AttachError(f"the app is {self._state}; attach components before app.start()")

    # --- start ------------------------------------------------------------------

    def start(self, port: int | None, *, notify: bool) -> None:
        """Listen and serve; see ``Daebus.start``.

        Threads:
            Any. Takes ``_lock`` briefly.
        """
        self._components.check_complete()
        check_outside("app.start()")
        self._begin(self._claim, port, notify=notify)
        http, websocket = self._components.http, self._components.context
        logger.info("%s %s", self.name, self._where())
        if websocket is not None and websocket.port != http.port:
            logger.info("%s takes WebSockets on port %s", self.name, websocket.port)

    def start_as_guest(self) -> bool:
        """Start without listening, unless that was done; return False once stopped.

        Raises:
            AttachError, StateError, ForkedError: see ``Daebus.wsgi``.

        Threads:
            Any number at once: one starts, the others wait for it.
        """
        self._components.check_complete()
        check_outside("app.wsgi")
        if self._begin(self._claim_as_guest, None, notify=False):
            logger.info("%s answers the requests of another server", self.name)
        return self.running

    def announce(self) -> None:
        """Tell systemd that the app, which runs already, is ready."""
        self._notify = True
        self._notifier.ready(self._where())

    def _claim(self, claim: object) -> bool:
        """Make the app's state STARTING."""
        with self._changed:
            self._check_not_forked("make a new app in the child")
            if self._state not in (NEW, STOPPED):
                where = " inside another server, which calls app.wsgi" if self._is_guest else ""
                raise StateError(
                    f"the app is {self._state}{where}; call app.stop() before another start"
                )
            self._is_guest = False
            self._claim_locked(claim)
            return True

    def _claim_as_guest(self, claim: object) -> bool:
        """Make the state STARTING; return False if this guest runs or has stopped."""
        with self._changed:
            self._check_not_forked("make a new app in the child")
            # The first requests may come together.
            self._changed.wait_for(lambda: self._state != STARTING, _START_TIMEOUT)
            if self._is_guest:
                return False
            if self._state not in (NEW, STOPPED):
                raise StateError(
                    f"the app is {self._state} with a port of its own; use app.start() or "
                    f"app.wsgi, not both"
                )
            self._is_guest = True
            self._claim_locked(claim)
            return True

    def _claim_locked(self, claim: object) -> None:
        assert self._lock.locked()
        self._busy, self._asked = threading.get_ident(), []
        # In one step, as a signal handler may raise whenever something is called.
        self._claimed, self._state = claim, STARTING
        self._over.clear()

    def _check_not_forked(self, advice: str) -> None:
        if self.forked:
            raise ForkedError(f"this process was forked after the app was started; {advice}")

    def _begin(self, claim: Callable[[object], bool], port: int | None, *, notify: bool) -> bool:
        """Start; whatever interrupts it, such as Ctrl-C, leaves the app at rest.

        Args:
            claim: makes the state STARTING, in the name of what it is given; or returns False.
            port: see ``Daebus.start``.
            notify: the same.

        Returns:
            What ``claim`` returned.
        """
        engine: Engine | None = None
        me = object()
        try:
            if not claim(me):
                return False
            self._notify = notify
            is_guest = self._is_guest  # unguarded: no other thread changes it amid a start
            engine = self._engine = Engine(
                self._components, self.wsgi, is_guest=is_guest, on_death=self._fail
            )
            engine.bind(port)
            self._started = monotonic()
            self._stopped.clear()
            fork.remember(self)
            engine.run()
            if self._notify:
                self._notifier.ready(self._where())
            with self._changed:  # a stop called by a first client's handler waits for this
                self._state = RUNNING
                self._changed.notify_all()
            self._components.tasks.release()
        except BaseException:
            if self._claimed is not me:  # refused: it is somebody else's
                raise
            if engine is not None:
                engine.abandon()
            fork.forget(self)
            with self._changed:
                self._state = STOPPED
                self._is_guest = False  # the next request may try again
                self._changed.notify_all()
            self._stopped.set()
            self._over.set()
            raise
        for call in self._asked:
            self._start_apart(call)
        return True

    def _where(self) -> str:
        return "listens on " + ", ".join(self._components.http.addresses)

    # --- stop -------------------------------------------------------------------

    def drain(self, spread: float, *, restart: bool) -> None:
        """Send the clients away within that many seconds; see ``Daebus.drain``.

        Threads:
            Any. Takes ``_lock`` briefly, and others under it; waits for nobody.
        """
        again = partial(self.drain, lock_timeout(spread), restart=restart)
        if self._is_inside(again):
            return
        with self._lock:
            if self._state == STARTING:
                self._asked.append(again)
            elif self._state in (RUNNING, DRAINING):
                assert self._engine is not None
                self._state = DRAINING
                # Under the lock, so that no stop, nor another start, comes in between.
                self._engine.leave(lock_timeout(spread), restart=restart)

    def stop(self, timeout: float, spread: float = 0.0, *, restart: bool = False) -> list[str]:
        """Stop within that many seconds; see ``Daebus.stop``.

        Threads:
            Any. Takes ``_lock`` briefly, and waits outside of it.
        """
        deadline = monotonic() + lock_timeout(timeout)
        longest = max(0.0, lock_timeout(timeout) - _REST)
        spread = min(lock_timeout(spread), longest)
        if self._busy == threading.get_ident() and self._state == STOPPING:
            return list(self._left)
        if self._is_inside(partial(self.stop, timeout, spread, restart=restart)):
            return []
        with self._changed:
            if self.forked:
                return []
            self._changed.wait_for(lambda: self._state != STARTING, lock_timeout(timeout))
            if self._state in (NEW, STARTING, STOPPED):
                return []
            assert self._engine is not None
            first = self._state in (RUNNING, DRAINING)
            if first:
                self._state = STOPPING
                self._busy = threading.get_ident()
            else:  # whoever waits for it has less time, perhaps
                self._engine.hurry(longest, restart=restart)
        stop = partial(self._stop_now, deadline, spread, restart=restart)
        if self._engine.loop.is_current():
            if first:
                self._start_apart(partial(self._stop, stop))
            return []
        if first:
            return self._stop(stop)
        if not is_own():
            # One of our own threads must not wait: the stop would wait for it.
            self._stopped.wait(until(deadline))
        return list(self._left)

    def _is_inside(self, call: Callable[[], object]) -> bool:
        """Tell whether this thread was interrupted, and have another one make the call then.

        What interrupted this thread cannot wait for it, nor start a thread of its own, which
        would.
        """
        if self._busy == threading.get_ident() and self._state == STARTING:
            self._asked.append(call)  # once it is up
            return True
        if not inside():
            return False
        if self._engine is not None and self._state not in (NEW, STOPPED):
            minder = self._engine.minder
            if minder.thread.is_alive():
                minder.call_later(0.0, partial(self._start_apart, call))
            else:  # it has died
                self._start_apart(call)
        return True

    def _start_apart(self, call: Callable[[], object]) -> None:
        run = partial(Vitals(self._fail).guard, call)
        track(threading.Thread(target=run, name="daebus-stop", daemon=True), "stop").start()

    def _stop(self, stop: Callable[[], list[str]]) -> list[str]:
        try:
            return stop()
        except BaseException:  # of a signal handler: the stop goes on without this thread
            self._busy = 0
            self._start_apart(partial(self._stop_after_all, stop))
            raise

    def _stop_after_all(self, stop: Callable[[], list[str]]) -> None:
        try:
            stop()
        except BaseException:
            with self._lock:
                self._state = RUNNING  # half of it; another stop may try
            raise

    def _stop_now(self, deadline: float, spread: float, *, restart: bool) -> list[str]:
        assert self._engine is not None
        if self._notify:
            self._notifier.stopping()
        left = self._engine.stop(deadline, spread, restart=restart)
        self._left = [thread.name for thread in left]
        flush_repeats()
        if self._left:
            logger.warning(
                "%s stopped, and these threads have not ended in time: %s",
                self.name,
                ", ".join(self._left),
            )
        else:
            logger.info("%s stopped", self.name)
        fork.forget(self)
        with self._lock:
            # Under the lock, or a start that follows would find them set again; and this order,
            # or who was told of the stop would not find it over.
            self._state = STOPPED
            self._over.set()
            self._stopped.set()
        return list(self._left)

    def _fail(self) -> None:
        """Note that a thread of ours has died: whoever waits for the app must look after it."""
        serving_of(self._components.http).fail()
        self._over.set()

    def wait(self, timeout: float | None) -> bool:
        """Wait until the app has stopped; see ``Daebus.wait``."""
        if self._state == NEW:
            raise StateError(
                "the app was not started; call app.start() before app.wait(), or write "
                "with app.serve():"
            )
        if timeout is None:
            check_outside("app.wait()")
        self.ending.watch()
        deadline = math.inf if timeout is None else monotonic() + lock_timeout(timeout)
        while not self.ending.asked:
            if self._over.wait(min(until(deadline), SIGNAL_POLL)):
                return True
            if monotonic() >= deadline:
                return False
        return True

    # --- what the host does with a running app ----------------------------------

    def pump(self, timeout: float) -> int:
        """Run what waits for the host's thread; see ``Daebus.pump``."""
        if is_own():
            raise StateError("app.pump() was called in a thread of the app; call it in your loop")
        self._check_not_forked("pump the parent")
        hub = context_of(self._components.websocket).hub
        if hub is not None:
            self.ending.watch()
            return hub.runtime.pump.run_while(lambda: self.running, timeout, SIGNAL_POLL)
        if self._state == NEW:
            raise StateError("the app was not started; call app.start() before app.pump()")
        time.sleep(lock_timeout(min(timeout, AFTER_STOP)))
        return 0

    # --- the end of the process -------------------------------------------------

    def before_exit(self) -> None:
        """Say goodbye to the clients of a program that ends without a stop."""
        if self._state in (RUNNING, DRAINING):
            self.stop(_GUEST_FAREWELL if self._is_guest else FAREWELL)  # unguarded: one look

    # --- fork -------------------------------------------------------------------

    def after_fork(self) -> None:
        """Mark this copy as dead: its threads exist in the parent alone."""
        self._lock = threading.Lock()  # the thread that held it does not exist here
        self._changed = threading.Condition(self._lock)
        self._state = STOPPED
        self.wsgi = WsgiAdapter(self)
        self.forked = True
        self._stopped = Flag()
        self._stopped.set()
        self._over = Flag()
        self._over.set()
        self._components.forget()
