"""``Connection``: one WebSocket as the program sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import ConnectionClosed, StateError
from ...interrupts.stack import check_outside, interrupted
from ...waits import lock_timeout, monotonic
from ..protocol.codec import BINARY, PING, TEXT
from ..protocol.opening import Headers, Values, parse_cookies, parse_query, unpack
from .link import Link
from .outbox import TAKEN
from .states import LOST

__all__ = ["Connection"]


class Connection:
    """One open WebSocket.

    Handlers get it as ``req.websocket``; raw handlers get it as their argument and
    iterate over it. ``send``, ``close`` and ``ping`` may be called from any thread;
    receiving is for the thread that runs the handler.
    """

    __slots__ = ("__weakref__", "_link")

    def __init__(self, link: Link) -> None:
        self._link = link

    def __repr__(self) -> str:
        return repr(self._link)

    def __iter__(self) -> Iterator[str | bytes]:
        """Yield messages until the connection ends."""
        while True:
            try:
                yield self.recv()
            except ConnectionClosed:
                return

    @property
    def client_id(self) -> str:
        """The client's unique id; not guessable, unless the app chooses ids."""
        return self._link.client_id

    @property
    def path(self) -> str:
        """Path of the upgrade request, without the query."""
        return self._link.peer.path

    @property
    def path_params(self) -> Mapping[str, Any]:
        """The parameters of a path such as ``"/device/<name>"``; empty without any."""
        return self._link.peer.path_params

    @property
    def headers(self) -> Headers:
        """The headers of the upgrade request: a mapping, also with ``getlist``.

        Like ``query`` and ``cookies`` they are parsed at each access.
        """
        return unpack(self._link.peer.headers)

    @property
    def query(self) -> Values:
        """The query of the upgrade request: the first value of each name, or ``getlist``."""
        return parse_query(self._link.peer.query)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies of the upgrade request."""
        return parse_cookies(self.headers.get("cookie", ""))

    @property
    def remote_address(self) -> str:
        """Host of the client, behind a trusted proxy too; empty on a Unix socket."""
        return self._link.peer.remote_address

    @property
    def subprotocol(self) -> str | None:
        """The negotiated subprotocol, or None."""
        return self._link.peer.subprotocol

    @property
    def secure(self) -> bool:
        """True if the client connected with TLS (``wss``), to us or to a trusted proxy."""
        return self._link.peer.secure

    @property
    def user_agent(self) -> str:
        """The ``User-Agent`` header, 512 characters at most; "" without one."""
        return self._link.peer.user_agent

    @property
    def connected_at(self) -> float:
        """When the client connected, in Unix time."""
        return self._link.peer.connected_at

    @property
    def session(self) -> dict[str, Any]:
        """A dict for the app, which lives as long as the connection."""
        return self._link.session

    @property
    def identity(self) -> Any:
        """What ``authenticate`` returned, or ``renew`` was given; None without either."""
        return self._link.identity

    @property
    def user(self) -> str | None:
        """The name that ``identify`` gave, or None."""
        return self._link.user

    @property
    def open(self) -> bool:
        """True until either side began to close."""
        return self._link.writer.open

    @property
    def close_code(self) -> int:
        """The close code received or sent first; 1006 if there was none."""
        return (self._link.writer.cause or LOST).code  # unguarded: it is set once

    @property
    def close_reason(self) -> str:
        """The text that came with the close code."""
        return (self._link.writer.cause or LOST).reason  # unguarded: it is set once

    @property
    def cancelled(self) -> threading.Event:
        """Set as soon as the connection is no longer open, even while its handler runs."""
        return self._link.cancelled

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Wait for the next message.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            A text message as ``str``, a binary one as ``bytes``.

        Raises:
            ConnectionClosed: the connection has ended; no more messages will come.
            TimeoutError: no message came in time; one that has begun to arrive is not lost.
            StateError: called from another thread than the handler's, or by something that
                interrupted that one amid a read of its own.
        """
        link = self._link
        reader, writer = link.reader, link.writer
        if not writer.is_owner():
            raise StateError(
                "recv() was called outside of the connection's own thread; call it in a "
                "handler that is not async"
            )
        if reader.reading and writer.open:  # the read that goes on is this thread's
            raise interrupted("recv()")
        check_outside("recv()")
        message = reader.receive(None if timeout is None else monotonic() + lock_timeout(timeout))
        if message is None:
            raise ConnectionClosed(self.close_code, self.close_reason)
        return message

    def send(self, message: str | bytes) -> bool:
        """Send a text message (``str``) or a binary one (``bytes``).

        Returns:
            False if the connection is no longer open.

        Threads:
            Any. In the handler's own thread it may wait for room in the outbox, up to
            ``send_timeout``; elsewhere it never waits.
        """
        writer = self._link.writer
        if isinstance(message, str):
            return writer.reply(writer.compress(TEXT, message.encode())) in TAKEN
        return writer.reply(writer.compress(BINARY, bytes(message))) in TAKEN

    def ping(self, data: bytes = b"") -> bool:
        """Send a ping; the client's pong proves that it is alive.

        Args:
            data: 125 bytes at most.

        Returns:
            False if the connection is no longer open.

        Raises:
            ValueError: the data is longer than that.

        Threads:
            Any; never waits.
        """
        if len(data) > 125:
            raise ValueError(f"a ping carries at most 125 bytes, not {len(data)}; send less data")
        return self._link.writer.control(PING, data)

    def close(self, code: int = 1000, reason: str = "") -> bool:
        """Start the closing handshake; what was sent before still arrives.

        The client gets ``close_timeout`` to answer, then the connection is cut.

        Args:
            code: 1000, 1001, 1008, 1011 or 3000 to 4999, among others.
            reason: 123 bytes of UTF-8 at most; a longer text is cut.

        Returns:
            False if the connection was closing already.

        Raises:
            ValueError: the code must not be sent.

        Threads:
            Any; never waits.
        """
        return self._link.shut(code, reason, "server")

    def abort(self) -> None:
        """Cut the connection now, without a close frame.

        Threads:
            Any; never waits.
        """
        self._link.writer.abort()
