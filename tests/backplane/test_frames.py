"""Frames and names as bytes and text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daebus.backplane.frames import FrameError, Header, Template, Unsigned, pack, unpack
from daebus.backplane.names import SLOTS, Names, check_node, crc16, random_name, tags
from daebus.backplane.store import Notice, notice, read_notices

TEXT = st.text(max_size=20)
HEADERS = st.builds(
    Header,
    node=TEXT,
    incarnation=TEXT,
    number=st.integers(0, 2**63),
    kind=TEXT,
    to=TEXT,
    exclude=st.lists(TEXT, max_size=3).map(tuple),
    conflate=st.none() | TEXT,
    droppable=st.booleans(),
    more=st.dictionaries(st.sampled_from(("q", "id", "up")), st.none() | TEXT | st.integers()),
)
KEYS = st.none() | st.binary(min_size=1, max_size=9)


@given(HEADERS, st.binary(), TEXT, KEYS)
def test_what_is_packed_is_what_is_read(
    header: Header, payload: bytes, channel: str, key: bytes | None
) -> None:
    frame = pack(header, payload, channel, key)

    assert unpack(frame, channel, key) == (header, payload)
    assert unpack(frame, channel) == (header, payload)


@given(HEADERS, st.binary(), TEXT, st.binary(min_size=1, max_size=9), st.data())
def test_signed_frame_that_was_changed_is_refused(
    header: Header, payload: bytes, channel: str, key: bytes, data: st.DataObject
) -> None:
    frame = bytearray(pack(header, payload, channel, key))
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= data.draw(st.integers(1, 255))

    for changed, where, secret in (
        (bytes(frame), channel, key),
        (pack(header, payload, channel, key), f"{channel}x", key),
        (pack(header, payload, channel, key), channel, b"%bx" % key),
        (pack(header, payload, channel), channel, key),
    ):
        with pytest.raises(FrameError):
            unpack(changed, where, secret)


@pytest.mark.parametrize("text", ["floor 3", 'x","s":7}', "\n", "x" * 400])
@pytest.mark.parametrize("secret", [None, b"key"])
def test_frames_that_differ_in_number_and_payload_alone(text: str, secret: bytes | None) -> None:
    header = Header("n", "i", 0, "room", text, (), None, False, {"m": text})

    for number in (0, 1, 20, 10**17, 10**18):
        numbered, payload = header._replace(number=number), b"%d" % number
        assert unpack(pack(numbered, payload, "c", secret), "c", secret) == (numbered, payload)


def test_line_that_is_refused_is_refused_again() -> None:
    for _ in range(2):
        with pytest.raises(FrameError, match="version 2"):
            unpack(b'{"v":2,"n":"n","i":"i","k":"all","s":1}\n')
        with pytest.raises(FrameError):
            unpack(b'{"v":1,"n":"n","i":"i","s":1}\n')


@given(st.lists(st.binary(), min_size=1, max_size=5))
def test_changes_of_one_notice_have_offsets_in_a_row(frames: list[bytes]) -> None:
    top = 10 + len(frames)

    assert read_notices(notice("epoch", top, "2.5", *frames)) == [
        Notice("epoch", offset, 2.5, frame) for offset, frame in enumerate(frames, 11)
    ]


@pytest.mark.parametrize("data", [b"", b"e 1 2.5", b"e 1\nx", b"e 1 x\nx", b"e 1 2.5 x 2\nx"])
def test_what_is_no_notice(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"line|values|literal|convert"):
        read_notices(data)


def test_frame_without_signature_is_told_apart() -> None:
    with pytest.raises(Unsigned):
        unpack(Template("n", "i", "room").number(1), "channel", b"key")


@given(st.binary(max_size=60))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(FrameError):
        unpack(noise)


@pytest.mark.parametrize(
    "line",
    [
        '{"v":2,"n":"n","i":"i","s":1,"k":"k"}',
        '{"v":1,"n":"n","i":"i","s":"1","k":"k"}',
        '{"v":1,"n":"n","i":"i","s":true,"k":"k"}',
        '{"v":1,"n":1,"i":"i","s":1,"k":"k"}',
        '{"v":1,"n":"n","i":"i","s":1}',
        '{"v":1,"n":"n","i":"i","s":1,"k":"k","x":[1]}',
        '{"v":1,"n":"n","i":"i","s":1,"k":"k","x":5}',
        '{"v":1,"n":"n","i":"i","s":1,"k":"k","c":5}',
        "[1]",
        "1",
        "[" * 100_000,
        "\ud800",
    ],
)
def test_lines_that_no_node_writes_are_refused(line: str) -> None:
    with pytest.raises(FrameError):
        unpack(line.encode(errors="surrogatepass") + b"\nx")


@given(HEADERS, st.binary(), st.booleans())
def test_size_is_never_too_small(header: Header, payload: bytes, signed: bool) -> None:
    template = Template("n", "i", header.kind, header.to, payload, exclude=header.exclude)
    frame = template.number(header.number, "channel", b"key" if signed else None)

    assert len(frame) <= template.size(signed=signed) <= len(frame) + 20


def test_example_of_the_documentation() -> None:
    frame = Template("k7Qm", "9fX2", "room", "floor 3", b"{}", exclude=("k7Qm.a1",)).number(42)

    assert frame == (
        b'{"v":1,"n":"k7Qm","i":"9fX2","k":"room","to":"floor 3","x":["k7Qm.a1"],"s":42}\n{}'
    )


# --- names ---------------------------------------------------------------------------


def test_crc_is_that_of_clusters() -> None:
    assert crc16(b"123456789") == 0x31C3  # from the specification of Redis Cluster


@pytest.mark.parametrize("partitions", [1, 2, 7, 64, 256])
def test_tags_are_spread_evenly(partitions: int) -> None:
    slots = [crc16(tag.encode()) % SLOTS for tag in tags(partitions)]

    assert [slot * partitions // SLOTS for slot in slots] == list(range(partitions))
    assert len({*tags(partitions)}) == partitions


@pytest.mark.parametrize("name", ["a:b", "{x}", "a b", "ä", "%", "\ud800", "\n"])
def test_no_name_breaks_out_of_its_key(name: str) -> None:
    names = Names(name, 4)
    keys = [names.beats, names.node("n"), names.lease("n"), names.key(1, "s", name, name)]

    assert all(key.isascii() and key.isprintable() and " " not in key for key in keys)
    assert [key.count("{") for key in keys] == [0, 0, 0, 1]
    assert [key.count(":") for key in keys] == [2, 3, 3, 5]
    assert 0 <= names.partition(name) < 4
    assert names.partition("") == 0
    assert names.frames(1).partition("{")[2].partition("}")[0] == tags(4)[1]


@given(st.integers(1, 32))
def test_random_names_are_names(length: int) -> None:
    assert len(check_node(random_name(length))) == length
