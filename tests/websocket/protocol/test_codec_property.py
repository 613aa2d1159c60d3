"""Our codec against ``ServerProtocol`` of websockets: the same bytes, valid and broken.

They may differ in these points, each on purpose:

1. We take a close frame amid a fragmented message (RFC 6455 section 5.4), they fail it.
2. We count fragments.
3. We judge a frame by its header, they once it is whole; so of several faults we may name
   another one first, 1002 where they say 1009.
4. They count a control frame amid a fragmented message against the size of the message.
5. They let zlib inflate a last, empty fragment without a limit.
"""

from __future__ import annotations

import codecs
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from daebus.websocket.protocol.codec import Closed, Codec, Event, Ping, Pong

LIMIT = 1000
MANY = 1 << 20

quick = settings(max_examples=40, derandomize=True, deadline=None, database=None)
thorough = settings(quick, max_examples=5000)


# --- both sides ---------------------------------------------------------------------


@dataclass
class Outcome:
    """What came out: messages and control frames, then how it ended, if it did."""

    events: list[Event] = field(default_factory=list)
    code: int | None = None
    failed: bool = False
    answer: bytes = b""


@dataclass(frozen=True)
class Deflate:
    """Compression as negotiated, for one side after the other."""

    no_context: bool
    bits: int

    def make(self) -> list[Extension]:
        return [PerMessageDeflate(self.no_context, True, self.bits, 12)]


def run_ours(parts: list[bytes], deflate: Deflate | None, *, max_fragments: int = MANY) -> Outcome:
    codec = Codec(
        max_message_size=LIMIT,
        max_fragments=max_fragments,
        extensions=deflate.make() if deflate else (),
    )
    outcome = Outcome()
    for part in parts:
        for item in feed_all(codec, part):
            assert outcome.code is None, "something came after the end"
            if isinstance(item, Closed):
                outcome.code, outcome.failed, outcome.answer = item.code, item.failed, item.answer
            else:
                outcome.events.append(item)
    return outcome


def feed_all(codec: Codec, data: bytes) -> Iterator[Event]:
    """Feed, and go on as long as the codec waits for room; what it gives must fit."""
    fed = len(data)  # plain frames of it may wait behind compressed ones, and come out later
    while True:
        events = codec.feed(data)
        inflated = sum(
            len(item.encode() if isinstance(item, str) else item)
            for item in events
            if isinstance(item, str | bytes)
        )
        assert inflated <= LIMIT + fed, "more than there is room for"
        yield from events
        if not codec.paused:
            return
        data = b""


