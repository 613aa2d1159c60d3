"""What interrupts a thread at any of its steps calls public methods, or raises."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.child import Child
from tests.support.peer import CLOSE, TEXT, Peer

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "interrupted.py"
CLIENTS = 3


def dial(port: int, wire: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 60)
    if wire == "plain":
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate was made by the child
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock)


class Listener:
    """A client that takes all there is, as bytes; whether they are frames is seen later.

    One that is cut comes again.
    """

    def __init__(self, port: int, wire: str) -> None:
        self.port = port
        self.wire = wire
        self.streams: list[bytearray] = []  # of each connection
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        while True:
            try:
                with dial(self.port, self.wire) as sock:
                    self._read(sock)
            except (OSError, AssertionError):  # the end: nobody listens, or says 503
                return

    def _read(self, sock: socket.socket) -> None:
        peer = Peer.joined(sock)
        stream = bytearray(peer._buffer)
        self.streams.append(stream)
        with contextlib.suppress(OSError):
            peer.say("echo", 1)
            while data := sock.recv(1 << 20):
                stream += data
                if len(data) > 200:  # so that the other side's threads have work too
                    peer.say("echo", "x" * 50)

    def frames(self, stream: bytearray) -> tuple[list[tuple[int, bytes]], bytes]:
        """Return opcode and payload of each frame of a connection, and what is left over."""
        data, place, frames = bytes(stream), 0, []
        while len(data) - place >= 2:
            first, size, head = data[place], data[place + 1], 2
            assert first in (0x81, 0x88, 0x89, 0x8A), data[place : place + 20]
            assert size < 128, data[place : place + 20]
            if size > 125:
                head = 4 if size == 126 else 10
                size = int.from_bytes(data[place + 2 : place + head], "big")
            if len(data) < place + head + size:
                break
            frames.append((first & 15, data[place + head : place + head + size]))
            place += head + size
        return frames, data[place:]


@pytest.fixture
def outcome(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], list[Listener]]]:
    mode, times, wire = request.param
    child = Child(
        f"import runpy, sys\nsys.argv[1:] = [{mode!r}, '{times}', '{CLIENTS}', {wire!r}]\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')",
        preamble="",
    )
    listeners: list[Listener] = []
    try:
        port = child.port()
        listeners += [Listener(port, wire) for _ in range(CLIENTS)]
        try:
            line = child.lines.get(timeout=50 + times / 50)
        except queue.Empty:
            pytest.fail("it hangs:\n" + "\n".join(child.stderr()))
        yield json.loads(line), listeners
    finally:
        child.end()
        for listener in listeners:
            listener.thread.join(20)


def much(mode: str, wire: str) -> Any:
    """Return thousands of interruptions; the quick ones are a few hundred."""
    marks = [pytest.mark.slow, pytest.mark.timeout(400)]
    return pytest.param((mode, 5000, wire), marks=marks, id=f"{mode}-{wire}-long")


@pytest.mark.parametrize(
    "outcome",
    [
        ("signal", 300, "tls"),
        pytest.param(("destructor", 300, "plain"), marks=pytest.mark.slow),
        *(much(mode, wire) for mode in ("signal", "destructor") for wire in ("plain", "tls")),
    ],
    indirect=True,
)
def test_public_methods_may_interrupt_each_other(
    outcome: tuple[dict[str, Any], list[Listener]],
) -> None:
    found, listeners = outcome
    assert found["errors"] == []
    assert found["slowest"] < 10  # a hang would be for ever
    assert found["left"] == []
    assert found["reached"] == CLIENTS
    counts = []
    for listener in listeners:
        listener.thread.join(20)
        (stream,) = listener.streams
        frames, rest = listener.frames(stream)
        assert not rest
        assert frames[-1][0] == CLOSE
        messages = [json.loads(payload) for opcode, payload in frames if opcode == TEXT]
        for who in ("main", "inner"):
            got = [
                m["data"]["n"] for m in messages if m["type"] == "number" if m["data"]["who"] == who
            ]
            if who == "inner":  # of several threads
                got.sort()
            assert got == list(range(1, found["numbers"][who] + 1))
        counts.append(len(messages))
    assert sorted(counts) == sorted(found["sent"].values())


@pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="these versions lose a lock where a handler raises right after `with` has taken it",
)
@pytest.mark.parametrize(
    "outcome",
    [("raise", 300, "tls"), much("raise", "plain"), much("raise", "tls")],
    indirect=True,
)
def test_exceptions_of_signal_handlers_tear_no_frame(
    outcome: tuple[dict[str, Any], list[Listener]],
) -> None:
    found, listeners = outcome
    assert found["errors"] == []
    assert found["left"] == []
    assert found["reached"] == CLIENTS
    for listener in listeners:
        listener.thread.join(20)
        for stream in listener.streams:
            frames, rest = listener.frames(stream)
            for opcode, payload in frames:
                if opcode == TEXT:
                    json.loads(payload)
            # A client that was cut has seen it; nothing follows a frame that was begun.
            assert not rest or frames[-1][0] != CLOSE
        assert frames[-1][0] == CLOSE
