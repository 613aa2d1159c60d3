"""Peers that vanished are found, idle ones that live are kept, and the reason is told."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.sync.client import connect as websockets_connect

from daebus import Connection, Daebus, DisconnectInfo, WebSocketRequest
from tests.support.fixture_types import Connect, MakeApp
from tests.support.inside import connections
from tests.support.peer import CLOSE, PING, PONG, Peer
from tests.support.slow_clients import narrow, reset, stuff
from tests.support.waiting import eventually


def departures(app: Daebus) -> queue.Queue[tuple[str, DisconnectInfo]]:
    left = queue.Queue[tuple[str, DisconnectInfo]]()

    @app.websocket.on_disconnect
    def disconnected(client_id: str, info: DisconnectInfo) -> None:
        left.put((client_id, info))

    return left


def test_a_silent_client_is_pinged_then_given_up(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(ping_interval=0.2, ping_timeout=0.3)
    left = departures(app)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    since = time.monotonic()
    (client_id,) = eventually(app.websocket.get_clients)
    assert peer.frame()[0] == PING
    who, info = left.get(timeout=5)
    elapsed = time.monotonic() - since
    assert (who, info.reason, info.code) == (client_id, "ping_timeout", 1006)
    assert 0.45 <= elapsed < 2
    assert 0.45 <= info.seconds < 2
    assert not app.websocket.is_client_connected(client_id)
    assert peer.ended()
    app.stop()
    assert left.empty()


_CLIENT = """
import sys
from websockets.sync.client import connect
with connect("ws://127.0.0.1:" + sys.argv[1], ping_interval=None) as client:
    print("connected", flush=True)
    client.recv()
