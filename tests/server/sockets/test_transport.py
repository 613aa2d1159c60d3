"""The byte pipe: reads that wait, writes that never do."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from daebus.server.sockets import transport as module
from daebus.server.sockets.transport import DONTWAIT, IDLE_READ, Transport


@pytest.fixture(params=["the flag", "no flag"])
def pair(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Transport, socket.socket]]:
    """A transport and its peer; as on Linux, and as where MSG_DONTWAIT does not exist."""
    if request.param == "no flag":
        monkeypatch.setattr(module, "DONTWAIT", 0)
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    transport = Transport(ours)
    yield transport, theirs
    transport.close()
    theirs.close()


Pair = tuple[Transport, socket.socket]


class Reader:
    """A thread in ``recv``; what it got is in ``data``."""

    def __init__(self, transport: Transport) -> None:
        self.data: bytes | None = None
        self.starts = threading.Event()
        self._transport = transport
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self.starts.wait(5)

    def _read(self) -> None:
        self.starts.set()
        try:
            self.data = self._transport.read()
        except OSError:
            self.data = b""

    def result(self) -> bytes | None:
        self._thread.join(5)
        assert not self._thread.is_alive(), "nothing woke the reader"
        return self.data


def fill(transport: Transport) -> int:
    """Write until the kernel takes no more."""
    total = 0
    while written := transport.try_send(b"x" * 65536):
        total += written
    return total


def test_recv_waits(pair: Pair) -> None:
    transport, peer = pair
    reader = Reader(transport)
    peer.send(b"hello")
    assert reader.result() == b"hello"


def test_try_recv_does_not(pair: Pair) -> None:
    transport, peer = pair
    assert transport.try_recv() is None
    peer.send(b"hello")
    assert transport.try_recv() == b"hello"
    peer.close()
    assert transport.try_recv() == b""


def test_try_recv_takes_what_it_is_asked_for(pair: Pair) -> None:
    transport, peer = pair
    peer.send(b"hello")
    assert transport.try_recv(2) == b"he"
    assert transport.try_recv() == b"llo"


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_try_send(pair: Pair, kind: Callable[[bytes], bytes | memoryview]) -> None:
    transport, peer = pair
    assert transport.try_send(kind(b"hello")) == 5
    assert peer.recv(100) == b"hello"


def test_try_send_to_a_peer_that_does_not_read(pair: Pair) -> None:
    transport, peer = pair
    total = fill(transport)
    assert total > 0
    assert transport.try_send(b"x") == 0
    while total:
        total -= len(peer.recv(65536))
    assert transport.try_send(b"y") == 1


def test_send_raises_where_the_kernel_takes_nothing(pair: Pair) -> None:
    transport, _ = pair
    fill(transport)
    with pytest.raises(BlockingIOError):
        transport.send(b"x", module.DONTWAIT)


def test_try_send_to_a_peer_that_has_gone(pair: Pair) -> None:
    transport, peer = pair
    peer.close()
    with pytest.raises(OSError, match="pipe"):
        transport.try_send(b"x")


def test_writing_does_not_disturb_the_reader(pair: Pair) -> None:
    transport, peer = pair
    reader = Reader(transport)
    fill(transport)
    assert transport.try_send(b"x") == 0
    peer.send(b"still here")
    assert reader.result() == b"still here"


def test_abort_wakes_the_reader(pair: Pair) -> None:
    transport, peer = pair
    reader = Reader(transport)
    transport.abort()
    assert reader.result() == b""
    assert peer.recv(10) == b""
    assert transport.fileno() >= 0  # only the owner closes


def test_shutdown_read_wakes_the_reader_and_sending_goes_on(pair: Pair) -> None:
    transport, peer = pair
    reader = Reader(transport)
    transport.shutdown_read()
    assert reader.result() == b""
    assert transport.try_send(b"bye") == 3
    assert peer.recv(10) == b"bye"


def test_a_read_after_a_short_one_has_a_small_buffer(pair: Pair) -> None:
    transport, peer = pair
    sizes = []
    for sent in (b"short", b"x" * 5000, None, b"y" * 5000, b"short", b"z" * 5000, None):
        if sent is not None:
            peer.sendall(sent)
        sizes.append(len(transport.read()))
    assert sizes == [5, IDLE_READ, 4000, 5000, 5, IDLE_READ, 4000]
    peer.close()
    assert transport.read() == b""


def test_shutdown_write_lets_sent_bytes_arrive(pair: Pair) -> None:
    transport, peer = pair
    transport.try_send(b"last words")
    transport.shutdown_write()
    assert peer.recv(100) == b"last words"
    assert peer.recv(100) == b""
    peer.send(b"answer")
    assert transport.read() == b"answer"


def test_wait_readable(pair: Pair) -> None:
    transport, peer = pair
    assert not transport.wait_readable(0)
    assert not transport.wait_readable(0.01)
    assert not transport.wait_readable(-1)
    peer.send(b"x")
    assert transport.wait_readable(5)
    assert transport.wait_readable(None)
    transport.read()
    peer.close()
    assert transport.wait_readable(5)  # the end of the stream can be read too


def test_wait_readable_without_poll(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    transport, peer = pair
    monkeypatch.delattr(select, "poll")
    assert not transport.wait_readable(0)
    peer.send(b"x")
    assert transport.wait_readable(5)


def test_close(pair: Pair) -> None:
    transport, peer = pair
    transport.close()
    transport.close()
    assert transport.fileno() == -1
    assert peer.recv(10) == b""
    assert transport.wait_readable(5)
    transport.abort()
    transport.shutdown_read()
    transport.shutdown_write()


def test_a_timeout_of_the_socket_does_not_stay() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.01)
        Transport(ours)
        assert ours.gettimeout() == (None if DONTWAIT else 0.0)
