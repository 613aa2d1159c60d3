"""Bytes in, messages and bytes out: the framing of RFC 6455, without a socket or a thread.

Rules of this module:

1. The stream is cut into frames here. The common ones (unfragmented, uncompressed data;
   control frames) are decoded here; every other *whole* frame goes to the protocol
   object of the ``websockets`` package, which knows the rules.
2. That object is made when first needed: it would cost an idle connection 13 KiB.
3. Nothing is kept beyond the limits: a frame whose declared length exceeds them is
   refused before its data arrives.
4. Compressed messages are inflated one after the other, when there is room for each
   (``feed``): a read of 64 KB may hold fifty of 1 MiB.
5. After a failure or a close frame the rest of the stream is ignored (RFC 6455
   section 7.1.7).
"""

from __future__ import annotations

import codecs
import copy
import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import cast

from websockets.exceptions import PayloadTooBig
from websockets.exceptions import ProtocolError as _FrameError
from websockets.extensions import Extension
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # no C compiler and no wheel for this platform
    from websockets.utils import apply_mask

__all__ = ["Closed", "Codec", "Event", "Ping", "Pong", "close_frame", "frame", "weigh", "weigh_all"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

# Bytes of the longest header of a frame.
MAX_HEADER = 14

# Bytes that one byte of a compressed frame may become, at most; zlib's own figure is 1,032.
MAX_RATIO = 1040

# Headers of all short unfragmented server frames, made once: a reply is then one
# concatenation (RFC 6455 section 5.2, FIN set, no mask).
_SHORT = {op: [bytes((0x80 | op, n)) for n in range(126)] for op in (TEXT, BINARY, PING, PONG)}


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer asks for a pong with the same payload."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answered a ping, or sent a pong unasked."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more will come out of this codec.

    Attributes:
        code: the peer's close code (1005 if it gave none), or ours after a failure.
        reason: the peer's text, or what was wrong.
        answer: the close frame to send; None if one was sent already.
        failed: the peer broke the protocol, or its message is not acceptable.
    """

    code: int
    reason: str
    answer: bytes
    failed: bool


Event = str | bytes | Ping | Pong | Closed


def weigh(message: str | bytes) -> int:
    """Return about how many bytes of memory a message takes; a text of any script, at most."""
    return len(message) if isinstance(message, bytes) or message.isascii() else 4 * len(message)


def weigh_all(messages: Collection[str | bytes]) -> int:
    """Return the weight of messages; another thread may take some out, but put none in."""
    while True:
        try:
            return sum(map(weigh, messages))
        except RuntimeError:  # changed meanwhile
            continue


def frame(opcode: int, payload: bytes) -> bytes:
    """Build one whole unmasked frame."""
    size = len(payload)
    if size < 126:
        return _SHORT[opcode][size] + payload
    if size < 65536:
        return b"%c\x7e%b%b" % (0x80 | opcode, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (0x80 | opcode, size.to_bytes(8, "big"), payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """Build a close frame.

    Args:
        code: of RFC 6455 section 7.4.1 or the private range 3000-4999.
        reason: text; cut to what fits, 123 bytes of UTF-8.

    Raises:
        TypeError: the code is not a whole number, or the reason not a string.
        ValueError: the code must not appear in a frame.
    """
    if not isinstance(code, int):
        raise TypeError(f"a close code is a whole number, not {code!r:.100}; write 1000")
    if not isinstance(reason, str):
        raise TypeError(
            f"the reason of a close is a string, not {reason!r:.100}; write {f'{reason!s:.20}'!r}"
        )
    text = reason.encode("utf-8", "replace")[:123].decode("utf-8", "ignore")
    try:
        payload = Close(code, text).serialize()
    except _FrameError as exc:
        raise ValueError(
            f"close code {code} must not be sent; use 1000, 1001, 1008, 1011 or 3000 to 4999"
        ) from exc
    return _close_frame(payload)


def _close_frame(payload: bytes) -> bytes:
    return bytes((0x80 | CLOSE, len(payload))) + payload


class Codec:
    """The receiving half of one connection, and compression for the sending half.

    Args:
        max_message_size: bytes of a decoded message.
        max_fragments: frames of one message, empty ones counted.
        extensions: as negotiated, for this connection alone.

    Attributes:
        held: bytes kept of a message, or frame, that has begun and not ended; 0 for none.
        paused: whole frames wait for room; ``feed(b"")`` goes on with them.
        on_begun: called before anything is kept of a message that has begun.
    """

    __slots__ = (
        "_buffer",
        "_done",
        "_extensions",
        "_fragments",
        "_given",
        "_max_fragments",
        "_max_message_size",
        "_need",
        "_parts",
        "_protocol",
        "_size",
        "_text",
        "compress",
        "held",
        "on_begun",
        "paused",
    )

    def __init__(
        self,
        *,
        max_message_size: int,
        max_fragments: int,
        extensions: Sequence[Extension] = (),
    ) -> None:
        self._max_message_size = max_message_size
        self._max_fragments = max_fragments
        self._extensions = extensions
        # Builds one whole frame with the negotiated extensions.
        # Not a method of this class, which would be a reference cycle.
        self.compress: Callable[[int, bytes], bytes] = (
            functools.partial(_compressed, extensions) if extensions else frame
        )
        self._protocol: ServerProtocol | None = None
        self._buffer = bytearray()  # less than one frame, between two calls
        self._need = 0  # no frame can be whole before the buffer holds this many bytes
        self._done = False
        self.held = 0
        self._given = 0  # memory of messages that wait, while they are cut
        self.paused = False
        self.on_begun: Callable[[], None] | None = None
        # A fragmented message in progress:
        self._fragments = 0
        self._size = 0
        self._parts: list[bytes] = []
        self._text: codecs.IncrementalDecoder | None = None

    def feed(self, data: bytes, waiting: int = 0) -> list[Event]:
        """Take what was read and return what it completed, in order.

        A text message comes as ``str``, a binary one as ``bytes``. Where a compressed frame
        might exceed ``max_message_size`` together with what waits and what this returns, it
        is left for a later call (``paused``); if nothing else waits it is taken.

        Args:
            data: what was read; nothing goes on with what was left.
            waiting: bytes that earlier messages take which have not been handled yet.
        """
        # The common case: one small masked text frame in one read.
        size = len(data) - 6
        if (
            0 <= size < 126
            and data[0] == 0x81
            and data[1] == 0x80 | size
            and not (self._buffer or self._fragments or self._done)
            and size <= self._max_message_size
        ):
            try:
                return [apply_mask(data[6:], data[2:6]).decode()]
            except UnicodeDecodeError as exc:
                return [self._fail(CloseCode.INVALID_DATA, f"{exc.reason} at byte {exc.start}")]
        if self._done:
            return []
        fresh = not self.held
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                self.held += len(data)
                return []
            data, self._buffer = bytes(self._buffer), bytearray()
        self._given = waiting
        return self._cut(data, fresh)

    @property
    def compression(self) -> object:
        """A key, equal for codecs whose ``compress`` builds equal frames; None if uncompressed."""
        return repr(self._extensions) if self._extensions else None

    def _cut(self, data: bytes, fresh: bool) -> list[Event]:
        """Cut the bytes into frames; keep what is left.

        Args:
            data: all that has come and was not cut yet.
            fresh: no message had begun before.
        """
        events: list[Event] = []
        self.paused = False
        start, end = 0, len(data)
        while not self._done:
            self._need = 2
            if end - start < 2:
                break
            first, second = data[start], data[start + 1]
            size = second & 0x7F
            header = 6
            if size == 126:
                header = 8
            elif size == 127:
                header = 14
            if not second & 0x80:
                events.append(self._fail(CloseCode.PROTOCOL_ERROR, "client frames must be masked"))
                break
            if size >= 126:
                if end - start < header - 4:
                    self._need = header - 4
                    break
                size = int.from_bytes(data[start + 2 : start + header - 4], "big")
            problem = self._refuse_header(first, size)
            if problem is not None:
                events.append(problem)
                break
            stop = start + header + size
            if stop > end:
                self._need = stop - start
                break
            body = start + header
            opcode = first & 0x0F
            if first & 0xF0 == 0x80 and opcode:
                payload = apply_mask(data[body:stop], data[body - 4 : body])
                event = self._take_common(opcode, payload)
                events.append(event)
                if isinstance(event, str | bytes):
                    self._given += weigh(event)
            elif opcode < CLOSE and self._exceeds(size):
                self.paused = True
                break
            else:
                self._take_other(data[start:stop], events)
            start = stop
            fresh = fresh or not self._fragments
        if not self._done:
            self._keep(data[start:] if start else data, fresh)
        return events

    def _exceeds(self, size: int) -> bool:
        """Tell whether a frame of that size might not fit beside the messages that wait."""
        most = (size + 1) * MAX_RATIO if self._extensions else size
        return self._given > 0 and self._given + self._size + most > self._max_message_size

    def _keep(self, rest: bytes, fresh: bool) -> None:
        """Keep what is left, and say how much of a message that is."""
        self._buffer = bytearray(rest)
        held = self._size if self.paused else self._size + len(rest)
        held = max(1, held) if self._fragments else held
        if held and fresh and self.on_begun is not None:
            self.on_begun()
        self.held = held

    def _refuse_header(self, first: int, size: int) -> Closed | None:
        """Check a frame's header before waiting for its payload; return the failure, if any."""
        opcode = first & 0x0F
        if opcode >= CLOSE:
            if opcode > PONG:
                return self._fail(CloseCode.PROTOCOL_ERROR, f"unknown opcode {opcode}")
            if size > 125 or not first & 0x80:
                return self._fail(
                    CloseCode.PROTOCOL_ERROR, "control frames are whole and 125 bytes at most"
                )
            return None
        if opcode > BINARY:
            return self._fail(CloseCode.PROTOCOL_ERROR, f"unknown opcode {opcode}")
        if opcode and self._fragments:
            return self._fail(CloseCode.PROTOCOL_ERROR, "a fragmented message is not finished")
        if size > self._max_message_size - self._size:
            return self._too_big()
        if self._fragments >= self._max_fragments:
            return self._fail(
                CloseCode.POLICY_VIOLATION, f"more than {self._max_fragments} fragments"
            )
        return None

    def _take_common(self, opcode: int, payload: bytes) -> Event:
        if opcode == TEXT:
            try:
                return payload.decode()
            except UnicodeDecodeError as exc:
                return self._fail(CloseCode.INVALID_DATA, f"{exc.reason} at byte {exc.start}")
        if opcode == BINARY:
            return payload
        if opcode == CLOSE:
            return self._take_close(payload)
        return Ping(payload) if opcode == PING else Pong(payload)

    def _take_close(self, payload: bytes) -> Closed:
        """Check a close frame; it may come between fragments (RFC 6455 section 5.4)."""
        try:
            close = Close.parse(payload)
        except _FrameError as exc:
            return self._fail(CloseCode.PROTOCOL_ERROR, str(exc))
        except UnicodeDecodeError as exc:
            return self._fail(CloseCode.INVALID_DATA, f"{exc.reason} at byte {exc.start}")
        self._forget()
        # The same code goes back, or none where none came (RFC 6455 section 5.5.1).
        return Closed(close.code, close.reason, _close_frame(payload), failed=False)

    def _take_other(self, whole: bytes, events: list[Event]) -> None:
        """Pass a fragment, or a compressed or invalid frame, to ``websockets``."""
        if self._protocol is None:
            self._protocol = ServerProtocol(state=OPEN, max_size=self._max_message_size)
            self._protocol.extensions = list(self._extensions)
        protocol = self._protocol
        protocol.receive_data(whole)
        if protocol.parser_exc is not None:
            events.append(self._failed(protocol))
            return
        for event in protocol.events_received():
            message = self._join(cast(Frame, event))
            if message is not None:
                events.append(message)

    def _join(self, part: Frame) -> Event | None:
        """Add a fragment; return the message if it was the last one."""
        if part.opcode is Opcode.TEXT:
            # Invalid UTF-8 is found in its own fragment, not at the end of the message. What
            # is decoded is not kept: it may take four times as much.
            self._text = codecs.getincrementaldecoder("utf-8")()
        if self._size + len(part.data) > self._max_message_size:
            return self._too_big()  # zlib takes "no bytes left" for "no limit"
        data = bytes(part.data)
        if self._text is not None:
            try:
                self._text.decode(data, part.fin)
            except UnicodeDecodeError as exc:
                return self._fail(CloseCode.INVALID_DATA, f"{exc.reason} at byte {exc.start}")
        self._fragments += 1
        self._size += len(part.data)
        self._parts.append(data)
        if not part.fin:
            return None
        text, data = self._text is not None, b"".join(self._parts)
        self._fragments, self._size, self._parts, self._text = 0, 0, [], None
        message = data.decode() if text else data
        self._given += weigh(message)
        return message

    def _failed(self, protocol: ServerProtocol) -> Closed:
        """Turn the protocol object's failure into our event."""
        exc = protocol.parser_exc
        if isinstance(exc, PayloadTooBig):
            return self._too_big()
        if isinstance(exc, UnicodeDecodeError):
            return self._fail(CloseCode.INVALID_DATA, f"{exc.reason} at byte {exc.start}")
        if isinstance(exc, _FrameError):
            return self._fail(CloseCode.PROTOCOL_ERROR, str(exc))
        return self._fail(CloseCode.INTERNAL_ERROR, "")

    def _too_big(self) -> Closed:
        return self._fail(CloseCode.MESSAGE_TOO_BIG, f"message over {self._max_message_size} bytes")

    def _fail(self, code: int, reason: str) -> Closed:
        self._forget()
        return Closed(int(code), reason, close_frame(code, reason), failed=True)

    def _forget(self) -> None:
        self._done = True
        self._protocol = None
        self._buffer = bytearray()
        self._parts, self._text, self._fragments, self._size = [], None, 0, 0
        self.held, self.paused, self.on_begun = 0, False, None


def _compressed(extensions: Sequence[Extension], opcode: int, payload: bytes) -> bytes:
    # An extension keeps its compressor in itself while it compresses, and several threads
    # may send. No context is kept between messages, so a copy per call loses nothing.
    copies = [copy.copy(extension) for extension in extensions]
    return Frame(Opcode(opcode), payload).serialize(mask=False, extensions=copies)
