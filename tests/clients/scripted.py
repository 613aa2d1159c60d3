"""A server on a real socket that does what a test says, and nothing else.

It never answers on its own, but for heartbeats, and for the check where a WebSocket would be
refused; so a client can be shown what a real server does once in a year.
"""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

__all__ = ["Conn", "Message", "Refusal", "ScriptedServer"]

Message = dict[str, Any]

_OURS = Subprotocol("daebus")

# Seconds that a test waits for a client, unless it says otherwise.
PATIENCE = 8.0


class Refusal:
    """What is answered instead of a WebSocket.

    Args:
        status: of HTTP.
        code: the stable identifier of its JSON.
        headers: such as ``Retry-After``.
    """

    def __init__(
        self, status: int, code: str = "refused", headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.headers = dict(headers or {})

    def answer(self) -> bytes:
        """Return the HTTP answer."""
        body = json.dumps({"error": f"refused as {self.code}", "code": self.code}).encode()
        return _http(self.status, body, {"Content-Type": "application/json", **self.headers})


class Conn:
    """One WebSocket that a client has asked for: accept it, refuse it, or leave it hanging.

    Attributes:
        at: the moment at which it was asked for, of ``time.monotonic``.
        path: with its query.
        token: that of the client; None if it gave none.
        headers: of the request, with lower-case names.
        heartbeats: how many the client has sent.
        close_code: of the client's close frame; None if it has sent none.
        ended: set when the client's end of the socket is closed.
    """

    def __init__(self, server: ScriptedServer, sock: socket.socket, head: bytes) -> None:
        self.at = time.monotonic()
        self.path, self.headers = _parsed(head)
        self.token = _token(self.headers)
        self.heartbeats = 0
        self.close_code: int | None = None
        self.ended = threading.Event()
        self._server = server
        self._socket = sock
        self._head = head
        self._protocol = ServerProtocol(
            select_subprotocol=lambda _, offered: _OURS if _OURS in offered else None,
            max_size=1 << 24,
        )
        self._lock = threading.Lock()
        self._running = threading.Event()  # not frozen
        self._running.set()
        self._silent = False
        self._resets = False
        self._came: queue.Queue[Message | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    # --- the handshake

    def accept(self, *, heartbeats: bool = True) -> Conn:
        """Let the client in.

        Args:
            heartbeats: answer those of the client.
        """
        self._silent = not heartbeats
        self._protocol.receive_data(self._head)
        request = self._protocol.events_received()[0]
        assert isinstance(request, Request)
        response = self._protocol.accept(request)
        assert response.status_code == 101, response
        self._protocol.send_response(response)
        self._flush()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def refuse(self, status: int, code: str = "refused", headers: Any = None) -> None:
        """Answer with an HTTP error. A page cannot see it: see ``ScriptedServer.refusing``."""
        with contextlib.suppress(OSError):
            self._socket.sendall(Refusal(status, code, headers).answer())
        self._end()

    # --- messages

    def receive(self, message_type: str | None = None, timeout: float = PATIENCE) -> Message:
        """Return the client's next message, heartbeats apart; it must be of that type."""
        message = self._came.get(timeout=timeout)
        assert message is not None, "the client has ended the connection"
        assert message_type is None or message["type"] == message_type, message
        return message

    def nothing_came(self) -> bool:
        """Tell whether no message of the client waits to be received."""
        return self._came.empty()

    def send(self, message_type: str, data: Any = ..., **fields: Any) -> None:
        """Send a message; more fields are ``id``, ``topic``, ``offset``."""
        message = {"type": message_type, **fields}
        if data is not ...:
            message["data"] = data
        self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        """Send a text frame as it is."""
        with self._lock:
            self._protocol.send_text(text.encode())
            self._flush()

    def send_binary(self, data: bytes) -> None:
        """Send a binary frame."""
        with self._lock:
            self._protocol.send_binary(data)
            self._flush()

    def answer(self, message: Message, data: Any = None) -> None:
        """Answer a request."""
        self.send("response", data, id=message["id"])

    def error(self, message: Message, code: str, **more: Any) -> None:
        """Answer a request with an error."""
        self.send("error", {**more, "error": f"failed as {code}", "code": code}, id=message["id"])

    # --- the end

    def close(self, code: int, reason: str = "") -> None:
        """Close with a code, as a server does; any code, also one that nobody may send."""
        payload = b"" if code == 1005 else struct.pack("!H", code) + reason.encode()
        frame = Frame(Opcode.CLOSE, payload).serialize(mask=False)
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(frame)
        if not self.ended.wait(1.0):  # the client's close
            self._end()

    def cut(self, *, reset: bool = False) -> None:
        """End the connection without a close frame."""
        if reset:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
        self._end()

    def freeze(self) -> None:
        """Neither read nor answer any more, as a process after SIGSTOP."""
        self._running.clear()

    def thaw(self) -> None:
        """Go on reading."""
        self._running.set()

    # --- inside

    def _read(self) -> None:
        text = bytearray()
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                data = b""
            self._running.wait()
            if not data:
                break
            with self._lock:
                self._protocol.receive_data(data)
                frames = self._protocol.events_received()
                with contextlib.suppress(OSError):
                    self._flush()
            for frame in frames:
                assert isinstance(frame, Frame)
                if frame.opcode is Opcode.CLOSE:
                    self.close_code = Close.parse(frame.data).code
                elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
                    text += frame.data
                    if frame.fin:
                        self._take(json.loads(bytes(text)))
                        text.clear()
            if self.close_code is not None:
                break
        self._end()
        self._came.put(None)

    def _take(self, message: Message) -> None:
        if message["type"] != "heartbeat":
            self._came.put(message)
            return
        self.heartbeats += 1
        if not self._silent:
            given = {"id": message["id"]} if "id" in message else {}
            with contextlib.suppress(OSError):
                self.send("heartbeat", {"version": self._server.version}, **given)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.sendall(data)

    def _end(self) -> None:
        self._running.set()
        if not self._resets:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.ended.set()


class ScriptedServer:
    """The server; use it as a context manager.

    Attributes:
        refusing: while it is set, each WebSocket is refused so, and the check says the same.
        version: told in the answers of heartbeats and of the check.
        pages: what else is served, by path: content type and body.
        attempts: the moment of each WebSocket that was asked for, refused ones included.
        tokens: that of each.
        checks: the query of each check that was asked for.
        port: where it listens.
    """

    def __init__(self) -> None:
        self.refusing: Refusal | None = None
        self.version = "1"
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.attempts: list[float] = []
        self.tokens: list[str | None] = []
        self.checks: list[str] = []
        self._waiting: queue.Queue[Conn] = queue.Queue()
        self._conns: list[Conn] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.listen()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.hush()
        for conn in self._conns:
            conn.cut()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in [*self._threads, *(c._thread for c in self._conns if c._thread)]:
            thread.join(PATIENCE)

    @property
    def url(self) -> str:
        """The address that a client is given."""
        return f"http://127.0.0.1:{self.port}/"

    def listen(self) -> None:
        """Listen, on the same port as before."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port))
        sock.listen()
        self.port = sock.getsockname()[1]
        self._listener = sock
        self._start(self._accept, sock)

    def hush(self) -> None:
        """Listen no more: whoever connects is refused by the system."""
        sock, self._listener = self._listener, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def expect(self, timeout: float = PATIENCE) -> Conn:
        """Wait for a client that wants a WebSocket."""
        try:
            return self._waiting.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no client came within {timeout:g} s") from None

    def accept(self, timeout: float = PATIENCE, *, heartbeats: bool = True) -> Conn:
        """Wait for a client, and let it in."""
        return self.expect(timeout).accept(heartbeats=heartbeats)

    def nobody_comes(self, seconds: float) -> bool:
        """Tell whether no client asks for a WebSocket for so long."""
        before, end = len(self.attempts), time.monotonic() + seconds
        pause = threading.Event()
        while time.monotonic() < end:
            if len(self.attempts) > before:
                return False
            pause.wait(0.01)
        return True

    # --- inside

    def _start(self, function: Any, *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        for head in _heads(sock):
            path, headers = _parsed(head)
            if headers.get("upgrade", "").lower() == "websocket":
                conn = Conn(self, sock, head)
                self.attempts.append(conn.at)
                self.tokens.append(conn.token)
                if self.refusing is not None:
                    conn.refuse(
                        self.refusing.status, self.refusing.code, dict(self.refusing.headers)
                    )
                else:
                    self._conns.append(conn)
                    self._waiting.put(conn)
                return
            with contextlib.suppress(OSError):
                sock.sendall(self._answer(path))
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def _answer(self, target: str) -> bytes:
        path, _, query = target.partition("?")
        if path == "/_daebus/check":
            self.checks.append(query)
            if self.refusing is not None:
                return self.refusing.answer()
            return _http(204, b"", {"Daebus-Version": self.version})
        if path in self.pages:
            kind, body = self.pages[path]
            return _http(200, body, {"Content-Type": kind})
        return Refusal(404, "not_found").answer()


def _heads(sock: socket.socket) -> Iterator[bytes]:
    """Yield the heads of the requests of one connection; none of them has a body."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            try:
                more = sock.recv(65536)
            except OSError:
                return
            if not more:
                return
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        yield head + b"\r\n\r\n"


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        headers[name] = ", ".join(filter(None, (headers.get(name), value.strip())))
    return first.split(" ")[1], headers


def _token(headers: Mapping[str, str]) -> str | None:
    """Return the token: of the header, else of the subprotocol ``daebus.token.BASE64URL``."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value
    for offered in headers.get("sec-websocket-protocol", "").split(","):
        found = offered.strip()
        if found.startswith("daebus.token."):
            encoded = found.removeprefix("daebus.token.")
            return _base64url(encoded)
    return None


def _base64url(encoded: str) -> str:
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()


def _http(status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    fields = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "Retry-After, Daebus-Version",
        "Cache-Control": "no-store",
        **headers,
    }
    if status != 204:
        fields["Content-Length"] = str(len(body))
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
