"""The generator's own frames and readers, held against the frames of websockets and wsproto."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from wsproto.frame_protocol import FrameProtocol

from benchmarks import wire

LENGTHS = (0, 1, 125, 126, 127, 65535, 65536, 70000)


@pytest.mark.parametrize("length", LENGTHS)
def test_request_frame_is_read_by_an_independent_server_parser(length: int) -> None:
    payload = bytes(n % 251 for n in range(length))
    parser = FrameProtocol(client=False, extensions=[])
    parser.receive_bytes(wire.frame(payload, wire.BINARY))
    received = bytearray()
    for part in parser.received_frames():
        assert isinstance(part.payload, bytes | bytearray)
        received += part.payload
    assert received == payload


@pytest.mark.parametrize("length", LENGTHS)
def test_unmasked_frame_is_the_one_a_server_sends(length: int) -> None:
    payload = b"a" * length
    expected = Frame(Opcode.TEXT, payload).serialize(mask=False)
    assert wire.frame(payload, masked=False) == expected


@given(
    messages=st.lists(st.binary(max_size=300), max_size=8),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=60),
)
def test_reader_finds_every_message_however_the_bytes_are_cut(
    messages: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(Frame(Opcode.BINARY, m).serialize(mask=False) for m in messages)
    reader = wire.FrameReader()
    found = []
    start = 0
    for cut in cuts:
        found += reader.feed(stream[start : start + cut])
        start += cut
    found += reader.feed(stream[start:])
    assert found == [(wire.BINARY, m) for m in messages]
    assert not reader.pending


def test_fragments_are_joined_around_a_control_frame() -> None:
    reader = wire.FrameReader()
    parts = [
        Frame(Opcode.TEXT, b"", fin=False),
        Frame(Opcode.PING, b"p"),
        Frame(Opcode.CONT, b"ab", fin=False),
        Frame(Opcode.CONT, b"c"),
    ]
    found = reader.feed(b"".join(part.serialize(mask=False) for part in parts))
    assert found == [(wire.PING, b"p"), (wire.TEXT, b"abc")]


def test_pending_tells_of_half_a_frame_and_of_half_a_message() -> None:
    reader = wire.FrameReader()
    reader.feed(b"\x81\x02a")
    assert reader.pending
    reader.feed(b"b\x01\x01c")  # the rest, and the first fragment of the next
    assert reader.pending
    assert reader.feed(b"\x80\x00") == [(wire.TEXT, b"c")]
    assert not reader.pending


@pytest.mark.parametrize(
    "data",
    [
        wire.frame(b"masked"),
        b"\xc1\x00",  # a reserved bit
        b"\x83\x00",  # a reserved opcode
        b"\x80\x00",  # a continuation of nothing
        b"\x01\x00\x81\x00",  # a message inside a message
    ],
)
def test_what_no_server_may_send_is_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.FrameReader().feed(data)


def test_lines_are_cut_wherever_they_arrive() -> None:
    reader = wire.LineReader()
    assert reader.feed(b'{"a"') == []
    assert reader.pending
    assert reader.feed(b":1}\n2\n3") == [(wire.TEXT, b'{"a":1}'), (wire.TEXT, b"2")]
    assert reader.feed(b"\n") == [(wire.TEXT, b"3")]
    assert not reader.pending


@pytest.mark.parametrize("name", ["websocket", "lines"])
def test_answer_of_a_dialect_is_what_its_reader_reads(name: str) -> None:
    dialect = wire.Dialect(name)
    assert dialect.reader().feed(dialect.answer(b"[1]")) == [(wire.TEXT, b"[1]")]


def test_upgrade_is_accepted_only_with_the_right_key() -> None:
    _, accept = wire.upgrade_request("localhost", 80)
    head = b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: " + accept
    wire.check_upgrade(head, accept)
    with pytest.raises(wire.WireError, match="Accept"):
        wire.check_upgrade(head, b"other")
    with pytest.raises(wire.WireError, match="503"):
        wire.check_upgrade(b"HTTP/1.1 503 Service Unavailable", accept)
