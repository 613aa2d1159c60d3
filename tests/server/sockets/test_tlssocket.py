"""TLS around a socket: what goes in comes out, whole and in order, however it is cut."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daebus.server.sockets import tlssocket as module
from daebus.server.sockets.tlssocket import PlainTextError, TlsSocket
from daebus.server.sockets.transport import Transport
from tests.support.builds import package
from tests.support.tls import VERSIONS, Sealer, client_context, server_context
from tests.support.waiting import eventually

# What a client sees of a connection that ends without a close_notify; since 3.15 the socket's own
# error, if there is one.
CUT = (ssl.SSLEOFError, BrokenPipeError)

NARROW = 2048  # the kernel doubles it, and takes a few KiB at least


class Pair:
    """A TLS connection: the pipe, non-blocking, and a client of the standard library."""

    def __init__(self, version: ssl.TLSVersion | None = None, buffer: int | None = None) -> None:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            if buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            sock.setblocking(False)
        self.raw = ours
        self.pipe = TlsSocket(ours, server_context())
        self.client = client_context(version).wrap_socket(
            theirs,
            server_hostname="127.0.0.1",
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )

    def shake(self) -> set[str]:
        """Shake hands; return what the pipe waited for meanwhile."""
        waited: set[str] = set()
        while True:
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.client.do_handshake()
                if "done" in waited:
                    return waited
            waited.add(self.pipe.handshake())

    def read(self) -> bytes:
        """Return what the client can read now."""
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while part := self.client.recv(65536):
                parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        self.pipe.close()
        self.client.close()


@contextlib.contextmanager
def paired(version: ssl.TLSVersion | None = None, buffer: int | None = None) -> Iterator[Pair]:
    pair = Pair(version, buffer)
    try:
        pair.shake()
        yield pair
    finally:
        pair.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with paired() as pair:
        yield pair


@pytest.fixture
def sealed() -> Iterator[tuple[TlsSocket, Sealer]]:
    """A pipe and a client whose records the test sends by itself; hands are shaken."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    pipe = TlsSocket(ours, server_context())
    sealer = Sealer(theirs)
    ours.settimeout(5)
    thread = threading.Thread(target=sealer.join)
    thread.start()
    while pipe.handshake() != "done":
        pass
    thread.join(5)
    sealer.read(0)
    ours.setblocking(False)
    yield pipe, sealer
    pipe.close()
    theirs.close()


def readable(pipe: TlsSocket) -> bool:
    return bool(select.select([pipe], [], [], 0)[0])


# --- streams ------------------------------------------------------------------------

SIZES = st.one_of(st.integers(1, 20), st.integers(1, 3000), st.integers(15000, 40000))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), SIZES),
        st.tuples(st.just("take"), SIZES),
        st.tuples(st.just("say"), SIZES),
        st.tuples(st.just("hear"), st.integers(1, 40000)),
    ),
    min_size=1,
    max_size=40,
)


