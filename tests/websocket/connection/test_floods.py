"""Floods of what is no message: pings, pongs, cancels, and answers that nobody waits for."""

from __future__ import annotations

import contextlib
import json
import queue
import threading

import pytest

from daebus import DisconnectInfo, WebSocketRequest
from daebus.websocket.connection.controls import CONTROL_BURST, CONTROL_RATE, ControlFrames
from daebus.websocket.connection.limits import Limits
from daebus.websocket.connection.reader import EVENTS_AT_ONCE, READ_AHEAD_SIZE, Reader
from daebus.websocket.connection.states import OPEN
from daebus.websocket.protocol.codec import PONG, Event, close_frame
from daebus.websocket.protocol.codec import frame as server_frame
from tests.support.fixture_types import Connect, MakeApp
from tests.support.links import FakeTransport, FakeWatch, make_codec, make_writer
from tests.support.peer import PING, TEXT, Peer, envelope, frame
from tests.support.waiting import eventually

LATE = frame(TEXT, '{"type":"response","data":1,"id":"nobody-asked"}')
FLOODS = {
    "pings": frame(PING),
    "pings with data": frame(PING, b"x" * 125),
    "pongs": frame(PONG),
    "cancels": frame(TEXT, '{"type":"cancel","id":7}'),
    "cancels of what runs": frame(TEXT, '{"type":"cancel","id":1}'),
    "cancels without an id": frame(TEXT, '{"type":"cancel","id":[]}'),
    "heartbeats": frame(TEXT, '{"type":"heartbeat"}'),
    "late answers": LATE,
    "late errors": frame(TEXT, '{"type":"error","data":{},"id":"nobody-asked"}'),
}


class CountingReader(Reader):
    """Notes how many events were sorted under one hold of the lock."""

    def __init__(self, transport: FakeTransport) -> None:
        self.writer = make_writer(transport)
        self.sorted: list[int] = []
        super().__init__(self.writer, make_codec(Limits()), FakeWatch())

    def _sort_locked(self, events: list[Event]) -> int:
        self.sorted.append(len(events))
        return super()._sort_locked(events)


def flood(peer: Peer, piece: bytes) -> None:
    """Send it until the server has had enough; what it answers is not read."""

    def send() -> None:
        try:
            for _ in range(1000):
                peer.sock.sendall(piece * 100)
        except OSError:
            return

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("what", FLOODS)
def test_who_floods_is_cut(make_app: MakeApp, connect: Connect, what: str, limited: bool) -> None:
    app = make_app()
    left, stop = queue.Queue[DisconnectInfo](), threading.Event()
    app.websocket.on_disconnect(lambda client_id, info: left.put(info))
    app.socket("work", run_in="pool")(lambda req: req.cancelled.wait(20) and stop.wait(20))
    if limited:
        app.websocket.enable_rate_limiting(1000, 1)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.sock.sendall(frame(TEXT, '{"type":"work","id":1}'))
    flood(peer, FLOODS[what])
    assert peer.close_frame()[0] == 1008
    info = left.get(timeout=5)
    stop.set()
    assert (info.reason, info.code) == ("rate_limited", 1008)


