"""What the sections of ``DaebusWebSocket`` share: its settings, and the hub while it runs."""

from __future__ import annotations

import threading
import types
import weakref
from typing import Any

from ...backplane.protocol import Backplane
from ...checks.arguments import check_client_id
from ...data.encoder import Encoder
from ...errors import AttachError, ForkedError, StateError
from ...interrupts.stack import check_outside
from ...server.threads.loop import LoopThread
from ...server.threads.minder import Minder
from ...server.threads.pool import join_all
from ...waits import until
from ..clients.broadcast import Policy, SendResult, Target
from ..clients.parts import Crew
from ..clients.presence import Presence
from ..cluster.announcer import Announcer
from ..cluster.info import IDLE, BackplaneStats
from ..cluster.node import Node
from ..cluster.routes import Routes
from ..connection.link import Link
from ..hub import Hub
from ..messages.dispatcher import Dispatcher
from ..protocol import envelope
from ..settings import Settings
from ..topics.bridges import Pipes
from ..topics.live import Live
from ..topics.persistence.persistence import Persistence
from ..topics.shared.line import Line
from ..topics.shared.sharing import Sharing

__all__ = ["Context", "Section", "context_of"]

# Seconds that a backplane has to end, however long handlers took: nothing holds its threads.
_GRACE = 0.4

# All backplanes that belong to an app.
_joined: weakref.WeakSet[Backplane] = weakref.WeakSet()


