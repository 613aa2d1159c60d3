"""WebSockets over TLS: the same protocol, whatever the records look like."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websockets.sync.client

from daebus import ClientError, Connection, Daebus
from tests.support.fixture_types import Connect, MakeApp
from tests.support.handlers import waiting_handler
from tests.support.inside import connections, running_of
from tests.support.peer import CLOSE, PING, PONG, TEXT, Peer, envelope, frame, upgrade_request
from tests.support.storm import LEAST, storm
from tests.support.tls import VERSIONS, Sealer, client_context, dial, secure
from tests.support.waiting import eventually


@pytest.fixture
def make(make_app: MakeApp) -> MakeApp:
    def make(**options: Any) -> Daebus:
        app = make_app(http=secure(workers=2), **options)
        app.socket("echo")(lambda req: req.data)
        return app

    return make


@pytest.fixture
def app(make: MakeApp) -> Daebus:
    app = make()
    app.start()
    return app


@pytest.fixture
def join(app: Daebus) -> Iterator[Callable[..., Peer]]:
    opened: list[ssl.SSLSocket] = []

    def one(app: Daebus = app, path: str = "/", **options: Any) -> Peer:
        opened.append(dial(app.http.port, **options))
        return Peer.joined(opened[-1], path)

    yield one
    for sock in opened:
        sock.close()


Join = Callable[..., Peer]

# --- clients --------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_echo(app: Daebus, join: Join, version: ssl.TLSVersion) -> None:
    peer = join(context=client_context(version))
    for data in ("hello", "x" * 300_000, ""):
        peer.say("echo", data)
        assert peer.message() == {"type": "response", "data": data}
    peer.send(PING, b"there?")
    assert peer.frame() == (PONG, b"there?")
    peer.close()  # ended() would raise without close_notify


def test_the_client_of_the_tests(app: Daebus) -> None:
    with app.test_client(ssl_context=client_context()) as client:
        assert client.request("echo", "verified") == "verified"
    with app.test_client() as client:
        assert client.request("echo", "trusted") == "trusted"


def test_the_client_of_websockets(app: Daebus) -> None:
    url = f"wss://127.0.0.1:{app.http.port}/"
    with websockets.sync.client.connect(url, ssl=client_context(), proxy=None) as client:
        for size in (10, 100_000):
            client.send(json.dumps({"type": "echo", "data": "x" * size}))
            assert json.loads(client.recv(timeout=5))["data"] == "x" * size


def test_handlers_know(make: MakeApp) -> None:
    app = make()
    app.socket("secure")(lambda req: req.websocket.secure)
    with app.test_client() as client:
        assert client.request("secure") is True


def test_an_error_is_an_answer(make: MakeApp) -> None:
    app = make()

    @app.socket("fail")
    def fail(req: Any) -> None:
        raise ClientError("no", code="no")

    app.start()
    with dial(app.http.port) as sock:
        peer = Peer.joined(sock)
        peer.say("fail")
        assert peer.message()["data"]["code"] == "no"


def test_a_refused_upgrade(app: Daebus) -> None:
    with dial(app.http.port) as sock:
        answer = Peer(sock).ask(upgrade_request(headers={"Origin": "https://elsewhere.example"}))
        assert (answer.status, answer.json["code"]) == (403, "origin_not_allowed")
        assert sock.recv(1) == b""


# --- records --------------------------------------------------------------------------


def test_frames_in_one_record_with_the_upgrade(app: Daebus, connect: Connect) -> None:
    sealer = Sealer(connect(app.http.port)).join()
    early = envelope("echo", 1) + envelope("echo", 2)
    sealer.sock.sendall(sealer.seal(upgrade_request() + early) + sealer.seal(envelope("echo", 3)))
    peer = Peer(sealer)  # type: ignore[arg-type]  # as much of a socket as it needs
    assert peer.ask(b"").status == 101
    assert [peer.message()["data"] for _ in range(3)] == [1, 2, 3]


def test_a_record_byte_by_byte(app: Daebus, connect: Connect) -> None:
    sealer = Sealer(connect(app.http.port)).join()
    peer = Peer(sealer)  # type: ignore[arg-type]
    assert peer.ask(upgrade_request()).status == 101
    for byte in sealer.seal(envelope("echo", "slow")):
        sealer.sock.sendall(bytes((byte,)))
    assert peer.message()["data"] == "slow"


def test_recv_ends_in_time_though_a_record_has_begun(make: MakeApp, connect: Connect) -> None:
    app = make()

    @app.websocket.raw("/raw")
    def raw(connection: Connection) -> None:
        began = time.monotonic()
        connection.send("go")
        try:
            connection.recv(timeout=0.2)
        except TimeoutError:
            connection.send(f"{time.monotonic() - began:.1f}")
        connection.send(connection.recv(timeout=5))

    app.start()
    sealer = Sealer(connect(app.http.port)).join()
    peer = Peer(sealer)  # type: ignore[arg-type]
    assert peer.ask(upgrade_request("/raw")).status == 101
    assert peer.frame() == (TEXT, b"go")
    record = sealer.seal(frame(TEXT, "whole"))
    sealer.sock.sendall(record[:10])
    assert float(peer.frame()[1]) < 4
    sealer.sock.sendall(record[10:])
    assert peer.frame() == (TEXT, b"whole")


def test_the_end_is_bounded_though_a_record_has_begun(make: MakeApp, connect: Connect) -> None:
    """A thread that drains before it closes must not wait for the rest of a record."""
    app = make(close_timeout=0.2)

    @app.websocket.raw("/raw")
    def raw(connection: Connection) -> None:
        return

    app.start()
    sealer = Sealer(connect(app.http.port)).join()
    peer = Peer(sealer)  # type: ignore[arg-type]
    assert peer.ask(upgrade_request("/raw")).status == 101
    assert peer.close_frame()[0] == 1000
    sealer.sock.sendall(sealer.seal(frame(CLOSE, b"\x03\xe8"))[:10])
    assert eventually(lambda: not running_of(app))


def test_a_vanished_client(app: Daebus, join: Join) -> None:
    peer = join()
    peer.say("echo", 1)
    peer.message()
    raw = socket.socket(fileno=peer.sock.detach())  # without close_notify
    raw.close()
    assert eventually(lambda: not app.websocket.get_client_count())


def test_a_broken_record_ends_one_connection_only(app: Daebus, join: Join) -> None:
    other, broken = join(), join()
    assert eventually(lambda: app.websocket.get_client_count() == 2)
    raw = socket.socket(fileno=broken.sock.detach())
    with raw:
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        assert eventually(lambda: app.websocket.get_client_count() == 1)
    other.say("echo", "fine")
    assert other.message()["data"] == "fine"


# --- slow and busy clients ------------------------------------------------------------


def test_a_client_that_does_not_read_is_cut(make: MakeApp, join: Join) -> None:
    app = make(max_outbox=200_000)
    app.start()
    slow, good = join(app, receive_buffer=4096), join(app)
    assert eventually(lambda: app.websocket.get_client_count() == 2)
    connection = connections(app)[0]
    sent = 0
    while app.websocket.get_client_count() == 2:
        app.websocket.broadcast_to_all([sent, "x" * 20_000])
        assert good.message()["data"][0] == sent
        assert connection.writer.outlet.queued()[0] <= 200_000
        sent += 1
        assert sent < 2000
    assert eventually(lambda: app.websocket.stats()["slow_consumers"] == 1)
    # It reads at last: whole frames, then why; nothing is torn.
    number, code = 0, 0
    while True:
        opcode, payload = slow.frame()
        if opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big")
            break
        assert json.loads(payload)["data"] == [number, "x" * 20_000]
        number += 1
    assert code == 1013
    good.say("echo", "fine")
    assert good.message()["data"] == "fine"


@pytest.mark.parametrize("on_full", ["drop_oldest", "drop_newest"])
def test_dropped_messages_tear_no_record(make: MakeApp, join: Join, on_full: str) -> None:
    app = make(max_outbox=50_000, on_full=on_full)
    app.start()
    slow = join(app, receive_buffer=4096)
    assert eventually(lambda: app.websocket.get_client_count() == 1)

    def flood() -> None:
        for number in range(3000):
            app.websocket.broadcast_to_all(
                [number, "x" * (number * 37 % 9000)],
                conflate="key" if number % 5 == 0 else None,
                droppable=number % 3 == 0,
            )
        assert eventually(lambda: connections(app)[0].writer.outlet.queued() == (0, 0))
        app.websocket.broadcast_to_all(None, "end")

    thread = threading.Thread(target=flood)
    thread.start()
    assert eventually(lambda: app.websocket.stats()["dropped"] > 10)
    seen = set()
    while (message := slow.message())["type"] != "end":
        number, text = message["data"]
        assert text == "x" * (number * 37 % 9000)
        assert number not in seen
        seen.add(number)
    thread.join(5)
    assert len(seen) > 10


def test_a_busy_handler(make: MakeApp, join: Join) -> None:
    app = make()
    begun, release = waiting_handler(app)
    app.start()
    peer = join(app)
    peer.say("wait")
    assert begun.wait(5)
    peer.send(PING, b"alive?")
    assert peer.frame() == (PONG, b"alive?")  # by the minder: the handler has not returned
    peer.say("echo", "next")
    release.set()
    assert [peer.message()["data"] for _ in range(2)] == ["waited", "next"]
    peer.close()


def test_a_busy_handler_learns_that_its_client_left(make: MakeApp, join: Join) -> None:
    app = make()
    begun, told = threading.Event(), threading.Event()

    @app.socket("watch")
    def watch(req: Any) -> None:
        begun.set()
        if req.cancelled.wait(10):
            told.set()

    app.start()
    peer = join(app)
    peer.say("watch")
    assert begun.wait(5)
    peer.send(CLOSE, b"\x03\xe8")
    assert told.wait(5)


# --- many at once ---------------------------------------------------------------------


def test_a_short_storm() -> None:
    outcome = storm(30, rounds=40, clients=3)
    assert outcome.broadcasts == 40 * 3 * 3
    assert outcome.echoes >= 3 * LEAST


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_minute_of_storm() -> None:
    outcome = storm(60, clients=8, broadcasters=4)
    assert outcome.broadcasts > 1000
    assert outcome.echoes > 1000


def test_stop_under_load(make: MakeApp) -> None:
    app = make(max_outbox=64 << 20, max_outbox_messages=10**6)
    app.start()
    peers = [Peer.joined(dial(app.http.port)) for _ in range(4)]
    assert eventually(lambda: app.websocket.get_client_count() == 4)
    stopped = threading.Event()

    def flood() -> None:
        while not stopped.is_set():
            app.websocket.broadcast_to_all("x" * 3000)
            stopped.wait(0.001)

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    codes: list[int] = []

    def read(peer: Peer) -> None:
        for number in range(20):
            peer.say("echo", number)
        codes.append(peer.part())

    readers = [threading.Thread(target=read, args=(peer,)) for peer in peers]
    for reader in readers:
        reader.start()
    assert eventually(lambda: connections(app)[0].reader.messages_in > 5)
    left = app.stop(timeout=5)
    stopped.set()
    for thread in [*threads, *readers]:
        thread.join(5)
        assert not thread.is_alive()
    assert left == []
    assert codes == [1001] * 4