class Theirs:
    """``ServerProtocol`` with what its callers do: joining fragments and decoding text."""

    def __init__(self, deflate: Deflate | None) -> None:
        self.protocol = ServerProtocol(state=OPEN, max_size=LIMIT)
        if deflate:
            self.protocol.extensions = deflate.make()
        self.outcome = Outcome()
        self.close_amid_fragments = False
        self._text: codecs.IncrementalDecoder | None = None
        self._parts: list[str | bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        if self._ended():
            return
        self.protocol.receive_data(data)
        for item in self.protocol.events_received():
            assert isinstance(item, Frame)
            self._take(item)
            if self._ended():
                return
        problem = self.protocol.parser_exc
        if problem is None:
            return
        self.close_amid_fragments = self.protocol.close_rcvd is not None
        if isinstance(problem, PayloadTooBig):
            self._fail(1009)
        elif isinstance(problem, UnicodeDecodeError):
            self._fail(1007)
        else:
            assert isinstance(problem, ProtocolError)
            self._fail(1002)

    def _ended(self) -> bool:
        return self.outcome.code is not None

    def _fail(self, code: int) -> None:
        self.outcome.code, self.outcome.failed = code, True

    def _take(self, part: Frame) -> None:
        data = bytes(part.data)
        if part.opcode is Opcode.PING:
            self.outcome.events.append(Ping(data))
        elif part.opcode is Opcode.PONG:
            self.outcome.events.append(Pong(data))
        elif part.opcode is Opcode.CLOSE:
            assert self.protocol.close_rcvd is not None
            self.outcome.code = self.protocol.close_rcvd.code
            self.outcome.answer = [data for data in self.protocol.data_to_send() if data][-1]
        else:
            self._join(part, data)

    def _join(self, part: Frame, data: bytes) -> None:
        if part.opcode is Opcode.TEXT:
            self._text = codecs.getincrementaldecoder("utf-8")()
        self._size += len(data)
        if self._size > LIMIT:  # point 5
            self._fail(1009)
            return
        try:
            self._parts.append(self._text.decode(data, part.fin) if self._text else data)
        except UnicodeDecodeError:
            self._fail(1007)
            return
        if part.fin:
            joined: Event = b"".join(part for part in self._parts if isinstance(part, bytes))
            if self._text:
                joined = "".join(part for part in self._parts if isinstance(part, str))
            self.outcome.events.append(joined)
            self._text, self._parts, self._size = None, [], 0


def compare(ours: Outcome, parts: list[bytes], deflate: Deflate | None) -> None:
    """Fail unless the two agree, up to the points above."""
    theirs = Theirs(deflate)
    for part in parts:
        theirs.feed(part)
    expected = theirs.outcome
    if ours.code == 1002 and ours.failed and expected.code is None:
        theirs.feed(bytes(LIMIT + 16))  # the rest of a frame that we have judged already
    elif ours.code is None and expected.code == 1002:
        # They judge the opcode before the length has come.
        ours = run_ours([*parts, bytes(8)], deflate)
    both = min(len(ours.events), len(expected.events))
    assert ours.events[:both] == expected.events[:both]
    beyond = ours.events[both:]
    if beyond:
        event("1009 for a control frame")
        assert isinstance(beyond[0], Ping | Pong)
        assert (expected.code, expected.failed) == (1009, True)
        return
    if ours.failed and ours.code == 1008:
        event("more fragments than we take")
        return
    assert expected.events[both:] == []
    if expected.code == 1009 and expected.failed and ours.code != 1009:
        event("1009 for another fault, or for a close frame")
        assert ours.code not in (None, 1007)
        return
    if theirs.close_amid_fragments:
        event("close amid fragments")
        close = theirs.protocol.close_rcvd
        assert close is not None
        assert (ours.code, ours.failed) == (close.code, False)
        return
    event(f"ends with {expected.code}, failed: {expected.failed}")
    assert (ours.code, ours.failed) == (expected.code, expected.failed)
    if not ours.failed:
        assert ours.answer == expected.answer


# --- byte streams -------------------------------------------------------------------


def masked(first: int, payload: bytes, key: bytes, *, mask: bool = True, form: int = 0) -> bytes:
    size = len(payload)
    if form == 127:
        header = bytes((first, 127 | 0x80 * mask)) + size.to_bytes(8, "big")
    elif form == 126 or size > 125:
        header = bytes((first, 126 | 0x80 * mask)) + size.to_bytes(2, "big")
    else:
        header = bytes((first, size | 0x80 * mask))
    if not mask:
        return header + payload
    return header + key + bytes(a ^ b for a, b in zip(payload, itertools.cycle(key), strict=False))


keys = st.binary(min_size=4, max_size=4)
# Short ones, those about the sizes where headers change, and some above the limit.
sizes = st.one_of(st.integers(0, 20), st.sampled_from([124, 125, 126, 127, 999, 1000, 1001]))
texts = st.text(max_size=30).map(str.encode)
payloads = st.one_of(
    texts, st.binary(max_size=30), st.builds(lambda size, byte: byte * size, sizes, st.sampled_from(
        [b"x", b"\x00", b"\xff"]
    ))
)  # fmt: skip


@st.composite
def controls(draw: st.DrawFn) -> bytes:
    return masked(draw(st.sampled_from([0x89, 0x8A])), draw(st.binary(max_size=20)), draw(keys))


@st.composite
def closes(draw: st.DrawFn) -> bytes:
    code = draw(st.one_of(st.sampled_from([1000, 1001, 1005, 1011, 3000]), st.integers(0, 0xFFFF)))
    payload = code.to_bytes(2, "big") + draw(texts | st.binary(max_size=4))
    if draw(st.booleans()):
        payload = payload[: draw(st.integers(0, 2))]
    return masked(0x88, payload[:125], draw(keys))


@st.composite
def messages(draw: st.DrawFn, *, compressed: bool) -> bytes:
    """A message, perhaps compressed, in one or several frames, pings between them."""
    payload = draw(payloads)
    first = draw(st.sampled_from([1, 2]))
    if compressed and draw(st.booleans()):
        first |= 0x40
        compressor = zlib.compressobj(wbits=-9)
        payload = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    places = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=6)))
    parts = [payload[a:b] for a, b in itertools.pairwise([0, *places, len(payload)])]
    out = []
    for i, part in enumerate(parts):
        head = (first if i == 0 else 0) | (0x80 if i == len(parts) - 1 else 0)
        out.append(masked(head, part, draw(keys), form=draw(st.sampled_from([0, 0, 0, 126, 127]))))
        if draw(st.integers(0, 3)) == 0:
            out.append(draw(controls()))
    return b"".join(out)


