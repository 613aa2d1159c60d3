"""Clients to test your own handlers with: real sockets, a real server, no sleeping.

.. code-block:: python

    with app.test_client() as client:
        assert client.request("add", {"a": 1, "b": 2}) == 3

The client is built on ``simple_websocket``, which shares no code with the server, so a
bug cannot hide by being made twice.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import ssl
import threading
import weakref
from collections import deque
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import Any, Protocol, cast

import simple_websocket
from simple_websocket.ws import Base

from .checks.annotations import checked
from .checks.arguments import check_message_type
from .client.tls import SharedTls
from .errors import ClientError, EncodeError, StateError
from .errors import Refused as Refused
from .errors import RequestError as RequestError
from .http.component import DaebusHttp
from .monitoring.quiet import progress, unfinished
from .waits import comes_true, lock_timeout, monotonic, until
from .websocket.api.context import context_of
from .websocket.component import DaebusWebSocket
from .websocket.connection.link import Link
from .websocket.hub import Hub

__all__ = ["AppClient", "quiet", "wait_for_clients"]

# Messages that the text of a timeout shows at most, and characters of each.
_SHOWN = 10
_SHOWN_LENGTH = 80

# Bytes of a refusal's body that are read at most.
_MAX_BODY = 1 << 16


class _App(Protocol):
    """The part of an app that a test client uses; ``Daebus`` has it."""

    @property
    def running(self) -> bool:
        """True while it runs."""

    @property
    def http(self) -> DaebusHttp:
        """Its HTTP component."""

    @property
    def websocket(self) -> DaebusWebSocket:
        """Its WebSocket component."""

    def start(self, *, port: int | None = None) -> None:
        """Start it on that port."""

    def stop(self) -> object:
        """Stop it."""


# How many test clients use each app that a test client has started.
_users: weakref.WeakKeyDictionary[_App, int] = weakref.WeakKeyDictionary()
_users_lock = threading.Lock()


class _Client(simple_websocket.Client):
    name: object = None  # its own address, by which the server knows it

    def handshake(self) -> None:
        # Frames that came in one read with the 101 would not be seen until more bytes
        # arrive; reading the handshake byte by byte takes none of them.
        size, self.receive_bytes = self.receive_bytes, 1
        # Without delay what was sent is at the server, and not on the way for 40 ms.
        if self.sock is not None:
            self.name = self.sock.getsockname()
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if ":" in self.host:  # an IPv6 host would have no brackets
            self.host = f"[{self.host}]"
        try:
            super().handshake()
        except BaseException as exc:
            try:
                if isinstance(exc, simple_websocket.ConnectionError):
                    raise _refused(exc.status_code or 400, self._body()) from None
            finally:
                if self.sock is not None:
                    self.sock.close()
            raise
        self.receive_bytes = size
        if self.sock is not None:  # whatever socket.setdefaulttimeout says: it waits in a thread
            self.sock.settimeout(None)
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock = cast(socket.socket, SharedTls(self.sock))

    def _body(self) -> bytes:
        """Return the body of a refusal, whose head has been read."""
        body = b""
        with contextlib.suppress(OSError):
            while self.sock is not None and len(body) < _MAX_BODY:
                for event in self.ws.events():
                    body += getattr(event, "data", b"")
                    if getattr(event, "body_finished", False):
                        return body
                data = self.sock.recv(4096)
                if not data:
                    break
                self.ws.receive_data(data)
        return body


class AppClient:
    """One WebSocket client of an app.

    Use it as a context manager. An app that does not run is started on a free port, and
    stopped when the last of its clients leaves.

    Args:
        app: the app under test.
        path: path of the WebSocket, with a query if you like.
        headers: additional request headers.
        subprotocols: offered to the server.
        timeout: seconds of every wait at most, unless a call has its own.
        ssl_context: checks the certificate of an app with TLS, such as
            ``ssl.create_default_context(cafile="ca.pem")``. None checks nothing, as both
            ends are in this process.

    Raises:
        TypeError: an argument is of another type; the message names it.
        ValueError: the path does not start with a slash.
    """

    @checked
    def __init__(
        self,
        app: _App,
        path: str = "/",
        *,
        headers: dict[str, str] | None = None,
        subprotocols: list[str] | None = None,
        timeout: float = 5.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if not path.startswith("/"):
            raise ValueError(f"path {path!r} has no leading slash; write {'/' + path!r}")
        self._app = app
        self._path = path
        self._headers = headers
        self._subprotocols = subprotocols
        self._timeout = timeout
        self._ssl_context = ssl_context
        self._socket: _Client | None = None
        self._link: Link | None = None  # the other end of it
        self._kept: deque[dict[str, Any]] = deque()
        self._holds = False
        self._ids = itertools.count(1)

    def __enter__(self) -> AppClient:
        with _users_lock:
            if self._app in _users or not self._app.running:
                if self._app not in _users:
                    self._app.start(port=0)
                _users[self._app] = _users.get(self._app, 0) + 1
                self._holds = True
        scheme, context = "ws", self._ssl_context
        if self._app.http.secure:
            scheme = "wss"
            if context is None:
                context = ssl.create_default_context()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        try:
            self._socket = _Client(
                f"{scheme}://{self._address()}{self._path}",
                headers=self._headers,  # type: ignore[arg-type]  # str works, see wsproto
                subprotocols=self._subprotocols,
                ssl_context=context,
            )
            self._await_admission(self._socket)
        except BaseException:
            self.close()
            self._let_go()
            raise
        return self

    def _await_admission(self, client: _Client) -> None:
        """Wait until the server has the client among its own, or has closed it again."""
        registry = _hub(self._app).registry

        def admitted() -> bool:
            links = registry.snapshot()
            self._link = next((link for link in links if _peer_of(link) == client.name), None)
            return self._link is not None or not client.connected

        if not comes_true(admitted, self._timeout):
            raise TimeoutError(
                f"the server answered the client, and did not let it in within {self._timeout:g} s"
            )

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
        self._let_go()

    def _address(self) -> str:
        host, port = self._app.http.host, self._app.websocket.port
        if not port:
            raise StateError(
                f"test clients need a port, and the app listens only on "
                f"{', '.join(self._app.http.addresses)}; stop it first, or give it a port as well"
            )
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def websocket(self) -> simple_websocket.Client:
        """The underlying client, for frames that are not envelopes.

        Raises:
            StateError: the client is used outside of its ``with`` block.
        """
        if self._socket is None:
            raise StateError("the client is not connected; write: with app.test_client() as client")
        return self._socket

    def send(self, message_type: str, data: Any = ...) -> None:
        """Send a message without waiting for an answer; without data it has none."""
        self._send({"type": message_type}, data)

    def _send(self, message: dict[str, Any], data: Any) -> None:
        check_message_type(message["type"])
        if data is not ...:
            message["data"] = data
        try:
            text = json.dumps(message, allow_nan=False)
        except (TypeError, ValueError) as exc:
            raise EncodeError(f"the data of {message['type']!r} cannot be sent: {exc}") from exc
        self.websocket.send(text)

    def send_raw(self, message: str | bytes) -> None:
        """Send a text or binary message as it is."""
        given: object = message
        if not isinstance(given, str | bytes | bytearray | memoryview):
            raise TypeError(
                f"a raw message is text or bytes, not {given!r:.100}; "
                f"write send_raw(json.dumps(message))"
            )
        self.websocket.send(message)

    def receive(
        self, message_type: str | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait for the next message.

        Args:
            message_type: wait for a message of that type; keep others for later calls.
            timeout: seconds; None for the client's own timeout.

        Returns:
            The whole message, ``{"type": ..., "data": ...}``.

        Raises:
            TimeoutError: none came in time; the text lists those that did.
            simple_websocket.ConnectionClosed: the connection ended before one came.
        """
        if message_type is not None:
            check_message_type(message_type)
        for index, message in enumerate(self._kept):
            if message_type is None or message["type"] == message_type:
                del self._kept[index]
                return message
        seconds = self._timeout if timeout is None else timeout
        deadline = monotonic() + lock_timeout(seconds)
        while True:
            text = self.websocket.receive(timeout=until(deadline))
            if text is None:
                raise TimeoutError(
                    f"no {message_type or 'message'} came within {seconds:g} s; "
                    f"{_listed(self._kept)}"
                )
            message = json.loads(text)
            if message_type is None or message["type"] == message_type:
                return message  # type: ignore[no-any-return]  # the server sends objects only
            self._kept.append(message)

    def request(self, message_type: str, data: Any = ..., timeout: float | None = None) -> Any:
        """Send a message with an id and wait for the response to it.

        Other messages that arrive meanwhile are kept for ``receive``. Of a generator, it
        returns the first response. Without data the message has none.

        Returns:
            The data of the response.

        Raises:
            EncodeError: the data has no JSON form.
            RequestError: the answer is an error.
            TimeoutError: no answer came in time; the text lists the messages that did.
        """
        ident = next(self._ids)
        self._send({"type": message_type, "id": ident}, data)
        seconds = self._timeout if timeout is None else timeout
        deadline = monotonic() + lock_timeout(seconds)
        passed: list[dict[str, Any]] = []
        try:
            while True:
                message = self.receive(timeout=until(deadline))
                if message.get("id") == ident and message["type"] == "error":
                    raise RequestError(message["data"])
                if message.get("id") == ident and message["type"] == "response":
                    return message["data"]
                passed.append(message)
        except TimeoutError:
            raise TimeoutError(
                f"no answer to {message_type!r} came within {seconds:g} s; "
                f"{_listed([*passed, *self._kept])}"
            ) from None
        finally:
            self._kept.extendleft(reversed(passed))

    def answer(
        self, question: dict[str, Any], data: Any = None, *, error: ClientError | None = None
    ) -> None:
        """Answer a question of ``app.websocket.call()``.

        Args:
            question: the whole message, as ``receive`` returned it.
            data: the answer.
            error: text of an error to answer with instead; the caller gets a ``CallError``.
        """
        answer: dict[str, Any] = {"type": "response", "id": question["id"], "data": data}
        if error is not None:
            answer["type"] = "error"
            answer["data"] = {**error.data, "error": error.text, "code": error.code}
        self.websocket.send(json.dumps(answer))

    def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close the connection and wait until the server has closed it too."""
        socket, self._socket = self._socket, None
        if socket is None:
            return
        with contextlib.suppress(simple_websocket.ConnectionClosed, OSError):  # who was first
            # Not that of Client: it closes the socket, which the thread does as well.
            Base.close(socket, code, reason)  # type: ignore[arg-type]  # any close code works
        timeout = lock_timeout(self._timeout)
        socket.thread.join(timeout)  # type: ignore[attr-defined]  # a Thread
        link, self._link = self._link, None
        hub = context_of(self._app.websocket).hub
        # A raw handler may read nothing, and so not notice.
        if link is not None and hub is not None and not link.peer.raw:
            comes_true(lambda: link not in hub.registry.snapshot(), timeout)

    def _let_go(self) -> None:
        if not self._holds:
            return
        self._holds = False
        with _users_lock:
            _users[self._app] -= 1
            if _users[self._app]:
                return
            del _users[self._app]
        self._app.stop()


def wait_for_clients(app: _App, count: int, timeout: float = 5.0) -> None:
    """Wait until that many clients are connected, neither more nor fewer.

    Args:
        app: the app under test, which runs.
        count: how many.
        timeout: seconds.

    Raises:
        TimeoutError: there are more or fewer; the text says how many.
        StateError: the app does not run.
    """
    registry = _hub(app).registry
    if not comes_true(lambda: len(registry) == count, timeout):
        raise TimeoutError(
            f"{len(registry)} clients are connected after {timeout:g} s, not {count}"
        )


def quiet(app: _App, timeout: float = 5.0) -> None:
    """Wait until all is quiet: each message that was sent is handled, and each answer is out.

    That is when no handler and no hook runs, no job waits, no client has a message on the
    way to its handler, no outbox holds one, and no client is about to come or leave. Functions
    of ``background`` and ``thread``, raw handlers and HTTP requests do not count.

    Args:
        app: the app under test, which runs.
        timeout: seconds.

    Raises:
        TimeoutError: it was not quiet in time; the text says what was going on.
        StateError: the app does not run.
    """
    hub = _hub(app)
    found: str | None = None
    before: object = None

    def settled() -> bool:
        nonlocal found, before
        found, now = unfinished(hub), progress(hub)
        # Twice: a thread that has read a message gets its turn meanwhile, and is seen to be busy.
        same, before = now == before, None if found else now
        return same and found is None

    if not comes_true(settled, timeout):
        raise TimeoutError(
            f"the app was not quiet within {timeout:g} s: {found or 'messages come and go'}"
        )


def _hub(app: _App) -> Hub:
    hub = context_of(app.websocket).hub
    if hub is None:
        raise StateError("the app does not run; write: with app, or with app.test_client()")
    return hub


def _peer_of(link: Link) -> object:
    """Return the address of the other end of a connection, or None if it has none any more."""
    try:
        with socket.socket(fileno=os.dup(link.writer.transport.fileno())) as copy:
            return copy.getpeername()
    except OSError:
        return None


def _refused(status: int, body: bytes) -> Refused:
    """Read a refusal, which is JSON if it is one of ours."""
    text, code = body.decode(errors="replace"), ""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        error = json.loads(body)
        text, code = str(error["error"]), str(error["code"])
    return Refused(status, code, text)


def _listed(messages: Collection[dict[str, Any]]) -> str:
    """Return messages as the text of a timeout shows them."""
    if not messages:
        return "nothing came"
    last: Iterable[dict[str, Any]] = [*messages][-_SHOWN:]
    shown = ", ".join(json.dumps(message)[:_SHOWN_LENGTH] for message in last)
    return f"{len(messages)} other messages came: {shown}"
