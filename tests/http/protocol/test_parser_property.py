"""The reader against h11, and against itself when the bytes come in pieces."""

from __future__ import annotations

import contextlib
import itertools
import time

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daebus.http.protocol import heads
from daebus.http.protocol import parser as module
from daebus.http.protocol.heads import BadRequest
from daebus.http.protocol.limits import Limits
from daebus.http.protocol.parser import Parser, Request
from tests.http.protocol.test_smuggling import CASES, Case

quick = settings(max_examples=40, derandomize=True, deadline=None, database=None)
thorough = settings(quick, max_examples=10_000)

LIMITS = Limits(max_body=1000, max_memory_body=20, max_line=300, max_head=2000)

Seen = list[tuple[str, str, list[tuple[str, str]], bytes]]


def ours(stream: bytes, cuts: list[int]) -> tuple[Seen, int | None]:
    """Return the requests that we find, and the status of the refusal, if any."""
    reader = Parser(LIMITS)
    seen: Seen = []
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    try:
        for start, end in itertools.pairwise(places):
            data = stream[start:end]
            while (request := reader.feed(data)) is not None:
                head = request.head
                with contextlib.closing(request.body):
                    body = request.body.read()
                assert len(body) == request.size
                seen.append((head.method, head.target, head.headers, body))
                data = b""
    except BadRequest as exc:
        return seen, exc.status
    finally:
        reader.close()
    return seen, None


def theirs(stream: bytes) -> tuple[Seen, bool]:
    """Return the requests that h11 finds, and whether it refused.

    Each gets a connection of its own: h11 refuses the empty lines before a request that
    RFC 9112 section 2.2 wants ignored, so they are removed here.
    """
    seen: Seen = []
    while True:
        while stream.startswith(b"\r\n"):
            stream = stream[2:]
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=5000)
        connection.receive_data(stream)
        body = b""
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    return seen, False
        except h11.RemoteProtocolError:
            return seen, True
        headers = [(k.decode(), v.decode("latin-1")) for k, v in request.headers]
        seen.append((request.method.decode(), request.target.decode(), headers, body))
        stream = connection.trailing_data[0]


@pytest.mark.parametrize("piece", [7, 1000, 100_000])
@pytest.mark.parametrize("extension", [b"", b" ;a=b"])
def test_thousands_of_small_chunks(piece: int, extension: bytes) -> None:
    body = bytes(range(256)) * 20
    stream = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for start in range(0, len(body), 2):
        stream += b"2%b\r\n%b\r\n" % (extension, body[start : start + 2])
    reader = Parser(Limits(max_memory_body=1000))
    stream += b"0\r\n\r\n"
    found = [reader.feed(stream[at : at + piece]) for at in range(0, len(stream), piece)]
    assert found[:-1] == [None] * (len(found) - 1)
    request = found[-1]
    assert request is not None
    with contextlib.closing(request.body):
        assert (request.size, request.body.read()) == (len(body), body)


