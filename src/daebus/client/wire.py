"""One WebSocket to a server, from the handshake to its end; ``websockets`` is imported here alone.

Rules of this module:

1. ``_lock`` is held while bytes leave: the one lock of ours under which a thread waits for the
   network. Who reads never waits for it, so it sees when the server is gone, and ``abort`` then
   wakes who sends.
2. A send that is interrupted may have left half a frame, so it ends the connection.
3. What must leave in time waits for room first. A text that is too long for that room is sent
   by a thread of its own, which goes on if the caller gives up: so no frame is left half sent.
4. The socket is shut down before it is closed: a forked child may have a copy of it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import selectors
import socket
import ssl
import threading
import urllib.parse
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect, unix_connect

from ..errors import Refused
from ..interrupts.flag import Flag
from ..interrupts.stack import check_outside
from ..waits import monotonic, until
from .queues import LOOK, SLICE
from .rules import retry_after
from .tls import SharedTls

__all__ = [
    "Address",
    "Lost",
    "Unreachable",
    "Wire",
    "address_of",
    "header_name",
    "header_value",
    "is_late",
]

# Bytes of a message of the server at most, after inflating.
MAX_MESSAGE_SIZE = 16 << 20

# RFC 9110 sections 5.1 and 5.5.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# Seconds in which a server must end the connection after a close frame.
_CLOSE_TIMEOUT = 1.0

# Characters of a text for which there is room as soon as a socket says that it has room.
_SHORT = 2048


class Address(NamedTuple):
    """Where a server is.

    Attributes:
        uri: of the WebSocket.
        socket_file: to connect to, in place of the host; None for the host.
    """

    uri: str
    socket_file: str | None

    @property
    def secure(self) -> bool:
        """True with TLS."""
        return self.uri.startswith("wss:")

    @property
    def label(self) -> str:
        """The host and its port, or the file."""
        return self.socket_file or urllib.parse.urlsplit(self.uri).netloc.rpartition("@")[2]


class Lost(Exception):
    """The connection has ended.

    Attributes:
        code: of the close frame; 1006 if there was none.
        reason: its text.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Unreachable(Exception):
    """There is no connection, and nobody has refused it; ``__cause__`` says why."""


def address_of(url: str) -> Address:
    """Read the address of a server.

    Raises:
        ValueError: it is none; the text says what to write.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018  # it is read here, and no number raises
    except ValueError as exc:
        raise ValueError(f"{url!r:.200} is not the address of a server: {exc}") from None
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        return Address("ws://localhost/", urllib.parse.unquote(parts.path))
    if scheme is None or not parts.hostname:
        raise ValueError(
            f"{url!r:.200} is not the address of a server; write 'http://127.0.0.1:8080/'"
        )
    if parts.fragment:
        raise ValueError(f"{url!r:.200} has a fragment, which no server sees; leave it out")
    path = parts.path or "/"
    return Address(urllib.parse.urlunsplit((scheme, parts.netloc, path, parts.query, "")), None)


def header_name(name: object) -> str:
    """Return the name of a header, if it can be sent.

    Raises:
        TypeError: it is not a string.
        ValueError: it is no name, such as one with a line break or a colon.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a header is a string, not {name!r:.100}")
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r:.100} is not the name of a header; write one like 'X-Request'")
    return name


def header_value(name: str, value: object) -> str:
    """Return the value of a header, if it can be sent.

    Raises:
        TypeError: it is not a string.
        ValueError: a line break in it would be a header of its own, or it is not Latin-1.
    """
    if not isinstance(value, str):
        raise TypeError(f"the value of {name} is a string, not {value!r:.100}")
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError(f"the value of {name} cannot be sent: it has a line break, or the like")
    return value


