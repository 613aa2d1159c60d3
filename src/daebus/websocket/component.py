"""``DaebusWebSocket``: what an app attaches, decorates and sends with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from ..errors import DuplicateHandlerError, ForkedError, NoClientError
from ..server.loop import LoopThread
from ..server.minder import Minder
from . import envelope
from .codec import TEXT, frame
from .connection import Connection, current
from .dispatch import Dispatcher
from .hub import Hub, Settings
from .info import hook_call
from .limits import Limits
from .outbox import OnFull
from .request import WebSocketRequest
from .sending import offer_to_all

if TYPE_CHECKING:
    from ..app import Daebus

__all__ = ["DaebusWebSocket"]

_DEFAULTS = Limits()

# CPython refuses stacks smaller than this.
MIN_STACK = 32768

SocketHandler = TypeVar("SocketHandler", bound=Callable[[WebSocketRequest], Any])
Hook = TypeVar("Hook", bound=Callable[..., Any])
RawHandler = TypeVar("RawHandler", bound=Callable[[Connection], Any])


class DaebusWebSocket:
    """The WebSocket side of an app.

    Args:
        port: None shares the port of the HTTP component; another number opens a
            second listener for WebSockets alone, 0 on a free port.
        path: the only path on which JSON messages are taken; None takes any.
        origins: pages that may connect, such as ``["https://example.com"]``; ``"*"``
            for all. None: pages of this server itself. Programs, which send no
            ``Origin``, always pass.
        max_clients: open connections at most; more are answered 503. Keep it below the
            limit of file descriptors: each client costs one.
        max_message_size: bytes of one decoded message; larger ones end in close 1009.
        max_fragments: frames of one message; more end in close 1008.
        compression: ``"deflate"`` offers RFC 7692; None (the default) saves the CPU.
        subprotocols: those spoken, the preferred first.
        max_outbox: bytes that may wait for one slow client; more end its connection.
        max_outbox_messages: messages that may wait for one slow client.
        on_full: what happens to a message that finds a client's outbox full:
            ``"disconnect"`` cuts the client (close code 1013 if it can still be said),
            ``"drop_oldest"`` and ``"drop_newest"`` drop a message and count it,
            ``"block"`` has the client's own handler wait, ``send_timeout`` at most, and
            drops messages from elsewhere.
        send_timeout: seconds that a handler waits for its own client to read.
        ping_interval: seconds of silence before a client is pinged; None never pings.
        ping_timeout: seconds for any sign of life after that; None waits for ever.
        close_timeout: seconds a client has to answer a close frame.
        slow_handler: seconds after which a running handler is logged with its stack;
            None never.
        stack_size: bytes of stack for each connection's thread, at least 32 KiB; None
            takes the system's default. It is virtual memory: only what is used counts.
        affinity: CPU cores for the connection threads, such as ``{0}`` (Linux). Programs
            that a handler starts inherit it.

    Raises:
        ValueError: an argument makes no sense; the message says which.
    """

    def __init__(
        self,
        port: int | None = None,
        *,
        path: str | None = None,
        origins: Sequence[str] | Literal["*"] | None = None,
        max_clients: int = 1000,
        max_message_size: int = _DEFAULTS.max_message_size,
        max_fragments: int = _DEFAULTS.max_fragments,
        compression: Literal["deflate"] | None = None,
        subprotocols: Sequence[str] = (),
        max_outbox: int = _DEFAULTS.max_outbox,
        max_outbox_messages: int = _DEFAULTS.max_outbox_messages,
        on_full: OnFull = _DEFAULTS.on_full,
        send_timeout: float = _DEFAULTS.send_timeout,
        ping_interval: float | None = _DEFAULTS.ping_interval,
        ping_timeout: float | None = _DEFAULTS.ping_timeout,
        close_timeout: float = _DEFAULTS.close_timeout,
        slow_handler: float | None = _DEFAULTS.slow_handler,
        stack_size: int | None = None,
        affinity: Collection[int] | None = None,
    ) -> None:
        if compression not in (None, "deflate"):
            raise ValueError(f"compression is 'deflate' or None, not {compression!r}")
        if on_full not in get_args(OnFull):
            raise ValueError(f"on_full is one of {get_args(OnFull)}, not {on_full!r}")
        if stack_size is not None and stack_size < MIN_STACK:
            raise ValueError(f"stack_size must be at least {MIN_STACK} bytes, not {stack_size!r}")
        if affinity is not None and not affinity:
            raise ValueError("affinity names no core; write affinity={0}, or None for all")
        if isinstance(origins, str):
            if origins != "*":
                raise ValueError(f"origins is '*' or a list; write origins=[{origins!r}]")
            origins = [origins]
        if path is not None and not path.startswith("/"):
            raise ValueError(f"path must start with a slash; write path={'/' + path!r}")
        limits = Limits(
            max_message_size=_positive("max_message_size", max_message_size),
            max_fragments=_positive("max_fragments", max_fragments),
            max_outbox=_positive("max_outbox", max_outbox),
            max_outbox_messages=_positive("max_outbox_messages", max_outbox_messages),
            send_timeout=_positive("send_timeout", send_timeout),
            ping_interval=None
            if ping_interval is None
            else _positive("ping_interval", ping_interval),
            ping_timeout=None if ping_timeout is None else _positive("ping_timeout", ping_timeout),
            close_timeout=_positive("close_timeout", close_timeout),
            on_full=on_full,
            slow_handler=None if slow_handler is None else _positive("slow_handler", slow_handler),
        )
        self._configured_port = port
        self._port: int | None = None
        self._settings = Settings(
            limits=limits,
            dispatcher=Dispatcher(),
            max_clients=_positive("max_clients", max_clients),
            origins=origins,
            deflate=compression == "deflate",
            path=path,
            subprotocols=tuple(subprotocols),
            stack_size=stack_size,
            affinity=None if affinity is None else frozenset(affinity),
        )
        self._app: Daebus | None = None
        self._hub: Hub | None = None

    # --- registering ------------------------------------------------------------

    def socket(self, message_type: str) -> Callable[[SocketHandler], SocketHandler]:
        """Decorate the handler of a message type; the same as ``app.socket``.

        The handler gets a ``WebSocketRequest``. It may be async. What it returns, unless
        None, is sent to the client with type ``response``.

        Raises:
            DuplicateHandlerError: the type has a handler already.
        """

        def register(handler: SocketHandler) -> SocketHandler:
            self._settings.dispatcher.add(message_type, handler)
            return handler

        return register

    def raw(self, path: str) -> Callable[[RawHandler], RawHandler]:
        """Decorate a function that gets each connection to that path as it is.

        It iterates over the messages, ``str`` and ``bytes``, and sends what it likes;
        when it returns the connection is closed. JSON handlers do not see this path.

        Raises:
            ValueError: the path does not start with a slash.
            DuplicateHandlerError: the path has a handler already.
        """
        if not path.startswith("/"):
            raise ValueError(f"path must start with a slash; write raw({'/' + path!r})")

        def register(handler: RawHandler) -> RawHandler:
            if path in self._settings.raw:
                raise DuplicateHandlerError(
                    f"path {path!r} has a raw handler already; use another path"
                )
            self._settings.raw[path] = handler
            return handler

        return register

    def on_connect(self, hook: Hook) -> Hook:
        """Decorate a function that is called with the id of each new client.

        It runs in the client's thread, after the client is registered and before its
        first message. It may be async, broadcast, and ``send`` to the new client.
        """
        self._settings.on_connect.append(lambda client_id, info: hook(client_id))
        return hook

    def on_disconnect(self, hook: Hook) -> Hook:
        """Decorate a function that is called with the id of each client that left.

        It runs once for each connection, after the client's last handler; the client
        is no longer counted. It may be async. A function of two arguments gets a
        ``DisconnectInfo`` as the second, which says why.
        """
        self._settings.on_disconnect.append(hook_call(hook))
        return hook

    def on_slow_consumer(self, hook: Hook) -> Hook:
        """Decorate a function that is called with the id of a client whose outbox is full.

        Once until the outbox has emptied. A second argument is a ``SlowConsumerInfo``. It
        runs in a thread for such notices, so it may take its time, but the next waits.
        """
        self._settings.on_slow_consumer.append(hook_call(hook))
        return hook

    def on_slow_handler(self, hook: Hook) -> Hook:
        """Decorate a function that is called when a handler has run ``slow_handler`` seconds.

        It gets the client's id (an empty string if the loop of the async handlers is
        blocked) and, if it takes two arguments, a ``SlowHandlerInfo`` with the stack. It
        runs in a thread for such notices, while the handler goes on.
        """
        self._settings.on_slow_handler.append(hook_call(hook))
        return hook

    # --- sending ----------------------------------------------------------------

    def send(
        self,
        data: Any,
        message_type: str = "response",
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> bool:
        """Send to the client whose message is being handled.

        Args:
            data: what JSON can carry; see the README for dataclasses and the like.
            message_type: the ``"type"`` of the message.
            droppable: drop it rather than wait or cut, if the client is too slow.
            conflate: a key; a message that still waits with the same key is replaced by
                this newer one.

        Returns:
            False if that client has left, or the message was dropped.

        Raises:
            NoClientError: called outside of a handler or hook.
            EncodeError: the data has no JSON form.

        Threads:
            The handler's, an async handler's included. A sync handler waits here when
            its own client does not read, ``send_timeout`` at most.
        """
        self._check_fork()
        connection = current.get(None)
        if connection is None:
            raise NoClientError(
                "send() answers the client whose message is being handled, and here is none; "
                "to reach all clients write app.websocket.broadcast_to_all(data)"
            )
        return connection.reply(
            connection.text_frame(envelope.encode(message_type, data)),
            droppable=droppable,
            conflate=conflate,
        )

    def broadcast_to_all(
        self,
        data: Any,
        message_type: str = "broadcast",
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> int:
        """Send to every connected client, the one being handled included.

        The message is encoded once. A client that does not read costs the others
        nothing: what it does not take is queued for it, up to ``max_outbox``.

        Args:
            data: what JSON can carry.
            message_type: the ``"type"`` of the message.
            droppable: drop it for clients that are too slow, rather than cut them.
            conflate: a key; where a message with the same key still waits, this newer one
                replaces it. For values of which only the latest matters.

        Returns:
            How many clients it was sent to or queued for; 0 if the app does not run.

        Raises:
            EncodeError: the data has no JSON form.

        Threads:
            Any; never waits for a client.
        """
        self._check_fork()
        payload = envelope.encode(message_type, data)
        hub = self._hub
        if hub is None:
            return 0
        connections = hub.registry.snapshot()
        if not self._settings.deflate:
            return offer_to_all(connections, frame(TEXT, payload), droppable, conflate)
        groups: dict[object, list[Connection]] = {}
        for connection in connections:
            groups.setdefault(connection.compression, []).append(connection)
        return sum(
            offer_to_all(group, group[0].text_frame(payload), droppable, conflate)
            for group in groups.values()
        )

    # --- asking -----------------------------------------------------------------

    def get_clients(self) -> list[str]:
        """Return the ids of all connected clients, in order of arrival."""
        hub = self._hub
        return [] if hub is None else [c.client_id for c in hub.registry.snapshot()]

    def get_client_count(self) -> int:
        """Return how many clients are connected."""
        hub = self._hub
        return 0 if hub is None else len(hub.registry)

    def is_client_connected(self, client_id: str) -> bool:
        """Tell whether a client of that id is connected."""
        hub = self._hub
        return hub is not None and hub.registry.get(client_id) is not None

    def stats(self) -> dict[str, Any]:
        """Return counts since the start; empty if the app does not run.

        Keys: ``connections``, ``connections_total``, ``messages_in``, ``messages_out``,
        ``bytes_in``, ``bytes_out``, ``dropped``, ``queued_bytes``, ``queued_messages``,
        ``lost_notices`` (of slow clients and handlers, when too many came at once),
        ``slow_consumers``, ``disconnects`` (by reason), ``refused`` (by code), ``errors``
        (by code), ``handlers`` (by type: ``count``, ``seconds``, ``buckets`` by upper bound
        in seconds) and ``json`` (the package in use).

        Threads:
            Any; looks at each connection briefly.
        """
        hub = self._hub
        if hub is None:
            return {}
        return {
            "connections": len(hub.registry),
            **hub.tally.report(),
            "json": envelope.package(),
        }

    @property
    def port(self) -> int | None:
        """The port that clients connect to; the real one once the app runs, 0 for none."""
        return self._port if self._port is not None else self._configured_port

    # --- for the app ------------------------------------------------------------

    @property
    def hub(self) -> Hub | None:
        """The running side, None while the app does not run."""
        return self._hub

    @property
    def own_port(self) -> int | None:
        """The port that was asked for, None for that of HTTP."""
        return self._configured_port

    def attached(self, app: Daebus, *, debug: bool) -> None:
        """Remember the app."""
        self._app = app
        self._settings.dispatcher.debug = debug

    def start(self, minder: Minder, loop: LoopThread) -> Hub:
        """Make the hub that admits clients."""
        self._hub = Hub(self._settings, minder, loop)
        return self._hub

    def listening(self, port: int) -> None:
        """Note the port that clients connect to."""
        self._port = port

    def begin_stop(self) -> None:
        """Say goodbye to all clients."""
        if self._hub is not None:
            self._hub.begin_stop()

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the connections; return the threads that would not end."""
        hub = self._hub
        left = [] if hub is None else hub.finish_stop(deadline)
        self._hub = None
        self._port = None
        return left

    def forget(self) -> None:
        """Drop the hub in a forked child: its threads do not exist here."""
        self._hub = None

    def _check_fork(self) -> None:
        if self._hub is None and self._app is not None and self._app.forked:
            raise ForkedError(
                "this process was forked after the app was started, so the app has no threads "
                "here; send from the parent, or start an app of its own in the child"
            )


Number = TypeVar("Number", int, float)


def _positive(name: str, value: Number) -> Number:
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, not {value!r}")
    return value
