"""The running part of the WebSocket component: one for each start, until the stop.

It admits upgrades, runs each connection in a thread of its own, calls the hooks and
ends everything by one deadline.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from ..interrupts.stack import inside
from ..server.handoff import STOPPING, Checked, Handshake, Refusal, Upgrade
from ..server.sockets.transport import Transport
from ..server.threads.connection_threads import ConnectionThreads
from ..server.threads.fairpool import FairPool
from ..server.threads.loop import LoopThread
from ..server.threads.minder import Minder
from ..server.threads.pool import WorkerPool, join_all
from ..server.threads.pump import Pump
from ..server.threads.safelog import LogThrottle, get_logger
from ..waits import monotonic, until
from .admission.admission import RETRY, Admission, Admitted, Route
from .admission.client_ids import ClientIds
from .clients.broadcast import Door
from .clients.farewells import Farewells
from .clients.registry import Registry
from .connection.events import SlowConsumerInfo, SlowHandlerInfo
from .connection.link import Link, Peer
from .messages.activity import Activity
from .messages.dispatcher import Dispatcher
from .protocol.codec import Codec
from .protocol.opening import pack
from .runner import Runner, call_hooks
from .runtime import Runtime
from .settings import HookCall, Settings
from .stats import Stats
from .visits import Visits
from .watchdog import Watchdog

__all__ = ["Hub"]

logger = get_logger("daebus.websocket")

# Characters of a client's ``User-Agent`` that are kept.
MAX_USER_AGENT = 512

# Calls of the slow-client and slow-handler hooks that may wait; more are logged and lost.
MAX_NOTICES = 100

# Calls of the hooks of presence that may wait: a crowd may come at once.
MAX_MOVES = 1000


class Hub:
    """Owns the registry and the connection threads.

    Args:
        settings: of the component.
        dispatcher: of the component.
        minder: shared with the rest of the app.
        loop: for async handlers and hooks.

    Attributes:
        runtime: the threads that connections share.
        registry: the connected clients.
        door: sends everything.
        stats: counters.
        threads: the connection threads.
        client_ids: the ids in use.
        farewells: sends the clients away before a stop.
        visits: shows topics to clients that speak HTTP.
    """

    def __init__(
        self, settings: Settings, dispatcher: Dispatcher, minder: Minder, loop: LoopThread
    ) -> None:
        jobs = FairPool(
            "daebus-job",
            settings.background_workers,
            settings.background_queue,
            vitals=minder.vitals,
        )
        self.runtime = Runtime(minder, loop, jobs, Pump(settings.main_timeout), dispatcher.encoder)
        self.registry = Registry(settings.max_clients, settings.max_rooms)
        self.door = Door(self.registry, deflate=settings.deflate)
        self.threads = ConnectionThreads(
            stack_size=settings.stack_size, affinity=settings.affinity, vitals=minder.vitals
        )
        self.stats = Stats()
        self.farewells = Farewells(self.registry, minder)
        self._settings = settings
        self._version = dispatcher.heartbeats.version
        self._admission = Admission(settings, self.registry, loop, debug=dispatcher.debug)
        self.visits = Visits(
            self._admission,
            dispatcher.topics,
            dispatcher.subscribing.check,
            settings.limits.ping_interval,
            self.stats.refused,
        )
        self.client_ids = ClientIds(settings.on_duplicate, settings.limits.close_timeout)
        self._watchdog = Watchdog(
            self.registry, minder, loop, settings.limits.slow_handler, self._report_slow_handler
        )
        self._runner = Runner(
            settings,
            dispatcher,
            loop,
            self.registry,
            self.stats,
            self._watchdog,
            came=self.farewells.came,
            left=self._left,
        )
        # For log lines and hooks about a connection that cannot run in its own thread, nor in
        # the minder's. Two threads, so that one hook that hangs does not stop the others.
        self._notices = WorkerPool("daebus-hook", 2, MAX_NOTICES, vitals=minder.vitals)
        # One thread, so that who came is told before it has left.
        self._moves = WorkerPool("daebus-presence", 1, MAX_MOVES, vitals=minder.vitals)
        self._lock = threading.Lock()
        self._gone = threading.Condition(self._lock)
        self._stopping = False  # guarded by: _lock
        self._throttle = LogThrottle()  # guarded by: _lock
        self._alive: set[Link] = set()  # guarded by: _lock

    # --- admission --------------------------------------------------------------

    def start(self, job: Callable[[], Callable[[], None] | None]) -> Refusal | None:
        """Run the job, which admits one upgrade, in a connection thread.

        Returns:
            A refusal if there are as many threads as allowed, or none can be started.

        Threads:
            The acceptor's or a worker's; never waits.
        """
        # Handshakes and closing connections are not in the registry, but each has a thread.
        if self.descriptors() >= 2 * self._settings.max_clients + 8:
            return self._refused(Refusal(503, "too_many_clients", "too many clients", RETRY))
        try:
            self.threads.run(job, "daebus-ws-handshake")
        except RuntimeError as exc:
            with self._lock:
                stopping = self._stopping
                warn = not stopping and self._throttle.is_due()
            if stopping:
                return self._refused(STOPPING)
            if warn:
                logger.warning("refusing clients, as no thread can be started: %s", exc)
            return self._refused(Refusal(503, "no_thread", "the server is overloaded", RETRY))
        return None

    def descriptors(self) -> int:
        """Return how many sockets are open here, or about to be: one a thread that works."""
        threads, parked = self.threads.count()
        return threads - parked

    def leaving(self) -> int:
        """Return how many connections run a thread, and are not or no longer in the registry."""
        with self._lock:
            alive = len(self._alive)
        return max(0, alive - len(self.registry))

    def has_told_all(self) -> bool:
        """Tell whether every notice of a slow client or handler has been given."""
        return self._notices.is_idle() and self._moves.is_idle()

    def admit(self, upgrade: Upgrade) -> Refusal | Callable[[], None]:
        """Take over a connection, or say why not.

        Returns:
            A function that runs the connection in the calling thread, and owns the socket; or
                a refusal, if the socket stays the caller's.
        """
        admitted = self._admission.judge(upgrade)
        if isinstance(admitted, Refusal):
            return self._refused(admitted)
        try:
            activity = self._make(upgrade, admitted)
        except BaseException:  # such as a socket that has closed meanwhile
            self._admission.cancel(upgrade.remote_address, admitted.place)
            raise
        if isinstance(activity, Refusal):
            self._admission.cancel(upgrade.remote_address, admitted.place)
            return self._refused(activity)
        with self._lock:
            self._alive.add(activity.link)
        response, expires = admitted.accepted.response, admitted.known.expires
        route = admitted.route
        return functools.partial(self._run, activity, route, response, upgrade.early, expires)

    def check(self, handshake: Handshake) -> Checked:
        """Judge a handshake as ``admit`` does, and open nothing.

        Pages of other places may ask with a token, for which browsers ask first.
        """
        preflight = handshake.method == "OPTIONS"
        refusal = None if preflight else self._admission.check(handshake)
        headers = self._admission.readable(handshake)
        if headers and preflight:
            headers = (*headers, ("Access-Control-Allow-Headers", "Authorization"))
        if self._version is not None:
            headers = (("Daebus-Version", self._version), *headers)
        return Checked(refusal, headers)

    def _refused(self, refusal: Refusal) -> Refusal:
        self.stats.refused(refusal.code)
        return refusal

    def _make(self, upgrade: Upgrade, admitted: Admitted) -> Activity | Refusal:
        accepted, limits = admitted.accepted, self._settings.limits
        codec = Codec(
            max_message_size=limits.max_message_size,
            max_fragments=limits.max_fragments,
            extensions=accepted.extensions,
        )
        peer = Peer(
            path=upgrade.path,
            remote_address=upgrade.remote_address,
            secure=upgrade.secure,
            user_agent=(upgrade.header("user-agent") or "")[:MAX_USER_AGENT],
            subprotocol=accepted.subprotocol,
            connected_at=time.time(),
            query=upgrade.target.partition("?")[2],
            headers=pack(upgrade.headers),
            path_params=admitted.route.path_params,
            raw=admitted.route.raw is not None,
        )
        link = Link(
            Transport(upgrade.sock),
            codec,
            limits,
            self.runtime,
            peer,
            watch=self._watchdog,
            on_gone=self._left,
            on_overflow=self._overflow,
        )
        link.identity = admitted.known.identity
        link.place = admitted.place
        activity = Activity(link, self.stats)
        try:
            taken = self.client_ids.take(activity.connection, link, self._settings.client_id)
        except BaseException:
            link.forget()
            raise
        if isinstance(taken, Refusal):
            link.forget()
            return taken
        link.client_id = taken
        return activity

    def _run(
        self,
        activity: Activity,
        route: Route,
        response: bytes,
        early: bytes,
        expires: float | None,
    ) -> None:
        link = activity.link
        opened = False
        try:
            try:
                opened = self._runner.open(activity, response, early, expires)
            finally:
                if not opened:  # it is not in the registry, and nobody said goodbye
                    self._admission.cancel(link.peer.remote_address, link.place)
                    link.writer.abort()
            if opened:
                self._runner.serve(activity, route)
        finally:
            self.client_ids.release(link)
            link.finish()
            with self._lock:
                self._alive.discard(link)
                if self._stopping:
                    self._gone.notify_all()

    def _left(self, link: Link) -> None:
        """Remove a connection from the registry; it may be called several times, by any thread.

        And it is: what the exception of a signal handler leaves undone, the connection's own
        thread does.
        """
        if inside():
            self.runtime.minder.call_later(0.0, functools.partial(self._left, link))
            return
        self.runtime.jobs.forget(link)  # again at the end, for jobs that came late
        self.registry.remove(link)
        self._admission.left(link.peer.remote_address, link.place)

    # --- slow clients and slow handlers -----------------------------------------

    def _overflow(self, link: Link, info: SlowConsumerInfo) -> None:
        """Note a client whose outbox is full; called under its lock."""
        # Logging, hooks and starting a thread must not happen under a lock: the minder does
        # the rest.
        self.runtime.minder.call_later(
            0.0, lambda: self._notify(lambda: self._slow_consumer(link, info))
        )

    def _slow_consumer(self, link: Link, info: SlowConsumerInfo) -> None:
        logger.warning(
            "client %s does not read: %d bytes in %d messages are queued; %s",
            link.client_id,
            info.queued_bytes,
            info.queued_messages,
            "cutting it" if info.cut else "dropping messages",
        )
        self._call("on_slow_consumer", self._settings.on_slow_consumer, link.client_id, info)

    def _report_slow_handler(self, link: Link | None, info: SlowHandlerInfo) -> None:
        self._notify(lambda: self._slow_handler(link, info))

    def _slow_handler(self, link: Link | None, info: SlowHandlerInfo) -> None:
        logger.warning(
            "handler for %r of client %s has run for %.1f s; it is at:\n%s",
            info.message_type,
            "any" if link is None else link.client_id,
            info.seconds,
            info.stack,
            kind=info.stack[-2000:],  # where it is; the innermost frame is often one of Python's
        )
        client_id = "" if link is None else link.client_id
        self._call("on_slow_handler", self._settings.on_slow_handler, client_id, info)

    def moved(self, room: str, user: str, joined: bool) -> None:
        """Tell the hooks of presence; never waits."""
        hooks = [hook for fits, hook in tuple(self._settings.on_presence) if fits(room)]
        loop = self.runtime.loop
        if hooks and not self._moves.submit(
            lambda: call_hooks(loop, "on_presence", hooks, room, user, joined)
        ):
            self.stats.lost_notice()

    def announce(self, job: Callable[[], None]) -> bool:
        """Run a job in a thread for notices; False if too many of them wait."""
        return self._notices.submit(job)

    def _call(self, name: str, hooks: list[HookCall], client_id: str, info: Any) -> None:
        call_hooks(self.runtime.loop, name, hooks, client_id, info)

    def _notify(self, notice: Callable[[], None]) -> None:
        if not self._notices.submit(notice):
            self.stats.lost_notice()

    # --- the end ----------------------------------------------------------------

    def begin_stop(self, *, restart: bool = False) -> None:
        """Refuse new clients and say goodbye to all others, without waiting."""
        with self._lock:
            self._stopping = True
        self._admission.stop()
        self.client_ids.stop()
        self.farewells.end(restart=restart)
        self.runtime.pump.close()

    def forget(self) -> None:
        """Close a forked child's copies of the sockets, without a word on the wire."""
        for link in list(self._alive):  # unguarded: no other thread exists in the child
            link.writer.transport.abandon()
        self.runtime.minder.abandon()

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the connection threads.

        Clients that do not answer the close frame are cut, early enough for the hooks to run.

        Args:
            deadline: moment of ``time.monotonic()``.

        Returns:
            The threads that did not end.
        """
        threads = self.threads.stop() + self.runtime.jobs.stop()
        grace = (deadline - monotonic()) * 0.75
        polite = monotonic() + min(self._settings.limits.close_timeout, max(0.0, grace))
        left = join_all(threads, polite)
        if self._wait_for_others(polite) or left:
            with self._lock:
                alive = list(self._alive)
            for link in alive:
                link.writer.abort()
            self.runtime.pump.abandon()
            self.runtime.loop.cancel_all()
        self._watchdog.stop()
        threads += self._notices.stop() + self._moves.stop()
        busy = {link.writer.owner for link in self._wait_for_others(deadline)}
        left = join_all(threads, deadline)
        return left + [
            thread
            for thread in threading.enumerate()
            if thread.ident in busy and thread not in left
        ]

    def _wait_for_others(self, deadline: float) -> list[Link]:
        """Wait for the connections in other servers' threads; return those that did not end.

        Our own threads are waited for by themselves.
        """
        with self._lock:
            self._gone.wait_for(lambda: not self._others_locked(), until(deadline))
            return self._others_locked()

    def _others_locked(self) -> list[Link]:
        assert self._lock.locked()
        return [link for link in self._alive if not link.writer.is_owner()]
