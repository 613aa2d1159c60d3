"""What the sections of ``DaebusWebSocket`` share: its settings, and the hub while it runs."""

from __future__ import annotations

import threading
import types
from typing import Any

from ...arguments import check_client_id
from ...data.encoder import Encoder
from ...errors import ForkedError
from ...server.threads.loop import LoopThread
from ...server.threads.minder import Minder
from ...server.threads.pool import join_all
from ...waits import until
from ..clients.broadcast import Policy, SendResult, Target
from ..clients.presence import Presence
from ..connection.link import Link
from ..hub import Hub
from ..messages.dispatcher import Dispatcher
from ..protocol import envelope
from ..settings import Settings
from ..topics.bridges import Pipes
from ..topics.live import Live
from ..topics.persistence.persistence import Persistence

__all__ = ["Context", "Section", "context_of"]


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

    def start(self, minder: Minder, loop: LoopThread) -> Hub:
        """Make the hub, which admits clients from now on."""
        hub = Hub(self.settings, self.dispatcher, minder, loop)
        subscribers, publish = hub.registry.subscribers, hub.door.publish
        self._persistence.begin(minder.vitals)
        self.topics.begin(Live(minder, subscribers, publish, self.settings.max_topics))
        self._persistence.run()
        self.presence.begin(minder, hub.registry, hub.moved)
        self.hub = hub
        self.pipes.begin()
        return hub

    def listening(self, port: int) -> None:
        """Set the port that clients connect to."""
        self.port = port

    def begin_stop(self, *, restart: bool = False) -> None:
        """Refuse new clients and say goodbye to all others, without waiting."""
        if self.hub is not None:
            self.hub.begin_stop(restart=restart)

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the connections; return the threads that did not end."""
        hub = self.hub
        # A handler that does not end must leave time for the disk.
        share = min(1.0, 0.1 * until(deadline)) if self._persistence.has_files else 0.0
        left = [] if hub is None else hub.finish_stop(deadline - share)
        left += join_all(self.pipes.stop(), deadline - share)
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
        if hub is not None:
            hub.forget()
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
        """
        self.check_fork()
        payload = self.encode(message_type, data)
        hub = self.hub
        return SendResult() if hub is None else hub.door.deliver(target, payload, policy)


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
