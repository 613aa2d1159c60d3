"""What hooks are told, and the counters of finished and running connections."""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["BUCKETS", "DisconnectInfo", "SlowConsumerInfo", "SlowHandlerInfo", "Times", "hook_call"]

# Upper bounds in seconds of the handler time histogram; the last bucket has none.
BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class DisconnectInfo:
    """Why a client left; the second argument of ``on_disconnect`` hooks that take two.

    Attributes:
        reason: ``client`` closed; ``ping_timeout``, it fell silent; ``slow_consumer``, it
            did not read; ``server``, the app closed it; ``protocol``, it broke the rules;
            ``expired``, its identity did; ``idle`` and ``lifetime``, as the arguments say;
            ``rate_limited``, it sent too many messages;
            ``shutdown``, the app stops; ``lost``, it vanished.
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
        queued_bytes, queued_messages: what waited for it when the outbox was full.
        cut: its connection is being ended; else messages to it are dropped.
    """

    queued_bytes: int
    queued_messages: int
    cut: bool


@dataclass(frozen=True, slots=True)
class SlowHandlerInfo:
    """A handler that takes long; the second argument of ``on_slow_handler`` hooks.

    Attributes:
        message_type: what it handles.
        seconds: how long it has run so far.
        stack: where it is now, as text.
    """

    message_type: str
    seconds: float
    stack: str


class Times:
    """Handler times of one message type on one connection."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def add(self, seconds: float) -> None:
        """Count one call."""
        self.seconds += seconds
        self.buckets[bisect_right(BUCKETS, seconds)] += 1

    def merge(self, other: Times) -> None:
        """Add the counts of another."""
        self.seconds += other.seconds
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]


def hook_call(hook: Callable[..., Any]) -> Callable[[str, Any], Any]:
    """Return the hook as a function of two arguments.

    One whose second parameter has a default, as in ``lambda client_id, name=name: ...``,
    is called with the client id alone.
    """
    try:
        parameters = list(inspect.signature(hook).parameters.values())
    except (TypeError, ValueError):  # a builtin that tells nothing
        parameters = []
    needed = [
        p
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    if len(needed) > 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return hook
    return lambda client_id, info: hook(client_id)
