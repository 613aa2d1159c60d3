"""The control frames of one client: how many it may send, and what they are answered with.

Pure: the moment is an argument, and answers are returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..protocol.codec import PONG, TEXT, Ping, Pong

__all__ = ["CONTROL_BURST", "CONTROL_RATE", "ControlFrames"]

# Pings, pongs, cancels, and answers that nobody waits for, a second. Browsers send none of
# these unasked, clients and proxies that keep a connection alive one in some seconds, and
# somebody who measures the network ten a second. A hundred cost us a millisecond.
CONTROL_RATE = 100

# The same at once: what has gathered while a handler was busy comes in one go.
CONTROL_BURST = 1000


class ControlFrames:
    """A bucket that ``CONTROL_RATE`` a second fill up to ``CONTROL_BURST``; pings to answer.

    Args:
        now: the moment at which the bucket is full.

    Attributes:
        on_pong: called with the payload of each pong.
        beat: the answer to the newest heartbeat, until it is sent.

    Threads:
        Under the lock of the connection.
    """

    __slots__ = ("_at", "_left", "_ping", "beat", "on_pong")

    def __init__(self, now: float) -> None:
        self._left = float(CONTROL_BURST)
        self._at = now
        self._ping: bytes | None = None
        self.beat: bytes | None = None
        self.on_pong: Callable[[bytes], None] | None = None

    def take(self, count: int, now: float) -> bool:
        """Take so many out; False if there were not as many in it."""
        left = min(float(CONTROL_BURST), self._left + (now - self._at) * CONTROL_RATE)
        self._at = now
        self._left = left - count
        return self._left >= 0

    def note(self, frame: Ping | Pong) -> None:
        """Remember a ping, or pass a pong on."""
        if isinstance(frame, Ping):
            self._ping = frame.data
        elif self.on_pong is not None:
            self.on_pong(frame.data)

    def answers(self) -> Iterator[tuple[int, bytes]]:
        """Yield opcode and payload of what is to be sent after a read.

        The newest ping is answered: the others need no answer (RFC 6455 section 5.5.3).
        Likewise the newest heartbeat.
        """
        ping, self._ping = self._ping, None
        if ping is not None:
            yield PONG, ping
        beat, self.beat = self.beat, None
        if beat is not None:
            yield TEXT, beat
