"""How long the server waits for a client, depending on what is outstanding."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from ...waits import monotonic
from ..protocol.forwarded import Seen
from ..protocol.limits import Limits
from ..protocol.parser import BODY, HEAD, IDLE, Parser

__all__ = ["KeepAlive"]


# Seconds in which a client is expected to send its first request, once it has connected: some
# browsers open connections that they do not need yet.
_HURRY = 1.0


class KeepAlive:
    """What the server knows of a connection between two reads.

    Attributes:
        parser: cuts what comes into requests.
        phase: what the server waits for; empty while it does not wait.
        since: when that phase began.
        weighed: it was found out whether anybody wants the body that comes.
        served: it has sent a whole request already.
        judged: the head of the request that is coming was looked at.
        seen: what a trusted proxy says of the client of that request.
        newcomer: it came when the app was about to stop.
    """

    __slots__ = ("judged", "newcomer", "parser", "phase", "seen", "served", "since", "weighed")

    def __init__(
        self, limits: Limits, open_file: Callable[[], IO[bytes]], *, newcomer: bool = False
    ) -> None:
        self.newcomer = newcomer
        self.parser = Parser(limits, open_file)
        self.weighed = False
        self.phase = HEAD
        self.since = monotonic()
        self.served = False
        self.judged = False
        self.seen: Seen | None = None

    def deadline(self, limits: Limits) -> float:
        """Return the moment until which the server waits for the client."""
        phase = self.parser.phase
        if phase == IDLE and not self.served:
            phase = HEAD
        if phase != self.phase:
            self.phase, self.since = phase, monotonic()
        if phase == IDLE:
            return self.since + limits.idle_timeout
        if phase == BODY:
            earned = limits.head_timeout + self.parser.received / limits.min_rate
            return self.since + min(limits.body_timeout, earned)
        return self.since + limits.head_timeout

    @property
    def fresh(self) -> bool:
        """True while the first request is about to come."""
        return not self.served and monotonic() - self.since < _HURRY

    def close(self) -> None:
        """Drop what has been read."""
        self.parser.close()
