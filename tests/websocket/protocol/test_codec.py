"""The framing rules of RFC 6455 and RFC 7692, with bytes."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from collections.abc import Sequence

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate

from daebus.websocket.protocol.codec import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Closed,
    Codec,
    Event,
    Ping,
    Pong,
    close_frame,
    frame,
)

CONT = 0
KEY = b"\x11\x22\x33\x44"
LIMIT = 1 << 20


def masked(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes = KEY,
    form: int = 0,
) -> bytes:
    """Build a client frame by hand; ``form`` 126 or 127 forces a longer header than needed."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    size = len(payload)
    if form == 127 or size > 0xFFFF:
        header = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    elif form == 126 or size > 125:
        header = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        header = bytes((first, 0x80 | size))
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return header + key + mixed.to_bytes(len(payload), "big")


def declared(opcode: int, size: int, *, fin: bool = True) -> bytes:
    """Build the header of a large client frame, none of its payload."""
    return bytes((0x80 * fin | opcode, 0xFF)) + size.to_bytes(8, "big") + KEY


def deflated(data: bytes) -> bytes:
    """Compress one message as RFC 7692 section 7.2.1 says."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def make(
    *, max_message_size: int = LIMIT, max_fragments: int = 4096, deflate: bool = False
) -> Codec:
    extensions: Sequence[PerMessageDeflate] = ()
    if deflate:
        extensions = [PerMessageDeflate(True, True, 15, 12, {"memLevel": 5})]
    return Codec(
        max_message_size=max_message_size, max_fragments=max_fragments, extensions=extensions
    )


def failure(codec: Codec, data: bytes) -> Closed:
    """Feed what must fail, and check what holds for every failure."""
    events = codec.feed(data)
    assert events, "nothing was noticed"
    closed = events[-1]
    assert isinstance(closed, Closed)
    assert closed.failed
    assert closed.answer == close_frame(closed.code, closed.reason)
    assert codec.feed(masked(TEXT, b"more")) == []
    assert codec.feed(masked(PING)) == []
    return closed


# --- what goes out ------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (125, b"\x7d"),
        (126, b"\x7e\x00\x7e"),
        (65535, b"\x7e\xff\xff"),
        (65536, b"\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_frame_has_the_shortest_header_and_no_mask(opcode: int, size: int, header: bytes) -> None:
    payload = os.urandom(size)
    assert frame(opcode, payload) == bytes((0x80 | opcode,)) + header + payload


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_control_frame(opcode: int) -> None:
    assert frame(opcode, b"abc") == bytes((0x80 | opcode, 3)) + b"abc"


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1013])
def test_close_frame(code: int) -> None:
    assert close_frame(code, "bye") == b"\x88\x05" + code.to_bytes(2, "big") + b"bye"


@pytest.mark.parametrize("code", [3000, 3999, 4000, 4999])
def test_close_frame_with_a_code_of_the_app(code: int) -> None:
    assert close_frame(code) == b"\x88\x02" + code.to_bytes(2, "big")


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70000])
def test_close_frame_refuses_codes_that_must_not_be_sent(code: int) -> None:
    with pytest.raises(ValueError, match=f"close code {code} must not be sent; use 1000"):
        close_frame(code)


@pytest.mark.parametrize(("letter", "kept"), [("x", 123), ("é", 61), ("€", 41), ("𝄞", 30)])
def test_close_reason_is_cut_between_characters(letter: str, kept: int) -> None:
    data = close_frame(1000, letter * 200)
    assert data[1] <= 125
    assert data[4:].decode() == letter * kept


def test_close_reason_with_half_a_surrogate_pair() -> None:
    assert close_frame(1000, "a\ud800b")[4:] == b"a?b"


# --- whole messages -----------------------------------------------------------------

SIZES = [0, 1, 124, 125, 126, 127, 128, 65535, 65536, 65537]


@pytest.mark.parametrize("size", SIZES)
def test_text_of_every_header_form(size: int) -> None:
    text = "a" * size
    assert make().feed(masked(TEXT, text.encode())) == [text]


@pytest.mark.parametrize("size", SIZES)
def test_binary_of_every_header_form(size: int) -> None:
    data = os.urandom(size)
    assert make().feed(masked(BINARY, data)) == [data]


@pytest.mark.parametrize("form", [126, 127])
@pytest.mark.parametrize("size", [0, 5, 125])
def test_longer_headers_than_needed_are_read(form: int, size: int) -> None:
    assert make().feed(masked(BINARY, b"x" * size, form=form)) == [b"x" * size]


@pytest.mark.parametrize("key", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x00\xff\x00\x80"])
def test_every_key_unmasks(key: bytes) -> None:
    assert make().feed(masked(TEXT, b"hello world", key=key)) == ["hello world"]


@pytest.mark.parametrize("text", ["", "κόσμε", "\0\x7f\x80߿ࠀ￿\U00010000\U0010ffff"])
def test_text_is_utf8(text: str) -> None:
    assert make().feed(masked(TEXT, text.encode())) == [text]


@pytest.mark.parametrize("size", [5, 200, 70_000])
def test_a_frame_byte_by_byte(size: int) -> None:
    data = masked(TEXT, b"x" * size)
    codec = make()
    for i in range(len(data) - 1):
        assert codec.feed(data[i : i + 1]) == []
        assert codec.held
    assert codec.feed(data[-1:]) == ["x" * size]
    assert not codec.held


def test_many_frames_in_one_read_keep_their_order() -> None:
    data = b"".join(
        (
            masked(TEXT, b"one"),
            masked(PING, b"p"),
            masked(BINARY, b"two"),
            masked(PONG, b"q"),
            masked(TEXT, b"three"),
        )
    )
    assert make().feed(data) == ["one", Ping(b"p"), b"two", Pong(b"q"), "three"]


@pytest.mark.parametrize("cut", range(1, 30))
def test_two_frames_cut_anywhere(cut: int) -> None:
    data = masked(TEXT, b"first") + masked(BINARY, b"y" * 200, form=126)
    codec = make()
    assert codec.feed(data[:cut]) + codec.feed(data[cut:]) == ["first", b"y" * 200]


def test_a_read_of_nothing_changes_nothing() -> None:
    codec = make()
    assert codec.feed(b"") == []
    assert not codec.held
    assert codec.feed(masked(TEXT, b"x")) == ["x"]


# --- fragments ----------------------------------------------------------------------


def test_fragments_are_joined() -> None:
    codec = make()
    assert codec.feed(masked(TEXT, b"one ", fin=False)) == []
    assert codec.held
    assert codec.feed(masked(CONT, b"two ", fin=False)) == []
    assert codec.feed(masked(CONT, b"three")) == ["one two three"]
    assert not codec.held


def test_binary_fragments_are_joined() -> None:
    data = masked(BINARY, b"\xff", fin=False) + masked(CONT, b"", fin=False) + masked(CONT, b"\xfe")
    assert make().feed(data) == [b"\xff\xfe"]


@pytest.mark.parametrize(("opcode", "message"), [(TEXT, ""), (BINARY, b"")])
def test_empty_fragments_make_an_empty_message(opcode: int, message: str | bytes) -> None:
    data = masked(opcode, fin=False) + masked(CONT, fin=False) + masked(CONT)
    assert make().feed(data) == [message]


def test_control_frames_between_fragments() -> None:
    data = b"".join(
        (
            masked(TEXT, b"a", fin=False),
            masked(PING, b"1"),
            masked(CONT, b"b", fin=False),
            masked(PONG, b"2"),
            masked(PING),
            masked(CONT, b"c"),
        )
    )
    assert make().feed(data) == [Ping(b"1"), Pong(b"2"), Ping(b""), "abc"]


def test_one_fragmented_message_after_the_other() -> None:
    codec = make()
    for opcode, message in ((TEXT, "ab"), (BINARY, b"ab"), (TEXT, "ab")):
        data = masked(opcode, b"a", fin=False) + masked(CONT, b"b")
        assert codec.feed(data) == [message]


def test_continuation_of_nothing() -> None:
    assert failure(make(), masked(CONT, b"x")).code == 1002


def test_continuation_after_the_last_fragment() -> None:
    codec = make()
    codec.feed(masked(TEXT, b"a", fin=False) + masked(CONT, b"b"))
    assert failure(codec, masked(CONT, b"c")).code == 1002


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_new_message_amid_fragments(opcode: int, fin: bool) -> None:
    codec = make()
    codec.feed(masked(TEXT, b"a", fin=False))
    closed = failure(codec, masked(opcode, b"b", fin=fin))
    assert (closed.code, closed.reason) == (1002, "a fragmented message is not finished")


def test_as_many_fragments_as_allowed() -> None:
    data = masked(TEXT, b"a", fin=False) + masked(CONT, b"a", fin=False) * 4094 + masked(CONT, b"a")
    assert make().feed(data) == ["a" * 4096]


@pytest.mark.parametrize("payload", [b"", b"a"])
def test_too_many_fragments(payload: bytes) -> None:
    codec = make()
    head = masked(BINARY, payload, fin=False) + masked(CONT, payload, fin=False) * 4095
    assert codec.feed(head) == []
    closed = failure(codec, masked(CONT, payload))
    assert (closed.code, closed.reason) == (1008, "more than 4096 fragments")


def test_the_count_of_fragments_starts_anew() -> None:
    codec = make(max_fragments=2)
    for _ in range(3):
        assert codec.feed(masked(TEXT, b"a", fin=False) + masked(CONT, b"b")) == ["ab"]


def test_a_message_in_one_frame_is_one_fragment() -> None:
    assert make(max_fragments=1).feed(masked(TEXT, b"x")) == ["x"]


# --- limits -------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_of_exactly_the_limit(opcode: int) -> None:
    (message,) = make(max_message_size=1000).feed(masked(opcode, b"x" * 1000))
    assert len(message) == 1000  # type: ignore[arg-type]  # a message, no control frame


@pytest.mark.parametrize(("limit", "size"), [(50, 51), (125, 126), (1000, 1001), (70_000, 70_001)])
def test_one_byte_over_the_limit(limit: int, size: int) -> None:
    closed = failure(make(max_message_size=limit), masked(TEXT, b"x" * size))
    assert (closed.code, closed.reason) == (1009, f"message over {limit} bytes")


@pytest.mark.parametrize("size", [LIMIT + 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_declared_size_is_refused_before_the_data(size: int) -> None:
    codec = make()
    head = declared(BINARY, size)
    assert codec.feed(head[:9]) == []  # the length is not all there
    assert failure(codec, head[9:10]).code == 1009


def test_declared_size_in_sixteen_bits_is_refused_before_the_data() -> None:
    assert failure(make(max_message_size=500), b"\x82\xfe\x01\xf5").code == 1009


def test_fragments_over_the_limit_are_refused_before_the_data() -> None:
    codec = make()
    assert codec.feed(masked(BINARY, b"x" * (LIMIT - 10), fin=False)) == []
    assert failure(codec, declared(CONT, 11)[:10]).code == 1009


def test_fragments_of_exactly_the_limit() -> None:
    codec = make(max_message_size=100)
    assert codec.feed(masked(TEXT, b"x" * 60, fin=False)) == []
    assert codec.feed(masked(CONT, b"x" * 40, fin=False)) == []
    assert codec.feed(masked(CONT, b"")) == ["x" * 100]


def test_the_limit_counts_bytes_not_characters() -> None:
    assert make(max_message_size=4).feed(masked(TEXT, "éé".encode())) == ["éé"]
    assert failure(make(max_message_size=3), masked(TEXT, "éé".encode())).code == 1009


def test_the_limit_of_one_message_says_nothing_about_the_next() -> None:
    codec = make(max_message_size=100)
    for _ in range(3):
        assert codec.feed(masked(TEXT, b"x" * 60, fin=False) + masked(CONT, b"x" * 40)) == [
            "x" * 100
        ]


def test_control_frames_are_no_part_of_the_message() -> None:
    codec = make(max_message_size=10)
    assert codec.feed(masked(TEXT, b"x" * 10, fin=False)) == []
    assert codec.feed(masked(PING, b"y" * 125)) == [Ping(b"y" * 125)]
    assert codec.feed(masked(CONT)) == ["x" * 10]


def test_a_close_reason_may_be_longer_than_a_message() -> None:
    data = (1000).to_bytes(2, "big") + b"thanks for all the fish"
    assert make(max_message_size=10).feed(masked(CLOSE, data)) == [
        Closed(1000, "thanks for all the fish", b"\x88\x19" + data, failed=False)
    ]


# --- control frames -----------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125])
def test_ping_and_pong(size: int) -> None:
    data = os.urandom(size)
    assert make().feed(masked(PING, data) + masked(PONG, data)) == [Ping(data), Pong(data)]


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_fragmented_control_frame(opcode: int) -> None:
    assert failure(make(), masked(opcode, b"", fin=False)).code == 1002


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("size", [126, 65536])
def test_control_frame_too_long_is_refused_by_its_header(opcode: int, size: int) -> None:
    head = masked(opcode, b"\x03\xe8" + b"x" * (size - 2))[:10]
    assert failure(make(), head).code == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("fin", [True, False])
def test_reserved_opcode(opcode: int, fin: bool) -> None:
    closed = failure(make(), masked(opcode, b"x", fin=fin))
    assert (closed.code, closed.reason) == (1002, f"unknown opcode {opcode}")


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("rsv", range(1, 8))
def test_reserved_bits(rsv: int, opcode: int, deflate: bool) -> None:
    codec = make(deflate=deflate)
    if opcode == CONT:
        assert codec.feed(masked(TEXT, b"", fin=False)) == []
    data = masked(opcode, b"" if opcode == CLOSE else deflated(b"x"), rsv=rsv)
    if deflate and rsv == 4 and opcode in (TEXT, BINARY):
        assert codec.feed(data) in (["x"], [b"x"])
    else:
        assert failure(codec, data).code == 1002


@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("size", [0, 5, 126, 65536])
def test_unmasked_frame(opcode: int, size: int) -> None:
    head = b"%c%c" % (0x80 | opcode, size if size < 126 else 126 if size < 65536 else 127)
    assert failure(make(), head).code == 1002


def test_messages_before_a_failure_are_delivered() -> None:
    events = make().feed(masked(TEXT, b"a") + masked(PING, b"b") + masked(3) + masked(TEXT, b"c"))
    assert events[:2] == ["a", Ping(b"b")]
    assert len(events) == 3
    assert isinstance(events[2], Closed)


# --- UTF-8 --------------------------------------------------------------------------

BROKEN = [
    b"\x80",  # a continuation byte alone
    b"\xc0\xaf",  # overlong
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",  # half a surrogate pair
    b"\xf4\x90\x80\x80",  # above U+10FFFF
    b"\xff",
    b"\xfe\xfe",
    b"ab\xc3(",  # no continuation byte
]
UNFINISHED = [b"\xc3", b"\xe2\x82", b"\xf0\x9d\x84"]


@pytest.mark.parametrize("data", BROKEN + UNFINISHED)
@pytest.mark.parametrize("before", [b"", b"x" * 200])
def test_broken_utf8(data: bytes, before: bytes) -> None:
    assert failure(make(), masked(TEXT, before + data)).code == 1007


@pytest.mark.parametrize("data", BROKEN)
def test_broken_utf8_in_the_middle_of_a_read(data: bytes) -> None:
    codec = make()
    events = codec.feed(masked(TEXT, b"a") + masked(TEXT, data) + masked(TEXT, b"c"))
    assert events[0] == "a"
    assert isinstance(events[1], Closed)
    assert events[1].code == 1007
    assert len(events) == 2


@pytest.mark.parametrize("data", BROKEN)
def test_broken_utf8_fails_in_the_fragment_it_stands_in(data: bytes) -> None:
    codec = make()
    assert codec.feed(masked(TEXT, "κόσμε".encode(), fin=False)) == []
    assert failure(codec, masked(CONT, data + b"x", fin=False)).code == 1007


def test_broken_utf8_across_fragments_fails_in_the_second() -> None:
    codec = make()
    assert codec.feed(masked(TEXT, b"\xf4", fin=False)) == []  # U+100000 may follow
    assert failure(codec, masked(CONT, b"\x90", fin=False)).code == 1007


@pytest.mark.parametrize("data", UNFINISHED)
def test_unfinished_utf8_fails_in_the_last_fragment(data: bytes) -> None:
    codec = make()
    assert codec.feed(masked(TEXT, data, fin=False)) == []
    assert codec.feed(masked(CONT, b"", fin=False)) == []
    assert failure(codec, masked(CONT, b"")).code == 1007


@pytest.mark.parametrize("cut", range(1, 10))
def test_characters_may_be_cut_by_fragments(cut: int) -> None:
    text = "𝄞€éa"
    data = text.encode()
    codec = make()
    assert codec.feed(masked(TEXT, data[:cut], fin=False)) == []
    assert codec.feed(masked(PING, b"\xff")) == [Ping(b"\xff")]
    assert codec.feed(masked(CONT, data[cut:])) == [text]


def test_a_character_of_one_byte_a_fragment() -> None:
    first, *middle, last = [bytes((byte,)) for byte in "𝄞".encode()]
    codec = make()
    codec.feed(masked(TEXT, first, fin=False))
    for part in middle:
        assert codec.feed(masked(CONT, part, fin=False)) == []
    assert codec.feed(masked(CONT, last)) == ["𝄞"]


def test_binary_is_not_checked() -> None:
    data = masked(BINARY, b"\xff", fin=False) + masked(CONT, b"\xc3")
    assert make().feed(data) == [b"\xff\xc3"]


# --- close --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        1000,
        1001,
        1002,
        1003,
        1007,
        1008,
        1009,
        1010,
        1011,
        1012,
        1013,
        1014,
        3000,
        3999,
        4000,
        4999,
    ],
)
@pytest.mark.parametrize("reason", ["", "bye", "κόσμε", "x" * 123])
def test_close_is_answered_with_the_same(code: int, reason: str) -> None:
    payload = code.to_bytes(2, "big") + reason.encode()
    expected = Closed(code, reason, bytes((0x88, len(payload))) + payload, failed=False)
    assert make().feed(masked(CLOSE, payload)) == [expected]


def test_close_without_a_code() -> None:
    assert make().feed(masked(CLOSE)) == [Closed(1005, "", b"\x88\x00", failed=False)]


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000])
def test_close_with_a_code_that_must_not_be_sent(code: int) -> None:
    assert failure(make(), masked(CLOSE, code.to_bytes(2, "big"))).code == 1002


def test_close_with_half_a_code() -> None:
    assert failure(make(), masked(CLOSE, b"\x03")).code == 1002


@pytest.mark.parametrize("data", BROKEN + UNFINISHED)
def test_close_with_a_broken_reason(data: bytes) -> None:
    assert failure(make(), masked(CLOSE, b"\x03\xe8" + data)).code == 1007


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_close_amid_a_fragmented_message(opcode: int, deflate: bool) -> None:
    # RFC 6455 section 5.4: control frames may stand between fragments; Autobahn 7.1.5.
    codec = make(deflate=deflate)
    assert codec.feed(masked(opcode, b"a", fin=False)) == []
    assert codec.feed(masked(CLOSE, b"\x03\xe8")) == [
        Closed(1000, "", b"\x88\x02\x03\xe8", failed=False)
    ]
    assert codec.feed(masked(CONT, b"b")) == []


def test_broken_close_amid_a_fragmented_message() -> None:
    codec = make()
    codec.feed(masked(TEXT, b"a", fin=False))
    assert failure(codec, masked(CLOSE, b"\x03\xed")).code == 1002


def test_nothing_comes_after_the_close() -> None:
    codec = make()
    events = codec.feed(masked(TEXT, b"a") + masked(CLOSE) + masked(TEXT, b"b") + masked(PING))
    assert events == ["a", Closed(1005, "", b"\x88\x00", failed=False)]
    for data in (masked(TEXT, b"c"), masked(PING), masked(CLOSE), b"\x00\x00", b"\xff" * 100):
        assert codec.feed(data) == []


def test_what_follows_the_close_is_not_kept() -> None:
    codec = make()
    codec.feed(masked(CLOSE))
    tracemalloc.start()
    try:
        for _ in range(64):
            codec.feed(b"x" * 65536)
        assert tracemalloc.get_traced_memory()[0] < 65536
    finally:
        tracemalloc.stop()


def test_nothing_is_held_after_the_close() -> None:
    codec = make()
    codec.feed(masked(TEXT, b"a", fin=False) + masked(CLOSE))
    assert not codec.held


# --- compression --------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100, 2043, 2044, 5000, 200_000])
def test_compressed_message(size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    codec = make(deflate=True)
    assert codec.feed(masked(TEXT, deflated(data), rsv=4)) == [data.decode()]
    assert codec.feed(masked(BINARY, deflated(data), rsv=4)) == [data]


@pytest.mark.parametrize("size", [100, 5000])
def test_incompressible_message(size: int) -> None:
    data = os.urandom(size)
    assert make(deflate=True).feed(masked(BINARY, deflated(data), rsv=4)) == [data]


def test_compressed_and_plain_messages_in_turn() -> None:
    codec = make(deflate=True)
    data = masked(TEXT, deflated(b"one"), rsv=4) + masked(TEXT, b"two") + masked(PING)
    assert codec.feed(data + masked(BINARY, deflated(b"three"), rsv=4)) == [
        "one",
        "two",
        Ping(b""),
        b"three",
    ]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("last", "paused"), [("a", False), ("\N{GRINNING FACE}", True)])
def test_texts_that_wait_count_with_the_memory_they_take(
    last: str, paused: bool, whole: bool
) -> None:
    codec = make(max_message_size=100_000, deflate=True)
    text = "a" * 30_000 + last  # with the emoji, Python stores each character in four bytes
    first = text.encode()
    data = masked(TEXT, first) if whole else masked(TEXT, deflated(first), rsv=4)
    data += masked(TEXT, deflated(b"next"), rsv=4)
    assert codec.feed(data) == ([text] if paused else [text, "next"])
    assert codec.paused == paused
    assert codec.feed(b"") == (["next"] if paused else [])


@pytest.mark.parametrize("cut", [0, 1, 5, 20])
def test_compressed_fragments(cut: int) -> None:
    whole = deflated("κόσμε ".encode() * 100)
    data = masked(TEXT, whole[:cut], fin=False, rsv=4) + masked(PING, b"p")
    assert make(deflate=True).feed(data + masked(CONT, whole[cut:])) == [Ping(b"p"), "κόσμε " * 100]


def test_context_is_kept_between_messages_where_that_was_negotiated() -> None:
    compressor = zlib.compressobj(wbits=-15)
    codec = Codec(
        max_message_size=LIMIT,
        max_fragments=10,
        extensions=[PerMessageDeflate(False, False, 15, 15)],
    )
    for turn in range(3):
        part = compressor.compress(b"hello world") + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert (len(part) < 10) == (turn > 0)  # later ones refer to the first
        assert codec.feed(masked(TEXT, part[:-4], rsv=4)) == ["hello world"]


def test_compressed_message_of_several_blocks() -> None:
    # RFC 7692 section 7.2.3.4: a message may be more than one DEFLATE block, and may end
    # with BFINAL set.
    compressor = zlib.compressobj(wbits=-15)
    blocks = compressor.compress(b"one ") + compressor.flush(zlib.Z_FULL_FLUSH)
    blocks += compressor.compress(b"two") + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert make(deflate=True).feed(masked(TEXT, blocks[:-4], rsv=4)) == ["one two"]
    compressor = zlib.compressobj(wbits=-15)
    final = compressor.compress(b"end") + compressor.flush(zlib.Z_FINISH)
    codec = make(deflate=True)
    assert codec.feed(masked(TEXT, final + b"\0", rsv=4)) == ["end"]
    assert codec.feed(masked(TEXT, deflated(b"next"), rsv=4)) == ["next"]


@pytest.mark.parametrize("garbage", [b"\x06", b"\xff" * 20, b"\x01\x05\x00\x00\x00abcde"])
def test_no_deflate_stream(garbage: bytes) -> None:
    assert failure(make(deflate=True), masked(TEXT, garbage, rsv=4)).code == 1002


def test_compressed_text_that_is_no_utf8() -> None:
    assert failure(make(deflate=True), masked(TEXT, deflated(b"a\xff"), rsv=4)).code == 1007


def test_compressed_bit_without_the_extension() -> None:
    assert failure(make(), masked(TEXT, deflated(b"x"), rsv=4)).code == 1002


def test_compressed_message_of_exactly_the_limit() -> None:
    codec = make(max_message_size=5000, deflate=True)
    assert codec.feed(masked(BINARY, deflated(b"x" * 5000), rsv=4)) == [b"x" * 5000]
    assert failure(codec, masked(BINARY, deflated(b"x" * 5001), rsv=4)).code == 1009


def bomb(size: int) -> bytes:
    """Compress that many zeros, without holding them."""
    compressor = zlib.compressobj(9, wbits=-15)
    block = bytes(1 << 20)
    parts = [compressor.compress(block) for _ in range(size >> 20)]
    return b"".join(parts) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]


@pytest.mark.parametrize("cuts", [1, 2, 16])
def test_compression_bomb_is_refused_without_inflating_it(cuts: int) -> None:
    data = bomb(64 << 20)  # 64 KiB on the wire
    step = -(-len(data) // cuts)
    parts = [data[i : i + step] for i in range(0, len(data), step)]
    frames = [
        masked(CONT if i else BINARY, part, fin=i == len(parts) - 1, rsv=0 if i else 4)
        for i, part in enumerate(parts)
    ]
    codec = make(deflate=True)
    events: list[Event] = []
    tracemalloc.start()
    try:
        for part in frames:
            events += codec.feed(part)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (closed,) = events
    assert isinstance(closed, Closed)
    assert (closed.code, closed.reason) == (1009, f"message over {LIMIT} bytes")
    assert peak < 4 * LIMIT


@pytest.mark.parametrize("limit", [500, 1000, 5000])
def test_a_fragment_that_fills_the_limit_leaves_no_room_to_inflate(limit: int) -> None:
    # The first fragment inflates to exactly the limit while zlib holds output back; the
    # last one is empty, and "0 bytes left" would mean no limit at all to zlib.
    whole = deflated(b"x" * 20_000)
    for cut in range(1, len(whole)):
        codec = make(max_message_size=limit, deflate=True)
        events = codec.feed(masked(BINARY, whole[:cut], fin=False, rsv=4))
        if not events:
            events = codec.feed(masked(CONT, b""))
        sizes = [len(event) for event in events if isinstance(event, bytes)]
        assert not sizes or max(sizes) <= limit


def test_compress() -> None:
    codec = make(deflate=True)
    data = codec.compress(TEXT, b"hello " * 100)
    assert data[0] == 0xC1
    assert data[1] == len(data) - 2
    assert zlib.decompressobj(wbits=-12).decompress(data[2:] + b"\0\0\xff\xff") == b"hello " * 100
    assert codec.compress(TEXT, b"hello " * 100) == data  # no context is carried over


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_compress_without_the_extension_is_a_plain_frame(opcode: int) -> None:
    assert make().compress(opcode, b"abc") == frame(opcode, b"abc")
    assert make().compression is None


def test_equal_compression_gives_equal_frames() -> None:
    one, other = make(deflate=True), make(deflate=True)
    different = Codec(
        max_message_size=LIMIT, max_fragments=9, extensions=[PerMessageDeflate(True, True, 15, 9)]
    )
    assert one.compression == other.compression
    assert one.compression != different.compression
    assert one.compress(TEXT, b"x" * 500) == other.compress(TEXT, b"x" * 500)
