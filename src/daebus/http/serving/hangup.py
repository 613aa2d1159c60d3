"""Find out whether the client of a streamed answer has left."""

from __future__ import annotations

import math
import select
import socket

from ...waits import monotonic

__all__ = ["Hangup"]

# Seconds between two parts after which the client is checked: one that left is noticed at
# the next part, not only when a second one fails. Parts that come faster fail soon enough.
PAUSE = 0.05

# Milliseconds to wait for the reset that tells a client which left from one that merely
# sends no more; longer than most ways there and back.
_RESET = 100

# Linux alone tells a client that sends no more from one with data to be read.
_ENDED = getattr(select, "POLLRDHUP", 0)


class Hangup:
    """Checks for the client of one stream between its parts.

    Args:
        sock: of the client.
    """

    __slots__ = ("_asked", "_doubts", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._asked = 0.0 if _ENDED else math.inf  # infinity: do not ask again
        self._doubts = 0  # parts after which the client had ended, without a reset

    def has_left(self) -> bool:
        """Return whether the client has left; to be called after each part that was sent."""
        now = monotonic()
        if now - self._asked < PAUSE:
            self._asked = max(self._asked, now)
            return False
        self._asked = now
        poller = select.poll()
        poller.register(self._sock, _ENDED)
        found = poller.poll(0)
        if not found:
            return False
        if not found[0][1] & (select.POLLHUP | select.POLLERR):
            poller.modify(self._sock, 0)
            found = poller.poll(_RESET)
        if not found:
            # It may have ended just after this part, and taken it. If the next one is not
            # reset either, the client reads on and only sends no more.
            self._doubts += 1
            if self._doubts == 2:
                self._asked = math.inf
        return bool(found)
