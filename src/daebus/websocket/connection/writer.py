"""The sending half of a connection: writing, and the outbox.

Rules of this module:

1. Whole frames are handed to the socket under the lock, by any thread, and nothing
   waits there: what the socket does not take goes to the outbox, for the minder.
2. Only the owner (the connection's thread), and a thread that runs a job for this
   client, may wait for room in its outbox, and only until a deadline.
3. ``Hub.left`` is called without the lock: the registry's lock comes before ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Final

from ...server.sockets.transport import DONTWAIT, Transport
from ..protocol.codec import close_frame, frame
from .lifecycle import CLOSED, CLOSING, OPEN, Hub, Lifecycle
from .limits import Limits
from .outbox import Outbox

__all__ = ["DROPPED", "GONE", "QUEUED", "SENT", "TAKEN", "SendingHalf", "offer_to_all"]

# What became of a frame.
GONE: Final = 0
SENT: Final = 1
QUEUED: Final = 2
DROPPED: Final = 3
TAKEN = (SENT, QUEUED)

# Replies held back to leave in one write; beyond this many bytes they go out.
MAX_HELD = 65536


class SendingHalf(Lifecycle):
    """Base of ``Connection``: everything that more than one thread may do to it."""

    __slots__ = (
        "_held",
        "_held_size",
        "_more",
        "_send",
        "_try_send",
        "_watched",
        "bytes_out",
        "dropped",
        "last_drained",
        "messages_out",
    )

    def __init__(self, client_id: str, transport: Transport, limits: Limits, hub: Hub) -> None:
        super().__init__(client_id, transport, limits, hub)
        self.messages_out = 0  # guarded by: _lock, as the next two
        self.bytes_out = 0
        self.dropped = 0
        self.last_drained = 0.0  # when the socket, once full, took bytes again
        self._send = transport.send
        self._try_send = transport.try_send
        self._held: list[bytes] = []  # guarded by: _lock; replies to frames of one read
        self._held_size = 0  # guarded by: _lock
        self._more = False  # only the owner; it has further messages to answer
        self._watched = False  # guarded by: _lock; the minder knows the descriptor

    def offer(self, data: bytes, droppable: bool = False, conflate: str | None = None) -> int:
        """Write a frame now, or queue it; never wait.

        A client that cannot keep up must not cost the others memory or time: what
        happens when its outbox is full is ``on_full`` of the limits.

        Args:
            data: one or more whole frames.
            droppable: it may be dropped rather than end a slow client.
            conflate: replace a queued frame that has the same key.

        Returns:
            ``SENT``, ``QUEUED``, ``DROPPED``, or ``GONE``: not open (any more).

        Threads:
            Any. Takes ``_lock`` briefly; never waits for the network.
        """
        with self._lock:
            if self._state != OPEN:
                return GONE
            if self._outbox is None and not self._held:
                # Nothing waits: one call hands the frame over. Nearly always.
                try:
                    written = self._send(data, DONTWAIT)
                except OSError:  # full, or broken: the long way finds out
                    written = 0
                if written == len(data):
                    self.bytes_out += written
                    self.messages_out += 1
                    return SENT
                if written:
                    self._keep_rest_locked(data, written, conflate)
                    return QUEUED
            if self._held:
                self._flush_held_locked()
            if self._outbox is None:
                done = self._write_locked(data, conflate)
            else:
                done = self._queue_locked(self._outbox, data, droppable, conflate)
            if done == DROPPED:
                return DROPPED
            if done != GONE:
                self.messages_out += 1
                return done
        self._hub.left(self)  # type: ignore[arg-type]  # Connection is the only subclass
        return GONE

    def answer(self, data: bytes) -> None:
        """Send the one automatic answer to a message; it may leave with the next ones.

        Threads:
            The owner; may wait for room in its outbox.
        """
        if self._more and self._outbox is None and self._held_size < MAX_HELD:
            with self._lock:
                if self._state == OPEN:
                    self._held.append(data)
                    self._held_size += len(data)
                    self.messages_out += 1
            return
        if self._held:
            with self._lock:
                data = self._take_held_locked(data)
        if self._outbox is not None and self._limits.waits:
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
            self._outbox is not None
            and self._limits.waits
            and not (droppable or conflate)
            and (patient or threading.get_ident() == self._thread_id)
        ):
            self._wait_for_room(len(data))
        return self.offer(data, droppable=droppable, conflate=conflate)

    def queued(self) -> tuple[int, int]:
        """Return how many bytes and messages wait in the outbox."""
        with self._lock:
            return (0, 0) if self._outbox is None else (self._outbox.size, len(self._outbox))

    def shut(self, code: int, reason: str, why: str) -> bool:
        """Send a close frame and arm the deadline for the peer's answer.

        Returns:
            False if the connection was closing already.

        Raises:
            ValueError: the code must not be sent.
        """
        data = close_frame(code, reason)
        with self._lock:
            if self._state != OPEN:
                return False
            self._close_locked(why, code, reason, data)
        self._hub.minder.call_later(self._limits.close_timeout, self.abort)
        self._hub.left(self)  # type: ignore[arg-type]  # Connection is the only subclass
        return True

    def _wait_for_room(self, size: int) -> None:
        """Wait until the outbox takes that much, the time is over or the client is gone."""
        deadline = time.monotonic() + self._limits.send_timeout
        with self._lock:
            room = self._room_locked()
            while self._outbox is not None and not self._outbox.has_room(size):
                rest = deadline - time.monotonic()
                if rest <= 0 or self._state != OPEN:
                    return
                room.wait(rest)

    def _queue_locked(
        self, outbox: Outbox, data: bytes, droppable: bool, conflate: str | None
    ) -> int:
        """Queue a frame behind others, as ``on_full`` says if there is no room."""
        before = outbox.dropped
        taken = outbox.admit(data, self._limits.on_full, droppable=droppable, key=conflate)
        self.dropped += outbox.dropped - before
        if taken and outbox.dropped == before:
            return QUEUED
        if taken is None or not (outbox.complained or conflate):
            outbox.complained = True
            self._hub.slow_consumer(self, outbox.size, len(outbox), cut=taken is None)  # type: ignore[arg-type]  # Connection is the only subclass
        if taken is None:
            self._cut_slow_locked(outbox)
            return GONE
        return QUEUED if taken else DROPPED

    def _write_locked(self, data: bytes, conflate: str | None = None) -> int:
        """Hand a frame to the socket; queue the rest for the minder."""
        try:
            written = self._try_send(data)
        except OSError:
            self._lose_locked()
            return GONE
        self.bytes_out += written
        if written == len(data):
            return SENT
        self._start_outbox_locked(data, written, conflate)
        return QUEUED

    def _keep_rest_locked(self, data: bytes, written: int, conflate: str | None) -> None:
        """Count a frame of which the socket took a part, and queue the rest."""
        self.bytes_out += written
        self.messages_out += 1
        self._start_outbox_locked(data, written, conflate)

    def _start_outbox_locked(self, data: bytes, written: int, conflate: str | None) -> None:
        """Leave the rest of a frame to the minder."""
        self._outbox = Outbox(self._limits.max_outbox, self._limits.max_outbox_messages)
        self._outbox.push(data, written, key=conflate)
        self._attend_locked()

    def _drain_outbox_locked(self) -> None:
        """Go on writing what is queued; for the minder, when the socket takes more."""
        outbox = self._outbox
        while outbox is not None and len(outbox):
            chunk = outbox.chunk()
            try:
                written = self._try_send(chunk)
            except OSError:
                self._lose_locked()
                return
            self.bytes_out += written
            if written:
                self.last_drained = time.monotonic()
            outbox.advance(written)
            if written < len(chunk):
                break
        if outbox is not None and not len(outbox):
            self._outbox = None
        if self._room is not None and (self._outbox is None or self._outbox.low):
            self._room.notify_all()

    def _flush_held_locked(self) -> None:
        if self._held and self._state == OPEN:
            held = self._take_held_locked(b"")
            if self._outbox is None:
                self._write_locked(held)
            else:
                self._outbox.push(held)

    def _take_held_locked(self, data: bytes) -> bytes:
        joined = b"".join((*self._held, data))
        self._held, self._held_size = [], 0
        return joined

    def control(self, opcode: int, data: bytes) -> bool:
        """Send a ping or pong, which no full outbox drops and which counts as no message.

        Returns:
            False if the connection is no longer open.
        """
        with self._lock:
            self._control_locked(opcode, data)
            open_ = self._state == OPEN
            gone = self._state == CLOSED
        if gone:
            self._hub.left(self)  # type: ignore[arg-type]  # Connection is the only subclass
        return open_

    def _control_locked(self, opcode: int, data: bytes) -> None:
        if self._state != OPEN:
            return
        if self._held:
            self._flush_held_locked()
        if self._outbox is None:
            self._write_locked(frame(opcode, data))
        else:
            self._outbox.push_control(frame(opcode, data), opcode)

    def _close_locked(self, why: str, code: int, reason: str, data: bytes) -> None:
        """Leave OPEN with a last frame; what is queued still goes before it."""
        self._note_locked(why, code, reason)
        if self._held:
            data = self._take_held_locked(data)
        if self._outbox is None:
            self._write_locked(data)
        else:
            self._outbox.push(data)
        if self._state == OPEN:
            self._state = CLOSING
        self._set_cancelled_locked()

    def _cut_slow_locked(self, outbox: Outbox) -> None:
        """End a client that does not read; say 1013 if it reads after all, for a moment."""
        self._note_locked("slow_consumer", 1013, "too slow")
        self.dropped += outbox.clear() + 1
        outbox.push(close_frame(1013, "too slow"))
        self._state = CLOSING
        self._ended = True
        self._set_cancelled_locked()
        self._attend_locked()
        self._hub.minder.call_later(self._limits.slow_close_timeout, self.abort)
        # Wakes the owner if it reads; the write side stays, for the close frame.
        self._transport.shutdown_read()

    def _attend_locked(self) -> None:
        self._watched = True
        self._hub.minder.attend(self)  # type: ignore[arg-type]  # Connection is the only subclass


def offer_to_all(
    connections: Iterable[SendingHalf], data: bytes, droppable: bool, conflate: str | None
) -> tuple[int, int, int]:
    """Offer one frame to many.

    The common case of ``offer`` is written out: a call for each client, with all that it
    looks up anew, was measured to cost a fifteenth of a delivery.

    Returns:
        How many took or queued it, how many of those queued it, and how many dropped it.
    """
    size, flags, reached, queued, dropped = len(data), DONTWAIT, 0, 0, 0
    for connection in connections:
        with connection._lock:
            if connection._state == OPEN and connection._outbox is None and not connection._held:
                try:
                    written = connection._send(data, flags)
                except OSError:
                    written = 0
                if written:
                    reached += 1
                    if written == size:
                        connection.bytes_out += size
                        connection.messages_out += 1
                    else:
                        connection._keep_rest_locked(data, written, conflate)
                        queued += 1
                    continue
        done = connection.offer(data, droppable, conflate)
        if done in TAKEN:
            reached += 1
            queued += done == QUEUED
        elif done == DROPPED:
            dropped += 1
    return reached, queued, dropped
