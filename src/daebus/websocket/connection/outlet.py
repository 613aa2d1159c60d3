"""How bytes leave one connection: to the socket, and the rest through a queue.

Rules of this module:

1. It knows nothing of messages or of the connection's state; the writer does, which has it.
2. It lets through whatever the socket, or a signal handler, raises amid a write: then nobody
   knows how much was sent, and the writer must cut the connection.
3. What the socket has taken is counted before anything else is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ...interrupts.stack import inside
from ...server.sockets.transport import Transport
from ...waits import monotonic, until
from .limits import Limits
from .outbox import DROPPED, GONE, QUEUED, SENT, Outbox, Source

__all__ = ["Outlet", "nothing"]


def nothing(*_: object) -> None:
    """Do nothing; the up-call was dropped."""


class Outlet:
    """What a socket takes now, and an outbox for the rest, which the minder writes.

    Args:
        transport: the socket; the connection's thread owns it.
        limits: of the connection.
        lock: of the connection; ``_lock`` here.

    Attributes:
        send: of the transport, for the common frame, which is written out where it is sent.
        outbox: what waits; None if nothing does.
        held: replies that are held back to leave in one write.
        bytes_out: bytes that the socket has taken.
        dropped: messages for which there was no room.
        last_drained: when it last took bytes again after it was full.
        watched: True once the minder knows the descriptor.
        attend: has the minder look at what the connection waits for.
        on_overflow: called with bytes and messages queued, and whether the client is cut.
    """

    __slots__ = (
        "_limits", "_lock", "_room", "attend", "bytes_out", "dropped", "held", "last_drained",
        "on_overflow", "outbox", "send", "transport", "watched",
    )  # fmt: skip

    def __init__(self, transport: Transport, limits: Limits, lock: threading.Lock) -> None:
        self.transport = transport
        self.send = transport.send
        self._limits = limits
        self._lock = lock
        self._room: threading.Condition | None = None  # guarded by: _lock
        self.outbox: Outbox | None = None  # guarded by: _lock
        self.held = bytearray()  # guarded by: _lock
        self.bytes_out = 0  # guarded by: _lock
        self.dropped = 0  # guarded by: _lock
        self.watched = False  # guarded by: _lock
        self.last_drained = 0.0
        self.attend: Callable[[], None] = nothing
        self.on_overflow: Callable[[int, int, bool], None] = nothing

    def queued(self) -> tuple[int, int]:
        """Return how many bytes and messages wait in the outbox."""
        outbox = self.outbox  # unguarded: it only counts
        return (0, 0) if outbox is None else (outbox.size, len(outbox))

    def offer_locked(self, data: bytes, droppable: bool, conflate: str | None) -> int:
        """Send a message behind what waits; if there is no room, do as ``on_full`` says.

        Returns:
            ``SENT``, ``QUEUED``, ``DROPPED``, or ``GONE``: the client must be cut.
        """
        assert self._lock.locked()
        if self.held:
            self.append_locked(b"")
        outbox = self.outbox
        if outbox is None:
            return self._write_locked(data, conflate)
        before = outbox.dropped
        taken = outbox.admit(data, self._limits.on_full, droppable=droppable, key=conflate)
        self.dropped += outbox.dropped - before
        if taken and outbox.dropped == before:
            return QUEUED
        if taken is None or not (outbox.complained or conflate):
            outbox.complained = True
            self.on_overflow(outbox.size, len(outbox), taken is None)
        if taken is None:
            return GONE
        return QUEUED if taken else DROPPED

    def append_locked(self, data: bytes) -> None:
        """Send held replies, and then this, beyond the limits of the outbox."""
        assert self._lock.locked()
        if self.held:
            data = self.take_held_locked(data)
        if self.outbox is None:
            self._write_locked(data)
        else:
            self.outbox.push(data)

    def pull_locked(self, source: Source) -> int:
        """Have a source write what it has, or queue it behind what waits.

        Returns:
            ``SENT`` if the socket took everything, else ``QUEUED``.
        """
        assert self._lock.locked()
        if self.held:
            self.append_locked(b"")
        outbox = self.outbox
        if outbox is not None:
            outbox.push_source(source)
            return QUEUED
        outbox = self._new_outbox()
        outbox.push_source(source)
        self.bytes_out += outbox.write(self.transport.try_send)
        if outbox.is_empty:
            return SENT
        self.outbox = outbox
        self.attend_locked()
        return QUEUED

    def drop_sources_locked(self) -> None:
        """Have no source write any more."""
        assert self._lock.locked()
        if self.outbox is not None:
            self.outbox.drop_sources()
            if self.outbox.is_empty:
                self.outbox = None

    def _new_outbox(self) -> Outbox:
        return Outbox(self._limits.max_outbox, self._limits.max_outbox_messages)

    def control_locked(self, data: bytes, opcode: int) -> None:
        """Send a control frame, or queue it beyond the limits of the outbox."""
        assert self._lock.locked()
        if self.held:
            self.append_locked(b"")
        if self.outbox is None:
            self._write_locked(data)
        else:
            self.outbox.push_control(data, opcode)

    def give_up_locked(self, last: bytes) -> None:
        """Drop what waits, but for the rest of a frame that was begun, and send a last one."""
        assert self._lock.locked()
        if self.outbox is not None:
            self.dropped += self.outbox.clear() + 1
            self.outbox.push(last)
        self.attend_locked()

    def take_held_locked(self, data: bytes) -> bytes:
        """Take the replies that were held back, and put this behind them."""
        assert self._lock.locked()
        joined = b"".join((self.held, data))
        self.held.clear()
        return joined

    def keep_rest_locked(
        self, data: bytes, written: int, conflate: str | None, *, given: bool = False
    ) -> None:
        """Queue the rest of a partly written frame, for the minder to write.

        Args:
            data: the frame.
            written: how much of it is written.
            conflate: its key.
            given: it is of a source.
        """
        assert self._lock.locked()
        self.bytes_out += written
        outbox = self._new_outbox()
        if given:
            outbox.push_given(data, written)
        else:
            outbox.push(data, written, key=conflate)
        self.outbox = outbox
        self.attend_locked()

    def drain_locked(self) -> None:
        """Write queued frames; for the minder, when the socket takes more."""
        assert self._lock.locked()
        if self.outbox is not None:
            written = self.outbox.write(self.transport.try_send)
            self.bytes_out += written
            if written:
                self.last_drained = monotonic()
            if self.outbox.is_empty:
                self.outbox = None
        if self.outbox is None or self.outbox.low:
            self.wake_locked()

    def _write_locked(self, data: bytes, conflate: str | None = None) -> int:
        """Hand a frame to the socket, for which nothing waits; queue the rest."""
        assert self._lock.locked()
        written = self.transport.try_send(data)
        if written == len(data):
            self.bytes_out += written
            return SENT
        self.keep_rest_locked(data, written, conflate)
        return QUEUED

    def attend_locked(self) -> None:
        """Have the minder look at what the connection waits for."""
        assert self._lock.locked()
        self.watched = True
        self.attend()

    def wake_locked(self) -> None:
        """Wake the threads that wait for room."""
        assert self._lock.locked()
        if self._room is not None:
            self._room.notify_all()

    def drop_calls_locked(self) -> None:
        """Drop the up-calls, which refer to the connection as it refers to us."""
        assert self._lock.locked()
        self.attend = self.on_overflow = nothing

    def wait(self, deadline: float, enough: Callable[[Outbox], bool]) -> None:
        """Wait until nothing is queued, ``enough`` is true, or the deadline has passed.

        Args:
            deadline: moment of ``time.monotonic()``.
            enough: asked with the lock held, first and whenever there is more room.

        Threads:
            The owner, or one that works for this client alone.
        """
        if inside():  # others may need what this thread holds
            return
        with self._lock:
            if self._room is None:
                self._room = threading.Condition(self._lock)
            while self.outbox is not None and not enough(self.outbox):
                rest = until(deadline)
                if rest <= 0:
                    return
                self._room.wait(rest)
