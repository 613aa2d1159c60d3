"""One open WebSocket, as handlers see it; its halves are ``reading`` and ``sending``."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ...errors import ConnectionClosed, StateError
from ...server.sockets.transport import Transport
from ..messages.ratelimit import Rate, RateLimiter
from ..protocol.codec import BINARY, PING, TEXT, Codec
from ..protocol.envelope import MAX_ECHO
from .events import DisconnectInfo, Times
from .keepalive import Keepalive
from .lifecycle import OPEN, Hub
from .lifetime import Lifetime
from .limits import Limits
from .reader import ReadingHalf
from .writer import TAKEN

if TYPE_CHECKING:
    from ..messages.request import WebSocketRequest

__all__ = ["Connection", "current"]

# Entries of metadata that an app may note about one client.
MAX_NOTES = 100

# The connection whose message is being handled. A context variable, because the async
# handlers of all connections share one thread.
current: ContextVar[Connection] = ContextVar("daebus_connection")


class Connection(ReadingHalf):
    """A raw WebSocket connection.

    Handlers get it as ``req.websocket``; raw handlers get it as their argument and
    iterate over it. ``send``, ``close`` and ``ping`` may be called from any thread;
    receiving is for the thread that runs the handler.

    Attributes:
        client_id: unique; unguessable, unless the app chooses ids.
        path: of the upgrade request, without the query.
        remote_address: host of the peer, an empty string on a Unix socket; behind a
            trusted proxy, of the client.
        subprotocol: the negotiated one, or None.
        secure: it came over TLS, as ``wss``, to us or to a trusted proxy.
        user_agent: what the client calls itself, 512 characters at most; "" if nothing.
        session: a dict for the app, for as long as the connection.
        connected_at: a moment of ``time.monotonic()``.
        user: what the ``authenticate`` function returned; None without one.
    """

    __slots__ = (
        "_notes",
        "connected_at",
        "connected_time",
        "errors",
        "hook",
        "meter",
        "path",
        "remote_address",
        "request",
        "secure",
        "session",
        "subprotocol",
        "task",
        "times",
        "user",
        "user_agent",
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
        secure: bool = False,
        user_agent: str = "",
    ) -> None:
        super().__init__(client_id, transport, codec, limits, hub)
        self.path = path
        self.remote_address = remote_address
        self.subprotocol = subprotocol
        self.secure = secure
        self.user_agent = user_agent
        self.session: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}  # guarded by: _lock; what the app noted about it
        self.connected_at = self.last_in
        self.connected_time = time.time()
        self.request: WebSocketRequest | None = None  # that is being handled
        self.hook: str | None = None  # a hook or raw handler that runs in place of one
        self.user: Any = None
        self.meter: RateLimiter | None = None  # only the owner; made when a rate applies
        self.task: asyncio.Task[Any] | None = None  # of an async handler that runs
        self.errors: dict[str, int] = {}  # how many were sent, by code
        self.times: dict[str, Times] = {}  # how long handlers took, by message type

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
            return self.reply(self._codec.compress(TEXT, message.encode())) in TAKEN
        return self.reply(self._codec.compress(BINARY, bytes(message))) in TAKEN

    def ping(self, data: bytes = b"") -> bool:
        """Send a ping; the client's pong proves that it is alive.

        Args:
            data: 125 bytes at most.

        Returns:
            False if the connection is no longer open.
        """
        if len(data) > 125:
            raise ValueError(f"a ping carries 125 bytes at most, not {len(data)}")
        return self.control(PING, data)

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

    # --- for the library --------------------------------------------------------

    @property
    def running(self) -> str | None:
        """What runs: the type of the message that is being handled, or a hook's name."""
        request = self.request
        return self.hook if request is None else request.message_type[:MAX_ECHO]

    @property
    def thread_id(self) -> int:
        """Identifier of the connection's thread, as in ``threading.get_ident``."""
        return self._thread_id

    @property
    def round_trip(self) -> float | None:
        """Seconds between our last ping and its pong; None before the first pong."""
        return None if self._heartbeat is None else self._heartbeat.round_trip

    def note(self, values: Mapping[str, Any]) -> None:
        """Keep what the app wants to know about this client.

        Raises:
            ValueError: these would be more than ``MAX_NOTES``.
        """
        with self._lock:
            notes = {**self._notes, **values}
            if len(notes) > MAX_NOTES:
                raise ValueError(
                    f"{len(notes)} entries of metadata are too many; a client has {MAX_NOTES} at "
                    f"most, so put a dict into one of them"
                )
            self._notes = notes

    def notes(self) -> dict[str, Any]:
        """Return a copy of what the app noted."""
        with self._lock:
            return dict(self._notes)

    def begin(self, response: bytes, early: bytes, expires: float | None = None) -> bool:
        """Take over in the connection's thread: answer the handshake, then open.

        Args:
            response: the whole 101.
            early: bytes that came behind the request; parsed after the 101 is out.
            expires: when the client's identity does, in Unix seconds; None never.

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
            self._heartbeat = Keepalive(self, self._hub.minder, self._limits)
        if expires is not None or self._limits.ends:
            self._term = Lifetime(self, self._hub.minder, self._limits, expires)
        return True

    def charge(self, key: Rate | None, rate: Rate) -> float:
        """Count a message against a rate; close on a client that heeds none.

        Args:
            key: the rate, if it is that of one type; None for all messages together.
            rate: that of the key.

        Returns:
            0 if it may pass, else the seconds that the client should wait.

        Threads:
            The owner.
        """
        now = time.monotonic()
        if self.meter is None:
            self.meter = RateLimiter(self._limits.max_strikes, now)
        wait = self.meter.wait(key, rate, now)
        if self.meter.beyond:
            self.shut(1008, "too many messages", "rate_limited")
        return wait

    def renew(self, identity: Any, expires: float | None) -> bool:
        """Go on with another identity.

        Returns:
            False if the connection is not open any more.

        Threads:
            Any; never waits.
        """
        with self._lock:
            if self._state != OPEN:
                return False
            term = self._term
            if term is None:  # what ended it so far was nothing that needs a timer
                term = self._term = Lifetime(self, self._hub.minder, self._limits, expires)
        return term.renew(identity, expires)

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
