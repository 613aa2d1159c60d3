"""Bytes on the wire, with no socket: requests ready to send, and readers of what comes back.

Two dialects are spoken. ``websocket`` is RFC 6455 as a client sees it; ``lines`` is one JSON text
a line, for the server that has no WebSocket. Both readers give ``(opcode, payload)`` pairs.
"""

import base64
import hashlib
import json
import os
from typing import Protocol

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES = {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_MASK = b"\x37\xfa\x21\x3d"  # any but zero, so that a server has to unmask


class WireError(Exception):
    """The server sent bytes that its dialect does not allow."""


class Reader(Protocol):
    """Cut a stream of bytes into messages.

    Attributes:
        pending: the reader holds the beginning of a message.
    """

    pending: bool

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the next bytes and return what they complete."""


class FrameReader:
    """Read the frames that a WebSocket server sends: never masked, no extension."""

    def __init__(self) -> None:
        self.pending = False
        self._buffer = bytearray()
        self._fragments: list[bytes] = []
        self._first_opcode = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the next bytes and return the messages and control frames they complete.

        Raises:
            WireError: a frame is masked, uses a reserved bit or opcode, or breaks a message.
        """
        self._buffer += data
        done = []
        while (frame := self._next_frame()) is not None:
            final, opcode, payload = frame
            if opcode >= CLOSE:
                done.append((opcode, payload))
                continue
            if (opcode == CONTINUATION) != bool(self._fragments):
                raise WireError(f"frame with opcode {opcode} at the wrong place of a message")
            if opcode != CONTINUATION:
                self._first_opcode = opcode
            if final:
                done.append((self._first_opcode, b"".join(self._fragments) + payload))
                self._fragments.clear()
            else:
                self._fragments.append(payload)
        self.pending = bool(self._buffer or self._fragments)
        return done

    def _next_frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        opcode = first & 0x0F
        if first & 0x70 or opcode not in _OPCODES:
            raise WireError(f"reserved bits or opcode in first byte 0x{first:02x}")
        if second & 0x80:
            raise WireError("masked frame from the server")
        start, length = 2, second
        if second >= 126:
            start = 4 if second == 126 else 10
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:start])
        end = start + length
        if len(buffer) < end:
            return None
        payload = bytes(buffer[start:end])
        del buffer[:end]
        return bool(first & 0x80), opcode, payload


class LineReader:
    """Read lines; each is given as a text message, without its line end."""

    def __init__(self) -> None:
        self.pending = False
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the next bytes and return the lines they complete."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self.pending = bool(self._buffer)
        return [(TEXT, line) for line in lines]


def frame(payload: bytes, opcode: int = TEXT, *, masked: bool = True) -> bytes:
    """Build one final frame, as a client sends it, or as a server does with ``masked=False``."""
    flag = 0x80 if masked else 0
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, flag | length))
    elif length < 65536:
        head = bytes((0x80 | opcode, flag | 126)) + length.to_bytes(2)
    else:
        head = bytes((0x80 | opcode, flag | 127)) + length.to_bytes(8)
    if not masked:
        return head + payload
    key = (_MASK * (length // 4 + 1))[:length]
    mixed = int.from_bytes(payload) ^ int.from_bytes(key)
    return head + _MASK + mixed.to_bytes(length)


class Dialect:
    """What the generator has to know of one way of talking."""

    def __init__(self, name: str) -> None:
        if name not in ("websocket", "lines"):
            raise ValueError(f"no dialect {name!r}; use 'websocket' or 'lines'")
        self.name = name
        self.has_handshake = name == "websocket"

    def reader(self) -> Reader:
        """Return a new reader for one connection."""
        return FrameReader() if self.has_handshake else LineReader()

    def request(self, message_type: str, data: object) -> bytes:
        """Return the bytes that ask for ``message_type``, ready to send."""
        text = json.dumps({"type": message_type, "data": data}).encode()
        return frame(text) if self.has_handshake else text + b"\n"

    def answer(self, payload: bytes) -> bytes:
        """Return the bytes a server sends for one message with this payload, if in one frame."""
        return frame(payload, masked=False) if self.has_handshake else payload + b"\n"


def upgrade_request(host: str, port: int) -> tuple[bytes, bytes]:
    """Return an opening handshake and the value its ``Sec-WebSocket-Accept`` must have."""
    key = base64.b64encode(os.urandom(16))
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    head = (
        f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    return head.encode(), accept


def check_upgrade(head: bytes, accept: bytes) -> None:
    """Check the server's half of the opening handshake.

    Raises:
        WireError: it is not a 101, or its accept value is not the one expected.
    """
    status, *lines = head.split(b"\r\n")
    if b" 101" not in status[:13]:
        raise WireError(f"upgrade answered with {status.decode(errors='replace')!r}")
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"sec-websocket-accept" and value.strip() == accept:
            return
    raise WireError("wrong or missing Sec-WebSocket-Accept")
