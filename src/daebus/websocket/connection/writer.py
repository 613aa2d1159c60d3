"""Everything that leaves one connection, and the connection's state.

Rules of this module:

1. Any thread hands whole frames to the socket, under the lock and without waiting: what
   the socket does not take goes to the outbox, which the minder writes.
2. Only the owner (the connection's thread), and a thread that runs a job for this
   client, may wait for room in its outbox, and only until a deadline.
3. The up-calls are set once and dropped when the connection has ended. ``on_gone`` is
   called without the lock, because the registry's lock comes before ours; ``on_end``,
   ``on_overflow`` and ``attend`` are called under it and must not wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ...server.sockets.transport import DONTWAIT, Transport
from ...waits import lock_timeout
from ..protocol.codec import Codec, close_frame, frame
from ..runtime import Runtime
from .limits import Limits
from .outbox import DROPPED, GONE, QUEUED, SENT, Outbox
from .states import CLOSED, CLOSING, CONNECTING, LOST, OPEN, Cause

__all__ = ["Writer"]

# Bytes of replies that are held back to leave in one write, at most.
MAX_HELD = 65536


def _nothing(*_: object) -> None:
    """Do nothing; the up-call was dropped."""


class Writer:
    """The sending half of a connection. It makes the lock that both halves share.

    Args:
        transport: the socket; the connection's thread owns it.
        codec: builds frames, compressed if that was negotiated.
        limits: of the connection.
        runtime: the threads that connections share.

    Attributes:
        compress: builds one frame from an opcode and a payload.
        compression: a key; writers with equal ones can be sent the same frames.
        owner: identifier of the connection's thread, as in ``threading.get_ident``.
        more: the owner has further messages to answer; only the owner sets it.
        on_gone: called after the connection has left ``OPEN``, perhaps more than once.
        on_end: called as it leaves ``OPEN``, perhaps more than once.
        on_overflow: called with bytes and messages queued, and whether the client is cut.
        attend: has the minder look at what the connection waits for.
    """

    __slots__ = (
        "attend", "bytes_out", "cause", "compress", "compression", "dropped", "ended", "held",
        "last_drained", "limits", "lock", "messages_out", "more", "on_end", "on_gone",
        "on_overflow", "outbox", "owner", "released", "room", "runtime", "send", "state",
        "transport", "watched",
    )  # fmt: skip

    def __init__(
        self, transport: Transport, codec: Codec, limits: Limits, runtime: Runtime
    ) -> None:
        self.lock = threading.Lock()
        self.transport = transport
        self.send = transport.send
        self.compress = codec.compress
        self.compression = codec.compression
        self.limits = limits
        self.runtime = runtime
        self.owner = 0
        self.more = False
        self.state = CONNECTING  # guarded by: lock
        self.outbox: Outbox | None = None  # guarded by: lock
        self.held = bytearray()  # guarded by: lock
        self.room: threading.Condition | None = None  # guarded by: lock
        self.watched = False  # guarded by: lock
        self.released = False  # guarded by: lock
        self.ended = False  # guarded by: lock
        self.cause: Cause | None = None  # guarded by: lock
        self.messages_out = 0  # guarded by: lock
        self.bytes_out = 0  # guarded by: lock
        self.dropped = 0  # guarded by: lock
        self.last_drained = 0.0  # when the socket last took bytes again after it was full
        self.on_gone: Callable[[], None] = _nothing
        self.on_end: list[Callable[[], None]] = []
        self.on_overflow: Callable[[int, int, bool], None] = _nothing
        self.attend: Callable[[], None] = _nothing

    # --- sending ----------------------------------------------------------------

    def offer(self, data: bytes, droppable: bool = False, conflate: str | None = None) -> int:
        """Write a frame now, or queue it; never wait.

        A client that cannot keep up must not cost the others memory or time: ``on_full``
        of the limits says what happens when its outbox is full.

        Args:
            data: one or more whole frames.
            droppable: drop it rather than cut a slow client.
            conflate: a key; replace the queued frame with the same key.

        Returns:
            ``SENT``, ``QUEUED``, ``DROPPED``, or ``GONE``: the connection is not open.

        Threads:
            Any. Takes ``lock`` briefly; never waits for the network.
        """
        with self.lock:
            if self.state != OPEN:
                return GONE
            if self.outbox is None and not self.held:
                # The common case: nothing waits, so one call hands the frame over.
                try:
                    written = self.send(data, DONTWAIT)
                except OSError:  # full or broken: the slow path finds out
                    written = 0
                if written == len(data):
                    self.bytes_out += written
                    self.messages_out += 1
                    return SENT
                if written:
                    self.messages_out += 1
                    self.keep_rest_locked(data, written, conflate)
                    return QUEUED
            if self.held:
                self.flush_held_locked()
            if self.outbox is None:
                done = self._write_locked(data, conflate)
            else:
                done = self._queue_locked(self.outbox, data, droppable, conflate)
            if done == DROPPED:
                return DROPPED
            if done != GONE:
                self.messages_out += 1
                return done
        self.on_gone()
        return GONE

    def answer(self, data: bytes) -> None:
        """Send the one automatic answer to a message; it may leave with the next ones.

        Threads:
            The owner; may wait for room in its outbox.
        """
        # A stale value is harmless here: ``offer`` checks again under the lock.
        if self.more and self.outbox is None and len(self.held) < MAX_HELD:  # unguarded: see above
            with self.lock:
                if self.state == OPEN:
                    self.held += data
                    self.messages_out += 1
            return
        if self.held:  # unguarded: only the owner holds answers back
            with self.lock:
                data = self._take_held_locked(data)
        if self.outbox is not None and self.limits.waits:  # unguarded: see above
            self._wait_for_room(len(data))
        self.offer(data)

    def reply(
        self,
        data: bytes,
        *,
        droppable: bool = False,
        conflate: str | None = None,
        patient: bool = False,
    ) -> int:
        """Send from a handler: as ``offer``, but the owner may wait for room in its outbox.

        Args:
            data: one whole frame.
            droppable: as for ``offer``; it does not wait then.
            conflate: as for ``offer``; it does not wait then.
            patient: the calling thread is not the owner, but works for this client alone,
                so it may wait as well.

        Returns:
            As ``offer``.
        """
        if (
            self.outbox is not None  # unguarded: with a stale value the wait ends at once
            and self.limits.waits
            and not (droppable or conflate)
            and (patient or self.is_owner())
        ):
            self._wait_for_room(len(data))
        return self.offer(data, droppable, conflate)

    def control(self, opcode: int, data: bytes) -> bool:
        """Send a ping or pong, which a full outbox never drops and which is not counted.

        Returns:
            False if the connection is no longer open.
        """
        with self.lock:
            self.control_locked(opcode, data)
            state = self.state
        if state == CLOSED:
            self.on_gone()
        return state == OPEN

    def queued(self) -> tuple[int, int]:
        """Return how many bytes and messages wait in the outbox."""
        with self.lock:
            return (0, 0) if self.outbox is None else (self.outbox.size, len(self.outbox))

    def is_owner(self) -> bool:
        """Tell whether this is the connection's own thread."""
        return threading.get_ident() == self.owner

    # --- beginning and end ------------------------------------------------------

    @property
    def open(self) -> bool:
        """True until either side began to close."""
        return self.state == OPEN  # unguarded: true at that moment

    def begin(self, response: bytes) -> bool:
        """Answer the handshake in the connection's thread, which is the owner from now on.

        Args:
            response: the whole 101.

        Returns:
            False if the client has gone.
        """
        self.owner = threading.get_ident()
        with self.lock:
            try:
                whole = self.transport.try_send(response) == len(response)
            except OSError:
                whole = False
            if whole:
                self.state = OPEN
            else:
                self.lose_locked()
        return whole

    def shut(self, code: int, reason: str, why: str) -> bool:
        """Send a close frame and set the deadline for the peer's answer.

        Returns:
            False if the connection was closing already.

        Raises:
            ValueError: the code must not be sent.

        Threads:
            Any; never waits.
        """
        data = close_frame(code, reason)
        with self.lock:
            if self.state != OPEN:
                return False
            self.close_locked(why, code, reason, data)
        self.runtime.minder.call_later(self.limits.close_timeout, self.abort)
        self.on_gone()
        return True

    def lose(self, why: str, text: str) -> None:
        """Give up a silent peer: leave the registry, cut the connection."""
        with self.lock:
            self._note_locked(Cause(why, 1006, text))
            self.lose_locked()
        self.on_gone()
        self.abort()

    def abort(self) -> None:
        """Cut the connection now; the owner wakes and cleans up.

        Threads:
            Any; never waits.
        """
        with self.lock:
            if not self.released:
                self.transport.abort()

    def drain(self, deadline: float) -> bool:
        """Wait until the outbox is empty, or the deadline has passed.

        Returns:
            False if the peer has vanished.

        Threads:
            The owner.
        """
        self._wait_until(deadline, lambda outbox: False)
        return self.state != CLOSED  # unguarded: only our own stop can change it now

    def finish(self) -> bool:
        """Note that the descriptor is about to close, and drop the up-calls.

        Returns:
            True if the minder watches the descriptor and must close it.

        Threads:
            The owner, just before it closes.
        """
        with self.lock:
            self.state = CLOSED
            self.outbox = None
            self.released = True
            # These are reference cycles, which are not left to the garbage collector.
            self.on_gone = self.on_overflow = self.attend = _nothing
            self.on_end = []
            return self.watched

    # --- with the lock held -----------------------------------------------------

    def control_locked(self, opcode: int, data: bytes) -> None:
        """Send a control frame, or queue it beyond the limits of the outbox."""
        assert self.lock.locked()
        if self.state != OPEN:
            return
        if self.held:
            self.flush_held_locked()
        if self.outbox is None:
            self._write_locked(frame(opcode, data))
        else:
            self.outbox.push_control(frame(opcode, data), opcode)

    def close_locked(self, why: str, code: int, reason: str, data: bytes) -> None:
        """Leave ``OPEN`` with a last frame; queued frames are sent before it."""
        assert self.lock.locked()
        self._note_locked(Cause(why, code, reason))
        if self.held:
            data = self._take_held_locked(data)
        self._append_locked(data)
        if self.state == OPEN:
            self.state = CLOSING
        self._end_locked()

    def lose_locked(self) -> None:
        """Note that the peer vanished: nothing can be sent or received any more."""
        assert self.lock.locked()
        self._note_locked(LOST)
        self.ended = True
        self.state = CLOSED
        self.outbox = None
        self._end_locked()
        if not self.released:  # after another kind of error the owner may still read
            self.transport.abort()

    def flush_held_locked(self) -> None:
        """Send the replies that were held back."""
        if self.held and self.state == OPEN:
            self._append_locked(self._take_held_locked(b""))

    def keep_rest_locked(self, data: bytes, written: int, conflate: str | None) -> None:
        """Queue the rest of a partly written frame, for the minder to write."""
        assert self.lock.locked()
        self.bytes_out += written
        self.outbox = Outbox(self.limits.max_outbox, self.limits.max_outbox_messages)
        self.outbox.push(data, written, key=conflate)
        self.attend_locked()

    def drain_outbox_locked(self) -> None:
        """Write queued frames; for the minder, when the socket takes more."""
        assert self.lock.locked()
        if self.outbox is not None:
            try:
                written = self.outbox.write(self.transport.try_send)
            except OSError:
                self.lose_locked()
                return
            self.bytes_out += written
            if written:
                self.last_drained = time.monotonic()
            if not len(self.outbox):
                self.outbox = None
        if self.room is not None and (self.outbox is None or self.outbox.low):
            self.room.notify_all()

    def attend_locked(self) -> None:
        """Have the minder look at what the connection waits for."""
        assert self.lock.locked()
        self.watched = True
        self.attend()

    def _write_locked(self, data: bytes, conflate: str | None = None) -> int:
        """Hand a frame to the socket; queue the rest for the minder."""
        try:
            written = self.transport.try_send(data)
        except OSError:
            self.lose_locked()
            return GONE
        if written == len(data):
            self.bytes_out += written
            return SENT
        self.keep_rest_locked(data, written, conflate)
        return QUEUED

    def _append_locked(self, data: bytes) -> None:
        """Send after the queued frames, beyond the limits of the outbox."""
        assert self.lock.locked()
        if self.outbox is None:
            self._write_locked(data)
        else:
            self.outbox.push(data)

    def _queue_locked(
        self, outbox: Outbox, data: bytes, droppable: bool, conflate: str | None
    ) -> int:
        """Queue a frame; if there is no room, do as ``on_full`` says."""
        assert self.lock.locked()
        before = outbox.dropped
        taken = outbox.admit(data, self.limits.on_full, droppable=droppable, key=conflate)
        self.dropped += outbox.dropped - before
        if taken and outbox.dropped == before:
            return QUEUED
        if taken is None or not (outbox.complained or conflate):
            outbox.complained = True
            self.on_overflow(outbox.size, len(outbox), taken is None)
        if taken is None:
            self._cut_slow_locked(outbox)
            return GONE
        return QUEUED if taken else DROPPED

    def _cut_slow_locked(self, outbox: Outbox) -> None:
        """Cut a client that does not read; it has a moment to read the 1013."""
        assert self.lock.locked()
        self._note_locked(Cause("slow_consumer", 1013, "too slow"))
        self.dropped += outbox.clear() + 1
        outbox.push(close_frame(1013, "too slow"))
        self.state = CLOSING
        self.ended = True
        self._end_locked()
        self.attend_locked()
        self.runtime.minder.call_later(self.limits.slow_close_timeout, self.abort)
        # Wakes the owner if it is reading; the write side stays open for the close frame.
        self.transport.shutdown_read()

    def _take_held_locked(self, data: bytes) -> bytes:
        joined = b"".join((self.held, data))
        self.held.clear()
        return joined

    def _note_locked(self, cause: Cause) -> None:
        """Keep the cause of the end; the first one counts."""
        assert self.lock.locked()
        if self.cause is None:
            self.cause = cause

    def _end_locked(self) -> None:
        """Call ``on_end``, and wake the threads that wait for room."""
        assert self.lock.locked()
        for tell in self.on_end:
            tell()
        if self.room is not None:
            self.room.notify_all()

    def _wait_for_room(self, size: int) -> None:
        """Wait until the outbox has room, ``send_timeout`` has passed or the client is gone."""
        self._wait_until(
            time.monotonic() + self.limits.send_timeout,
            lambda outbox: outbox.has_room(size) or self.state != OPEN,  # unguarded: it is held
        )

    def _wait_until(self, deadline: float, enough: Callable[[Outbox], bool]) -> None:
        """Wait until nothing is queued, ``enough`` is true, or the deadline has passed."""
        with self.lock:
            if self.room is None:
                self.room = threading.Condition(self.lock)
            while self.outbox is not None and not enough(self.outbox):
                rest = deadline - time.monotonic()
                if rest <= 0:
                    return
                self.room.wait(lock_timeout(rest))