class Context:
    """The state of the component, and its start and stop.

    Args:
        settings: of the component.
        port: the configured port; None for the port of HTTP.

    Attributes:
        dispatcher: has the handlers.
        topics: all topics.
        presence: who is in which room.
        pipes: queues that are published.
        hub: the running part, None while the app does not run.
        node: this process among the others of the app, None while the app does not run or if
            nothing joins it to others.
        routes: the ways to the clients of the others; None as ``node``.
        port: the port that clients connect to, while the app runs.
        debug: errors sent to clients contain tracebacks.
    """

    def __init__(self, settings: Settings, port: int | None) -> None:
        self.settings = settings
        self.configured_port = port
        self.dispatcher = Dispatcher()
        self.dispatcher.max_depth = settings.limits.max_depth
        self.topics = self.dispatcher.topics
        self._persistence = Persistence(self.topics)
        self.topics.opened.append(self._persistence.opened)
        self.topics.shared.check = self.check_fork
        self.presence = Presence(self.topics)
        self.pipes = Pipes()
        self.hub: Hub | None = None
        self.node: Node | None = None
        self.routes: Routes | None = None
        self._backplane: tuple[str, Backplane] | None = None  # with the name of the app
        self._sharing: Sharing | None = None  # topics, with other processes
        self.port: int | None = None
        self._forked = False  # the app was started in the parent process

    def attached(self, *, debug: bool, version: str | None, encoder: Encoder) -> None:
        """Take over what the app was told, and what clients are told of its version.

        The component belongs to an app of this process from now on.
        """
        self._forked = False
        self.dispatcher.heartbeats.announce(version)
        self.dispatcher.debug = debug
        self.dispatcher.encoder = self.topics.shared.encoder = encoder

    @property
    def is_joined(self) -> bool:
        """Whether a backplane joins the app with itself in other processes."""
        return self._backplane is not None

    def join(self, app: str, backplane: Backplane) -> None:
        """Be joined to other processes from the next start on.

        Args:
            app: name of the app.
            backplane: joins them.

        Raises:
            AttachError: there is one already, or it joins another app.
            ValueError: a topic that would be shared has a file.
        """
        if self._backplane is not None:
            raise AttachError(f"a backplane is attached already: {self._backplane[1]!r}")
        if backplane in _joined:
            raise AttachError(f"{backplane!r} joins another app already; make one for each app")
        self.topics.join()
        self._backplane = (app, backplane)
        _joined.add(backplane)

    def start(self, minder: Minder, loop: LoopThread) -> Hub:
        """Make the hub, which admits clients from now on.

        Raises:
            BackplaneError: a backplane is required, and away.
        """
        hub = Hub(self.settings, self.dispatcher, minder, loop)
        subscribers, publish = hub.registry.subscribers, hub.door.publish
        self._persistence.begin(minder.vitals)
        self.topics.begin(Live(minder, subscribers, publish, self.settings.max_topics))
        self._persistence.run()
        self.presence.begin(minder, hub.registry, hub.moved)
        self.hub = hub
        if self._backplane is not None:
            self._begin_node(hub, minder)
        self.pipes.begin()
        return hub

    def _begin_node(self, hub: Hub, minder: Minder) -> None:
        assert self._backplane is not None
        backplane = self._backplane[1]
        self.node = node = Node(
            *self._backplane,
            minder,
            clients=hub.registry.__len__,
            version=self.dispatcher.heartbeats.version,
            tell=Announcer(self.settings.on_backplane, hub).tell,
        )
        self.routes = Routes(
            node,
            hub,
            self.settings.on_join,
            partitions=backplane.partitions,
            max_frame=backplane.options.max_frame,
        )
        hub.client_ids.prefix = lambda: f"{node.name}."
        self.routes.begin()
        if self._sharing is None:
            self._sharing = Sharing(self.topics)
        node.lost.append(self._sharing.reconnected)
        node.start()
        line = Line(backplane, node.name, node.incarnation, node.channels, minder, node.refused)
        self._sharing.begin(line)
        crew = Crew(node.incarnation, node.incarnations, lambda: line.up)
        self.presence.join(self._sharing, crew)

    def backplane_stats(self) -> BackplaneStats | None:
        """Return what ``stats()`` says of the backplane; None without one."""
        node = self.node
        if node is not None:
            return node.stats()
        return None if self._backplane is None else IDLE.copy()

    def listening(self, port: int) -> None:
        """Set the port that clients connect to."""
        self.port = port

    def begin_stop(self, *, restart: bool = False) -> None:
        """Refuse new clients and say goodbye to all others, without waiting."""
        if self.hub is not None:
            self.hub.begin_stop(restart=restart)
        if self.routes is not None:
            self.routes.begin_stop()

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the connections; return the threads that did not end."""
        hub = self.hub
        # A handler that does not end must leave time for the disk.
        share = min(1.0, 0.1 * until(deadline)) if self._persistence.has_files else 0.0
        left = [] if hub is None else hub.finish_stop(deadline - share)
        left += join_all(self.pipes.stop(), deadline - share)
        node, self.node = self.node, None
        if self._sharing is not None:
            self.presence.part()
            self._sharing.end(deadline - share)
        routes, self.routes = self.routes, None
        if node is not None and routes is not None:
            left += join_all(routes.stop(), deadline - share)
        if node is not None:
            left += node.stop(max(_GRACE, until(deadline - share)))
        self.presence.end()
        self.topics.end()
        left += self._persistence.stop(deadline)
        self.hub = None
        self.port = None
        return left

    def forget(self) -> None:
        """Drop the hub in a forked child: its threads do not exist here."""
        hub, self.hub = self.hub, None
        self.pipes.forget()
        self.topics.shared.live = None
        self._persistence.forget()
        node, self.node = self.node, None
        self.routes = None
        if self._sharing is not None:
            self._sharing.forget()
        if hub is not None:
            hub.forget()
        if node is not None:
            node.forget()
        self._forked = True

    def check_fork(self) -> None:
        """Raise ``ForkedError`` in a child that was forked while the app ran."""
        if self._forked:
            raise ForkedError(
                "this process was forked after the app was started, and threads do not survive "
                "that; send from the parent, or make a new app in the child"
            )

    def link(self, client_id: str) -> Link | None:
        """Return the connection of a client, or None.

        Raises:
            TypeError: the id is not a string.
        """
        check_client_id(client_id)
        hub = self.hub
        return None if hub is None else hub.registry.get(client_id)

    def encode(self, message_type: str, data: Any) -> bytes:
        """Build an envelope.

        Raises:
            EncodeError: the data has no JSON form.
            TypeError: the type is not a string.
        """
        return envelope.encode(message_type, data, self.dispatcher.encoder)

    def deliver(self, target: Target, message_type: str, data: Any, policy: Policy) -> SendResult:
        """Encode a message and send it through the door, if the app runs.

        Raises:
            EncodeError: the data has no JSON form.
            ForkedError: see ``check_fork``.
            TooLargeError: it is larger than the backplane's ``max_frame``.
        """
        self.check_fork()
        payload = self.encode(message_type, data)
        hub, routes = self.hub, self.routes
        if routes is not None:
            return routes.deliver(target, payload, policy)
        return SendResult() if hub is None else hub.door.deliver(target, payload, policy)

    def order(self, kind: str, client_id: str, **more: Any) -> bool | None:
        """Have another process do something with a client of its own, see ``Routes.order``.

        Returns:
            Whether it was handed over; None if the client is none of another process.
        """
        routes = self.routes
        return None if routes is None else routes.order(kind, client_id, **more)

    def check_blocking(self, name: str, better: str) -> None:
        """Raise ``StateError`` in a thread that must not wait for others.

        Args:
            name: of the method that would wait.
            better: what to write in an async handler.
        """
        check_outside(f"{name}()")
        hub = self.hub
        if hub is not None and hub.runtime.loop.is_current():
            raise StateError(
                f"{name}() would block the loop that all async handlers share; "
                f"write: await app.websocket.{better}(...)"
            )


class Section:
    """Base of the sections of ``DaebusWebSocket``; it has the context and no other state."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __init_subclass__(cls) -> None:
        """Name the methods as users know them, for what Python says of a wrong call."""
        super().__init_subclass__()
        for method in vars(cls).values():
            if isinstance(method, types.FunctionType):
                method.__qualname__ = f"DaebusWebSocket.{method.__name__}"


def context_of(component: Section) -> Context:
    """Return the context of a component; for the app, which starts and stops it."""
    return component._context
