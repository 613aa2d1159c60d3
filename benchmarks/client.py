"""One client of the server under test: a socket, a reader, and the answer it waits for."""

import json
import socket
import struct
import time
from collections.abc import Iterable

from benchmarks import wire
from benchmarks.procs import HOST

TIMEOUT = 20.0  # seconds for any one answer outside a measured window


class LoadError(Exception):
    """A client lost its connection or got something else than its answer."""


class Client:
    """One connection to the server under test.

    Args:
        port: the server's.
        dialect: how it talks.
        number: makes this client's payload differ from every other's, so that an answer that
            reached the wrong client is noticed.
        size: bytes of data in each request.
        receive_buffer: bytes of SO_RCVBUF; None leaves it to the kernel.
    """

    __slots__ = (
        "answer", "answers", "count", "data", "dialect", "reader", "recv", "request", "send",
        "sent", "sock",
    )  # fmt: skip

    def __init__(
        self,
        port: int,
        dialect: wire.Dialect,
        number: int = 0,
        size: int = 64,
        receive_buffer: int | None = None,
    ) -> None:
        self.dialect = dialect
        self.reader = dialect.reader()
        self.data = f"{number:08d}".ljust(size, "x")
        self.request = dialect.request("echo", self.data)
        self.answer = b"\0"  # equal to nothing a server sends
        self.answers: list[bytes] = []
        self.count = 0
        self.sent = 0.0
        self.sock = sock = socket.socket()
        sock.settimeout(TIMEOUT)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # Room for a whole request, so that a non-blocking send never takes half of one.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(16384, 4 * len(self.request)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.recv = sock.recv
        self.send = sock.send
        try:
            sock.connect((HOST, port))
            if dialect.has_handshake:
                self._upgrade(port)
        except BaseException:
            sock.close()
            raise

    def ask(self, message_type: str, data: object) -> object:
        """Send one request, wait for its answer and return the answer's data."""
        self.sock.settimeout(TIMEOUT)
        self.sock.sendall(self.dialect.request(message_type, data))
        return self.wait_for("response")

    def wait_for(self, message_type: str) -> object:
        """Wait for the next message, which must have this type, and return its data."""
        message = json.loads(self._next_payload())
        if message["type"] != message_type:
            raise LoadError(f"expected a {message_type}, got {message!r:.200}")
        return message["data"]

    def learn(self, message_type: str, data: object) -> None:
        """Wait for a message, check it, and take its bytes as the right answer from now on."""
        payload = self._next_payload()
        if json.loads(payload) != {"type": message_type, "data": data}:
            raise LoadError(f"expected {message_type} with {data!r:.80}, got {payload!r:.200}")
        self.answer = self.dialect.answer(payload)

    def take(self, data: bytes) -> int:
        """Digest bytes that were not exactly one expected answer.

        Returns:
            How many expected answers they completed.

        Raises:
            LoadError: the connection ended, or the answer is another.
        """
        done = 0
        for opcode, payload in self._messages(data):
            if opcode not in (wire.TEXT, wire.BINARY):
                continue
            if self.dialect.answer(payload) != self.answer:
                raise LoadError(f"wrong answer: {payload!r:.200}")
            done += 1
        return done

    def send_whole(self, request: bytes) -> None:
        """Send without waiting; the buffer has room, for the last request was answered."""
        if self.send(request) != len(request):
            raise LoadError("the kernel took only a part of a request")

    def ends_by(self, deadline: float) -> bool:
        """Read and throw away until the connection ends; return False if it does not.

        Args:
            deadline: a moment of ``time.monotonic()``.
        """
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.sock.settimeout(left)
                if not self.recv(1 << 20):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    def close_code(self, deadline: float) -> int | None:
        """Read until a close frame comes, answer it and return its code; None if none comes.

        Args:
            deadline: a moment of ``time.monotonic()``.
        """
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.sock.settimeout(left)
                data = self.recv(65536)
                for opcode, payload in self.reader.feed(data):
                    if opcode == wire.CLOSE:
                        self.send(wire.frame(payload, wire.CLOSE))
                        return int.from_bytes(payload[:2]) if len(payload) >= 2 else 1005
                if not data:
                    return None
        except OSError:
            return None
        return None

    def close(self) -> None:
        """Cut the connection with a reset, which leaves no TIME_WAIT behind. Idempotent."""
        if self.sock.fileno() < 0:
            return
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _next_payload(self) -> bytes:
        while not self.answers:
            data = self.recv(65536)
            self.answers += [p for o, p in self._messages(data) if o in (wire.TEXT, wire.BINARY)]
        return self.answers.pop(0)

    def _messages(self, data: bytes) -> Iterable[tuple[int, bytes]]:
        if not data:
            raise LoadError("the server closed the connection")
        for opcode, payload in self.reader.feed(data):
            if opcode == wire.PING:
                self.send(wire.frame(payload, wire.PONG))
            elif opcode == wire.CLOSE:
                raise LoadError(f"the server said goodbye: {payload!r}")
            yield opcode, payload

    def _upgrade(self, port: int) -> None:
        request, accept = wire.upgrade_request(HOST, port)
        self.sock.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.recv(4096)
            if not data:
                raise LoadError("the server closed the connection during the upgrade")
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        wire.check_upgrade(head, accept)
        if rest:
            self.answers += [p for o, p in self._messages(rest) if o in (wire.TEXT, wire.BINARY)]
