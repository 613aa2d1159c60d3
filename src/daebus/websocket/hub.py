"""The running side of the WebSocket component: one per start, gone with the stop.

It admits upgrades, runs each connection in a thread of its own, calls the hooks and
ends everything by a common deadline.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..server.handoff import Refusal, Upgrade
from ..server.sockets.transport import Transport
from ..server.threads.loop import LoopThread
from ..server.threads.minder import Minder
from ..server.threads.pool import ConnectionThreads, WorkerPool, join_all
from ..server.threads.pump import Pump
from ..server.threads.safelog import get_logger
from .admission.admission import RETRY, Admission, Admitted
from .admission.client_ids import ClientIds
from .clients.registry import Registry
from .connection.connection import Connection
from .connection.events import SlowConsumerInfo, SlowHandlerInfo
from .protocol.codec import Codec
from .settings import HookCall, Settings
from .stats import Stats
from .watchdog import Watchdog

__all__ = ["Hub"]

logger = get_logger("daebus.websocket")

# Characters of what a client calls itself that are kept.
MAX_USER_AGENT = 512

# Calls of the slow-client and slow-handler hooks that may wait; more are logged and lost.
MAX_NOTICES = 100

# Seconds between two warnings of missing threads: a crowd must not flood the log.
QUIET = 10.0


class Hub:
    """Owns the registry and the connection threads.

    Args:
        settings: of the component.
        minder: shared with the rest of the app.
        loop: for async handlers and hooks.
    """

    def __init__(self, settings: Settings, minder: Minder, loop: LoopThread) -> None:
        self.minder = minder
        self.registry = Registry(settings.max_clients, settings.max_rooms)
        self._admission = Admission(settings, self.registry, loop)
        self.threads = ConnectionThreads(stack_size=settings.stack_size, affinity=settings.affinity)
        self.tally = Stats()
        self._identifiers = ClientIds()
        self._settings = settings
        self.loop = loop
        self.jobs = WorkerPool("daebus-job", settings.background_workers, settings.background_queue)
        self.pump = Pump(settings.main_timeout)
        self.watch = Watchdog(
            self.registry, minder, loop, settings.limits.slow_handler, self._report_slow_handler
        )
        # Log lines and hooks that must not wait for the connection they are about, and
        # that the minder must not wait for. Two, so that a hook that hangs holds up none.
        self._notices = WorkerPool("daebus-hook", 2, MAX_NOTICES)
        self._lock = threading.Lock()
        self._gone = threading.Condition(self._lock)
        self._stopping = False  # guarded by: _lock
        self._warned = -math.inf  # guarded by: _lock; moment of the last warning about threads
        self._alive: set[Connection] = set()  # guarded by: _lock; until the descriptor is gone

    # --- admission --------------------------------------------------------------

    def start(self, job: Callable[[], Callable[[], None] | None]) -> Refusal | None:
        """Run the job, which admits one upgrade, in a connection thread.

        Returns:
            A refusal if there are as many threads as may be, or no more can be had.

        Threads:
            The acceptor's or a worker's; never waits.
        """
        # Handshakes, and connections that take their time to close, are in no registry
        # but have a thread each.
        threads, parked = self.threads.count()
        if threads - parked >= 2 * self._settings.max_clients + 8:
            return self._refused(Refusal(503, "too_many_clients", "too many clients", RETRY))
        try:
            self.threads.run(job, "daebus-ws-handshake")
        except RuntimeError as exc:
            now = time.monotonic()
            with self._lock:
                stopping = self._stopping
                warn = not stopping and now - self._warned >= QUIET
                if warn:
                    self._warned = now
            if stopping:
                return self._refused(Refusal(503, "stopping", "the server is stopping", RETRY))
            if warn:
                logger.warning("refusing clients, no thread for them: %s", exc)
            return self._refused(Refusal(503, "no_thread", "the server is overloaded", RETRY))
        return None

    def admit(self, upgrade: Upgrade) -> Refusal | Callable[[], None]:
        """Take over a connection, or say why not.

        Returns:
            What runs the connection in the calling thread, which the socket belongs to
            from then on; a refusal if it stays the caller's.
        """
        admitted = self._admission.judge(upgrade)
        if isinstance(admitted, Refusal):
            return self._refused(admitted)
        connection = self._make(upgrade, admitted)
        self._identifiers.give(connection, self._settings.client_id)
        with self._lock:
            self._alive.add(connection)
        expires = admitted.known.expires
        return functools.partial(
            self._run, connection, admitted.accepted.response, upgrade.early, expires
        )

    def _refused(self, refusal: Refusal) -> Refusal:
        self.tally.refused(refusal.code)
        return refusal

    def _make(self, upgrade: Upgrade, admitted: Admitted) -> Connection:
        accepted, limits = admitted.accepted, self._settings.limits
        codec = Codec(
            max_message_size=limits.max_message_size,
            max_fragments=limits.max_fragments,
            extensions=accepted.extensions,
        )
        connection = Connection(
            "",
            Transport(upgrade.sock),
            codec,
            limits,
            self,
            path=upgrade.path,
            remote_address=upgrade.remote_address,
            subprotocol=accepted.subprotocol,
            secure=upgrade.secure,
            user_agent=(upgrade.header("user-agent") or "")[:MAX_USER_AGENT],
        )
        connection.user = admitted.known.user
        return connection

    # --- a connection's life ----------------------------------------------------

    def _run(
        self, connection: Connection, response: bytes, early: bytes, expires: float | None
    ) -> None:
        """Run in the connection's thread from the 101 to the close."""
        threading.current_thread().name = f"daebus-ws-{connection.client_id}"
        try:
            if connection.begin(response, early, expires):
                self.tally.started(connection)
                self.registry.add(connection)
                if self.watch.dozing:  # a hook or an early message may take long
                    self.watch.rouse()
                try:
                    self._serve(connection)
                finally:
                    self._part(connection)
            else:
                self._admission.cancel(connection.remote_address)
        finally:
            self._identifiers.release(connection.client_id)
            connection.finish()
            with self._lock:
                self._alive.discard(connection)
                if self._stopping:
                    self._gone.notify_all()

    def _serve(self, connection: Connection) -> None:
        with self._lock:
            stopping = self._stopping
        if stopping:  # admitted just before the stop, which did not see it
            connection.shut(1001, "", "shutdown")
        peer = connection.remote_address or "a Unix socket"
        logger.info("client %s connected from %s", connection.client_id, peer)
        connection.hook = "on_connect"
        self._call_hooks("on_connect", self._settings.on_connect, connection.client_id, None)
        connection.hook = None
        raw = self._settings.raw.get(connection.path)
        if raw is not None:
            self._serve_raw(raw, connection)
            return
        handle = self._settings.dispatcher.handle
        for message in connection.messages():
            handle(connection, message)

    def _serve_raw(self, raw: Callable[[Connection], object], connection: Connection) -> None:
        connection.hook = connection.path
        try:
            raw(connection)
        except BaseException:
            logger.exception(
                "raw handler for %r failed for client %s", connection.path, connection.client_id
            )
            connection.shut(1011, "", "server")

    def _part(self, connection: Connection) -> None:
        connection.end()
        self.left(connection)
        info = self.tally.finished(connection)
        self._call_hooks("on_disconnect", self._settings.on_disconnect, connection.client_id, info)
        logger.info(
            "client %s left: %s, code %d, %.1f s, %d messages in, %d out, %d dropped",
            connection.client_id,
            info.reason,
            info.code,
            info.seconds,
            info.messages_in,
            info.messages_out,
            info.dropped,
        )

    def _call_hooks(self, name: str, hooks: Sequence[HookCall], client_id: str, info: Any) -> None:
        for hook in tuple(hooks):
            try:
                result = hook(client_id, info)
                if hasattr(result, "__await__"):
                    self.loop.submit(_await(result)).result()
            except BaseException:  # one broken hook must not keep the others from running
                logger.exception("%s hook failed for client %s", name, client_id)

    def left(self, connection: Connection) -> None:
        """Take a connection out of the registry; any number of calls, from any thread."""
        if self.registry.remove(connection):
            self._admission.left(connection.remote_address)

    # --- slow clients and slow handlers -----------------------------------------

    def slow_consumer(
        self, connection: Connection, queued_bytes: int, queued: int, *, cut: bool
    ) -> None:
        """Note a client whose outbox is full; called under its lock."""
        info = SlowConsumerInfo(queued_bytes, queued, cut)
        # Neither logging nor hooks belong under a lock, nor does starting a thread: the
        # minder takes it from here.
        self.minder.call_later(
            0.0, lambda: self._notify(lambda: self._slow_consumer(connection, info))
        )

    def _slow_consumer(self, connection: Connection, info: SlowConsumerInfo) -> None:
        logger.warning(
            "client %s does not read: %d bytes in %d messages wait; %s",
            connection.client_id,
            info.queued_bytes,
            info.queued_messages,
            "cutting it" if info.cut else "dropping messages",
        )
        self._call_hooks(
            "on_slow_consumer", self._settings.on_slow_consumer, connection.client_id, info
        )

    def _report_slow_handler(self, connection: Connection | None, info: SlowHandlerInfo) -> None:
        self._notify(lambda: self._slow_handler(connection, info))

    def _slow_handler(self, connection: Connection | None, info: SlowHandlerInfo) -> None:
        logger.warning(
            "handler for %r of client %s has run for %.1f s; it is at:\n%s",
            info.message_type,
            "any" if connection is None else connection.client_id,
            info.seconds,
            info.stack,
        )
        client_id = "" if connection is None else connection.client_id
        self._call_hooks("on_slow_handler", self._settings.on_slow_handler, client_id, info)

    def _notify(self, notice: Callable[[], None]) -> None:
        if not self._notices.submit(notice):
            self.tally.lost_notice()

    # --- the end ----------------------------------------------------------------

    def begin_stop(self) -> None:
        """Refuse new clients and say goodbye to all, without waiting for any."""
        with self._lock:
            self._stopping = True
        self._admission.stop()
        for connection in self.registry.snapshot():
            connection.shut(1001, "", "shutdown")
        self.pump.close()

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the connection threads.

        Clients that do not answer the close frame are cut in time for the hooks to run.

        Args:
            deadline: moment of ``time.monotonic()``.

        Returns:
            The threads that would not end.
        """
        threads = self.threads.stop() + self.jobs.stop()
        grace = (deadline - time.monotonic()) * 0.75
        polite = time.monotonic() + min(self._settings.limits.close_timeout, max(0.0, grace))
        left = join_all(threads, polite)
        if self._wait_for_others(polite) or left:
            with self._lock:
                alive = list(self._alive)
            for connection in alive:
                connection.abort()
            self.pump.abandon()
            self.loop.cancel_all()
        self.watch.stop()
        threads += self._notices.stop()
        busy = {connection.thread_id for connection in self._wait_for_others(deadline)}
        left = join_all(threads, deadline)
        return left + [
            thread
            for thread in threading.enumerate()
            if thread.ident in busy and thread not in left
        ]

    def _wait_for_others(self, deadline: float) -> list[Connection]:
        """Wait for the connections, and return those that have not ended.

        Ours end with their threads; those in the threads of another server do not.
        """

        def others() -> list[Connection]:
            return [connection for connection in self._alive if not connection.is_owner()]

        with self._lock:
            self._gone.wait_for(lambda: not others(), max(0.0, deadline - time.monotonic()))
            return others()


async def _await(awaitable: Any) -> Any:
    return await awaitable
