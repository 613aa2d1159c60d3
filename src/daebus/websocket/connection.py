"""One open WebSocket: what its thread does, and what handlers see of it.

Rules of this module:

1. The owner (the connection's thread) reads, runs handlers and closes. While it is
   inside a handler the minder may read for it (``lent``); who reads is decided under
   the lock, so there are never two.
2. Messages leave in the order in which they came; a close frame is acted on after the
   messages before it, unless a handler is running.
3. The descriptor is closed by the owner, through the minder if that ever watched it.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from ..errors import ConnectionClosed, StateError
from ..server.transport import RECV_SIZE, Transport
from .codec import BINARY, PING, TEXT, Closed, Codec, Event, Ping, close_frame, frame
from .heartbeat import Heartbeat
from .info import DisconnectInfo, Times
from .limits import Limits
from .sending import CLOSED, GONE, OPEN, Hub, SendingHalf

__all__ = ["Connection", "current"]

# Read on behalf of a busy handler at most this many messages: a client that floods is
# slowed by TCP, while pings and the close of an ordinary one are seen at once.
MAX_READ_AHEAD = 64

# The connection whose message is being handled. A context variable, because the async
# handlers of all connections share one thread.
current: ContextVar[Connection] = ContextVar("daebus_connection")


class Connection(SendingHalf):
    """A raw WebSocket connection.

    Handlers get it as ``req.websocket``; raw handlers get it as their argument and
    iterate over it. ``send``, ``close`` and ``ping`` may be called from any thread;
    receiving is for the thread that runs the handler.

    Attributes:
        client_id: unique and unguessable.
        path: of the upgrade request, without the query.
        remote_address: host of the peer.
        subprotocol: the negotiated one, or None.
        connected_at: a moment of ``time.monotonic()``.
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
        "_watch",
        "bytes_in",
        "client_id",
        "connected_at",
        "last_in",
        "messages_in",
        "path",
        "remote_address",
        "running",
        "subprotocol",
        "task",
        "times",
        "turn",
    )

    def __init__(
        self,
        client_id: str,
        transport: Transport,
        codec: Codec,
        limits: Limits,
        hub: Hub,
        *,
        path: str = "/",
        remote_address: str = "",
        subprotocol: str | None = None,
    ) -> None:
        super().__init__(transport, limits, hub)
        self.client_id = client_id
        self.path = path
        self.remote_address = remote_address
        self.subprotocol = subprotocol
        self.connected_at = self.last_in = time.monotonic()
        self.messages_in = 0
        self.bytes_in = 0
        # For the minder, which looks from outside: the same turn twice is no progress.
        self.turn = 0
        self.running: str | None = None  # type of the message that is being handled
        self.task: asyncio.Task[Any] | None = None  # of an async handler that runs
        self.times: dict[str, Times] = {}  # how long handlers took, by message type
        self._recv = transport.recv
        self._watch = hub.watch
        self._codec = codec
        self._heartbeat: Heartbeat | None = None
        self._reading = True  # guarded by: _lock; the owner reads, and has the codec
        self._lent = False  # guarded by: _lock; the minder reads, and has the codec
        self._ahead = 0  # guarded by: _lock; bytes that the minder has read for us
        self._inbox: deque[str | bytes] = deque()
        self._final: Closed | None = None  # the codec's last event

    def __repr__(self) -> str:
        return f"<Connection {self.client_id} from {self.remote_address} path={self.path!r}>"

    def __iter__(self) -> Iterator[str | bytes]:
        """Yield messages until the connection ends."""
        while True:
            try:
                yield self.recv()
            except ConnectionClosed:
                return

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Wait for the next message.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            A text message as ``str``, a binary one as ``bytes``.

        Raises:
            ConnectionClosed: there will be none.
            TimeoutError: the time passed first; a message that has begun is not lost.
            StateError: called from another thread than the handler's.
        """
        if threading.get_ident() != self._thread_id:
            raise StateError(
                "recv() belongs to the connection's own thread; call it in a handler that is "
                "not async"
            )
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._inbox:
            if not self._pull(deadline):
                raise ConnectionClosed(self._code, self._text)
        self.messages_in += 1
        return self._inbox.popleft()

    def send(self, message: str | bytes) -> bool:
        """Send a text message (``str``) or a binary one (``bytes``).

        Returns:
            False if the connection is no longer open.

        Threads:
            Any. In the handler's own thread it may wait for room in the outbox, up to
            ``send_timeout``; elsewhere it never waits.
        """
        if isinstance(message, str):
            return self.reply(self._codec.compress(TEXT, message.encode()))
        return self.reply(self._codec.compress(BINARY, bytes(message)))

    def ping(self, data: bytes = b"") -> bool:
        """Send a ping; the client's pong proves that it is alive.

        Args:
            data: 125 bytes at most.

        Returns:
            False if the connection is no longer open.
        """
        if len(data) > 125:
            raise ValueError(f"a ping carries 125 bytes at most, not {len(data)}")
        return self.offer(frame(PING, data)) != GONE

    def close(self, code: int = 1000, reason: str = "") -> bool:
        """Start the closing handshake; what was sent before still arrives.

        The client gets ``close_timeout`` to answer, then the connection is cut.

        Args:
            code: 1000, 1001, 1008, 1011 or 3000 to 4999, among others.
            reason: 123 bytes of UTF-8 at most; a longer text is cut.

        Returns:
            False if it was closing already.

        Raises:
            ValueError: the code must not be sent.

        Threads:
            Any; never waits.
        """
        return self.shut(code, reason, "server")

    @property
    def compression(self) -> object:
        """Connections with equal values can be sent the same text frames."""
        return self._codec.compression

    def text_frame(self, payload: bytes) -> bytes:
        """Build a text frame, compressed if that was negotiated."""
        return self._codec.compress(TEXT, payload)

    # --- the owner's side -------------------------------------------------------

    def begin(self, response: bytes, early: bytes) -> bool:
        """Take over in the connection's thread: answer the handshake, then open.

        Args:
            response: the whole 101.
            early: bytes that came behind the request; parsed after the 101 is out.

        Returns:
            False if the client has gone.
        """
        self._thread_id = threading.get_ident()
        current.set(self)
        with self._lock:
            try:
                whole = self._try_send(response) == len(response)
            except OSError:
                whole = False
            if not whole:
                self._lose_locked()
                return False
            self._state = OPEN
            self._reading = False
        if early:
            self._take(early)
        if self._limits.ping_interval is not None:
            self._heartbeat = Heartbeat(self, self._hub.minder, self._limits)
        return True

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
        if self._heartbeat is not None:
            self._heartbeat.stop()
        with self._lock:
            if self._state == OPEN:  # a raw handler returned
                self._close_locked("server", 1000, "", close_frame(1000))

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
            if not self._transport.wait_readable(deadline - time.monotonic()):
                return
            try:
                data = self._recv(RECV_SIZE)
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
        if deadline is not None and not self._transport.wait_readable(deadline - time.monotonic()):
            self._reading = False
            raise TimeoutError("no message in time")
        try:
            data = self._recv(RECV_SIZE)
        except OSError:
            data = b""
        if self._watch.dozing:
            self._watch.rouse()
        return self._take(data)

    def _take(self, data: bytes) -> bool:
        """Put what was read through the codec; from now on the minder may read.

        Returns:
            False at the end of the stream.
        """
        self.last_in = time.monotonic()
        self.bytes_in += len(data)
        events = self._codec.feed(data)
        if len(events) == 1 and events[0].__class__ is str:  # nearly always
            self._inbox.append(events[0])
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

    def _sort_locked(self, events: list[Event]) -> None:
        """Messages wait in the inbox, pings are answered, the end is noted."""
        for event in events:
            if isinstance(event, str | bytes):
                self._inbox.append(event)
            elif isinstance(event, Ping):
                self._pong_locked(event.data)
            elif isinstance(event, Closed):
                self._final = event

    def _finish_locked(self, final: Closed) -> None:
        """Act on the codec's last event: the peer closed, or broke the rules."""
        self._ended = True
        if self._state == OPEN:
            why = "protocol" if final.failed else "client"
            self._close_locked(why, final.code, final.reason, final.answer)

    # --- the minder's side ------------------------------------------------------

    @property
    def thread_id(self) -> int:
        """Identifier of the connection's thread, as in ``threading.get_ident``."""
        return self._thread_id

    def account(self) -> DisconnectInfo:
        """Return why it ended (``lost`` while it has not) and its counts."""
        with self._lock:
            return DisconnectInfo(
                self.why,
                self._code,
                time.monotonic() - self.connected_at,
                self.messages_in,
                self.messages_out,
                self.bytes_in,
                self.bytes_out,
                self.dropped,
            )

    @property
    def busy(self) -> bool:
        """True while the owner is not waiting for its client."""
        return not self._reading and self._state == OPEN

    def lend(self, turn: int) -> None:
        """Let the minder read, if the owner is still in the handler of that turn."""
        with self._lock:
            self._flush_held_locked()
            if not (self._reading or self._lent or self._ended) and self.turn == turn:
                self._lent = True
                self._attend_locked()

    def lose(self, why: str, text: str) -> None:
        """Give up a peer that is silent: leave the registry, cut the connection."""
        with self._lock:
            self._note_locked(why, 1006, text)
            self._lose_locked()
        self._hub.left(self)
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
            if (
                self._lent
                and not self._ended
                and len(self._inbox) < MAX_READ_AHEAD
                and self._ahead < self._limits.max_message_size
            ):
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
            self._hub.left(self)

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
        self._ahead += len(data)
        self._sort_locked(self._codec.feed(data))
        if self._final is not None:
            self._finish_locked(self._final)
