"""What became of a message: the result of everything that sends."""

from __future__ import annotations

from typing import Final

__all__ = ["OUTCOMES", "SendResult"]


class SendResult(int):
    """How many clients a message was sent to or queued for, and what happened to the rest.

    It is that number, so it counts, compares and is true like any ``int``; in JSON it is a
    number as well.

    Args:
        reached: clients that it was sent to or queued for.
        queued: how many of those it still waits for, because they read slowly.
        dropped: clients, not among those, whose outbox was full.
    """

    _queued: int
    _dropped: int

    def __new__(cls, reached: int = 0, queued: int = 0, dropped: int = 0) -> SendResult:
        """Make one; see the class."""
        self = super().__new__(cls, reached)
        self._queued = queued
        self._dropped = dropped
        return self

    @property
    def queued(self) -> int:
        """How many of the clients it waits for: their sockets did not take it at once."""
        return self._queued

    @property
    def dropped(self) -> int:
        """How many clients did not get it because their outbox was full."""
        return self._dropped

    def __repr__(self) -> str:
        return f"Delivered({int(self)}, queued={self._queued}, dropped={self._dropped})"

    __str__ = int.__repr__  # a log line shows the number


# By what ``SendingHalf.offer`` returns: GONE, SENT, QUEUED, DROPPED. Made once: they are the
# answers to every message for a single client.
OUTCOMES: Final = (SendResult(), SendResult(1), SendResult(1, 1), SendResult(0, 0, 1))