def test_who_was_cut_for_too_many_messages_is_not_parsed_any_more(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app(close_timeout=60)
    app.websocket.enable_rate_limiting(max_messages=1, window_seconds=60)
    app.start()
    peer = Peer.joined(connect(app.http.port))

    def send() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer.sock.sendall(frame(TEXT, '{"type":"nope"}') * 1000)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    assert peer.close_frame() == (1008, "too many messages")
    sender.join(10)
    assert not sender.is_alive()  # else it is read for ``close_timeout``


@pytest.mark.parametrize("what", ["pings", "pongs"])
def test_who_floods_a_raw_connection_is_cut(make_app: MakeApp, connect: Connect, what: str) -> None:
    app = make_app()
    app.raw("/raw")(lambda connection: list(connection))
    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    flood(peer, FLOODS[what])
    assert peer.close_frame() == (1008, "too many control frames")


@pytest.mark.parametrize("what", ["pings", "pongs", "heartbeats", "cancels of what runs"])
def test_who_floods_while_its_handler_is_busy_is_cut(
    make_app: MakeApp, connect: Connect, what: str
) -> None:
    app = make_app()
    begun = threading.Event()

    @app.socket("work")
    def work(req: WebSocketRequest) -> None:
        gone = req.websocket.cancelled
        assert req.cancelled is not None
        begun.set()
        assert gone.wait(10)

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.sock.sendall(frame(TEXT, '{"type":"work","id":1}'))
    assert begun.wait(5)
    flood(peer, FLOODS[what])
    assert peer.close_frame() == (1008, "too many control frames")


def test_answers_that_are_awaited_cost_nothing(make_app: MakeApp, connect: Connect) -> None:
    app = make_app()
    app.start()
    peer = Peer.joined(connect(app.http.port))
    count = CONTROL_BURST + 10 * CONTROL_RATE

    def answer() -> None:
        for _ in range(count):
            question = peer.message()
            peer.send(TEXT, json.dumps({"type": "response", "data": 2, "id": question["id"]}))

    thread = threading.Thread(target=answer)
    thread.start()
    assert eventually(app.websocket.get_clients)
    (client,) = app.websocket.get_clients()
    for _ in range(count):
        assert app.websocket.call(client, "question", timeout=10) == 2
    thread.join()


def test_own_types_of_those_names_are_messages(make_app: MakeApp, connect: Connect) -> None:
    app = make_app()
    app.socket("response")(lambda req: req.data)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    for _ in range(20):
        peer.sock.sendall(LATE * (CONTROL_BURST // 10))
        for _ in range(CONTROL_BURST // 10):
            assert peer.message()["data"] == 1


@pytest.mark.parametrize("lent", [False, True])
def test_only_the_newest_ping_of_a_read_is_answered(lent: bool) -> None:
    transport = FakeTransport()
    reader = CountingReader(transport)
    data = b"".join(frame(PING, b"%d" % number) for number in range(CONTROL_BURST))
    assert READ_AHEAD_SIZE > 1000
    if lent:
        reader.reading = False
        reader.lend(reader.turn)
        transport.incoming.append(data)
        with reader.writer.lock:
            reader.read_for_owner_locked()
    else:
        reader.take(data)
    assert transport.sent == server_frame(PONG, b"%d" % (CONTROL_BURST - 1))
    assert reader.writer.open


def test_a_read_full_of_pings_is_not_answered_at_all() -> None:
    transport = FakeTransport()
    reader = CountingReader(transport)
    reader.take(frame(PING) * 10_900)
    assert transport.sent == close_frame(1008, "too many control frames")
    assert reader.writer.state != OPEN


def test_the_lock_is_let_go_amid_a_large_read() -> None:
    reader = CountingReader(FakeTransport())
    reader.take(frame(TEXT) * 10_000)
    assert max(reader.sorted) <= EVENTS_AT_ONCE
    assert sum(reader.sorted) == len(reader.inbox) == 10_000


def test_the_minder_reads_little_at_a_time() -> None:
    sizes: list[int] = []

    class Sized(FakeTransport):
        def try_recv(self, size: int = 0) -> bytes | None:
            sizes.append(size)
            return super().try_recv(size)

    transport = Sized()
    transport.incoming.append(frame(TEXT))
    reader = CountingReader(transport)
    reader.reading = False
    reader.lend(reader.turn)
    with reader.writer.lock:
        reader.read_for_owner_locked()
    assert sizes == [READ_AHEAD_SIZE]


def test_nobody_honest_is_cut() -> None:
    rate, now = ControlFrames(0.0), 0.0
    assert rate.take(CONTROL_BURST, now)  # what a busy handler let gather
    for _ in range(86_400):  # a ping a second, and a pong unasked
        now += 1
        assert rate.take(2, now)
    for _ in range(1000):  # somebody measures
        now += 0.1
        assert rate.take(5, now)
    assert rate.take(CONTROL_BURST // 2, now)


def test_who_sends_more_than_the_rate_has_used_up_the_burst_some_day() -> None:
    rate, now = ControlFrames(0.0), 0.0
    taken = 0
    while rate.take(1, now):
        taken += 1
        now += 0.5 / CONTROL_RATE
    assert CONTROL_BURST < taken < 2.1 * CONTROL_BURST


def test_a_ping_and_a_message_are_answered_as_ever(make_app: MakeApp, connect: Connect) -> None:
    app = make_app()
    app.socket("echo")(lambda req: req.data)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.sock.sendall(frame(PING, b"1") + envelope("echo", 5) + frame(PING, b"2"))
    answers = [peer.frame() for _ in range(2)]
    assert (PONG, b"2") in answers
