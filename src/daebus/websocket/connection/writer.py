"""Everything that leaves one connection, and the connection's state.

Rules of this module:

1. Any thread hands whole frames to the socket, under the lock and without waiting: what
   the socket does not take goes to the outbox, which the minder writes.
2. Only the owner (the connection's thread), and a thread that runs a job for this
   client, may wait for room in its outbox, and only until a deadline.
3. The up-calls are set once and dropped when the connection has ended. ``on_gone`` is
   called without the lock, because the registry's lock comes before ours; ``on_end``,
   ``on_overflow`` and ``attend`` are called under it and must not wait.
4. Whatever interrupts this thread may call what any thread may (see ``interrupts``): what it
   sends while this thread is inside comes ``late``, before anything that is sent after it.
5. What is handed to the socket is counted before an exception can come, such as that of a
   signal handler; where that cannot be told, the connection is cut.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from ...interrupts.stack import held, inside
from ...server.sockets.transport import DONTWAIT, Transport
from ...waits import monotonic
from ..protocol.codec import Codec, close_frame, frame
from ..runtime import Runtime
from .limits import Limits
from .outbox import DROPPED, GONE, QUEUED, SENT
from .outlet import Outlet, nothing
from .states import CLOSED, CLOSING, CONNECTING, LOST, OPEN, Cause

__all__ = ["Writer"]

# Bytes of replies that are held back to leave in one write, at most.
MAX_HELD = 65536


class Writer:
    """The sending half of a connection, as any thread may use it.

    It makes the lock that both halves of a connection share.

    Args:
        transport: the socket; the connection's thread owns it.
        codec: builds frames, compressed if that was negotiated.
        limits: of the connection.
        runtime: the threads that connections share.

    Attributes:
        compress: builds one frame from an opcode and a payload.
        compression: a key; writers with equal ones can be sent the same frames.
        outlet: where frames go.
        owner: identifier of the connection's thread, as in ``threading.get_ident``.
        more: the owner has further messages to answer; only the owner sets it.
        on_gone: called after the connection has left ``OPEN``, perhaps more than once.
        on_end: called as it leaves ``OPEN``, perhaps more than once.
    """

    __slots__ = (
        "cause", "compress", "compression", "ended", "late", "limits", "lock",
        "messages_out", "more", "on_end", "on_gone", "outlet", "owner", "released",
        "runtime", "state", "transport",
    )  # fmt: skip

    def __init__(
        self, transport: Transport, codec: Codec, limits: Limits, runtime: Runtime
    ) -> None:
        self.lock = threading.Lock()
        self.transport = transport
        self.outlet = Outlet(transport, limits, self.lock)
        self.compress = codec.compress
        self.compression = codec.compression
        self.limits = limits
        self.runtime = runtime
        self.owner = 0
        self.more = False
        self.state = CONNECTING  # guarded by: lock
        # What was sent by whatever interrupted the thread that has the lock: frame,
        # droppable, conflate. Appended to without the lock.
        self.late: list[tuple[bytes, bool, str | None]] = []
        self.released = False  # guarded by: lock
        self.ended = False  # guarded by: lock
        self.cause: Cause | None = None  # guarded by: lock
        self.messages_out = 0  # guarded by: lock
        self.on_gone: Callable[[], None] = nothing
        self.on_end: list[Callable[[], None]] = []

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
        if (held.count or self.lock.locked()) and inside():
            return self._send_later(data, droppable, conflate)
        size, outlet = len(data), self.outlet
        with self.lock:
            if self.state != OPEN:
                return GONE
            if self.late:
                self.send_late_locked()
            if outlet.outbox is None and not outlet.held:
                # The common case: nothing waits, so one call hands the frame over.
                try:
                    written = outlet.send(data, DONTWAIT)
                except BlockingIOError:  # full
                    written = 0
                except BaseException as exc:
                    self.failed_locked(exc)
                    written = 0
                if written == size:
                    outlet.bytes_out += written
                    self.messages_out += 1
                    return SENT
                if written:
                    self.messages_out += 1
                    self.keep_rest_locked(data, written, conflate)
                    return QUEUED
            done = self.offer_slowly_locked(data, droppable, conflate)
            if done != GONE:
                return done
        self.on_gone()
        return GONE

    def _send_later(self, data: bytes, droppable: bool, conflate: str | None) -> int:
        """Leave a frame to whoever comes next: this very thread is inside."""
        if self.state != OPEN:  # unguarded: who is late finds out
            return GONE
        if len(self.late) >= self.limits.max_outbox_messages:
            self.outlet.dropped += 1  # unguarded: by the thread that has the lock
            return DROPPED
        self.late.append((data, droppable, conflate))
        self.runtime.minder.call_later(0.0, self._send_late)
        return QUEUED

    def _send_late(self) -> None:
        with self.lock:
            self.send_late_locked()
            gone = self.state != OPEN
        if gone:
            self.on_gone()

    def answer(self, data: bytes) -> None:
        """Send the one automatic answer to a message; it may leave with the next ones.

        Threads:
            The owner; may wait for room in its outbox.
        """
        outlet = self.outlet
        full = outlet.outbox is not None  # unguarded: asked again in ``offer``
        if self.more and not full and len(outlet.held) < MAX_HELD:  # unguarded: only the owner
            with self.lock:
                if self.state == OPEN:
                    outlet.held += data
                    self.messages_out += 1
            return
        if outlet.held:  # unguarded: only the owner holds answers back
            with self.lock:
                data = outlet.take_held_locked(data)
        if full and self.limits.waits:
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
            self.outlet.outbox is not None  # unguarded: with a stale value the wait ends at once
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
        if (held.count or self.lock.locked()) and inside():
            self.runtime.minder.call_later(0.0, partial(self.control, opcode, data))
            return self.open
        with self.lock:
            self.control_locked(opcode, data)
            state = self.state
        if state == CLOSED:
            self.on_gone()
        return state == OPEN

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

    def shut(self, code: int, reason: str, why: str, last: bytes = b"") -> bool:
        """Send a close frame and set the deadline for the peer's answer.

        Args:
            code: of the close.
            reason: the text that goes with it.
            why: one of the reasons of ``DisconnectInfo``.
            last: the frame of one more message, which goes before it in the same write, so
                that nothing comes between them and a full outbox drops neither.

        Returns:
            False if the connection was closing already.

        Raises:
            ValueError: the code must not be sent.

        Threads:
            Any; never waits.
        """
        data = close_frame(code, reason)
        if (held.count or self.lock.locked()) and inside():
            self.runtime.minder.call_later(0.0, partial(self.shut, code, reason, why, last))
            return self.open
        with self.lock:
            if self.state != OPEN:
                return False
            try:
                if self.late:
                    self.send_late_locked()
                self.runtime.minder.call_later(self.limits.close_timeout, self.abort)
                self.messages_out += 1 if last else 0
                self.close_locked(why, code, reason, last + data)
            except BaseException:
                self.break_locked()
                raise
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
        if (held.count or self.lock.locked()) and inside():
            self.runtime.minder.call_later(0.0, self.abort)
            return
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
        self.outlet.wait(deadline, lambda outbox: False)
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
            self.outlet.outbox = None
            self.released = True
            # These are reference cycles, which are not left to the garbage collector.
            self.on_gone, self.on_end = nothing, []
            self.outlet.drop_calls_locked()
            return self.outlet.watched

    def _wait_for_room(self, size: int) -> None:
        """Wait until the outbox has room, ``send_timeout`` has passed or the client is gone."""
        self.outlet.wait(
            monotonic() + self.limits.send_timeout,
            lambda outbox: outbox.has_room(size) or self.state != OPEN,  # unguarded: it is held
        )

    # --- with the lock held -----------------------------------------------------

    def control_locked(self, opcode: int, data: bytes) -> None:
        """Send a control frame, or queue it beyond the limits of the outbox."""
        assert self.lock.locked()
        if self.state != OPEN:
            return
        try:
            self.outlet.control_locked(frame(opcode, data), opcode)
        except BaseException as exc:
            self.failed_locked(exc)

    def close_locked(self, why: str, code: int, reason: str, data: bytes) -> None:
        """Leave ``OPEN`` with a last frame; queued frames are sent before it."""
        assert self.lock.locked()
        self._note_locked(Cause(why, code, reason))
        if self.state == OPEN:
            self.state = CLOSING
        self.outlet.drop_sources_locked()  # nothing may follow the last frame
        self._append_locked(data)
        self._end_locked()

    def lose_locked(self) -> None:
        """Note that the peer vanished: nothing can be sent or received any more."""
        assert self.lock.locked()
        self._note_locked(LOST)
        self.ended = True
        self.state = CLOSED
        self.outlet.outbox = None
        self.late.clear()
        self._end_locked()
        if not self.released:  # after another kind of error the owner may still read
            self.transport.abort()

    def failed_locked(self, exc: BaseException) -> None:
        """Note that the peer vanished, as an error of its socket says; raise any other.

        Of another, such as what a signal handler raised (a ``TimeoutError`` is an
        ``OSError`` too, without a number), nobody knows how much was sent before it.
        """
        assert self.lock.locked()
        told = isinstance(exc, OSError) and exc.errno is not None
        if not (told or isinstance(exc, ConnectionError)):
            self.break_locked()
            raise exc
        self.lose_locked()

    def break_locked(self) -> None:
        """Cut the connection: an exception came amid a frame, or amid its accounts."""
        assert self.lock.locked()
        # Before anything else that calls, where the next exception may come.
        self.state = CLOSED
        self.outlet.outbox = None
        self.lose_locked()

    def flush_held_locked(self) -> None:
        """Send the replies that were held back."""
        if self.outlet.held and self.state == OPEN:
            self._append_locked(b"")

    def keep_rest_locked(
        self, data: bytes, written: int, conflate: str | None, *, given: bool = False
    ) -> None:
        """Queue the rest of a partly written frame; see ``Outlet.keep_rest_locked``."""
        assert self.lock.locked()
        try:
            self.outlet.keep_rest_locked(data, written, conflate, given=given)
        except BaseException:
            self.break_locked()
            raise

    def drain_outbox_locked(self) -> None:
        """Write queued frames; for the minder, when the socket takes more."""
        assert self.lock.locked()
        try:
            self.outlet.drain_locked()
        except BaseException as exc:
            self.failed_locked(exc)

    def offer_slowly_locked(self, data: bytes, droppable: bool, conflate: str | None) -> int:
        """Send behind what waits, or find out why the socket takes nothing."""
        assert self.lock.locked()
        if self.state == CLOSED:  # the socket has just said so
            return GONE
        try:
            done = self.outlet.offer_locked(data, droppable, conflate)
            if done == GONE:
                self._cut_slow_locked()
            elif done != DROPPED:
                self.messages_out += 1
            return done
        except BaseException as exc:
            self.failed_locked(exc)
            return GONE

    def send_late_locked(self) -> None:
        """Send what came while a thread was inside that could not wait for itself."""
        assert self.lock.locked()
        while self.late and self.state == OPEN:
            data, droppable, conflate = self.late.pop(0)
            self.offer_slowly_locked(data, droppable, conflate)

    def _append_locked(self, data: bytes) -> None:
        """Send after the queued frames, beyond the limits of the outbox."""
        assert self.lock.locked()
        try:
            self.outlet.append_locked(data)
        except BaseException as exc:
            self.failed_locked(exc)

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
        self.outlet.wake_locked()

    def _cut_slow_locked(self) -> None:
        """Cut a client that does not read; it has a moment to read the 1013."""
        assert self.lock.locked()
        self._note_locked(Cause("slow_consumer", 1013, "too slow"))
        self.state = CLOSING
        self.ended = True
        self.outlet.give_up_locked(close_frame(1013, "too slow"))
        self._end_locked()
        self.runtime.minder.call_later(self.limits.slow_close_timeout, self.abort)
        # Wakes the owner if it is reading; the write side stays open for the close frame.
        self.transport.shutdown_read()
