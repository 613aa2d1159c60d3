"""Everything that arrives on one connection: which thread reads, what waits, how it ends.

Rules of this module:

1. The owner (the connection's thread) reads, runs handlers and closes. While it is
   inside a handler the minder may read for it (``lent``); who reads is decided under
   the lock, so there are never two.
2. Messages are handed out in the order of arrival; a close frame is acted on after the
   messages before it, unless a handler is running.
3. The reader uses the writer, never the reverse.
4. What is done in one go under the lock, and on the minder's thread, is bounded, whatever
   the client has sent: senders wait for the lock, and other clients for the minder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from ...waits import monotonic
from ..protocol.codec import (
    MAX_HEADER,
    Closed,
    Codec,
    Event,
    close_frame,
    weigh,
    weigh_all,
)
from .controls import ControlFrames
from .states import OPEN
from .writer import Writer

__all__ = ["MAX_HEARTBEAT", "Interceptor", "Reader", "Watch"]

# Messages that are read ahead for a busy handler, at most: TCP slows down a client that
# floods, while pings and the close of an ordinary client are seen at once.
MAX_READ_AHEAD = 64

# Ends by the peer: the messages that came before are still handled.
_THEIRS = ("client", "lost")

# Characters of a heartbeat that is answered out of turn; with data and an id, and longer texts
# need not be looked at.
MAX_HEARTBEAT = 256

# The same while a call waits for its answer, which may come behind many messages.
MAX_WAITING = 1000

# Events that are sorted without letting go of the lock: less than a millisecond of work.
EVENTS_AT_ONCE = 256

# Bytes that the minder reads of one client before it turns to the next: frames without
# data, the worst that they may hold, take it some milliseconds.
READ_AHEAD_SIZE = 16384


class Interceptor(Protocol):
    """Takes messages out of turn: answers to calls, and cancels."""

    @property
    def waiting(self) -> bool:
        """True while a call waits for its answer."""

    def takes_locked(self, text: str) -> bool:
        """Take a message that waits for its turn; return False if it is an ordinary one."""


class Watch(Protocol):
    """Looks after handlers that take long."""

    dozing: bool

    def rouse(self) -> None:
        """Check again: a connection has become busy."""


class Reader:
    """The receiving half of a connection.

    Args:
        writer: the sending half; both share its lock.
        codec: of this connection alone.
        watch: told when the owner becomes busy.

    Attributes:
        turn: how often the owner has begun to read; an unchanged value means no progress.
        last_in: moment of the last byte received, by ``time.monotonic()``.
        last_message: moment of the last message, or else of the opening.
        interceptor: None until the first call or stoppable request.
        controls: the client's control frames.
        on_heartbeat: called with each short text, under the lock; returns the answer to a
            heartbeat, and None for any other message. None where there are none.
    """

    __slots__ = (
        "_codec", "_earlier", "_handed_out", "_lock", "_read", "_taken", "_watch",
        "_writer", "ahead", "bytes_in", "controls", "final", "inbox", "interceptor", "last_in",
        "last_message", "lent", "on_heartbeat", "reading", "turn",
    )  # fmt: skip

    def __init__(self, writer: Writer, codec: Codec, watch: Watch) -> None:
        self._writer = writer
        self._lock = writer.lock
        self._read = writer.transport.read
        self._codec = codec
        self._watch = watch
        # Two, since the owner counts without the lock.
        self._handed_out = 0
        self._taken = 0  # guarded by: _lock; out of turn
        self.bytes_in = 0
        self.turn = 0
        self.last_in = self.last_message = monotonic()
        self.controls = ControlFrames(self.last_in)
        self._earlier = self.last_in  # what ``last_message`` was before the one handled now
        self.reading = True  # the owner reads, and has the codec; stored last, see _take
        self.lent = False  # guarded by: _lock
        self.ahead = 0  # guarded by: _lock
        self.inbox: deque[str | bytes] = deque()
        self.final: Closed | None = None  # the codec's last event
        self.interceptor: Interceptor | None = None  # guarded by: _lock
        self.on_heartbeat: Callable[[str], bytes | None] | None = None

    # --- the owner's side -------------------------------------------------------

    def messages(self) -> Iterator[str | bytes]:
        """Yield each message once the one before has been handled; for the JSON path."""
        inbox, writer = self.inbox, self._writer
        while True:
            while inbox:
                cause = writer.cause  # unguarded: it is set once, before the state changes
                if cause is not None and cause.why not in _THEIRS:
                    return  # closed by us: the messages that are left are not handled
                message = inbox.popleft()
                writer.more = bool(inbox)
                self._handed_out += 1
                yield message
            if not self._pull(None):
                return

    def receive(self, deadline: float | None) -> str | bytes | None:
        """Wait for the next message, and return it.

        Args:
            deadline: moment of ``time.monotonic()``; None waits for ever.

        Returns:
            None if there will be no more.

        Raises:
            TimeoutError: no message came in time; one that has begun to arrive is not lost.
        """
        while not self.inbox:
            if not self._pull(deadline):
                return None
        self._handed_out += 1
        return self.inbox.popleft()

    def take(self, data: bytes) -> bool:
        """Decode bytes that were read; from now on the minder may read.

        Returns:
            False at the end of the stream.
        """
        self.last_in = now = monotonic()
        self.bytes_in += len(data)
        events = self._codec.feed(data)
        if len(events) == 1 and events[0].__class__ is str:  # the common case
            self.inbox.append(events[0])
            self._earlier, self.last_message = self.last_message, now
            # One store, after everything else: so the codec is handed over without a lock.
            self.reading = False
            return True
        done = 0
        while len(events) - done > EVENTS_AT_ONCE:
            with self._lock:
                self._sort_locked(events[done : done + EVENTS_AT_ONCE])
            done += EVENTS_AT_ONCE
        with self._lock:
            self.reading = False
            if not data:
                # We shut the read side of a slow consumer; its outbox may still empty.
                if not self._writer.ended:
                    self._writer.lose_locked()
                return False
            self._sort_locked(events[done:])
            self._answer_locked()
        return True

    def drain(self, deadline: float) -> None:
        """Read and discard until the peer has closed too, or the deadline passes.

        After a closing handshake nothing more can come, and the server closes first
        (RFC 6455 section 7.1.1).
        """
        transport = self._writer.transport
        self._drop()
        while self.final is None or self.final.failed:
            if self.final is not None:
                transport.shutdown_write()
            # Not a deadline of the minder: after a stop in this very thread there is none.
            try:
                data = transport.recv_until(deadline)
            except OSError:
                return
            if not data:
                return
            if self.final is None:
                self.take(data)
                self._drop()

    def _go_on(self) -> None:
        """Decode more of the last read; the minder may read from then on, if that is all."""
        events = self._codec.feed(b"")
        with self._lock:
            self.reading = False
            self._sort_locked(events)
            self._answer_locked()

    def _drop(self) -> None:
        """Drop the messages that were read; for the owner, who looks for the end alone."""
        self.inbox.clear()
        while self._codec.paused:
            self._go_on()
            self.inbox.clear()

    @property
    def messages_in(self) -> int:
        """Messages that were handed out or taken out of turn."""
        return self._handed_out + self._taken  # unguarded: one look

    @property
    def held(self) -> int:
        """Bytes kept of a message that has begun and not ended; 0 for none."""
        return self._codec.held

    def tell_of_begun(self, tell: Callable[[], None] | None) -> None:
        """Have that called for each message that does not come in one read."""
        self._codec.on_begun = tell

    def take_back(self) -> None:
        """Stop the minder's reading: the owner is about to close."""
        with self._lock:
            self.lent = False
            self.reading = True

    def take_cancels(self) -> None:
        """Act on cancels that were read already; called by the owner."""
        with self._lock:
            interceptor, inbox = self.interceptor, self.inbox
            if interceptor is not None:
                # Only the first ones: a client may have sent thousands in one write.
                for index in reversed(range(min(len(inbox), MAX_READ_AHEAD))):
                    text = inbox[index]
                    if isinstance(text, str) and interceptor.takes_locked(text):
                        del inbox[index]
                        self._taken += 1

    def _pull(self, deadline: float | None) -> bool:
        """Read once into the inbox.

        Returns:
            False if nothing more will come.
        """
        writer = self._writer
        with self._lock:
            self.lent = False
            if self.inbox:
                return True
            if writer.outlet.held:
                writer.flush_held_locked()
            if self.final is not None and not writer.ended:
                self._finish_locked(self.final)
            if writer.ended or writer.state != OPEN:
                return False  # ``drain`` reads what the peer still sends
            self.ahead = 0
            self.reading = True
            self.turn += 1
        if self._codec.paused:  # more of the last read, for which there was no room
            self._go_on()
            return True
        data: bytes | None
        try:
            data = self._read() if deadline is None else writer.transport.recv_until(deadline)
        except OSError:
            data = b""
        except BaseException:
            self.reading = False
            raise
        if data is None:
            self.reading = False
            raise TimeoutError("no message in time")
        more = self.take(data)
        # After the take, which marks us busy: the watch looks for busy connections once more
        # some time after it began to doze, so either it sees us or we see that it dozes.
        if self._watch.dozing:
            self._watch.rouse()
        return more

    def charge(self) -> None:
        """Charge a message that nobody waited for; for the owner. See ``charge_locked``."""
        with self._lock:
            self.charge_locked()

    def discount(self) -> None:
        """Charge the message that is being handled, which is a heartbeat; for the owner.

        It does not count as the client's last message.
        """
        with self._lock:
            self.last_message = self._earlier
            self.charge_locked()

    def charge_locked(self, count: int = 1) -> None:
        """Charge what a client may not send without end, and cut one that does.

        Pings, pongs and cancels, and answers that nobody waits for: they are no messages
        for which there are rates, and cost us work all the same.
        """
        assert self._lock.locked()
        writer = self._writer
        if writer.ended or self.controls.take(count, monotonic()):
            return
        self.ignore_rest_locked()
        if writer.state == OPEN:
            text = "too many control frames"
            writer.close_locked("rate_limited", 1008, text, close_frame(1008, text))

    def ignore_rest_locked(self) -> None:
        """Parse nothing any more of a client that is cut because it sends too much."""
        assert self._lock.locked()
        writer = self._writer
        # As after a broken rule: what comes is more of it, also behind the close frame.
        self.final = Closed(1008, "", b"", failed=True)
        writer.ended = True
        writer.runtime.minder.call_later(writer.limits.slow_close_timeout, writer.abort)

    # --- the minder's side ------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True while the owner is not waiting for its client."""
        return not self.reading and self._writer.open

    def lend(self, turn: int) -> None:
        """Let the minder read, if the owner is still in the same turn's handler."""
        writer = self._writer
        with self._lock:
            writer.flush_held_locked()
            if not (self.reading or writer.ended) and self.turn == turn:
                if self.final is not None:  # it came with the message being handled
                    self._finish_locked(self.final)
                else:
                    # Even if lent before: there may be room again for reading ahead.
                    if not self.lent:
                        self.ahead = weigh_all(self.inbox)
                    self.lent = True
                    writer.outlet.attend_locked()
            gone = writer.state != OPEN
        if gone:
            writer.on_gone()

    def listen(self) -> None:
        """Have the minder read at once if the owner is busy: a call awaits its answer."""
        if self._writer.is_owner():
            with self._lock:  # messages handled meanwhile no longer count
                self.ahead = min(self.ahead, weigh_all(self.inbox))
        self.lend(self.turn)

    def unread(self) -> bool:
        """Tell whether unread bytes wait in the socket while the owner is busy."""
        with self._lock:
            return self._codec.paused or (
                not self._writer.released and self._writer.transport.wait_readable(0)
            )

    def wants_more_locked(self) -> bool:
        """Tell whether the minder should read: it was allowed to, and there is room."""
        assert self._lock.locked()
        full = self.ahead >= self._writer.limits.max_message_size or self._room_locked() <= 0
        if full or not self.lent or self._writer.ended or self._codec.paused:
            return False
        waiting = self.interceptor is not None and self.interceptor.waiting
        return len(self.inbox) < (MAX_WAITING if waiting else MAX_READ_AHEAD)

    def _room_locked(self) -> int:
        """Return how many bytes may still be read ahead."""
        assert self._lock.locked()
        # One message of the largest size can be completed: an answer may be awaited.
        most = self._writer.limits.max_message_size + MAX_HEADER
        return most - self.ahead - self._codec.held

    def read_for_owner_locked(self) -> None:
        """Read the bytes that are there, unless the owner has come back."""
        assert self._lock.locked()
        if not self.lent or self._writer.ended:
            return
        try:
            size = max(1, min(READ_AHEAD_SIZE, self._room_locked()))
            data = self._writer.transport.try_recv(size)
        except OSError:
            data = b""
        if data is None:
            return
        if not data:
            self._writer.lose_locked()
            return
        self.last_in = monotonic()
        self.bytes_in += len(data)
        self.ahead += self._sort_locked(self._codec.feed(data, self.ahead))
        self._answer_locked()
        if self.final is not None:
            self._finish_locked(self.final)

    def _sort_locked(self, events: list[Event]) -> int:
        """Put messages into the inbox, note pings, pongs and the end.

        Returns:
            The size of the messages put into the inbox.
        """
        interceptor, beats, size, controls = self.interceptor, self.on_heartbeat, 0, 0
        for event in events:
            if isinstance(event, str | bytes):
                if beats is not None and len(event) <= MAX_HEARTBEAT and isinstance(event, str):
                    answer = beats(event)
                    if answer is not None:
                        self._taken += 1
                        controls += 1
                        self.controls.beat = answer
                        continue
                self._earlier = self.last_message = self.last_in
                if (
                    interceptor is not None
                    and isinstance(event, str)
                    and interceptor.takes_locked(event)
                ):
                    self._taken += 1
                    continue
                self.inbox.append(event)
                size += weigh(event)
            elif isinstance(event, Closed):
                self.final = event
            else:
                controls += 1
                self.controls.note(event)
        if controls:
            self.charge_locked(controls)
        return size

    def _answer_locked(self) -> None:
        assert self._lock.locked()
        for opcode, payload in self.controls.answers():
            self._writer.control_locked(opcode, payload)

    def _finish_locked(self, final: Closed) -> None:
        """Act on the codec's last event: the peer closed, or broke the rules."""
        assert self._lock.locked()
        writer = self._writer
        writer.ended = True
        if writer.state == OPEN:
            why = "protocol" if final.failed else "client"
            writer.close_locked(why, final.code, final.reason, final.answer)
