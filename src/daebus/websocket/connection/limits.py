"""Every limit and deadline of a WebSocket connection, with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass

from ...data.depth import MAX_DEPTH
from .outbox import OnFull

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection; the defaults are what servers of this kind publish.

    Attributes:
        max_message_size: bytes of a decoded message, compressed or not. 1 MiB as in
            websockets, and of aiohttp's order of magnitude.
        max_fragments: frames of one message, empty ones included: a limit of bytes does
            not bound a stream of empty fragments.
        max_depth: levels of arrays and objects in a JSON message, checked before it is
            parsed: the parser needs stack for each.
        message_timeout: seconds in which a message that has begun must end, or grow by
            ``min_rate`` for each of them, and again; None never. 30 s outlast a line that is
            bad for a moment.
        min_rate: bytes a second at which a long message must come: 1 KiB, as for bodies.
        max_outbox: bytes that may wait for a client that reads slowly.
        max_outbox_messages: messages that may wait; a small one costs more memory than
            its bytes.
        on_full: what happens when the outbox has no room for a message: the client is cut,
            the oldest or the newest message is dropped, or its own handler waits for room
            (``"block"``; messages from elsewhere are dropped then).
        send_timeout: seconds that a handler waits for room in its own client's outbox.
        ping_interval: seconds of silence after which a client is pinged; None never.
        ping_timeout: seconds it then has to send anything; None for ever.
        idle_timeout: seconds without a message after which a client is sent away; None
            never: a page that only listens is no burden.
        max_lifetime: seconds that a connection lasts at most; None for ever.
        lifetime_jitter: share of ``max_lifetime`` by which it may be shorter: with a tenth,
            clients that came together end spread over minutes after an hour.
        max_strikes: messages beyond a rate that a client may send within a minute; then
            it is cut off. A page that sent a burst has time to read the errors and wait; one
            that loops is gone within a second. None for never.
        close_timeout: seconds for the closing handshake.
        authenticate_timeout: seconds for an async ``authenticate`` function: as many as a
            request head may take.
        slow_handler: seconds after which a handler is reported with its stack; None never.
        slow_close_timeout: seconds in which a slow consumer may still read the close frame.
    """

    max_message_size: int = 1 << 20
    max_fragments: int = 4096
    max_depth: int = MAX_DEPTH
    message_timeout: float | None = 30.0
    min_rate: float = 1024.0
    max_outbox: int = 1 << 20
    max_outbox_messages: int = 1000
    on_full: OnFull = "disconnect"
    send_timeout: float = 10.0
    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    idle_timeout: float | None = None
    max_lifetime: float | None = None
    lifetime_jitter: float = 0.1
    max_strikes: int | None = 20
    close_timeout: float = 5.0
    authenticate_timeout: float = 10.0
    slow_close_timeout: float = 1.0
    slow_handler: float | None = 5.0

    @property
    def waits(self) -> bool:
        """True if a handler waits for room in its own client's outbox.

        With a dropping ``on_full``, newer messages matter more than complete ones.
        """
        return self.on_full in ("disconnect", "block")

    @property
    def ends(self) -> bool:
        """True if a connection may be ended for its age or for being idle."""
        return self.idle_timeout is not None or self.max_lifetime is not None
