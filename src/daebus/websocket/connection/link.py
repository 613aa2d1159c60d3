"""One WebSocket as the server sees it: its two halves, its timers, and its end."""

from __future__ import annotations

import asyncio
import functools
import selectors
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...interrupts.flag import Flag
from ...interrupts.stack import check_outside, held, inside
from ...server.sockets.transport import Transport
from ...waits import monotonic
from ..protocol.codec import PING, Codec, close_frame
from ..runtime import Runtime
from .events import DisconnectInfo, SlowConsumerInfo
from .keepalive import Keepalive
from .lifetime import Lifetime
from .limits import Limits
from .progress import Progress
from .reader import Reader, Watch
from .states import CLOSED, CONNECTING, LOST, OPEN
from .writer import Writer

__all__ = ["Activity", "Link", "Peer"]

# Entries of metadata that an app may note about one client.
MAX_NOTES = 100


class Activity(Protocol):
    """The part of a connection's activity that the connection itself uses."""

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task of the async handler that runs, if any."""

    @property
    def running(self) -> str | None:
        """The type of the message being handled, or the name of the running hook."""

    def has_work(self) -> bool:
        """Tell whether a job runs for this client, or a call waits for its answer."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Facts about the other end, known when it connects and fixed from then on.

    Attributes:
        path: of the upgrade request, without the query.
        remote_address: host of the peer, or of the client behind a trusted proxy; an
            empty string on a Unix socket.
        secure: True if it connected with TLS (``wss``), to us or to a trusted proxy.
        user_agent: the ``User-Agent`` header; "" without one.
        subprotocol: the negotiated subprotocol, or None.
        connected_at: Unix time.
        query: of the upgrade request, still encoded.
        headers: its header lines, packed (``protocol.opening``).
        path_params: of a path with parameters.
        raw: it speaks to a raw handler.
    """

    path: str = "/"
    remote_address: str = ""
    secure: bool = False
    user_agent: str = ""
    subprotocol: str | None = None
    connected_at: float = 0.0
    query: str = ""
    headers: bytes = b""
    path_params: Mapping[str, Any] = field(default_factory=dict)
    raw: bool = False


class Link:
    """One WebSocket; what the minder watches and the registry knows.

    Args:
        transport: the socket; the link owns it from now on.
        codec: of this connection alone.
        limits: of this connection.
        runtime: threads that connections share.
        peer: facts about the other end.
        watch: told when the owner becomes busy.
        on_gone: called when the connection is no longer open, perhaps several times, without
            its lock.
        on_overflow: called when the outbox is full; under the lock, so it must not wait.

    Attributes:
        client_id: empty until the hub has set it.
        session: a dict for the app, which lives as long as the connection.
        identity: what ``authenticate`` returned, or ``renew`` was given.
        place: what it is counted as, for its address; the hub sets it.
        user: the name that ``identify`` gave; the registry sets it.
        activity: what the connection's thread is doing; set by the messages' side, None once
            the connection has ended.
    """

    __slots__ = (
        "__weakref__",
        "_cancelled",
        "_evicted",
        "_keepalive",
        "_lifetime",
        "_lock",
        "_notes",
        "_progress",
        "activity",
        "client_id",
        "identity",
        "limits",
        "opened_at",
        "peer",
        "place",
        "reader",
        "runtime",
        "session",
        "user",
        "writer",
    )

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        limits: Limits,
        runtime: Runtime,
        peer: Peer,
        *,
        watch: Watch,
        on_gone: Callable[[Link], None],
        on_overflow: Callable[[Link, SlowConsumerInfo], None],
    ) -> None:
        self.client_id = ""
        self.limits = limits
        self.runtime = runtime
        self.peer = peer
        self.writer = Writer(transport, codec, limits, runtime)
        self.reader = Reader(self.writer, codec, watch)
        self._lock = self.writer.lock
        self.writer.on_gone = functools.partial(on_gone, self)
        self.writer.outlet.on_overflow = lambda size, count, cut: on_overflow(
            self, SlowConsumerInfo(size, count, cut)
        )
        self.writer.outlet.attend = functools.partial(runtime.minder.attend, self)
        self.session: dict[str, Any] = {}
        self.identity: Any = None
        self.place: object = None
        self.user: str | None = None
        self.activity: Activity | None = None
        self.opened_at = self.reader.last_in  # by ``time.monotonic()``
        self._cancelled: threading.Event | None = None  # guarded by: _lock
        self._evicted = False  # guarded by: _lock
        self._notes: dict[str, Any] = {}  # guarded by: _lock
        self._keepalive: Keepalive | None = None
        self._progress: Progress | None = None  # only who reads
        self._lifetime: Lifetime | None = None  # guarded by: _lock

    def __repr__(self) -> str:
        peer = self.peer
        return f"<Connection {self.client_id} from {peer.remote_address} path={peer.path!r}>"

    # --- from the 101 to the close, in the connection's thread ------------------

    def begin(self, response: bytes, early: bytes, expires: float | None = None) -> bool:
        """Take over in the connection's thread: answer the handshake, then open.

        Args:
            response: the whole 101.
            early: bytes that came behind the request; parsed after the 101 is out.
            expires: when the client's identity expires, in Unix seconds; None for never.

        Returns:
            False if the client has gone.
        """
        if not self.writer.begin(response):
            return False
        self.reader.reading = False
        if self.limits.message_timeout is not None:
            self.reader.tell_of_begun(self._message_begun)
        if early:
            self.reader.take(early)
        if self.limits.ping_interval is not None:
            self._keepalive = Keepalive(self, self.runtime.minder, self.limits)
            self.reader.controls.on_pong = self._keepalive.answered
        if expires is not None or self.limits.ends:
            lifetime = Lifetime(self, self.runtime.minder, self.limits, expires)
            with self._lock:
                self._lifetime = lifetime
        with self._lock:
            evicted = self._evicted
        if evicted:
            self.evict()
        return True

    def end(self) -> None:
        """Stop sending and receiving, with a close frame unless one was sent; never wait."""
        with self._lock:
            if self.writer.state == OPEN:  # a raw handler returned
                self.writer.close_locked("server", 1000, "", close_frame(1000))
            # These are reference cycles, which are not left to the garbage collector.
            keepalive, self._keepalive = self._keepalive, None
            lifetime, self._lifetime = self._lifetime, None
            self.reader.tell_of_begun(None)
            progress, self._progress = self._progress, None
        self.reader.controls.on_pong = None
        for timer in (keepalive, lifetime, progress):
            if timer is not None:
                timer.stop()

    def _message_begun(self) -> None:
        if self._progress is None:
            self._progress = Progress(self, self.runtime.minder, self.limits)
        self._progress.begin()

    def finish(self) -> None:
        """Send the last bytes, then close: the owner's last act.

        Closing a socket with unread input sends a reset, which would destroy the close
        frame on its way. So the write side is shut first and the rest is drained, for
        ``close_timeout`` at most.
        """
        deadline = monotonic() + self.limits.close_timeout
        self.reader.take_back()
        if self.writer.drain(deadline):
            self.reader.drain(deadline)
        if self.forget():
            self.runtime.minder.release(self)
        else:
            self.writer.transport.close()

    def forget(self) -> bool:
        """Drop what refers back to the link, so that its last reference frees it.

        Returns:
            True if the minder knows the descriptor, so that it must close it.
        """
        self.activity = None
        return self.writer.finish()

    # --- what the minder asks ---------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self.writer.transport.fileno()

    def interest(self) -> int:
        """Return the selector events to watch for."""
        with self._lock:
            if self.writer.state == CLOSED:
                return 0
            events = selectors.EVENT_WRITE if self.writer.outlet.outbox is not None else 0
            if self.reader.wants_more_locked():
                events |= selectors.EVENT_READ
            return events

    def ready(self, events: int) -> None:
        """Go on writing, and read for a busy owner."""
        with self._lock:
            if events & selectors.EVENT_WRITE:
                self.writer.drain_outbox_locked()
            if events & selectors.EVENT_READ:
                self.reader.read_for_owner_locked()
            gone = self.writer.state != OPEN
        if gone:
            self.writer.on_gone()

    def release(self) -> None:
        """Close; called by the minder once it no longer watches the descriptor."""
        self.writer.transport.close()

    # --- what the timers ask ----------------------------------------------------

    @property
    def open(self) -> bool:
        """True until either side began to close."""
        return self.writer.open

    @property
    def busy(self) -> bool:
        """True while its thread is not waiting for the client."""
        return self.reader.busy

    @property
    def last_life(self) -> float:
        """When the peer last showed a sign of life, by ``time.monotonic()``.

        A full socket that takes bytes again counts: the peer has received some.
        """
        return max(self.reader.last_in, self.writer.outlet.last_drained)

    @property
    def last_in(self) -> float:
        """When the last byte arrived."""
        return self.reader.last_in

    @property
    def last_message(self) -> float:
        """When the last message arrived, or else when the connection opened."""
        return self.reader.last_message

    @property
    def held(self) -> int:
        """Bytes kept of a message that has begun and not ended; 0 for none."""
        return self.reader.held

    def has_work(self) -> bool:
        """Tell whether a job runs for its client, or a call waits for the client's answer."""
        activity = self.activity
        return activity is not None and activity.has_work()

    def ping(self, data: bytes) -> bool:
        """Send a ping; return False if the connection is no longer open."""
        return self.writer.control(PING, data)

    def unread(self) -> bool:
        """Tell whether unread bytes wait in the socket while the owner is busy."""
        return self.reader.unread()

    def lose(self, why: str, text: str) -> None:
        """Give up a peer that is silent."""
        self.writer.lose(why, text)

    def shut(self, code: int, reason: str, why: str, last: bytes = b"") -> bool:
        """Send a close frame; see ``Writer.shut``."""
        return self.writer.shut(code, reason, why, last)

    def evict(self) -> None:
        """Make room for a newer connection of the same client.

        The thread leaves its ``recv`` at once, whether or not the peer answers the close frame,
        so that its hooks run as soon as its handler has ended.

        Threads:
            Any; never waits.
        """
        writer = self.writer
        with self._lock:
            if writer.state == CONNECTING:
                self._evicted = True  # told as soon as it is open, a moment from now
                return
        self.shut(4409, "replaced by a newer connection", "replaced")
        with self._lock:
            if not writer.released:
                writer.ended = True
                writer.transport.shutdown_read()

    # --- what is known about it -------------------------------------------------

    @property
    def cancelled(self) -> threading.Event:
        """Set as soon as the connection is no longer open, even while its handler runs."""
        made = self._cancelled  # unguarded: made once
        if made is not None:
            return made
        check_outside("cancelled", self._lock)
        with self._lock:
            if self._cancelled is None:
                self._cancelled = Flag()
                self.writer.on_end.append(self._cancelled.set)
                if self.writer.state > OPEN:
                    self._cancelled.set()
            return self._cancelled

    @property
    def round_trip(self) -> float | None:
        """Seconds between our last ping and its pong; None before the first pong."""
        keepalive = self._keepalive
        return None if keepalive is None else keepalive.round_trip

    def renew(self, identity: Any, expires: float | None) -> bool:
        """Replace the identity.

        Returns:
            False if the connection is no longer open.

        Threads:
            Any; never waits.
        """
        if (held.count or self._lock.locked()) and inside():
            self.runtime.minder.call_later(0.0, functools.partial(self.renew, identity, expires))
            return self.open
        with self._lock:
            if self.writer.state != OPEN:
                return False
            lifetime = self._lifetime
            if lifetime is None:  # nothing needed a timer so far
                lifetime = Lifetime(self, self.runtime.minder, self.limits, expires)
                self._lifetime = lifetime
        return lifetime.renew(identity, expires)

    def note(self, values: Mapping[str, Any]) -> None:
        """Keep entries that the app notes about this client.

        Raises:
            ValueError: there would be more than ``MAX_NOTES``.
        """
        if (held.count or self._lock.locked()) and inside():
            self.runtime.minder.call_later(0.0, functools.partial(self.note, values))
            return
        with self._lock:
            before = self._notes  # the replaced values are freed after the lock
            notes = {**before, **values}
            if len(notes) <= MAX_NOTES:
                self._notes = notes
        del before
        if len(notes) > MAX_NOTES:
            raise ValueError(
                f"client {self.client_id} would have {len(notes)} entries of metadata, and "
                f"{MAX_NOTES} are the most; put a dict into one of them"
            )

    def notes(self) -> dict[str, Any]:
        """Return a copy of what the app noted."""
        return dict(self._notes)  # unguarded: replaced as a whole

    def account(self) -> DisconnectInfo:
        """Return the cause of its end (``lost`` while it is open) and its counts."""
        if (held.count or self._lock.locked()) and inside():
            return self._account()
        with self._lock:  # who has just received a message finds it counted
            return self._account()

    def _account(self) -> DisconnectInfo:
        reader, writer = self.reader, self.writer
        cause = writer.cause or LOST  # unguarded: one look
        return DisconnectInfo(
            cause.why,
            cause.code,
            monotonic() - self.opened_at,
            reader.messages_in,
            writer.messages_out,  # unguarded: one look
            reader.bytes_in,
            writer.outlet.bytes_out,  # unguarded: one look
            writer.outlet.dropped,  # unguarded: one look
        )