def pattern(size: int) -> bytes:
    """Bytes of which a lost, doubled or moved one is seen."""
    return b"".join(struct.pack(">I", number) for number in range(size // 4 + 1))[:size]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_both_streams_arrive_whole(version: ssl.TLSVersion, steps: list[tuple[str, int]]) -> None:
    out = pattern(sum(size for what, size in steps if what == "send") + 1)
    into = pattern(sum(size for what, size in steps if what == "say") + 1)
    sent = offered = said = tried = 0
    taken, heard = bytearray(), bytearray()
    with paired(version, NARROW) as pair:
        for what, size in [*steps, ("send", 1), ("say", 1)]:
            try:
                if what == "send":
                    offered += size
                    sent += pair.pipe.send(out[sent:offered])
                elif what == "take":
                    taken += pair.client.recv(size)
                elif what == "say":
                    tried = max(tried, said + size)  # OpenSSL wants the same again, or more
                    said += pair.client.send(into[said:tried])
                else:
                    heard += pair.pipe.recv(size)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            # What is reported is on its way; never more than that can arrive but one byte.
            assert sent <= offered
            assert len(taken) <= sent + 1
        deadline = time.monotonic() + 5
        while len(taken) < len(out) or len(heard) < len(into):
            assert time.monotonic() < deadline
            with contextlib.suppress(BlockingIOError):
                sent += pair.pipe.send(out[sent:]) if sent < len(out) else 0
            taken += pair.read()
            with contextlib.suppress(ssl.SSLWantWriteError):
                said += pair.client.send(into[said:]) if said < len(into) else 0
            with contextlib.suppress(BlockingIOError):
                heard += pair.pipe.recv(65536)
        assert sent == len(out)
        assert bytes(taken) == out
        assert bytes(heard) == into


def test_single_bytes_through_a_full_socket() -> None:
    data = pattern(20_000)
    with paired(buffer=NARROW) as pair:
        sent, taken, refused = 0, b"", 0
        while sent < len(data):
            try:
                assert pair.pipe.send(data[sent : sent + 1]) == 1
                sent += 1
            except BlockingIOError:
                refused += 1
                taken += pair.read()
        taken += pair.read()
        assert refused
        assert taken == data


def test_a_byte_is_kept_back_while_ciphertext_waits() -> None:
    data = pattern(3_000_000)
    with paired(buffer=NARROW) as pair:
        first = pair.pipe.send(data)
        assert first == module.MAX_SEALED - 1  # sealed in one go, and no more
        with pytest.raises(BlockingIOError):
            pair.pipe.send(data[first:])
        taken = b""
        while len(taken) < module.MAX_SEALED:
            taken += pair.read()
            with contextlib.suppress(BlockingIOError):
                assert pair.pipe.send(data[first : first + 1]) == 1
                first += 1
        assert taken == data[: module.MAX_SEALED]


def test_a_fast_reader_gets_more_than_is_sealed_at_once() -> None:
    data = pattern(3 * module.MAX_SEALED + 7)
    ours, theirs = socket.create_server(("127.0.0.1", 0)), socket.socket()
    with ours, theirs:
        theirs.connect(ours.getsockname())
        raw, _ = ours.accept()
        theirs.settimeout(5)
        pipe = TlsSocket(raw, server_context())
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sealer = Sealer(theirs)
        thread = threading.Thread(target=sealer.join)
        thread.start()
        while pipe.handshake() != "done":
            pass
        thread.join()
        got: list[bytes] = []

        def take() -> None:
            while sum(map(len, got)) < len(data):
                got.append(sealer.read())

        reader = threading.Thread(target=take)
        reader.start()
        sent = pipe.send(data)
        assert sent > module.MAX_SEALED
        while sent < len(data):
            select.select([], [pipe], [], 5)
            with contextlib.suppress(BlockingIOError):
                sent += pipe.send(data[sent:])
        reader.join(5)
        assert b"".join(got) == data
        pipe.close()


def test_many_threads_send_while_one_reads() -> None:
    """Whole messages of several threads, under the lock of whoever serialises them."""
    with paired() as pair:
        pair.raw.settimeout(None)
        pair.client.settimeout(10)
        serial = threading.Lock()
        count, writers = 300, 4

        def write(name: int) -> None:
            for number in range(count):
                data = struct.pack(">BI", name, number) + bytes((name,)) * 700
                with serial:
                    while data:
                        try:
                            data = data[pair.pipe.send(data) :]
                        except BlockingIOError:
                            select.select([], [pair.pipe], [], 5)

        heard: list[bytes] = []

        def read() -> None:
            while sum(map(len, heard)) < count * 100:
                heard.append(pair.pipe.recv(65536))

        threads = [threading.Thread(target=write, args=(name,)) for name in range(writers)]
        threads.append(threading.Thread(target=read))
        for thread in threads:
            thread.start()
        expected = dict.fromkeys(range(writers), 0)
        buffer = b""
        for turn in range(count * writers):
            if turn < count:
                pair.client.sendall(bytes((turn % 256,)) * 100)
            while len(buffer) < 705:
                buffer += pair.client.recv(65536)
            name, number = struct.unpack(">BI", buffer[:5])
            assert number == expected[name]
            assert buffer[5:705] == bytes((name,)) * 700
            expected[name] += 1
            buffer = buffer[705:]
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
        assert b"".join(heard) == b"".join(bytes((n % 256,)) * 100 for n in range(count))


# --- reading ------------------------------------------------------------------------


def test_a_record_that_comes_byte_by_byte(sealed: tuple[TlsSocket, Sealer]) -> None:
    pipe, sealer = sealed
    record = sealer.seal(b"hello")
    for byte in record[:-1]:
        sealer.sock.sendall(bytes((byte,)))
        with pytest.raises(BlockingIOError):
            pipe.recv(65536)
    sealer.sock.sendall(record[-1:])
    assert pipe.recv(65536) == b"hello"


def test_nothing_waits_behind_the_socket(sealed: tuple[TlsSocket, Sealer]) -> None:
    pipe, sealer = sealed
    records = [sealer.seal(bytes((letter,)) * 10_000) for letter in b"abc"]
    begun = sealer.seal(b"last")
    sealer.sock.sendall(b"".join(records) + begun[:9])
    assert pipe.recv(65536) == b"a" * 10_000 + b"b" * 10_000 + b"c" * 10_000
    assert not readable(pipe)
    sealer.sock.sendall(begun[9:])
    assert pipe.recv(65536) == b"last"


def test_a_wait_ends_though_a_record_has_begun(sealed: tuple[TlsSocket, Sealer]) -> None:
    pipe, sealer = sealed
    transport = Transport(pipe)
    record = sealer.seal(b"hello")
    sealer.sock.sendall(record[:3])
    assert transport.recv_until(time.monotonic() + 0.05) is None
    sealer.sock.sendall(record[3:])
    assert transport.recv_until(time.monotonic() + 5) == b"hello"


# --- ends ---------------------------------------------------------------------------


def test_the_end_without_goodbye(sealed: tuple[TlsSocket, Sealer]) -> None:
    pipe, sealer = sealed
    sealer.sock.sendall(sealer.seal(b"half a") + sealer.seal(b"lost")[:7])
    sealer.sock.shutdown(socket.SHUT_WR)
    assert pipe.recv(65536) == b"half a"
    assert pipe.recv(65536) == b""


def test_goodbye_behind_data_is_noticed_by_pollers(sealed: tuple[TlsSocket, Sealer]) -> None:
    pipe, sealer = sealed
    sealer.sock.sendall(sealer.seal(b"bye") + sealer.goodbye())  # and the socket stays open
    assert pipe.recv(65536) == b"bye"
    assert readable(pipe)
    assert pipe.recv(65536) == b""
    assert pipe.send(b"one more") == 8
    assert sealer.sock.recv(65536)


def test_a_broken_record_ends_the_stream(pair: Pair) -> None:
    raw = socket.socket(fileno=pair.client.detach())
    raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert pair.pipe.recv(65536) == b""
    assert readable(pair.pipe)
    assert pair.pipe.recv(65536) == b""
    raw.settimeout(5)
    assert raw.recv(65536)[:1] in (b"\x15", b"\x17")  # an alert, sealed in TLS 1.3
    raw.close()


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_goodbye_before_the_write_side_is_shut(version: ssl.TLSVersion) -> None:
    with paired(version) as pair:
        assert pair.pipe.send(b"the answer") == 10
        pair.pipe.shutdown(socket.SHUT_WR)
        pair.client.setblocking(True)
        assert pair.client.recv(100) == b"the answer"
        assert pair.client.recv(100) == b""  # it would raise if the stream were cut
        pair.client.sendall(b"still talking")
        assert pair.pipe.recv(65536)  # counted, no more
        pair.client.close()
        while pair.pipe.recv(65536):
            pass


def test_a_close_says_goodbye(pair: Pair) -> None:
    pair.pipe.close()
    pair.pipe.close()
    assert pair.pipe.fileno() == -1
    pair.client.setblocking(True)
    assert pair.client.recv(100) == b""


def test_a_cut_stream_does_not_look_whole() -> None:
    with paired(buffer=NARROW) as pair:
        pair.pipe.send(bytes(100_000))
        pair.pipe.close()
        with pytest.raises(CUT):
            pair.read()


def test_the_copy_of_a_forked_child_says_nothing(pair: Pair) -> None:
    pair.raw.close()
    with pytest.raises(CUT):
        pair.client.recv(100)


def test_a_client_that_left(pair: Pair) -> None:
    pair.client.close()
    with pytest.raises(BrokenPipeError):
        pair.pipe.send(bytes(1000))
    pair.pipe.shutdown(socket.SHUT_RDWR)


# --- handshakes ---------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_handshake_through_a_narrow_socket(version: ssl.TLSVersion) -> None:
    pair = Pair(version, 1)
    # The smallest buffer that the kernel gives; this much is in it already.
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += pair.raw.send(bytes(100))
    peer = socket.socket(fileno=pair.client.detach())
    peer.settimeout(5)
    sealer = Sealer(peer, client_context(version))
    peer.sendall(sealer.hello())
    assert pair.pipe.handshake() == "write"
    assert pair.pipe.handshake() == "write"
    while filled:
        filled -= len(peer.recv(filled))
    answer = b""
    while pair.pipe.handshake() == "write":
        answer += peer.recv(65536)
    sealer._incoming.write(answer)
    thread = threading.Thread(target=finish, args=(sealer,))
    thread.start()
    while pair.pipe.handshake() != "done":
        pass
    thread.join(5)
    assert pair.pipe.send(b"hello") == 5
    assert sealer.read() == b"hello"
    pair.pipe.close()
    peer.close()


def finish(sealer: Sealer) -> None:
    while True:
        try:
            sealer.engine.do_handshake()
            sealer.sock.sendall(sealer._outgoing.read())
            return
        except ssl.SSLWantReadError:
            sealer.sock.sendall(sealer._outgoing.read())
            sealer._more()


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_data_behind_the_handshake(version: ssl.TLSVersion) -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    ours.settimeout(5)
    pipe, sealer = TlsSocket(ours, server_context()), Sealer(theirs, client_context(version))
    thread = threading.Thread(target=sealer.join)
    if version is ssl.TLSVersion.TLSv1_3:  # the client is done first, and may go on at once
        thread = threading.Thread(
            target=lambda: theirs.sendall(sealer.shake() + sealer.seal(b"early"))
        )
    thread.start()
    while pipe.handshake() != "done":
        pass
    thread.join(5)
    assert pipe.take() == (b"early" if version is ssl.TLSVersion.TLSv1_3 else b"")
    pipe.close()
    theirs.close()


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_an_alert_that_nobody_takes(version: ssl.TLSVersion) -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    ours.settimeout(5)
    pipe, sealer = TlsSocket(ours, server_context()), Sealer(theirs, client_context(version))
    thread = threading.Thread(target=sealer.join)
    thread.start()
    while pipe.handshake() != "done":
        pass
    thread.join(5)
    theirs.sendall(sealer.seal(b"the last") + b"\x17\x03\x03\x00\x20" + bytes(32))
    theirs.close()
    assert pipe.recv(65536) == b"the last"
    assert pipe.recv(65536) == b""
    pipe.close()


@pytest.mark.parametrize(
    ("data", "error", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", PlainTextError, b""),
        (b"G", PlainTextError, b""),
        (bytes(100), ssl.SSLError, b""),
        (b"\x16\x03\x01\xff\xff" + bytes(100), ssl.SSLError, b"\x15"),
    ],
    ids=["http", "letter", "zeros", "record"],
)
def test_what_is_no_handshake(data: bytes, error: type[Exception], answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        pipe = TlsSocket(ours, server_context())
        theirs.sendall(data)
        with pytest.raises(error):
            pipe.handshake()
        pipe.shutdown(socket.SHUT_WR)
        theirs.sendall(b"more")
        assert pipe.recv(100) == b"more"  # to be counted while it is drained
        pipe.close()
        theirs.settimeout(5)
        assert theirs.recv(100)[:1] == answer


def test_a_client_that_leaves_during_the_handshake() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    pipe = TlsSocket(ours, server_context())
    assert pipe.handshake() == "read"
    theirs.sendall(Sealer(theirs).hello())
    assert pipe.handshake() == "read"
    theirs.close()
    with pytest.raises(OSError, match=r"."):
        pipe.handshake()
    pipe.close()


# --- key updates --------------------------------------------------------------------


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[tuple[TlsSocket, Sealer, Callable[[], Any]]]:
    keys = package("benchmarks.tlskeys")
    context = client_context(ssl.TLSVersion.TLSv1_3)
    context.keylog_filename = str(tmp_path / "keys")
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    ours.settimeout(5)
    pipe, sealer = TlsSocket(ours, server_context()), Sealer(theirs, context)
    thread = threading.Thread(target=sealer.join)
    thread.start()
    while pipe.handshake() != "done":
        pass
    thread.join(5)
    ours.setblocking(False)
    yield pipe, sealer, lambda: keys.Keys(tmp_path / "keys")
    pipe.close()
    theirs.close()


def test_key_updates_are_answered(
    keyed: tuple[TlsSocket, Sealer, Callable[[], Any]],
) -> None:
    pipe, sealer, logged = keyed
    keys = logged()
    for turn in range(3):
        sealer.sock.sendall(keys.update())
        with pytest.raises(BlockingIOError):  # no plaintext
            pipe.recv(65536)
        sealer.sock.sendall(keys.record(b"turn %d" % turn, 23))
        assert pipe.recv(65536) == b"turn %d" % turn
        assert pipe.send(b"heard %d" % turn) == 7
        assert sealer.read() == b"heard %d" % turn


def test_a_flood_of_key_updates_is_bounded(
    keyed: tuple[TlsSocket, Sealer, Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 4096)
    monkeypatch.setattr(module, "MAX_BARREN", 5000)
    pipe, sealer, logged = keyed
    keys = logged()
    with contextlib.suppress(BlockingIOError):
        while True:  # the client does not read
            pipe.send(bytes(10_000))
    ended = False
    for _ in range(2000):
        sealer.sock.sendall(keys.update())
        try:
            ended = pipe.recv(65536) == b""
        except BlockingIOError:
            continue
        break
    assert ended
    assert len(pipe._pending) < module.MAX_SEALED + 10_000
    assert eventually(lambda: readable(pipe))


def test_key_updates_cost_a_bounded_time(
    keyed: tuple[TlsSocket, Sealer, Callable[[], Any]],
) -> None:
    pipe, sealer, logged = keyed
    keys = logged()
    sealer.sock.sendall(b"".join(keys.update() for _ in range(1000)))
    assert pipe.recv(65536) == b""  # it ends the connection
    assert pipe._barren <= 2 * module.MAX_BARREN  # the rest was not looked at


def test_key_updates_now_and_then_are_welcome(
    keyed: tuple[TlsSocket, Sealer, Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, sealer, logged = keyed
    keys = logged()
    now = 1e6
    monkeypatch.setattr("daebus.server.sockets.tlssocket.monotonic", lambda: now)
    for _ in range(3):
        flight = [keys.update() + keys.record(b"x", 23) for _ in range(module.MAX_BARREN)]
        sealer.sock.sendall(b"".join(flight))
        received = b""
        while len(received) < len(flight):
            received += pipe.recv(100)
        assert received == b"x" * len(flight)
        now += module.BARREN_PERIOD + 1


def test_a_read_that_must_not_wait_takes_its_turn_and_no_more(
    keyed: tuple[TlsSocket, Sealer, Callable[[], Any]],
) -> None:
    pipe, sealer, logged = keyed
    keys = logged()
    records = [keys.update(), keys.update(), keys.record(b"data", 23)]
    sealer.sock.sendall(b"".join(records))
    for record in records[:2]:
        with pytest.raises(BlockingIOError):
            pipe.recv(len(record))
    assert pipe.recv(100) == b"data"


@pytest.mark.parametrize("size", [1, 3, 7, 1000, 20_000])
def test_many_small_records_are_data(
    keyed: tuple[TlsSocket, Sealer, Callable[[], Any]], size: int
) -> None:
    pipe, sealer, logged = keyed
    keys = logged()
    data = b"".join(keys.record(b"%04d" % number, 23) for number in range(200))
    received = b""
    for start in range(0, len(data), size):
        sealer.sock.sendall(data[start : start + size])
        with contextlib.suppress(BlockingIOError):
            while True:
                received += pipe.recv(size)
    assert received == b"".join(b"%04d" % number for number in range(200))
    assert pipe._barren == 0