@pytest.mark.parametrize(
    ("stream", "status"), [(b"1\r\na\r\n" * 1001, 413), (b"1\r\na\r\n2\r\nabc\r\n", 400)]
)
def test_small_chunks_that_are_refused(stream: bytes, status: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert ours(head + stream, []) == ([], status)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_few_empty_lines_are_ignored_and_many_refused(at_once: bool) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    parser = Parser(LIMITS)

    def feed(data: bytes) -> Request | None:
        parts = [data] if at_once else [bytes((byte,)) for byte in data]
        return [parser.feed(part) for part in parts][-1]

    for _ in range(3):  # they are counted for each request
        request = feed(b"\r\n" * 16 + head)
        assert request is not None
        assert request.head.method == "GET"
    with pytest.raises(BadRequest, match="empty lines"):
        feed(b"\r\n" * 17)


def test_what_comes_byte_by_byte_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def find_broken(data: bytes, start: int) -> bool:
        nonlocal looked
        looked += len(data) - start
        return heads.find_broken(data, start)

    monkeypatch.setattr(module, "find_broken", find_broken)
    filler = b"\r\n".join(b"%d: %b" % (i, b"b" * 100) for i in range(60))
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    data = head + filler + b"\r\n\r\n0\r\n" + filler + b"\r\n\r\n"
    parser = Parser(Limits())
    done = [parser.feed(bytes((byte,))) for byte in data][-1]
    assert done is not None
    assert looked < 4 * len(data)


def test_a_body_in_crumbs_is_noticed() -> None:
    parser = Parser(Limits())
    parser.feed(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for data, crumbs in [
        (b"1\r\na\r\n" * 1000, True),
        (b"100\r\n" + bytes(256) + b"\r\n", False),
        (b"1\r\na\r\n" * 1000 + b"1\r\n", True),
        (b"a", False),
    ]:
        parser.feed(data)
        assert parser.in_crumbs == crumbs
    parser.close()


@pytest.mark.parametrize(
    "name",
    ["a." * 126 + "ab", "xn--" + "a" * 8000, "xn--" + "a" * 60, "b.xn--" + "a" * 100 + ".example"],
)
def test_what_is_too_long_for_a_host_is_not_decoded(name: str) -> None:
    began = time.thread_time()
    assert not heads.is_host(name)
    assert not heads.is_host(name + ":80")
    assert time.thread_time() - began < 0.01
    assert heads.is_host("a." * 126 + "a:80")


def test_only_a_body_of_known_length_is_plain() -> None:
    reader = Parser(LIMITS)
    post = b"POST / HTTP/1.1\r\nHost: x\r\n"
    for data, plain in [
        (b"", False),
        (post, False),
        (b"Content-Length: 3\r\n\r\n", True),
        (b"abc", False),
        (post + b"Transfer-Encoding: chunked\r\n\r\n", False),
        (b"5\r\nab", False),
    ]:
        reader.feed(data)
        assert reader.in_plain_body == plain
    reader.close()


# Lines that are right, lines that are nearly right, and noise between.
_WORDS = [b"a", b"close", b"chunked", b"3", b"+3", b"0x3", b"3, 3", b"100-continue", b"x:80", b""]
_NAMES = [b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"X-A", b"A b", b""]
_ENDS = st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"\r\n ", b"\0\r\n", b"\r\r\n"])
_LINES = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    st.sampled_from(_NAMES) | st.binary(max_size=3),
    st.sampled_from([b": "] * 10 + [b":", b" : ", b"", b":\t"]),
    st.sampled_from(_WORDS) | st.binary(max_size=4),
    _ENDS,
)
_FIRST = st.builds(
    lambda method, target, version, end: method + b" " + target + b" " + version + end,
    st.sampled_from([b"GET", b"POST", b"OPTIONS", b"get", b"G(T"]) | st.binary(max_size=3),
    st.sampled_from([b"/", b"/a?b=c", b"*", b"http://x/", b"a"]) | st.binary(max_size=4),
    st.sampled_from([b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ", b"HTTP/1.10"]),
    _ENDS,
)
_SIZES = st.sampled_from([b"0", b"1", b"3", b"a", b"+1", b"0x1", b"", b"1;a=b", b"1;\n", b"fff"])
_CHUNKS = st.lists(
    st.builds(
        lambda size, data, end: size + b"\r\n" + data + end,
        _SIZES,
        st.sampled_from([b"a", b"abc", b"0123456789", b""]),
        _ENDS,
    ),
    max_size=3,
).map(lambda parts: b"".join(parts) + b"0\r\n\r\n")
_REQUESTS = st.builds(
    lambda first, lines, body: first + b"Host: x\r\n" + b"".join(lines) + b"\r\n" + body,
    _FIRST | st.just(b"POST / HTTP/1.1\r\n"),
    st.lists(_LINES, max_size=3)
    | st.just([b"Transfer-Encoding: chunked\r\n"])
    | st.just([b"Content-Length: 3\r\n"]),
    _CHUNKS | st.just(b"abc") | st.just(b""),
)
_STREAMS = st.lists(_REQUESTS, min_size=1, max_size=3).map(b"".join)


def same_in_pieces(stream: bytes, cuts: list[int]) -> None:
    seen, status = ours(stream, [])
    for places in (cuts, list(range(len(stream)))):
        again, other = ours(stream, places)
        assert again == seen
        assert (other is None) == (status is None)


def same_as_theirs(stream: bytes) -> None:
    seen, _ = ours(stream, [])
    other, refused = theirs(stream)
    for mine, his in zip(seen, other, strict=False):
        assert mine == his
    # We never take what h11 finds broken, though we may wait for more before we say so.
    if refused:
        assert len(seen) <= len(other)


@quick
@given(_STREAMS, st.lists(st.integers(0, 400), max_size=8))
def test_pieces_do_not_matter(stream: bytes, cuts: list[int]) -> None:
    same_in_pieces(stream, cuts)


@quick
@given(_STREAMS)
@example(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;\n\r\na\r\n0\r\n\r\n")
def test_what_we_take_h11_takes_and_reads_the_same(stream: bytes) -> None:
    same_as_theirs(stream)


@pytest.mark.slow
@pytest.mark.timeout(600)
@thorough
@given(_STREAMS, st.lists(st.integers(0, 400), max_size=8))
def test_thoroughly(stream: bytes, cuts: list[int]) -> None:
    same_in_pieces(stream, cuts)
    same_as_theirs(stream)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_in_pieces(case: Case) -> None:
    data = case.data
    seen, status = ours(data, [])
    again, other = ours(data, list(range(len(data))))
    assert (again, other is None) == (seen, status is None)


@quick
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_noise_is_refused_or_waited_for(data: bytes, cuts: list[int]) -> None:
    seen, status = ours(data, cuts)
    assert seen == []
    assert status in (None, 400, 414, 431, 501, 505)


@quick
@given(st.binary(max_size=900), st.lists(st.integers(1, 200), max_size=6))
def test_bodies_arrive_whole(body: bytes, sizes: list[int]) -> None:
    chunks, rest = b"", body
    for size in [*sizes, 1000]:
        part, rest = rest[:size], rest[size:]
        if part:
            chunks += b"%X\r\n%b\r\n" % (len(part), part)
    head = b"POST / HTTP/1.1\r\nHost: x\r\n"
    stream = (
        head
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
        + head
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + chunks
        + b"0\r\n\r\n"
    )
    for places in ([], list(range(len(stream)))):
        seen, status = ours(stream, places)
        assert status is None
        assert [found for *_, found in seen] == [body, body]
