"""A WebSocket client made of bytes, for what a well-behaved client would never send.

It shares no code with the server, nor with the client of ``daebus.testing``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

KEY = base64.b64encode(b"sixteen bytes ok").decode()
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_MASK = b"\x5a\x0f\xc3\x81"


@dataclass(frozen=True)
class Answer:
    """An HTTP response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def accept_key(key: str = KEY) -> str:
    """Return what ``Sec-WebSocket-Accept`` must be."""
    return base64.b64encode(hashlib.sha1((key + _MAGIC).encode()).digest()).decode()


def upgrade_request(
    path: str = "/", headers: Mapping[str, str | None] | None = None, *, method: str = "GET"
) -> bytes:
    """Build a handshake; a header that is None is left out."""
    fields: dict[str, str | None] = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value is not None]
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")


def frame(opcode: int, payload: bytes | str = b"", *, fin: bool = True) -> bytes:
    """Build one masked frame."""
    data = payload.encode() if isinstance(payload, str) else payload
    size = len(data)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    pad = (_MASK * (size // 4 + 1))[:size]
    masked = (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
    return bytes(((0x80 if fin else 0) | opcode,)) + length + _MASK + masked


def envelope(message_type: str, data: Any = None) -> bytes:
    """Build the frame of one JSON message."""
    return frame(TEXT, json.dumps({"type": message_type, "data": data}))


class Peer:
    """One connection of that client; whoever made the socket closes it too."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    @classmethod
    def joined(cls, sock: socket.socket, path: str = "/", behind: bytes = b"") -> Peer:
        """Upgrade, which must succeed; ``behind`` goes along in the same write."""
        peer = cls(sock)
        answer = peer.ask(upgrade_request(path) + behind)
        assert answer.status == 101, answer
        return peer

    def ask(self, request: bytes) -> Answer:
        """Send a request and read the response."""
        self.sock.sendall(request)
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = self._read(int(headers.get("content-length", "0")))
        return Answer(int(first.split()[1]), headers, body)

    def send(self, opcode: int, payload: bytes | str = b"", *, fin: bool = True) -> None:
        """Send a frame."""
        self.sock.sendall(frame(opcode, payload, fin=fin))

    def say(self, message_type: str, data: Any = None) -> None:
        """Send a JSON message."""
        self.sock.sendall(envelope(message_type, data))

    def frame(self) -> tuple[int, bytes]:
        """Read one whole frame of the server: opcode and payload."""
        first, second = self._read(2)
        assert first & 0x80, "the server sent a fragment"
        assert not second & 0x80, "the server sent a masked frame"
        size = second
        if second == 126:
            size = int.from_bytes(self._read(2), "big")
        elif second == 127:
            size = int.from_bytes(self._read(8), "big")
        return first & 0x0F, self._read(size)

    def message(self) -> Any:
        """Read one JSON message."""
        opcode, payload = self.frame()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload.decode())

    def close_frame(self) -> tuple[int, str]:
        """Read up to the server's close frame; return its code and reason."""
        while True:
            opcode, payload = self.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def part(self) -> int:
        """Answer the server's close frame, close too, and return the code."""
        code, _ = self.close_frame()
        self.send(CLOSE, code.to_bytes(2, "big"))
        self.sock.close()
        return code

    def close(self, code: int = 1000) -> None:
        """Do the closing handshake and wait until the server has closed the connection."""
        self.send(CLOSE, code.to_bytes(2, "big"))
        self.close_frame()
        assert self.ended()
        self.sock.close()

    def ended(self) -> bool:
        """Wait until the server has closed the connection; False if it sends more instead."""
        if self._buffer:
            return False
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the server has closed the connection")
        self._buffer += data