class Wire:
    """One WebSocket.

    Args:
        name: of the client, for the thread that ``websockets`` runs.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._aborted = False
        self._end: Lost | None = None  # what senders are told
        self._owed: deque[str] = deque()
        self._socket: socket.socket | None = None
        self._connection: ClientConnection | None = None

    def open(
        self,
        address: Address,
        headers: Mapping[str, str],
        ssl_context: ssl.SSLContext | None,
        timeout: float,
    ) -> None:
        """Connect, and make the handshake.

        Raises:
            Refused: the server has answered with something else.
            Unreachable: there was no answer.

        Threads:
            One; ``abort`` ends it early once the server has accepted the connection.
        """
        options: dict[str, Any] = {
            "additional_headers": headers,
            "user_agent_header": "daebus-client",
            "ssl": ssl_context if address.secure else None,
            "open_timeout": timeout,
            "ping_interval": None,  # heartbeats are messages: see ``session``
            "close_timeout": _CLOSE_TIMEOUT,
            "max_size": MAX_MESSAGE_SIZE,
            "create_connection": cast(Any, functools.partial(_make, self)),
        }
        try:
            if address.socket_file is None:
                made = connect(address.uri, **options)
            else:
                made = unix_connect(address.socket_file, address.uri, **options)
            # Its end is ours to make: what it does there waits for the server.
            self._connection = made.__enter__()
        except InvalidStatus as exc:
            raise _refused(exc) from None
        except Exception as exc:  # of the system, of TLS, of the name or the handshake
            raise Unreachable from exc
        finally:
            if self._connection is None:
                self.abort()

    def note(self, sock: socket.socket) -> None:
        """Note the socket, which ``abort`` shuts down."""
        self._socket = sock
        if self._aborted:
            raise OSError("the client was closed")

    def send(self, text: str) -> None:
        """Send a text message.

        Raises:
            Lost: the connection has ended; the message may have left.

        Threads:
            Any; waits for its turn and for the server to read, until it is gone.
        """
        check_outside("a send of the client", self._lock)
        with self._lock:
            self._transmit(text)
        self.pay()

    def send_by(
        self, text: str, undo: str, deadline: float, cancel: threading.Event | None
    ) -> bool:
        """Send a text message in time; False if it did not leave by then, or was given up.

        Args:
            text: the message.
            undo: sent behind it, if it is given up half way.
            deadline: a moment of ``monotonic``.
            cancel: gives it up.

        Raises:
            Lost: the connection has ended; the message may have left.

        Threads:
            Any; waits for its turn and for the server to read.
        """
        check_outside("a request of the client", self._lock)
        sock = self._socket
        assert sock is not None
        while not self._lock.acquire(timeout=_slice(deadline, cancel)):
            if is_late(deadline, cancel):
                return False
        with contextlib.ExitStack() as stack:
            stack.callback(self._lock.release)
            while self.is_open and not _writable(sock, _slice(deadline, cancel)):
                if is_late(deadline, cancel):
                    return False
            if len(text) > _SHORT:
                done, ends = Flag(), list[BaseException]()
                sender = threading.Thread(
                    target=self._send_long,
                    args=(text, done, ends),
                    name=f"daebus-client-{self._name}-request",
                    daemon=True,
                )
                sender.start()
                stack.pop_all()  # it gives the lock back
            else:
                self._transmit(text)
                done = None
        if done is None:
            self.pay()
            return True
        while not done.wait(_slice(deadline, cancel)):
            if is_late(deadline, cancel):
                self.owe(undo)
                return False
        if ends:
            raise ends.pop()
        return True

    def _send_long(self, text: str, done: Flag, ends: list[BaseException]) -> None:
        try:
            self._transmit(text)
        except BaseException as exc:  # the caller raises it
            ends.append(exc)
        finally:
            self._lock.release()
            done.set()
        while self._owed:  # this thread may wait for room, which the text has used up
            with self._lock, contextlib.suppress(IndexError, Lost):
                self._transmit(self._owed.popleft())

    def _transmit(self, text: str) -> None:
        assert self._lock.locked()
        assert self._connection is not None
        try:
            self._connection.send(text)
        except ConnectionClosed as exc:
            raise self._why(exc) from None
        except BaseException:
            self.abort()
            raise

    def _why(self, exc: ConnectionClosed) -> Lost:
        return _lost(exc) if self._end is None else Lost(self._end.code, self._end.reason)

    def owe(self, text: str) -> None:
        """Send a short text as soon as that takes no time.

        Threads:
            Any; waits for nothing.
        """
        self._owed.append(text)
        self.pay()

    def pay(self) -> None:
        """Send what is owed, if that takes no time; whoever was in the way calls this then."""
        while self._owed and self._lock.acquire(blocking=False):  # taken out with the lock alone
            with contextlib.ExitStack() as stack:
                stack.callback(self._lock.release)
                if self._socket is None or not _writable(self._socket):
                    return
                with contextlib.suppress(IndexError, Lost):
                    self._transmit(self._owed.popleft())

    def send_at_once(self, text: str) -> bool:
        """Send a short text if that takes no time; False if somebody or something is in the way."""
        sock, connection = self._socket, self._connection
        assert connection is not None
        if sock is None or not self._lock.acquire(blocking=False):
            return False
        with contextlib.ExitStack() as stack:
            stack.callback(self._lock.release)
            if not _writable(sock):
                return False
            try:
                connection.send(text)
            except ConnectionClosed as exc:
                raise self._why(exc) from None
        return True

    @property
    def is_open(self) -> bool:
        """True while it is neither closed nor about to be."""
        return (
            not self._aborted
            and self._connection is not None
            and self._connection.state is State.OPEN
        )

    def receive(self, timeout: float) -> str | bytes | None:
        """Return the next message; None if none comes in time.

        Raises:
            Lost: the connection has ended.

        Threads:
            One; waits for the server.
        """
        connection, deadline = self._connection, monotonic() + timeout
        assert connection is not None
        ending = False
        while True:
            try:
                return connection.recv(min(until(deadline), _CLOSE_TIMEOUT))
            except ConnectionClosed as exc:
                raise _lost(exc) from None
            except TimeoutError:
                if connection.state is not State.OPEN:
                    # One of both has said so; the other had at least the last slice for it.
                    if ending:
                        self.abort()
                    ending = True
                elif monotonic() >= deadline:
                    return None

    def close(self, code: int, timeout: float) -> None:
        """Close with a code; the server has so many seconds to do the same.

        Threads:
            Any; waits as long as that.
        """
        connection, sock, began = self._connection, self._socket, monotonic()
        # Whoever sends now may still need a moment, or wait for a server that does not read.
        if connection is not None and sock is not None and self._lock.acquire(timeout=timeout):
            self._lock.release()
            if _writable(sock):
                connection.close_timeout = max(0.01, began + timeout - monotonic())
                with contextlib.suppress(WebSocketException, OSError):
                    connection.close(code)
        self.abort()

    def abort(self, end: Lost | None = None) -> None:
        """End it without a word; who reads or sends is woken.

        Args:
            end: what senders are told.

        Threads:
            Any; waits for nothing.
        """
        self._end = self._end or end
        self._aborted = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Close the socket, and wait until the thread of ``websockets`` has ended.

        Threads:
            The one that reads.
        """
        self.abort()
        if self._connection is not None:
            with contextlib.suppress(WebSocketException, OSError):
                self._connection.close()
            self._connection.wait_closed()

    def after_fork(self) -> None:
        """Close this copy of the socket in a forked child, and leave the parent's alone."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()


def _make(wire: Wire, sock: socket.socket, *args: Any, **options: Any) -> ClientConnection:
    if isinstance(sock, ssl.SSLSocket):
        sock = cast(socket.socket, SharedTls(sock))
    wire.note(sock)
    connection = ClientConnection(sock, *args, **options)
    connection.recv_events_thread.name = f"daebus-client-{wire._name}-socket"
    return connection


def is_late(deadline: float, cancel: threading.Event | None) -> bool:
    """Tell whether the time is over, or something was given up."""
    return monotonic() >= deadline or (cancel is not None and cancel.is_set())


def _slice(deadline: float, cancel: threading.Event | None) -> float:
    """Return how long to wait before the next look at the time, and at an event."""
    return min(until(deadline), SLICE if cancel is None else LOOK)


def _writable(sock: socket.socket, timeout: float = 0.0) -> bool:
    """Tell whether a short write would not wait; False if the socket is closed."""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_WRITE)
            return bool(selector.select(timeout))
    except (OSError, ValueError):
        return False


def _lost(exc: ConnectionClosed) -> Lost:
    close = exc.rcvd or exc.sent
    return Lost(1006) if close is None else Lost(close.code, close.reason)


def _refused(exc: InvalidStatus) -> Refused:
    body = bytes(exc.response.body or b"")
    code, text = "", body.decode(errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        fields = json.loads(body)
        text, code = str(fields["error"]), str(fields["code"])
    asked = retry_after(exc.response.headers.get("Retry-After"))
    return Refused(exc.response.status_code, code, text, retry_after=asked)