"""


def test_a_client_process_that_is_stopped_is_gone_in_time(make_app: MakeApp) -> None:
    app = make_app(ping_interval=0.3, ping_timeout=0.3)
    left = departures(app)
    app.start()
    with subprocess.Popen(
        [sys.executable, "-c", _CLIENT, str(app.http.port)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "connected\n"
            (connection,) = eventually(lambda: connections(app))
            # Alive, it answers; the pong moves the sign of life.
            first = connection.last_in
            assert eventually(lambda: connection.last_in > first)
            os.kill(process.pid, signal.SIGSTOP)
            who, info = left.get(timeout=5)
            assert (who, info.reason) == (connection.client_id, "ping_timeout")
        finally:
            process.kill()
            process.wait(5)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("seconds", "count"), [(0.7, 3), pytest.param(2, 20, marks=pytest.mark.slow)]
)
def test_idle_clients_that_answer_are_never_cut(
    make_app: MakeApp, seconds: float, count: int
) -> None:
    app = make_app(ping_interval=0.2, ping_timeout=0.2)
    left = departures(app)
    app.start()
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(
                websockets_connect(f"ws://127.0.0.1:{app.http.port}", ping_interval=None)
            )
            for _ in range(count)
        ]
        with pytest.raises(queue.Empty):
            left.get(timeout=seconds)
        assert app.websocket.broadcast_to_all("still here") == count
        for client in clients:
            assert "still here" in str(client.recv(timeout=5))


@pytest.mark.slow
@pytest.mark.timeout(30)
def test_any_byte_counts_as_life_and_a_talker_is_not_pinged(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app(ping_interval=0.3, ping_timeout=0.3)
    left = departures(app)
    app.socket("echo")(lambda req: req.data)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    pause = threading.Event()
    for number in range(12):  # 1.2 s, twice as long as the silence that is allowed
        peer.say("echo", number)
        assert peer.message()["data"] == number
        pause.wait(0.1)
    # Half a frame is life, too; a ping goes out in between and is not answered.
    pong = b"\x8a\x9e" + bytes(34)
    for position in range(18):
        peer.sock.sendall(pong[2 * position : 2 * position + 2])
        pause.wait(0.06)
    assert left.empty()
    assert app.websocket.get_client_count() == 1


def test_no_ping_is_sent_where_none_is_wanted(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(ping_interval=None)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        peer.frame()


def test_without_a_timeout_pings_go_out_and_nobody_is_cut(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app(ping_interval=0.1, ping_timeout=None)
    left = departures(app)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    pings = [peer.frame() for _ in range(6)]
    assert {opcode for opcode, _ in pings} == {PING}
    assert len({data for _, data in pings}) == 6
    assert left.empty()


@pytest.mark.slow
@pytest.mark.timeout(30)
@pytest.mark.parametrize("on_full", ["drop_oldest", "drop_newest"])
def test_a_slow_reader_that_the_app_keeps_is_not_cut_by_its_own_pings(
    make_app: MakeApp, on_full: str
) -> None:
    """Its outbox is full all the time, but it reads and answers what it is asked."""
    app = make_app(
        ping_interval=0.3, ping_timeout=0.6, on_full=on_full, max_outbox=30_000
    )  # fmt: skip
    left = departures(app)
    app.start()
    over = threading.Event()

    def flood() -> None:
        while not over.wait(0.0005):
            app.websocket.broadcast_to_all("x" * 4096)

    flooder = threading.Thread(target=flood)
    with narrow(app) as peer:
        stuff(app)
        flooder.start()
        try:
            pings = 0
            until = time.monotonic() + 2.5
            pause = threading.Event()
            while time.monotonic() < until and left.empty():
                opcode, payload = peer.frame()
                if opcode == PING:
                    pings += 1
                    peer.send(PONG, payload)
                pause.wait(0.001)
            assert left.empty(), left.get()
            assert pings
        finally:
            over.set()
            flooder.join()


def test_pings_are_not_counted_as_messages(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(ping_interval=0.1, ping_timeout=None)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    assert [peer.frame()[0] for _ in range(3)] == [PING] * 3
    assert app.websocket.stats()["messages_out"] == 0


# --- why a client left --------------------------------------------------------------


def bye_server(app: Daebus, peer: Peer) -> None:
    peer.say("leave")
    assert peer.close_frame() == (4001, "enough")
    peer.send(CLOSE, (4001).to_bytes(2, "big"))


def bye_slow(app: Daebus, peer: Peer) -> None:
    while app.websocket.broadcast_to_all("x" * 16384):
        pass


ENDINGS: dict[str, tuple[str, int, Callable[[Daebus, Peer], object]]] = {
    "client": ("client", 4000, lambda app, peer: peer.close(4000)),
    "client without code": ("client", 1005, lambda app, peer: peer.send(CLOSE)),
    "ping_timeout": ("ping_timeout", 1006, lambda app, peer: None),
    "slow_consumer": ("slow_consumer", 1013, bye_slow),
    "server": ("server", 4001, bye_server),
    "protocol": ("protocol", 1002, lambda app, peer: peer.sock.sendall(b"\xff\x80mask")),
    "not utf-8": ("protocol", 1007, lambda app, peer: peer.send(1, b"\xff")),
    "too big": ("protocol", 1009, lambda app, peer: peer.send(1, b"x" * 2000)),
    "shutdown": ("shutdown", 1001, lambda app, peer: app.stop(timeout=2)),
    "lost": ("lost", 1006, lambda app, peer: reset(peer)),
    "end of stream": ("lost", 1006, lambda app, peer: peer.sock.close()),
    "raw handler returned": ("server", 1000, lambda app, peer: peer.send(1, "bye")),
    "raw handler raised": ("server", 1011, lambda app, peer: peer.send(1, "raise")),
}


@pytest.mark.parametrize(("reason", "code", "end"), ENDINGS.values(), ids=ENDINGS)
def test_on_disconnect_says_why(
    make_app: MakeApp,
    request: pytest.FixtureRequest,
    reason: str,
    code: int,
    end: Callable[[Daebus, Peer], object],
) -> None:
    app = make_app(
        ping_interval=0.2 if reason == "ping_timeout" else None, ping_timeout=0.2,
        close_timeout=0.3, max_message_size=1000,
    )  # fmt: skip
    left = departures(app)
    one = queue.Queue[str]()
    app.websocket.on_disconnect(one.put)
    app.socket("echo")(lambda req: req.data)
    app.socket("leave")(lambda req: req.websocket.close(4001, "enough") and None)

    @app.websocket.raw("/raw")
    def raw(ws: Connection) -> None:
        if ws.recv() == "raise":
            raise RuntimeError("on purpose")

    app.start()
    raw_path = "raw" in request.node.callspec.id
    with narrow(app, "/raw" if raw_path else "/") as peer:
        (client_id,) = app.websocket.get_clients()
        if not raw_path:
            peer.say("echo", 1)
            assert peer.message()["data"] == 1
        end(app, peer)
        who, info = left.get(timeout=5)
    assert (who, info.reason, info.code) == (client_id, reason, code)
    assert one.get(timeout=5) == client_id
    expected = 0 if raw_path else 1
    assert info.messages_in >= expected
    assert info.messages_out >= expected
    assert info.bytes_in > 0 or raw_path
    assert info.bytes_out > 0
    assert 0 < info.seconds < 10
    app.stop()
    assert left.empty()
    assert one.empty()


def test_hooks_of_one_and_of_two_arguments_stand_side_by_side(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app()
    calls = queue.Queue[tuple[Any, ...]]()

    class Hooks:
        def method(self, client_id: str, info: DisconnectInfo) -> None:
            calls.put(("method", client_id, info.reason))

    def one(client_id: str) -> None:
        calls.put(("one", client_id))

    def two(client_id: str, info: DisconnectInfo) -> None:
        calls.put(("two", client_id, info.reason))

    def any_number(*arguments: Any) -> None:
        calls.put(("any", len(arguments)))

    async def later(client_id: str, info: DisconnectInfo) -> None:
        calls.put(("later", client_id, info.reason))

    def closure(client_id: str, name: str = "default") -> None:
        calls.put(("closure", name))

    for hook in (one, two, Hooks().method, any_number, later, closure):
        app.websocket.on_disconnect(hook)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    (client_id,) = eventually(app.websocket.get_clients)
    peer.close()
    assert [calls.get(timeout=5) for _ in range(6)] == [
        ("one", client_id),
        ("two", client_id, "client"),
        ("method", client_id, "client"),
        ("any", 2),
        ("later", client_id, "client"),
        ("closure", "default"),
    ]


@pytest.mark.slow
@pytest.mark.timeout(30)
def test_a_handler_so_busy_that_nothing_is_read_does_not_cost_its_client(
    make_app: MakeApp, connect: Connect
) -> None:
    """The client talks on; nobody reads it, for the read-ahead is full."""
    app = make_app(ping_interval=0.2, ping_timeout=0.2)
    left = departures(app)
    begun, release = threading.Event(), threading.Event()

    @app.socket("wait")
    def wait(req: WebSocketRequest) -> None:
        begun.set()
        assert release.wait(10)

    app.socket("echo")(lambda req: req.data)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("wait")
    assert begun.wait(5)
    (connection,) = connections(app)
    sent = 0
    while len(connection.reader.inbox) < 64 or sent < 300:
        for _ in range(30):
            peer.say("echo", sent)
            sent += 1
        threading.Event().wait(0.02)
        assert sent < 3000
    bytes_in = connection.reader.bytes_in
    peer.say("echo", "unread")
    with pytest.raises(queue.Empty):
        left.get(timeout=0.7)
    assert connection.reader.bytes_in == bytes_in
    release.set()
    answers: list[bytes] = []
    while len(answers) < sent + 1:
        opcode, payload = peer.frame()
        if opcode == 1:
            answers.append(payload)
    assert answers[-1] == b'{"type":"response","data":"unread"}'
