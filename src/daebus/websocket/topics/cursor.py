"""Where each subscriber stands: all that a topic keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...interrupts.stack import inside
from ..connection.outbox import GONE, QUEUED
from ..connection.states import OPEN
from ..connection.writer import Writer
from ..protocol.codec import TEXT
from .envelopes import Event
from .history import Chunk
from .position import CLOSED, UNTOLD, Position

__all__ = ["Cursor", "Readable", "Watcher", "put"]


class Readable(Protocol):
    """What a reader asks of its topic."""

    @property
    def name(self) -> str:
        """Its name."""

    def read(self, epoch: str, sent: int, base: int, limit: int) -> Chunk:
        """Return what follows a position; see ``History.read``. Takes a leaf lock."""

    def unwatch(self, watcher: Watcher) -> None:
        """Forget a watcher."""


class Cursor:
    """A subscription of one WebSocket, which its outbox reads from.

    Args:
        topic: what is read.
        writer: of the connection.
        epoch: of the position.
        sent: the offset up to which the client was told.
        counted: the client has asked for it, so it counts against ``max_topics``.
    """

    __slots__ = ("base", "counted", "epoch", "sent", "topic", "writer")

    def __init__(
        self, topic: Readable, writer: Writer, epoch: str, sent: int, *, counted: bool
    ) -> None:
        self.topic = topic
        self.writer = writer
        self.counted = counted
        # These are changed under the writer's lock.
        self.epoch = epoch
        self.sent = sent
        self.base = UNTOLD

    def take(self, limit: int) -> tuple[bytes, bool]:
        """Return the next frames for the client, and whether there is more.

        What is returned counts as sent.

        Args:
            limit: bytes, about; at least one message is taken.

        Threads:
            Any, under the writer's lock; takes the leaf lock of the topic.
        """
        if self.sent == CLOSED:
            return b"", False
        events, epoch, sent, base, more = self.topic.read(self.epoch, self.sent, self.base, limit)
        writer = self.writer
        frames = b"".join([writer.compress(TEXT, event.payload) for event in events])
        self.epoch, self.sent, self.base = epoch, sent, base
        writer.messages_out += len(events)  # unguarded: under its lock
        return frames, more

    def pull(self, *, patient: bool) -> int:
        """Have the client sent what it has not got, now or when its turn comes.

        Args:
            patient: this thread can wait for the lock: it was not interrupted while it holds
                another one. Otherwise the minder does it.

        Returns:
            ``SENT``, ``QUEUED``, or ``GONE``; then the caller calls ``on_gone``.

        Threads:
            Any; never waits for the network.
        """
        writer = self.writer
        if not patient:
            writer.runtime.minder.call_later(0.0, self.start)
            return QUEUED
        with writer.lock:
            if writer.late:
                writer.send_late_locked()
            if writer.state != OPEN:
                return GONE
            try:
                return writer.outlet.pull_locked(self)
            except BaseException as exc:
                writer.failed_locked(exc)
                return GONE

    def start(self) -> None:
        """Have the client sent what it has not got; the caller holds no lock."""
        if self.pull(patient=not inside()) == GONE:
            self.writer.on_gone()

    def close(self) -> None:
        """Take nothing more."""
        writer = self.writer
        with writer.lock:
            self.sent = CLOSED


def put(writer: Writer, data: bytes) -> int:
    """Send a frame as ``Writer.offer`` does, and leave what follows to the caller.

    Returns:
        As ``Writer.offer``; at ``GONE`` the caller calls ``on_gone``.

    Threads:
        Any that is not inside; never waits for the network.
    """
    with writer.lock:
        if writer.late:
            writer.send_late_locked()
        if writer.state != OPEN:
            return GONE
        return writer.offer_slowly_locked(data, droppable=False, conflate=None)


class Watcher:
    """A reader that is no WebSocket, such as a stream of events over HTTP.

    Args:
        topic: what is read.
        epoch: of the position.
        sent: the offset up to which it was told.
        wake: called after a publication, once until the next ``take``, by any thread under
            the lock of the topic: it must not wait.

    Attributes:
        more: False once all was taken.

    Threads:
        ``take`` and ``position`` are for one thread alone.
    """

    __slots__ = ("_base", "_closed", "_epoch", "_sent", "_topic", "_wake", "_woken", "more")

    def __init__(self, topic: Readable, epoch: str, sent: int, wake: Callable[[], object]) -> None:
        self._topic = topic
        self._epoch = epoch
        self._sent = sent
        self._base = UNTOLD
        self._closed = False
        self._wake = wake
        self._woken = False
        self.more = True

    @property
    def position(self) -> Position:
        """How far it has come; what was taken counts as told."""
        return Position(self._epoch, max(0, self._sent))

    def take(self, limit: int) -> list[Event]:
        """Return the next messages; an empty list if it is current.

        Args:
            limit: bytes, about; at least one message is taken.
        """
        if self._closed:
            return []
        # First this, then the topic's lock: who publishes does it the other way round, so
        # either the message is among these, or it wakes this reader again.
        self._woken = False
        chunk = self._topic.read(self._epoch, self._sent, self._base, limit)
        events, self._epoch, self._sent, self._base, self.more = chunk
        return events

    def wake(self) -> None:
        """Tell the reader that there is something to take."""
        if not (self._woken or self._closed):
            self._woken = True
            self._wake()

    def close(self) -> None:
        """Take nothing more. Any thread, any number of times."""
        self._closed = True
        self._topic.unwatch(self)
