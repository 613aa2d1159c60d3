"""One connection in its thread, from the 101 response to the last hook."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..interrupts.stack import bottom
from ..server.threads.loop import LoopThread
from ..server.threads.safelog import get_logger
from .admission.admission import Route
from .clients.registry import Registry
from .connection.link import Link
from .messages.activity import Activity, current
from .messages.dispatcher import Dispatcher
from .settings import HookCall, RawCall, Settings
from .stats import Stats
from .watchdog import Watchdog

__all__ = ["Runner", "call_hooks"]

logger = get_logger("daebus.websocket")


class Runner:
    """Runs connections, each in the thread that calls ``open`` and then ``serve``.

    Args:
        settings: has the hooks and raw handlers.
        dispatcher: handles messages.
        loop: for async hooks.
        registry: has each connection while it is open.
        stats: counts each connection.
        watchdog: roused when a connection begins.
        came: told of each connection that has come into the registry.
        left: removes a connection from the registry; called once or more.
    """

    def __init__(
        self,
        settings: Settings,
        dispatcher: Dispatcher,
        loop: LoopThread,
        registry: Registry,
        stats: Stats,
        watchdog: Watchdog,
        *,
        came: Callable[[Link], None],
        left: Callable[[Link], None],
    ) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._loop = loop
        self._registry = registry
        self._stats = stats
        self._watchdog = watchdog
        self._came = came
        self._left = left

    def open(
        self, activity: Activity, response: bytes, early: bytes, expires: float | None
    ) -> bool:
        """Answer the handshake, and put the client into the registry.

        Args:
            activity: of a connection that has an id and a place.
            response: the whole 101.
            early: bytes that came behind the request.
            expires: when the client's identity expires, in Unix seconds; None for never.

        Returns:
            False if the client left before it was let in; its place is still reserved.

        Threads:
            The calling thread is the connection's own from now on.
        """
        link = activity.link
        threading.current_thread().name = f"daebus-ws-{link.client_id}"
        current.set(activity)
        if not link.begin(response, early, expires):
            return False
        self._stats.started(activity)
        self._registry.add(link)
        if self._watchdog.dozing:  # a hook or an early message may take long
            self._watchdog.rouse()
        return True

    def serve(self, activity: Activity, route: Route) -> None:
        """Handle every message of a client that is in the registry, and call the hooks.

        Args:
            activity: of an open connection.
            route: where its path leads.

        Threads:
            The connection's own.
        """
        try:
            self._serve(activity, route)
        finally:
            self._part(activity)

    @bottom
    def _serve(self, activity: Activity, route: Route) -> None:
        link = activity.link
        if route.raw is None:
            link.reader.on_heartbeat = self._dispatcher.heartbeats.take
        self._came(link)
        peer = link.peer.remote_address or "a Unix socket"
        logger.info("client %s connected from %s", link.client_id, peer)
        activity.hook = "on_connect"
        self._call("on_connect", self._settings.on_connect, link.client_id, None)
        activity.hook = None
        if route.raw is not None:
            self._serve_raw(route.raw, activity, route.pattern)
            return
        if self._dispatcher.topics.auto:
            self._dispatcher.subscribing.welcome(link)
        handle = self._dispatcher.handle
        for message in link.reader.messages():
            handle(activity, message)

    def _serve_raw(self, raw: RawCall, activity: Activity, pattern: str) -> None:
        link = activity.link
        activity.hook = pattern
        try:
            raw(activity.connection, **link.peer.path_params)
        except BaseException:
            logger.exception(
                "raw handler for %r failed for client %s",
                link.peer.path,
                link.client_id,
                kind=pattern,
            )
            link.shut(1011, "", "server")

    def _part(self, activity: Activity) -> None:
        link = activity.link
        link.end()
        self._left(link)
        info = self._stats.finished(activity)
        self._call("on_disconnect", self._settings.on_disconnect, link.client_id, info)
        logger.info(
            "client %s left: %s, code %d, %.1f s, %d messages in, %d out, %d dropped",
            link.client_id,
            info.reason,
            info.code,
            info.seconds,
            info.messages_in,
            info.messages_out,
            info.dropped,
        )

    def _call(self, name: str, hooks: Sequence[HookCall], client_id: str, info: Any) -> None:
        call_hooks(self._loop, name, hooks, client_id, info)


def call_hooks(
    loop: LoopThread, name: str, hooks: Sequence[Callable[..., object]], who: str, *info: Any
) -> None:
    """Call all hooks of a kind; if one raises, log that and call the others.

    Args:
        loop: for async hooks.
        name: the kind, for the log.
        hooks: the hooks.
        who: their first argument: a client, a room or what happened.
        info: their other arguments.

    Threads:
        Any but the loop's; waits for each hook.
    """
    for hook in tuple(hooks):
        try:
            result = hook(who, *info)
            if hasattr(result, "__await__"):
                loop.run(result)
        except BaseException:  # one broken hook must not keep the others from running
            logger.exception("%s hook failed for %r", name, who, kind=name)
