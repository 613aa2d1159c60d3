"""The result of a send. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["OUTCOMES", "SendResult", "handed"]


class SendResult(int):
    """How many clients a message was sent to or queued for, and how many it was dropped for.

    It is an ``int`` of the first of these, so it adds, compares and tests like one; in JSON
    it is a number as well.

    Args:
        reached: clients that it was sent to or queued for.
        queued: how many of those it is still queued for, because they read slowly.
        dropped: clients, not counted in ``reached``, whose outbox was full.
        offset: of a message that was published to a topic.
    """

    _queued: int
    _dropped: int
    _offset: int | None = None
    _nodes: int = 0

    def __new__(
        cls, reached: int = 0, queued: int = 0, dropped: int = 0, offset: int | None = None
    ) -> SendResult:
        """Make a result; see the class."""
        self = super().__new__(cls, reached)
        self._queued = queued
        self._dropped = dropped
        if offset is not None:
            self._offset = offset
        return self

    @property
    def queued(self) -> int:
        """For how many clients it is queued: their sockets did not take it at once."""
        return self._queued

    @property
    def dropped(self) -> int:
        """How many clients did not get it because their outbox was full."""
        return self._dropped

    @property
    def offset(self) -> int | None:
        """The number of the message in its topic; None if it went to no topic, or to a shared one.

        None as well if whoever published it had interrupted this very thread, as signal handlers
        and destructors do, at a moment when it had to be left to another thread.
        """
        return self._offset

    @property
    def nodes(self) -> int:
        """To how many other processes it was handed, with a backplane.

        How many of their clients have it is not known here; the number itself counts those of
        this process. A message to one client of another process was sent if this is 1, and the
        number is 1 then too.
        """
        return self._nodes

    def __repr__(self) -> str:
        nodes = f", nodes={self._nodes}" if self._nodes else ""
        return f"SendResult({int(self)}, queued={self._queued}, dropped={self._dropped}{nodes})"

    __str__ = int.__repr__  # a log line shows the number


def handed(result: SendResult, nodes: int) -> SendResult:
    """Return the result of a message that was handed to so many other processes as well."""
    if not nodes:
        return result
    # A new one: that of a single client is shared.
    more = SendResult(int(result), result.queued, result.dropped, result.offset)
    more._nodes = nodes
    return more


# Indexed by what ``Writer.offer`` returns: GONE, SENT, QUEUED, DROPPED. Made once: every
# message to a single client has one of these results.
OUTCOMES: Final = (SendResult(), SendResult(1), SendResult(1, 1), SendResult(0, 0, 1))
