"""The parts that run between a start and a stop, and the order in which they start and end."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .components import Components
from .http.component import serving_of
from .interrupts.flag import Flag
from .server.threads.loop import LoopThread
from .server.threads.minder import Minder
from .server.threads.pool import join_all
from .server.threads.vitals import Vitals
from .waits import monotonic, until
from .wsgi import WsgiAdapter

__all__ = ["Engine"]

# Seconds that threads get which nothing holds, however little time a stop has: they have been
# told, and end as soon as they run.
GRACE = 0.2

# Seconds that those get who came just before the door was closed, to say what they want. A
# little more than each of them has.
SETTLE = 1.2


class Engine:
    """One start of an app.

    Args:
        components: the components to start; tasks start last and are stopped first.
        wsgi: answers the requests of another server.
        is_guest: requests come from that server, so the app does not listen.
        on_death: called in a thread of ours that dies; must not wait.

    Attributes:
        loop: runs coroutines.
        minder: keeps deadlines.

    Raises:
        OSError: no descriptor is left for the minder.
    """

    def __init__(
        self,
        components: Components,
        wsgi: WsgiAdapter,
        *,
        is_guest: bool,
        on_death: Callable[[], None],
    ) -> None:
        vitals = Vitals(on_death)
        self.loop = LoopThread(vitals)
        self.minder = Minder(vitals=vitals)
        self._http = serving_of(components.http)
        self._websocket = components.context
        self._tasks = components.tasks
        self._is_apart = self._websocket is not None and not self._websocket.is_joined
        self._wsgi = wsgi
        self._is_guest = is_guest

    def bind(self, port: int | None) -> None:
        """Listen, and prepare everything; no client is let in before ``run``.

        Args:
            port: listen on this port instead of the configured ones; None for those.

        Raises:
            OSError: a port cannot be bound.
        """
        http, websocket = self._http, self._websocket
        if self._is_guest:
            http.be_guest(self.loop)
            started = None if websocket is None else websocket.start(self.minder, self.loop)
            self._watch_backplane()
            topics = None if started is None else http.topic_pages(started.visits, None)
            judge = http.options.entrance.judge_environ
            self._wsgi.begin(http.answer, judge, started, topics, self.minder, apart=self._is_apart)
            return
        if websocket is None:
            self._watch_backplane()
            http.start(self.loop, port=port)
            return
        if self._is_apart and http.options.addresses.is_shared:
            self._wsgi.warn_of_shared_port()
        own = websocket.configured_port
        if own is not None and own == http.options.addresses.port and own != 0:
            own = None
        hub = websocket.start(self.minder, self.loop)
        self._watch_backplane()
        shared = None if own is None or port is None else port
        ws_port = http.start(
            self.loop,
            port=port,
            upgrades=hub,
            upgrade_port=own if shared is None else shared,
            topics=hub.visits,
            minder=self.minder,
        )
        websocket.listening(ws_port)

    def _watch_backplane(self) -> None:
        node = None if self._websocket is None else self._websocket.node
        self._http.watch_backplane(None if node is None else node.health)

    def run(self) -> None:
        """Start the threads; the tasks wait to be released.

        Raises:
            RuntimeError: no thread can be started.
        """
        self.minder.start()
        if not self._is_guest:
            self._http.accept()
        self._tasks.start(self.loop)

    def leave(self, spread: float, *, restart: bool) -> tuple[Flag | None, list[Flag]]:
        """Send each client away within so many seconds, and refuse newcomers.

        Where the listening socket is somebody else's they are left to the next process.

        Returns:
            What ``Serving.leave`` and ``hurry`` return.

        Threads:
            Any; never waits.
        """
        self._wsgi.leave()
        return self._http.leave(), self.hurry(spread, restart=restart)

    def hurry(self, spread: float, *, restart: bool) -> list[Flag]:
        """Send each client away within so many seconds, or sooner if that was said before.

        Returns:
            Set once that is done, for WebSockets and for those who watch topics over HTTP.

        Threads:
            Any; never waits.
        """
        told = [self._http.hurry(spread)]
        hub = None if self._websocket is None else self._websocket.hub
        if hub is not None:
            hub.farewells.begin(spread, restart=restart)
            told.append(hub.farewells.over)
        return [flag for flag in told if flag is not None]

    def _leave_first(self, deadline: float, spread: float, *, restart: bool) -> None:
        """Do what comes before a stop, with the app still at work for those who are there."""
        end = min(deadline, monotonic() + spread)
        settled, told = self.leave(spread, restart=restart)
        for flag in told:
            flag.wait(until(end))
        if settled is not None and self._http.is_passed_on:
            settled.wait(min(SETTLE, 0.25 * until(deadline)))

    def abandon(self) -> None:
        """Release everything after a start that failed."""
        now = monotonic()
        self._tasks.begin_stop()
        self._wsgi.begin_stop()
        for component in (self._http, self._websocket):
            if component is not None:
                component.begin_stop()
                component.finish_stop(now)
        self._tasks.finish_stop(now)
        self.minder.stop()

    def stop(
        self, deadline: float, spread: float = 0.0, *, restart: bool = False
    ) -> list[threading.Thread]:
        """Stop everything; each part gets a share of the time.

        Args:
            deadline: moment of ``time.monotonic()``.
            spread: seconds of it in which the clients are sent away, each at its own moment.
            restart: another process takes over.

        Returns:
            The threads that did not end: user code holds them.
        """
        if spread > 0 or self._http.is_passed_on:
            self._leave_first(deadline, spread, restart=restart)
        grace = monotonic() + GRACE
        http, websocket, minder = self._http, self._websocket, self.minder
        left: list[threading.Thread] = []
        self._tasks.begin_stop()
        http.begin_stop()
        self._wsgi.begin_stop()
        if websocket is not None:
            websocket.begin_stop(restart=restart)
        # A handler that does not end must leave some time to the other parts.
        slack = min(1.0, 0.1 * until(deadline))
        if websocket is not None:
            left += websocket.finish_stop(deadline - 4 * slack)
        left += self._tasks.finish_stop(deadline - 3 * slack)
        left += http.finish_stop(deadline - 2 * slack)
        left += self._wsgi.finish_stop(deadline - 2 * slack)
        left += self.loop.stop(deadline - slack)
        minder.stop()
        return join_all(left, grace) + join_all([minder.thread], max(grace, deadline))
