"""While a handler runs its client is looked after: pings, close, further messages, broadcasts."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from typing import Any

import pytest
from websockets.sync.client import connect as websockets_connect

from daebus import Connection, Daebus, DisconnectInfo, WebSocketRequest
from tests.support.fixture_types import Connect, MakeApp
from tests.support.inside import connections
from tests.support.peer import CLOSE, PING, PONG, TEXT, Peer, envelope
from tests.support.slow_clients import reset
from tests.support.waiting import eventually


class Busy:
    """An app whose handler ``work`` waits, sync or async, until ``release``."""

    def __init__(self, app: Daebus, kind: str) -> None:
        self.app = app
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.handled = queue.Queue[Any]()
        self.left = queue.Queue[DisconnectInfo]()
        self._release = threading.Event()
        self.kind = kind
        app.websocket.on_disconnect(lambda client_id, info: self.left.put(info))

        @app.socket("note")
        def note(req: WebSocketRequest) -> Any:
            self.handled.put(req.data)
            return req.data

        if kind == "async":

            @app.socket("work")
            async def work_async(req: WebSocketRequest) -> str:
                self.begun.set()
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(None, self.wait, req.cancelled)
                return "worked"

        else:

            @app.socket("work")
            def work(req: WebSocketRequest) -> str:
                self.begun.set()
                self.wait(req.cancelled)
                return "worked"

        app.start()

    def wait(self, cancelled: threading.Event) -> None:
        for _ in range(2000):
            if cancelled.wait(0.005):
                self.cancelled.set()
                return
            if self._release.is_set():
                return
        raise AssertionError("nobody released the handler")

    def release(self) -> None:
        self._release.set()

    def client(self, connect: Connect) -> Peer:
        peer = Peer.joined(connect(self.app.http.port))
        peer.say("work")
        assert self.begun.wait(5)
        return peer


@pytest.fixture(params=["sync", "async"])
def busy(make_app: MakeApp, request: pytest.FixtureRequest) -> Busy:
    return Busy(make_app(), request.param)


def test_pings_are_answered(busy: Busy, connect: Connect) -> None:
    peer = busy.client(connect)
    for number in range(20):
        peer.send(PING, b"%d" % number)
        assert peer.frame() == (PONG, b"%d" % number)
    busy.release()
    assert peer.message()["data"] == "worked"


def test_a_close_is_answered_and_seen_by_the_handler(busy: Busy, connect: Connect) -> None:
    peer = busy.client(connect)
    peer.send(CLOSE, (4000).to_bytes(2, "big") + b"bye")
    assert peer.close_frame() == (4000, "bye")
    assert busy.cancelled.wait(5)
    assert eventually(lambda: busy.app.websocket.get_client_count() == 0)
    info = busy.left.get(timeout=5)
    assert (info.reason, info.code) == ("client", 4000)


def test_a_killed_client_is_noticed(busy: Busy, connect: Connect) -> None:
    peer = busy.client(connect)
    reset(peer)
    assert busy.cancelled.wait(5)
    assert eventually(lambda: busy.app.websocket.get_client_count() == 0)
    assert busy.left.get(timeout=5).reason == "lost"


def test_a_client_whose_socket_ends_is_noticed(busy: Busy, connect: Connect) -> None:
    busy.client(connect).sock.close()
    assert busy.cancelled.wait(5)
    assert busy.left.get(timeout=5).reason == "lost"


def test_a_broken_frame_is_answered_and_cancels(busy: Busy, connect: Connect) -> None:
    peer = busy.client(connect)
    peer.sock.sendall(b"\xff\x80mask")
    assert peer.close_frame()[0] == 1002
    assert busy.cancelled.wait(5)
    assert busy.left.get(timeout=5).reason == "protocol"


def test_a_stop_cancels(busy: Busy, connect: Connect) -> None:
    peer = busy.client(connect)
    stopper = threading.Thread(target=busy.app.stop)
    stopper.start()
    assert peer.close_frame() == (1001, "")
    assert busy.cancelled.wait(5)
    peer.send(CLOSE, (1001).to_bytes(2, "big"))
    stopper.join(5)
    assert not busy.app.running
    assert busy.left.get(timeout=5).reason == "shutdown"


def test_a_broadcast_arrives_meanwhile(busy: Busy, connect: Connect) -> None:
    peer = busy.client(connect)
    for number in range(10):
        assert busy.app.websocket.broadcast_to_all(number) == 1
        assert peer.message() == {"type": "broadcast", "data": number}
    busy.release()
    assert peer.message()["data"] == "worked"


def test_further_messages_wait_and_are_handled_in_order(busy: Busy, connect: Connect) -> None:
    peer = busy.client(connect)
    for number in range(50):
        peer.say("note", number)
    (connection,) = connections(busy.app)
    assert eventually(lambda: len(connection.reader.inbox) == 50)
    peer.send(PING, b"behind them")
    assert peer.frame() == (PONG, b"behind them")
    assert busy.handled.empty()
    busy.release()
    assert peer.message()["data"] == "worked"
    assert [peer.message()["data"] for _ in range(50)] == list(range(50))
    assert [busy.handled.get(timeout=5) for _ in range(50)] == list(range(50))


def test_only_so_much_is_read_ahead_and_nothing_is_lost(busy: Busy, connect: Connect) -> None:
    peer = busy.client(connect)
    (connection,) = connections(busy.app)
    payload = "x" * 30_000
    peer.sock.settimeout(0.2)
    sent, rest = 0, b""
    try:
        while sent < 3000:
            rest = envelope("note", [sent, payload])
            while rest:
                rest = rest[peer.sock.send(rest) :]
            sent += 1
    except TimeoutError:
        pass
    assert sent < 3000, "TCP did not push back"
    reader = connection.reader
    assert eventually(lambda: reader.ahead + reader.held >= 1 << 20)
    assert len(reader.inbox) <= 64 + 64
    assert reader.bytes_in < (1 << 20) + 70_000  # and what came with the first message
    peer.sock.settimeout(10)
    busy.release()
    seen: list[int] = []
    finisher = threading.Thread(target=lambda: peer.sock.sendall(rest))
    finisher.start()
    assert peer.message()["data"] == "worked"
    while len(seen) < sent + bool(rest):
        seen.append(peer.message()["data"][0])
    finisher.join()
    assert seen == list(range(sent + bool(rest)))


@pytest.mark.slow
@pytest.mark.timeout(30)
def test_default_clients_stay_connected(make_app: MakeApp) -> None:
    """With their own keepalive, twenty times as impatient as it is by default."""
    busy = Busy(make_app(), "sync")
    with websockets_connect(
        f"ws://127.0.0.1:{busy.app.http.port}", ping_interval=1, ping_timeout=1
    ) as client:
        client.send(json.dumps({"type": "work"}))
        assert busy.begun.wait(5)
        with pytest.raises(TimeoutError):
            client.recv(timeout=3)
        assert client.latency < 1
        busy.release()
        assert json.loads(client.recv(timeout=5))["data"] == "worked"


def test_replies_that_came_in_one_read_do_not_wait_for_a_busy_handler(
    make_app: MakeApp, connect: Connect
) -> None:
    busy = Busy(make_app(), "sync")
    peer = Peer.joined(connect(busy.app.http.port))
    peer.sock.sendall(envelope("note", 1) + envelope("note", 2) + envelope("work"))
    assert [peer.message()["data"] for _ in range(2)] == [1, 2]
    assert busy.begun.is_set()
    busy.release()
    assert peer.message()["data"] == "worked"


def test_a_busy_raw_handler_reads_its_messages_afterwards(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app()
    release = threading.Event()

    @app.websocket.raw("/raw")
    def raw(ws: Connection) -> None:
        assert ws.recv() == "first"
        assert release.wait(10)
        for message in ws:
            ws.send(message)

    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    for text in ("first", "second", "third"):
        peer.send(TEXT, text)
    peer.send(PING, b"there?")
    assert peer.frame() == (PONG, b"there?")
    release.set()
    assert [peer.frame() for _ in range(2)] == [(TEXT, b"second"), (TEXT, b"third")]


def test_a_busy_handler_of_one_client_does_not_hold_up_others(busy: Busy, connect: Connect) -> None:
    busy.client(connect)
    other = Peer.joined(connect(busy.app.http.port))
    for number in range(20):
        other.say("note", number)
        assert other.message()["data"] == number
    busy.release()