@st.composite
def oddities(draw: st.DrawFn) -> bytes:
    """A frame with any header."""
    return masked(
        draw(st.integers(0, 255)),
        draw(payloads),
        draw(keys),
        mask=draw(st.integers(0, 9)) > 0,
        form=draw(st.sampled_from([0, 126, 127])),
    )


@st.composite
def streams(draw: st.DrawFn, *, compressed: bool, broken: bool) -> list[bytes]:
    """A byte stream, cut at random places."""
    pieces = [messages(compressed=compressed), messages(compressed=compressed), controls()]
    if broken:
        pieces += [oddities(), closes()]
    data = bytearray(b"".join(draw(st.lists(st.one_of(pieces), max_size=6))))
    if not broken and draw(st.booleans()):
        data += draw(closes())
    if broken and data:
        for _ in range(draw(st.integers(0, 2))):
            data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
        del data[len(data) - draw(st.integers(0, min(8, len(data)))) :]
    return cut(bytes(data), draw(st.lists(st.integers(0, len(data)), max_size=12)))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    return [data[a:b] for a, b in itertools.pairwise([0, *sorted(places), len(data)])]


deflates = st.builds(Deflate, st.booleans(), st.sampled_from([9, 12, 15]))


# --- the properties -----------------------------------------------------------------


def agree(parts: list[bytes], deflate: Deflate | None, max_fragments: int) -> None:
    whole = b"".join(parts)
    ours = run_ours(parts, deflate, max_fragments=max_fragments)
    assert ours == run_ours([whole], deflate, max_fragments=max_fragments), "cutting changes it"
    bytewise = cut(whole, list(range(0, len(whole), 1 + len(whole) // 400)))
    assert ours == run_ours(bytewise, deflate, max_fragments=max_fragments), "cutting changes it"
    compare(ours, parts, deflate)


limits = st.sampled_from([MANY, MANY, 3])


@quick
@given(streams(compressed=False, broken=False), limits)
def test_orderly_streams(parts: list[bytes], max_fragments: int) -> None:
    agree(parts, None, max_fragments)


@quick
@given(streams(compressed=False, broken=True), limits)
def test_broken_streams(parts: list[bytes], max_fragments: int) -> None:
    agree(parts, None, max_fragments)


@quick
@given(streams(compressed=True, broken=False), deflates, limits)
def test_orderly_compressed_streams(
    parts: list[bytes], deflate: Deflate, max_fragments: int
) -> None:
    agree(parts, deflate, max_fragments)


@quick
@given(streams(compressed=True, broken=True), deflates, limits)
def test_broken_compressed_streams(
    parts: list[bytes], deflate: Deflate, max_fragments: int
) -> None:
    agree(parts, deflate, max_fragments)


@quick
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=12))
def test_noise(data: bytes, places: list[int]) -> None:
    agree(cut(data, [min(place, len(data)) for place in places]), None, MANY)


@pytest.mark.slow
@pytest.mark.timeout(600)
@thorough
@given(
    st.booleans().flatmap(lambda broken: streams(compressed=True, broken=broken)),
    st.none() | deflates,
    limits,
)
def test_thoroughly(parts: list[bytes], deflate: Deflate | None, max_fragments: int) -> None:
    agree(parts, deflate, max_fragments)
