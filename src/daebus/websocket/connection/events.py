"""The infos about a connection that hooks get."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DisconnectInfo", "SlowConsumerInfo", "SlowHandlerInfo"]


@dataclass(frozen=True, slots=True)
class DisconnectInfo:
    """Why a client left; the second argument of ``on_disconnect`` hooks that take two.

    Attributes:
        reason: ``client``: it closed; ``ping_timeout``: it fell silent; ``slow_consumer``:
            it did not read; ``server``: the app closed it; ``protocol``: it broke the rules;
            ``expired``: its identity expired; ``idle``: ``idle_timeout`` passed;
            ``lifetime``: ``max_lifetime`` passed; ``rate_limited``: it sent too many
            messages, pings or cancels; ``message_timeout``: it did not finish one;
            ``replaced``: it connected again with the same id; ``shutdown``: the app stopped;
            ``lost``: it vanished.
        code: close code, 1006 if none was exchanged.
        seconds: how long it was connected.
        messages_in, messages_out, bytes_in, bytes_out, dropped: counts.
    """

    reason: str
    code: int
    seconds: float
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    dropped: int


@dataclass(frozen=True, slots=True)
class SlowConsumerInfo:
    """A client whose outbox is full; the second argument of ``on_slow_consumer`` hooks.

    Attributes:
        queued_bytes, queued_messages: what waited in the outbox when it was full.
        cut: True if the connection is being closed, False if messages are dropped.
    """

    queued_bytes: int
    queued_messages: int
    cut: bool


@dataclass(frozen=True, slots=True)
class SlowHandlerInfo:
    """A handler that takes long; the second argument of ``on_slow_handler`` hooks.

    Attributes:
        message_type: the type of the message that it handles.
        seconds: how long it has run so far.
        stack: where it is now, as text.
    """

    message_type: str
    seconds: float
    stack: str
