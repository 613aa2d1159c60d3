"""Every limit and deadline of a WebSocket connection, with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass

from .outbox import OnFull

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection; the defaults are what servers of this kind publish.

    Attributes:
        max_message_size: bytes of a decoded message; the same on the plain and the
            compressed path. 1 MiB as in websockets and aiohttp's order of magnitude.
        max_fragments: frames of one message, empty ones counted: bytes alone do not
            bound a stream of empty fragments.
        max_outbox: bytes that may wait for a client that reads slowly.
        max_outbox_messages: messages that may wait; small ones cost more than their
            bytes.
        on_full: what happens to a message that finds the outbox full: the client is cut,
            the oldest or the newest message is dropped, or its own handler waits for room
            (``"block"``; messages from elsewhere are dropped then).
        send_timeout: seconds that a handler waits for room in its own client's outbox.
        ping_interval: seconds of silence after which a client is pinged; None never.
        ping_timeout: seconds it then has to send anything; None for ever.
        close_timeout: seconds for the closing handshake.
        slow_handler: seconds after which a handler is reported with its stack; None never.
        slow_close_timeout: seconds in which a slow consumer may still read why.
    """

    max_message_size: int = 1 << 20
    max_fragments: int = 4096
    max_outbox: int = 1 << 20
    max_outbox_messages: int = 1000
    on_full: OnFull = "disconnect"
    send_timeout: float = 10.0
    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    close_timeout: float = 5.0
    slow_close_timeout: float = 1.0
    slow_handler: float | None = 5.0

    @property
    def waits(self) -> bool:
        """True if a handler waits for room in its own client's outbox.

        With a dropping outbox newer messages matter more than all of them.
        """
        return self.on_full in ("disconnect", "block")
