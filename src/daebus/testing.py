"""Clients to test your own handlers with: real sockets, a real server, no sleeping.

.. code-block:: python

    with app.test_client() as client:
        assert client.request("add", {"a": 1, "b": 2}) == 3

The client is built on ``simple_websocket``, which shares no code with the server, so a
bug cannot hide by being made twice.
"""

from __future__ import annotations

import itertools
import json
import ssl
import threading
import time
import weakref
from collections import deque
from types import TracebackType
from typing import Any, Protocol

import simple_websocket

from .checks.annotations import checked
from .errors import ClientError, DaebusError, StateError
from .http.component import DaebusHttp
from .waits import lock_timeout, until
from .websocket.component import DaebusWebSocket

__all__ = ["AppClient", "RequestError"]


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


class RequestError(DaebusError):
    """The server answered with an error message.

    Attributes:
        text: its ``data["error"]``.
        code: its ``data["code"]``.
        data: its whole data.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(f"{data.get('code')}: {data.get('error')}")
        self.data = data
        self.text = data.get("error")
        self.code = data.get("code")


class _Client(simple_websocket.Client):
    def handshake(self) -> None:
        # Frames that came in one read with the 101 would not be seen until more bytes
        # arrive; reading the handshake byte by byte takes none of them.
        size, self.receive_bytes = self.receive_bytes, 1
        if ":" in self.host:  # an IPv6 host would have no brackets
            self.host = f"[{self.host}]"
        try:
            super().handshake()
        except BaseException:
            if self.sock is not None:
                self.sock.close()
            raise
        self.receive_bytes = size
        if self.sock is not None:  # whatever socket.setdefaulttimeout says: it waits in a thread
            self.sock.settimeout(None)


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
        self._socket: simple_websocket.Client | None = None
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
        except BaseException:
            self._let_go()
            raise
        return self

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

    def send(self, message_type: str, data: Any = None) -> None:
        """Send a message without waiting for an answer."""
        self.websocket.send(json.dumps({"type": message_type, "data": data}))

    def send_raw(self, message: str | bytes) -> None:
        """Send a text or binary message as it is."""
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
            TimeoutError: none came in time; the text names the types of the kept messages.
            simple_websocket.ConnectionClosed: the connection ended before one came.
        """
        for index, message in enumerate(self._kept):
            if message_type is None or message["type"] == message_type:
                del self._kept[index]
                return message
        seconds = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + lock_timeout(seconds)
        while True:
            text = self.websocket.receive(timeout=until(deadline))
            if text is None:
                raise TimeoutError(
                    f"no {message_type or 'message'} came within {seconds:g} s; "
                    f"messages of other types: {[message['type'] for message in self._kept]}"
                )
            message = json.loads(text)
            if message_type is None or message["type"] == message_type:
                return message  # type: ignore[no-any-return]  # the server sends objects only
            self._kept.append(message)

    def request(self, message_type: str, data: Any = None, timeout: float | None = None) -> Any:
        """Send a message with an id and wait for the response to it.

        Other messages that arrive meanwhile are kept for ``receive``. Of a generator, it
        returns the first response.

        Returns:
            The data of the response.

        Raises:
            RequestError: the answer is an error.
            TimeoutError: no answer came in time.
        """
        ident = next(self._ids)
        self.websocket.send(json.dumps({"type": message_type, "data": data, "id": ident}))
        seconds = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + lock_timeout(seconds)
        passed: list[dict[str, Any]] = []
        try:
            while True:
                message = self.receive(timeout=until(deadline))
                if message.get("id") == ident and message["type"] == "error":
                    raise RequestError(message["data"])
                if message.get("id") == ident and message["type"] == "response":
                    return message["data"]
                passed.append(message)
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
        try:
            socket.close(code, reason)  # type: ignore[arg-type]  # any close code works
        except (simple_websocket.ConnectionClosed, OSError):
            pass  # the server was first
        socket.thread.join(lock_timeout(self._timeout))  # type: ignore[attr-defined]  # a Thread

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
