"""What is kept of one client's messages: ``max_message_size`` bytes, whatever the client does."""

from __future__ import annotations

import tracemalloc
import zlib
from typing import cast

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate

from daebus.websocket.connection.limits import Limits
from daebus.websocket.connection.reader import Reader, Watch
from daebus.websocket.connection.writer import Writer
from daebus.websocket.protocol.codec import Closed, Codec
from tests.support.links import FakeTransport, FakeWatch, make_writer
from tests.support.peer import CLOSE, TEXT, frame

MIB = 1 << 20


def compressed(payload: bytes, *, fin: bool = True) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    packed = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    whole = bytearray(frame(TEXT, packed.removesuffix(b"\x00\x00\xff\xff"), fin=fin))
    whole[0] |= 0x40
    return bytes(whole)


class Both:
    """A reader whose client may compress."""

    def __init__(self, limits: Limits) -> None:
        self.transport = FakeTransport()
        self.writer: Writer = make_writer(self.transport, limits)
        self.codec = Codec(
            max_message_size=limits.max_message_size,
            max_fragments=limits.max_fragments,
            extensions=[PerMessageDeflate(True, True, 15, 12)],
        )
        self.reader = Reader(self.writer, self.codec, cast(Watch, FakeWatch()))
        self.reader.reading = False

    def read_ahead(self, data: bytes) -> None:
        self.transport.incoming.append(data)
        with self.writer.lock:
            self.reader.read_for_owner_locked()

    def waiting(self) -> int:
        return sum(
            len(message.encode()) for message in self.reader.inbox if isinstance(message, str)
        )

    def wants_more(self) -> bool:
        with self.writer.lock:
            return self.reader.wants_more_locked()


def test_what_one_read_inflates_to_is_not_held_at_once() -> None:
    both = Both(Limits())
    one = compressed(b"a" * (MIB - 1))
    both.transport.incoming += [one * 50 + frame(CLOSE, b"\x03\xe8")]
    seen = 0
    tracemalloc.start()
    try:
        for message in both.reader.messages():
            seen += 1
            assert len(message) == MIB - 1
            assert both.waiting() == 0
            del message
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == 50
    assert both.writer.cause is not None
    assert both.writer.cause.code == 1000
    assert peak < 5 * MIB  # frame, payload and text of one, as it is inflated


def test_small_ones_are_taken_together() -> None:
    both = Both(Limits())
    both.transport.incoming += [compressed(b"small") * 20]
    assert next(both.reader.messages()) == "small"
    assert len(both.reader.inbox) == 19


def test_nothing_is_inflated_ahead_beyond_the_room() -> None:
    both = Both(Limits())
    both.reader.lend(both.reader.turn)
    both.read_ahead(compressed(b"a" * (MIB // 2)) * 20)
    assert both.waiting() == MIB // 2
    assert not both.wants_more()
    assert both.reader.unread()  # so it is not taken for silent
    both.transport.incoming += [frame(CLOSE, b"\x03\xe8")]
    assert len(list(both.reader.messages())) == 20


def test_what_is_left_when_the_connection_ends_is_dropped_one_by_one() -> None:
    both = Both(Limits())
    both.transport.incoming += [compressed(b"a" * (MIB - 1)) * 20]
    messages = both.reader.messages()
    next(messages)
    both.writer.shut(4000, "enough", "server")
    assert list(messages) == []
    both.transport.incoming += [frame(CLOSE, b"\x0f\xa0")]
    both.reader.drain(0.0)
    assert both.reader.final == Closed(4000, "", both.reader.final.answer, failed=False)  # type: ignore[union-attr]  # it came
    assert not both.reader.inbox


@pytest.mark.parametrize(
    "wide",
    [
        "\N{GRINNING FACE}",
        pytest.param("\N{CJK UNIFIED IDEOGRAPH-4E2D}", marks=pytest.mark.slow),
        pytest.param("é", marks=pytest.mark.slow),
    ],
)
def test_fragments_are_kept_as_bytes(wide: str) -> None:
    codec = Codec(max_message_size=2 * MIB, max_fragments=5000)
    part = (wide + "a" * 250).encode()
    whole = frame(TEXT, part, fin=False) + frame(0, part, fin=False) * 3999
    pieces = [whole[start : start + 65536] for start in range(0, len(whole), 65536)]
    tracemalloc.start()
    try:
        for piece in pieces:
            assert codec.feed(piece) == []
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    size = 4000 * len(part)
    assert codec.held >= size
    assert kept < 1.5 * size
    assert codec.feed(frame(0, wide)) == [part.decode() * 4000 + wide]
    assert codec.held == 0


def test_a_character_cut_in_two_is_joined() -> None:
    codec = Codec(max_message_size=100, max_fragments=10)
    data = "\N{GRINNING FACE}".encode()
    assert codec.feed(frame(TEXT, data[:1], fin=False)) == []
    assert codec.feed(frame(0, data[1:3], fin=False)) == []
    assert codec.feed(frame(0, data[3:])) == ["\N{GRINNING FACE}"]


def test_reading_ahead_counts_bytes() -> None:
    both = Both(Limits(max_message_size=1000))
    both.reader.lend(both.reader.turn)
    both.read_ahead(frame(TEXT, "\N{GRINNING FACE}" * 200))
    assert both.wants_more()
    both.read_ahead(frame(TEXT, "\N{GRINNING FACE}" * 50))
    assert not both.wants_more()


def test_one_read_ahead_takes_what_there_is_room_for() -> None:
    both = Both(Limits(max_message_size=1000))
    sizes: list[int] = []
    take = both.transport.try_recv

    def noting(size: int = 0) -> bytes | None:
        sizes.append(size)
        return take(size)

    both.transport.try_recv = noting  # type: ignore[method-assign]  # to see what is asked for
    both.reader.lend(both.reader.turn)
    both.read_ahead(frame(TEXT, "x" * 300))
    both.read_ahead(frame(TEXT, "x" * 300)[:200])
    both.read_ahead(b"")
    assert sizes == [1014, 714, 514]


def test_one_of_the_largest_size_is_read_ahead_to_its_end() -> None:
    both = Both(Limits(max_message_size=1000))
    whole = frame(TEXT, "x" * 1000)
    both.reader.lend(both.reader.turn)
    for byte in whole:
        assert both.wants_more()
        both.read_ahead(bytes((byte,)))
    assert len(both.reader.inbox) == 1
    assert not both.wants_more()


def test_what_came_with_the_message_that_is_handled_counts_too() -> None:
    both = Both(Limits(max_message_size=1000))
    both.transport.incoming += [frame(TEXT, "x" * 600) * 3]
    next(both.reader.messages())
    both.reader.lend(both.reader.turn)
    assert both.reader.ahead == 1200
    assert not both.wants_more()
