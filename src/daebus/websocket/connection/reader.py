"""The reading half of a connection: who reads, what waits, and how it ends.

Rules of this module:

1. The owner (the connection's thread) reads, runs handlers and closes. While it is
   inside a handler the minder may read for it (``lent``); who reads is decided under
   the lock, so there are never two.
2. Messages leave in the order in which they came; a close frame is acted on after the
   messages before it, unless a handler is running.
3. The descriptor is closed by the owner, through the minder if that ever watched it.
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Iterator

from ...server.sockets.transport import RECV_SIZE, Transport
from ..protocol.codec import PONG, Closed, Codec, Event, Ping, Pong, close_frame
from .keepalive import Keepalive
from .lifecycle import CLOSED, OPEN, Hub
from .lifetime import Lifetime
from .limits import Limits
from .writer import SendingHalf

__all__ = ["ReadingHalf"]

# Read on behalf of a busy handler at most this many messages: a client that floods is
# slowed by TCP, while pings and the close of an ordinary one are seen at once.
MAX_READ_AHEAD = 64

# While a call waits for its answer, which may come behind many messages.
MAX_WAITING = 1000


class ReadingHalf(SendingHalf):
    """Between ``SendingHalf`` and ``Connection``: the loop of the owner, and its stand-in.

    Attributes:
        turn: how often the owner has begun to read; the same twice is no progress.
        last_in: moment of the last byte received, of ``time.monotonic()``.
        last_message: that of the last message, or of the opening.
    """

    __slots__ = (
        "_ahead",
        "_codec",
        "_final",
        "_heartbeat",
        "_inbox",
        "_lent",
        "_reading",
        "_recv",
        "_term",
        "_watch",
        "bytes_in",
        "last_in",
        "last_message",
        "messages_in",
        "turn",
    )

    def __init__(
        self, client_id: str, transport: Transport, codec: Codec, limits: Limits, hub: Hub
    ) -> None:
        super().__init__(client_id, transport, limits, hub)
        self.messages_in = 0
        self.bytes_in = 0
        self.turn = 0
        self.last_in = self.last_message = time.monotonic()
        self._recv = transport.recv
        self._watch = hub.watch
        self._codec = codec
        self._heartbeat: Keepalive | None = None
        self._term: Lifetime | None = None
        self._reading = True  # guarded by: _lock; the owner reads, and has the codec
        self._lent = False  # guarded by: _lock; the minder reads, and has the codec
        self._ahead = 0  # guarded by: _lock; bytes that the minder has read for us
        self._inbox: deque[str | bytes] = deque()
        self._final: Closed | None = None  # the codec's last event

    def messages(self) -> Iterator[str | bytes]:
        """Yield each message once the one before has been handled; for the JSON path."""
        inbox = self._inbox
        while True:
            while inbox:
                if self._state != OPEN and self._why not in ("client", "lost"):
                    return  # we ended it: what is left is not ours to handle
                message = inbox.popleft()
                self._more = bool(inbox)
                self.messages_in += 1
                yield message
            if not self._pull(None):
                return

    def end(self) -> None:
        """Stop sending and receiving; say goodbye if nobody did. Does not wait."""
        with self._lock:
            if self._state == OPEN:  # a raw handler returned
                self._close_locked("server", 1000, "", close_frame(1000))
            # They refer to us as we to them, which is not left to the collector.
            heartbeat, self._heartbeat = self._heartbeat, None
            term, self._term = self._term, None
        for timed in (heartbeat, term):
            if timed is not None:
                timed.stop()

    def finish(self) -> None:
        """Let the last bytes go, then close: the owner's last act.

        Closing a socket with unread input sends a reset, which would destroy the close
        frame on its way. So the write side is shut first and the rest is drained, for
        ``close_timeout`` at most.
        """
        deadline = time.monotonic() + self._limits.close_timeout
        with self._lock:
            self._lent = False
            self._reading = True
            room = self._room_locked()
            while self._outbox is not None and time.monotonic() < deadline:
                room.wait(deadline - time.monotonic())
            lost = self._state == CLOSED
        if not lost:
            self._drain(deadline)
        with self._lock:
            self._state = CLOSED
            self._outbox = None
            self._released = True
            watched = self._watched
        if watched:
            self._hub.minder.release(self)
        else:
            self._transport.close()

    def _drain(self, deadline: float) -> None:
        """Read and drop until the peer has closed too, or the deadline passes.

        After a closing handshake nothing more can come, and the server closes first
        (RFC 6455 section 7.1.1).
        """
        while self._final is None or self._final.failed:
            if self._final is not None:
                self._transport.shutdown_write()
            # Not the minder's deadline: after a stop in this very thread there is none.
            try:
                data = self._transport.recv_until(deadline)
            except OSError:
                return
            if not data:
                return
            if self._final is None:
                self._take(data)
                self._inbox.clear()

    def _pull(self, deadline: float | None) -> bool:
        """Read once into the inbox.

        Returns:
            False if nothing more will come.
        """
        with self._lock:
            self._lent = False
            if self._inbox:
                return True
            if self._held:
                self._flush_held_locked()
            if self._final is not None and not self._ended:
                self._finish_locked(self._final)
            if self._ended or self._state != OPEN:
                return False  # what the peer still says is for ``finish``
            self._ahead = 0
            self._reading = True
            self.turn += 1
        data: bytes | None
        try:
            if deadline is None:
                data = self._recv(RECV_SIZE)
            else:
                data = self._transport.recv_until(deadline)
        except OSError:
            data = b""
        if data is None:
            self._reading = False
            raise TimeoutError("no message in time")
        more = self._take(data)
        # After the take, which says that we are busy: the watch looks for busy ones once
        # more when it has begun to doze, so one of us sees the other.
        if self._watch.dozing:
            self._watch.rouse()
        return more

    def _take(self, data: bytes) -> bool:
        """Put what was read through the codec; from now on the minder may read.

        Returns:
            False at the end of the stream.
        """
        self.last_in = now = time.monotonic()
        self.bytes_in += len(data)
        events = self._codec.feed(data)
        if len(events) == 1 and events[0].__class__ is str:  # nearly always
            self._inbox.append(events[0])
            self.last_message = now
            # One store, after everything else: it needs no lock to hand the codec over.
            self._reading = False
            return True
        with self._lock:
            self._reading = False
            if not data:
                # A slow consumer's read side was shut by us; its outbox may still empty.
                if not self._ended:
                    self._lose_locked()
                return False
            self._sort_locked(events)
        return True

    def _sort_locked(self, events: list[Event]) -> int:
        """Messages wait in the inbox, pings are answered, pongs and the end are noted.

        Returns:
            The size of the messages that wait.
        """
        aside, size = self._aside, 0
        for event in events:
            if isinstance(event, str | bytes):
                self.last_message = self.last_in
                if aside is not None and isinstance(event, str) and aside.takes_locked(event):
                    self.messages_in += 1
                    continue
                self._inbox.append(event)
                size += len(event)
            elif isinstance(event, Ping):
                self._control_locked(PONG, event.data)
            elif isinstance(event, Pong):
                if self._heartbeat is not None:
                    self._heartbeat.answered(event.data)
            elif isinstance(event, Closed):
                self._final = event
        return size

    def _finish_locked(self, final: Closed) -> None:
        """Act on the codec's last event: the peer closed, or broke the rules."""
        self._ended = True
        if self._state == OPEN:
            why = "protocol" if final.failed else "client"
            self._close_locked(why, final.code, final.reason, final.answer)

    # --- the minder's side ------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True while the owner is not waiting for its client."""
        return not self._reading and self._state == OPEN

    def lend(self, turn: int) -> None:
        """Let the minder read, if the owner is still in the handler of that turn."""
        with self._lock:
            self._flush_held_locked()
            if not (self._reading or self._ended) and self.turn == turn:
                if self._final is not None:  # it came with the message that is handled now
                    self._finish_locked(self._final)
                else:
                    # Lent or not: there may be room again for reading ahead.
                    self._lent = True
                    self._attend_locked()
            gone = self._state != OPEN
        if gone:
            self._hub.left(self)  # type: ignore[arg-type]  # Connection is the only subclass

    def listen(self) -> None:
        """Have the minder read at once, if the owner is busy: an answer is awaited."""
        if self.is_owner():
            with self._lock:  # what has been handled meanwhile waits no longer
                self._ahead = min(self._ahead, sum(map(len, self._inbox)))
        self.lend(self.turn)

    def look_aside(self) -> None:
        """Act on cancels that were read already; for the owner, when a request can stop."""
        with self._lock:
            aside, inbox = self._aside, self._inbox
            if aside is not None:
                # Not all of them: a client may have sent thousands in one write.
                for index in reversed(range(min(len(inbox), MAX_READ_AHEAD))):
                    text = inbox[index]
                    if isinstance(text, str) and aside.takes_locked(text):
                        del inbox[index]
                        self.messages_in += 1

    def lose(self, why: str, text: str) -> None:
        """Give up a peer that is silent: leave the registry, cut the connection."""
        with self._lock:
            self._note_locked(why, 1006, text)
            self._lose_locked()
        self._hub.left(self)  # type: ignore[arg-type]  # Connection is the only subclass
        self.abort()

    def unread(self) -> bool:
        """Tell whether bytes wait that the owner is too busy to read."""
        with self._lock:
            return not self._released and self._transport.wait_readable(0)

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._transport.fileno()

    def interest(self) -> int:
        """Return the selector events to watch for."""
        with self._lock:
            if self._state == CLOSED:
                return 0
            events = selectors.EVENT_WRITE if self._outbox is not None else 0
            if self._lent and not self._ended and self._ahead < self._limits.max_message_size:
                waiting = self._aside is not None and self._aside.waiting
                if len(self._inbox) < (MAX_WAITING if waiting else MAX_READ_AHEAD):
                    events |= selectors.EVENT_READ
            return events

    def ready(self, events: int) -> None:
        """Go on writing, and read for a busy owner."""
        with self._lock:
            if events & selectors.EVENT_WRITE:
                self._drain_outbox_locked()
            if events & selectors.EVENT_READ and self._lent and not self._ended:
                self._read_for_owner_locked()
            gone = self._state != OPEN
        if gone:
            self._hub.left(self)  # type: ignore[arg-type]  # Connection is the only subclass

    def release(self) -> None:
        """Close: the minder watches no longer."""
        self._transport.close()

    def _read_for_owner_locked(self) -> None:
        try:
            data = self._transport.try_recv()
        except OSError:
            data = b""
        if data is None:
            return
        if not data:
            self._lose_locked()
            return
        self.last_in = time.monotonic()
        self.bytes_in += len(data)
        self._ahead += self._sort_locked(self._codec.feed(data))
        if self._final is not None:
            self._finish_locked(self._final)
