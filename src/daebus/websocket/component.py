"""``DaebusWebSocket``: the component that an app attaches, and its arguments."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal, get_args

from ..checks.annotations import checked
from ..checks.arguments import (
    check_path,
    fraction,
    positive,
    positive_or_none,
    seconds,
    seconds_or_none,
)
from ..data.depth import check_depth
from ..origins import Origins
from ..server.handoff import TOKEN_SUBPROTOCOL
from .api.access import Access
from .api.bridges import Bridges
from .api.calls import Calls
from .api.clients import Clients
from .api.cluster import ClusterMethods
from .api.context import Context
from .api.decorators import Decorators
from .api.presence import PresenceMethods
from .api.rooms import Rooms
from .api.sending import Sending
from .api.topics import TopicMethods
from .connection.limits import Limits
from .connection.outbox import OnFull
from .protocol.handshake import Pages
from .protocol.patterns import Pattern
from .settings import OnDuplicate, Settings

__all__ = ["DaebusWebSocket"]

_DEFAULTS = Limits()

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2

# Bytes of stack for what we do on it. Measured (x86-64 Linux) with servers in processes of
# their own, between a size that ended with a segmentation fault and one that did not, for
# messages and replies of 1,000 levels, lists, dicts and dataclasses, a logged traceback of 900
# calls, and the recursion limit raised: 224 KiB on CPython 3.11, and on 3.13, with the GIL and
# without, the most of all versions, 448 KiB. Half of that on top, for what handlers do.
MIN_STACK = 640 << 10
# More is not to be had many times over: a slip of the unit, for which every client would be
# refused.
MAX_STACK = 1 << 30

# Linux can be built for 8,192 at most.
MAX_CORE = 8191


class DaebusWebSocket(
    Decorators,
    Access,
    Sending,
    Calls,
    Rooms,
    TopicMethods,
    PresenceMethods,
    Bridges,
    Clients,
    ClusterMethods,
):
    """The WebSocket side of an app.

    Args:
        port: None shares the port of the HTTP component; another number opens a
            second listener for WebSockets alone, 0 on a free port.
        path: the only path that takes JSON messages, perhaps with parameters, as in
            ``"/device/<name>"`` (see ``WebSocketRequest.path_params``). None for any path
            but those that begin with the fixed part of a ``raw`` one. All others are 404.
        origins: pages of other places that may connect, such as ``["https://example.com"]``;
            ``https://*.example.com`` is any subdomain, ``file://``, ``app://name`` and
            ``null`` are pages without a server; ``"*"`` is every page. Pages of this server
            itself may connect too, and so may programs, which send no ``Origin``.
        own_origin: False lets in the pages in ``origins`` alone, and programs.
        max_clients: open connections at most; more are answered 503. Keep it below the
            limit of file descriptors: each client costs one.
        max_clients_per_ip: open connections of one address at most, of one /64 with IPv6;
            more are answered 429. None for no such limit. Clients on a Unix socket have
                no address and are not counted.
        max_rooms: rooms that one client may be in.
        max_topics: topics that one client may ask for.
        max_message_size: bytes of one decoded message; larger ones end in close 1009.
        max_fragments: frames of one message; more end in close 1008.
        max_depth: levels of arrays and objects in one message, 1,000 at most; deeper ones are
            answered with the error ``too_deep``.
        message_timeout: seconds in which a message that has begun must end, or else grow by
            1 KiB for each of them, and again; then close 1008. None: for ever.
        compression: ``"deflate"`` offers RFC 7692; None (the default) saves the CPU.
        subprotocols: the supported subprotocols, the preferred first. ``daebus``, which the
            clients of this package offer, is always one.
        max_outbox: bytes that may wait for one slow client; more end its connection.
        max_outbox_messages: messages that may wait for one slow client.
        on_full: what to do with a message if the client's outbox is full:
            ``"disconnect"`` cuts the client (close code 1013, if it still reads),
            ``"drop_oldest"`` and ``"drop_newest"`` drop a message and count it,
            ``"block"`` makes the client's own handler wait, ``send_timeout`` at most, and
                drops messages from elsewhere.
        send_timeout: seconds that a handler waits for its own client to read.
        ping_interval: seconds of silence before a client is pinged; None never pings.
        ping_timeout: seconds for any sign of life after the ping; None waits for ever.
        idle_timeout: seconds without a message from the client, while none of its handlers
            runs; then it is closed with 4408. Pongs do not count as messages. None for never.
        max_lifetime: seconds that a connection lasts at most; then it is closed with 1001,
            and its client may connect again. None for no limit.
        lifetime_jitter: share of ``max_lifetime``, 0 to 1, by which it may be shorter, at
            random, so that clients do not return all at once.
        max_strikes: messages beyond a rate, see ``enable_rate_limiting``, that a client may
            send within a minute; then it is closed with 1008. None for no limit.
        close_timeout: seconds a client has to answer a close frame.
        authenticate_timeout: seconds that an async ``authenticate`` function may take;
            then the client is answered 503.
        slow_handler: seconds after which a running handler is logged with its stack;
            None never.
        stack_size: bytes of stack for each connection's thread, at least 640 KiB; None
            takes the system's default. It is virtual memory: only what is used counts. The
            least was measured: messages and replies of 1,000 levels survive on it.
        affinity: CPU cores for the connection threads, such as ``{0}`` (Linux). Programs
            that a handler starts inherit it.

        background_workers: threads for handlers with ``run_in="pool"``.
        background_queue: how many such messages may wait for a thread; more are answered
            with an error of code ``busy``. One client has at most twice as many waiting as
            places are free, so a single one fills two thirds.
        main_timeout: seconds within which ``app.pump()`` must start a handler with
            ``run_in="main"``; else the message is answered with ``busy``. Long enough for a
            host that redraws a window or asks a device, and short enough that a user still
            waits for the answer.
        on_duplicate: what becomes of a client whose id (``set_client_id_generator``) is in
            use. ``"rename"`` gives it a random id. ``"replace"`` closes the older connection
            with 4409, and lets the newer one in once the hooks of that have run: for devices
            that return while their dead socket still counts. If its handler does not end
            within ``close_timeout``, the newer one is answered 503. ``"refuse"`` answers 409.

    Raises:
        ValueError: an argument is out of range or of the wrong form; the text names it.
        TypeError: an argument is of another type; the message names it.
    """

    @checked
    def __init__(
        self,
        port: int | None = None,
        *,
        path: str | None = None,
        origins: Sequence[str] | Literal["*"] | None = None,
        own_origin: bool = True,
        max_clients: int = 1000,
        max_clients_per_ip: int | None = None,
        max_rooms: int = 100,
        max_topics: int = 100,
        max_message_size: int = _DEFAULTS.max_message_size,
        max_fragments: int = _DEFAULTS.max_fragments,
        max_depth: int = _DEFAULTS.max_depth,
        message_timeout: float | None = _DEFAULTS.message_timeout,
        compression: Literal["deflate"] | None = None,
        subprotocols: Sequence[str] = (),
        max_outbox: int = _DEFAULTS.max_outbox,
        max_outbox_messages: int = _DEFAULTS.max_outbox_messages,
        on_full: OnFull = _DEFAULTS.on_full,
        send_timeout: float = _DEFAULTS.send_timeout,
        ping_interval: float | None = _DEFAULTS.ping_interval,
        ping_timeout: float | None = _DEFAULTS.ping_timeout,
        idle_timeout: float | None = _DEFAULTS.idle_timeout,
        max_lifetime: float | None = _DEFAULTS.max_lifetime,
        lifetime_jitter: float = _DEFAULTS.lifetime_jitter,
        max_strikes: int | None = _DEFAULTS.max_strikes,
        close_timeout: float = _DEFAULTS.close_timeout,
        authenticate_timeout: float = _DEFAULTS.authenticate_timeout,
        slow_handler: float | None = _DEFAULTS.slow_handler,
        stack_size: int | None = None,
        affinity: Collection[int] | None = None,
        background_workers: int = 8,
        background_queue: int = 64,
        main_timeout: float = 5.0,
        on_duplicate: OnDuplicate = "rename",
    ) -> None:
        if compression not in (None, "deflate"):
            raise ValueError(f"compression must be 'deflate' or None, not {compression!r}")
        if on_full not in get_args(OnFull):
            raise ValueError(f"on_full must be one of {get_args(OnFull)}, not {on_full!r}")
        if on_duplicate not in get_args(OnDuplicate):
            raise ValueError(
                f"on_duplicate must be one of {get_args(OnDuplicate)}, not {on_duplicate!r}"
            )
        if stack_size is not None and stack_size < MIN_STACK:
            raise ValueError(
                f"stack_size must be at least {MIN_STACK} bytes, for deep messages and for "
                f"tracebacks, not {stack_size!r}; write stack_size={MIN_STACK}, or None"
            )
        if stack_size is not None and stack_size > MAX_STACK:
            raise ValueError(f"stack_size must be at most {MAX_STACK} bytes, not {stack_size!r}")
        if affinity is not None and not affinity:
            raise ValueError("affinity is empty; write affinity={0}, or None for all cores")
        if affinity is not None and not all(0 <= core <= MAX_CORE for core in affinity):
            raise ValueError(
                f"affinity must name cores from 0 to {MAX_CORE}, not {affinity!r:.200}"
            )
        if isinstance(origins, str):
            if origins != "*":
                raise ValueError(f"origins must be '*' or a list; write origins=[{origins!r}]")
            origins = [origins]
        for protocol in subprotocols:
            if not _TOKEN.fullmatch(protocol):
                raise ValueError(f"subprotocols must be names such as 'chat.v2', not {protocol!r}")
            if protocol.startswith(TOKEN_SUBPROTOCOL):
                raise ValueError(
                    f"subprotocols must not begin with {TOKEN_SUBPROTOCOL!r}, behind which pages "
                    f"send a token; read req.token in authenticate"
                )
        if path is not None:
            check_path(path, "path={}")
        limits = Limits(
            max_message_size=positive("max_message_size", max_message_size),
            max_fragments=positive("max_fragments", max_fragments),
            max_depth=check_depth("max_depth", max_depth),
            message_timeout=seconds_or_none("message_timeout", message_timeout),
            max_outbox=positive("max_outbox", max_outbox),
            max_outbox_messages=positive("max_outbox_messages", max_outbox_messages),
            send_timeout=seconds("send_timeout", send_timeout),
            ping_interval=seconds_or_none("ping_interval", ping_interval),
            ping_timeout=seconds_or_none("ping_timeout", ping_timeout),
            idle_timeout=seconds_or_none("idle_timeout", idle_timeout),
            max_lifetime=seconds_or_none("max_lifetime", max_lifetime),
            lifetime_jitter=fraction("lifetime_jitter", lifetime_jitter),
            max_strikes=positive_or_none("max_strikes", max_strikes),
            close_timeout=seconds("close_timeout", close_timeout),
            authenticate_timeout=seconds("authenticate_timeout", authenticate_timeout),
            on_full=on_full,
            slow_handler=seconds_or_none("slow_handler", slow_handler),
        )
        settings = Settings(
            limits=limits,
            max_clients=positive("max_clients", max_clients),
            max_clients_per_ip=positive_or_none("max_clients_per_ip", max_clients_per_ip),
            max_rooms=positive("max_rooms", max_rooms),
            max_topics=positive("max_topics", max_topics),
            pages=Pages(Origins(origins or (), "origins"), own_origin),
            deflate=compression == "deflate",
            path=None if path is None else Pattern(path),
            subprotocols=tuple(subprotocols),
            stack_size=stack_size,
            affinity=None if affinity is None else frozenset(affinity),
            background_workers=positive("background_workers", background_workers),
            background_queue=positive("background_queue", background_queue),
            main_timeout=seconds("main_timeout", main_timeout),
            on_duplicate=on_duplicate,
        )
        super().__init__(Context(settings, port))

    @property
    def port(self) -> int | None:
        """The port that clients connect to: the configured one, or the real one while running."""
        context = self._context
        return context.configured_port if context.port is None else context.port
