"""What interrupts a thread at any of its steps calls public methods, or raises."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daebus import Daebus, DaebusHttp, DaebusWebSocket
from daebus.errors import StateError
from daebus.websocket.api.context import context_of
from tests.support.child import Child
from tests.support.peer import CLOSE, TEXT, Peer
from tests.support.waiting import eventually

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "interrupted.py"
CLIENTS = 3


class Listener:
    """A client that takes all there is, as bytes; whether they are frames is seen later.

    One that is cut comes again.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: list[bytearray] = []  # of each connection
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 60) as sock:
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
    mode, times = request.param
    child = Child(
        f"import runpy, sys\nsys.argv[1:] = [{mode!r}, '{times}', '{CLIENTS}']\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')",
        preamble="",
    )
    listeners: list[Listener] = []
    try:
        port = child.port()
        listeners += [Listener(port) for _ in range(CLIENTS)]
        line = child.lines.get(timeout=50)
        yield json.loads(line), listeners
    finally:
        child.end()
        for listener in listeners:
            listener.thread.join(20)


@pytest.mark.parametrize("outcome", [("signal", 4000), ("destructor", 4000)], indirect=True)
def test_public_methods_may_interrupt_each_other(
    outcome: tuple[dict[str, Any], list[Listener]],
) -> None:
    found, listeners = outcome
    assert found["errors"] == []
    assert found["slowest"] < 3
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
        counts.append(len(messages) - 1)  # the end came after the count
    assert sorted(counts) == sorted(found["sent"].values())


@pytest.mark.parametrize("outcome", [("raise", 3000)], indirect=True)
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


CALLS: dict[str, Callable[[Daebus, DaebusWebSocket, str], object]] = {
    "stop": lambda app, ws, name: app.stop(5),
    "wait": lambda app, ws, name: app.wait(0.01),
    "stats": lambda app, ws, name: app.stats(),
    "dump": lambda app, ws, name: app.dump(io.StringIO()),
    "pump": lambda app, ws, name: app.pump(0),
    "heartbeat": lambda app, ws, name: app.heartbeat(),
    "background": lambda app, ws, name: app.background("late", 9.0)(lambda: None),
    "broadcast_to_all": lambda app, ws, name: ws.broadcast_to_all(1),
    "send_to_client": lambda app, ws, name: ws.send_to_client(name, 1),
    "call": lambda app, ws, name: ws.call(name, "question", timeout=9),
    "join": lambda app, ws, name: ws.join(name, "room"),
    "leave": lambda app, ws, name: ws.leave(name, "room"),
    "identify": lambda app, ws, name: ws.identify(name, "ada"),
    "set_client_metadata": lambda app, ws, name: ws.set_client_metadata(name, note=1),
    "get_client_metadata": lambda app, ws, name: ws.get_client_metadata(name),
    "get_clients": lambda app, ws, name: (ws.get_clients(), ws.get_rooms()),
    "disconnect_client": lambda app, ws, name: ws.disconnect_client(name),
    "disconnect_all_clients": lambda app, ws, name: ws.disconnect_all_clients(),
}


@pytest.mark.parametrize("name", CALLS)
def test_public_method_within_a_send_returns_at_once(name: str) -> None:
    app = Daebus("interrupted")
    app.attach(DaebusHttp(port=0))
    ws = app.attach(DaebusWebSocket())
    app.start()
    took: list[float] = []
    try:
        with app.test_client():
            eventually(lambda: ws.get_client_count() == 1)
            link = context_of(ws).hub.registry.snapshot()[0]  # type: ignore[union-attr]  # it runs
            send = link.writer.outlet.send

            def interrupted(data: Any, flags: int) -> int:
                link.writer.outlet.send = send
                began = time.monotonic()
                with contextlib.suppress(StateError):
                    CALLS[name](app, ws, link.client_id)
                took.append(time.monotonic() - began)
                return send(data, flags)

            link.writer.outlet.send = interrupted
            assert ws.broadcast_to_all("outer") == 1
            if name == "stop":
                assert app.wait(10)
        assert took[0] < 1
    finally:
        app.stop(5)
