"""What a full outbox does: the client is cut, or messages are dropped, or its handler waits."""

from __future__ import annotations

import json
import queue
import random
import threading
import time
from typing import Any

import pytest

from daebus import Daebus, DisconnectInfo, SlowConsumerInfo, WebSocketRequest
from daebus.websocket.clients.broadcast import SendResult
from daebus.websocket.connection.connection import Connection
from daebus.websocket.connection.outbox import OnFull
from tests.support.fixture_types import MakeApp
from tests.support.inside import connections
from tests.support.logs import records
from tests.support.peer import CLOSE, PING, PONG, TEXT, Peer, envelope
from tests.support.slow_clients import KILOBYTES_16, narrow, stuff
from tests.support.waiting import eventually


def texts_until(peer: Peer, last: str) -> list[Any]:
    """Read messages up to the one of type ``last``."""
    found: list[Any] = []
    while True:
        opcode, payload = peer.frame()
        if opcode == TEXT:
            message = json.loads(payload)
            if message["type"] == last:
                return found
            found.append(message)


def numbers(messages: list[Any]) -> list[int]:
    return [message["data"][0] for message in messages if message["type"] == "number"]


def broadcast_numbers(app: Daebus, count: int, **options: Any) -> list[int]:
    """Broadcast numbered messages of 4 KiB; return what each call returned."""
    return [
        app.websocket.broadcast_to_all([number, "x" * 4096], "number", **options)
        for number in range(count)
    ]


# --- disconnect, the default --------------------------------------------------------


def test_a_client_that_does_not_read_is_cut_and_the_app_is_told_once(make_app: MakeApp) -> None:
    app = make_app()
    slow, left = queue.Queue[Any](), queue.Queue[Any]()

    @app.websocket.on_slow_consumer
    def slow_consumer(client_id: str, info: SlowConsumerInfo) -> None:
        slow.put((client_id, info))

    @app.websocket.on_disconnect
    def disconnected(client_id: str, info: DisconnectInfo) -> None:
        left.put((client_id, info))

    app.start()
    with records() as log, narrow(app):
        (client_id,) = app.websocket.get_clients()
        reached: list[int] = [app.websocket.broadcast_to_all(KILOBYTES_16) for _ in range(1000)]
        cut_at = reached.index(0)
        assert set(reached[:cut_at]) == {1}
        assert set(reached[cut_at:]) == {0}
        assert not app.websocket.is_client_connected(client_id)
        who, info = slow.get(timeout=5)
        assert who == client_id
        assert info.cut
        assert (1 << 20) - 20000 < info.queued_bytes <= 1 << 20
        frame_size = 16384 + 200
        assert (info.queued_messages - 1) * 16384 < info.queued_bytes
        assert info.queued_bytes < info.queued_messages * frame_size
        who, why = left.get(timeout=5)
        assert (who, why.reason, why.code) == (client_id, "slow_consumer", 1013)
        # One found no room; one of the queued ones may have been begun.
        assert why.dropped in (info.queued_messages, info.queued_messages + 1)
        assert why.messages_out == cut_at
        log.wait_for("cutting it")
    assert app.websocket.stats()["slow_consumers"] == 1
    app.stop()
    assert slow.empty()
    assert left.empty()


def test_the_registry_is_left_before_the_call_that_cuts_returns(make_app: MakeApp) -> None:
    app = make_app(max_outbox_messages=3)
    app.start()
    with narrow(app):
        (connection,) = connections(app)
        for _ in range(1000):
            if not app.websocket.broadcast_to_all(KILOBYTES_16):
                break
        assert app.websocket.get_clients() == []
        assert not connection.open
        assert connection.account().reason == "slow_consumer"


def test_a_client_that_reads_again_in_time_is_told_1013(make_app: MakeApp) -> None:
    app = make_app()
    app.start()
    with narrow(app) as peer:
        while app.websocket.broadcast_to_all(KILOBYTES_16):
            pass
        peer.sock.settimeout(10)
        assert peer.close_frame() == (1013, "too slow")
        assert peer.ended()


def test_a_slow_client_that_never_reads_again_is_gone_soon(make_app: MakeApp) -> None:
    app = make_app()
    left = queue.Queue[str]()
    app.websocket.on_disconnect(lambda client_id, info: left.put(info.reason))
    app.start()
    with narrow(app):
        while app.websocket.broadcast_to_all(KILOBYTES_16):
            pass
        assert left.get(timeout=5) == "slow_consumer"
        # Its thread is free again although the client holds its end open.
        assert eventually(lambda: not [t for t in threading.enumerate() if "daebus-ws-" in t.name
                                       and t.name != "daebus-ws-parked"])  # fmt: skip


def test_a_conflated_message_that_cuts_is_told_too(make_app: MakeApp) -> None:
    app = make_app(max_outbox_messages=2)
    slow = queue.Queue[SlowConsumerInfo]()
    app.websocket.on_slow_consumer(lambda client_id, info: slow.put(info))
    app.start()
    with narrow(app):
        stuff(app)
        for number in range(3):
            app.websocket.broadcast_to_all(number, conflate=f"key {number}")
        assert slow.get(timeout=5).cut


def test_a_cut_after_dropped_droppable_messages_is_told(make_app: MakeApp) -> None:
    app = make_app(max_outbox_messages=2)
    slow = queue.Queue[SlowConsumerInfo]()
    app.websocket.on_slow_consumer(lambda client_id, info: slow.put(info))
    app.start()
    with narrow(app):
        stuff(app)
        app.websocket.broadcast_to_all(KILOBYTES_16)
        for _ in range(5):
            assert app.websocket.broadcast_to_all("drop me", droppable=True) == 0
        assert not slow.get(timeout=5).cut
        app.websocket.broadcast_to_all("one too many")
        assert slow.get(timeout=5).cut


def test_the_memory_for_a_slow_client_is_bounded(make_app: MakeApp) -> None:
    app = make_app(max_outbox=200_000, on_full="drop_newest")
    app.start()
    with narrow(app):
        for size in [4096] * 1000 + [150_000] * 20 + [10] * 2000:
            app.websocket.broadcast_to_all("x" * size)
            assert app.websocket.stats()["queued_bytes"] <= 200_000
        assert app.websocket.stats()["queued_messages"] <= 1000


@pytest.mark.parametrize("on_full", ["drop_oldest", "drop_newest", "block", "disconnect"])
def test_the_number_of_queued_messages_is_bounded(make_app: MakeApp, on_full: OnFull) -> None:
    app = make_app(max_outbox_messages=10, on_full=on_full)
    app.start()
    with narrow(app):
        (connection,) = connections(app)
        for _ in range(1000):
            app.websocket.broadcast_to_all("x" * 4096)
            # The close frame that says 1013 stands behind them.
            assert connection.writer.outlet.queued()[1] <= 10
        assert connection.open == (on_full != "disconnect")


# --- dropping -----------------------------------------------------------------------


def test_drop_newest_keeps_what_waits(make_app: MakeApp) -> None:
    app = make_app(on_full="drop_newest", max_outbox=100_000)
    slow = queue.Queue[SlowConsumerInfo]()
    app.websocket.on_slow_consumer(lambda client_id, info: slow.put(info))
    app.start()
    with narrow(app) as peer:
        reached = broadcast_numbers(app, 1500)
        taken = [number for number, clients in enumerate(reached) if clients]
        assert taken[-1] < 1400, "nothing was dropped"
        (connection,) = connections(app)
        assert connection.writer.outlet.dropped == 1500 - len(taken)
        assert app.websocket.stats()["dropped"] == 1500 - len(taken)
        assert not slow.get(timeout=5).cut
        peer.say("done")  # unknown: the error comes behind all that waits
        assert numbers(texts_until(peer, "error")) == taken
        assert connection.open
    app.stop()
    assert slow.empty(), "told more than once"


def test_drop_oldest_keeps_the_newest(make_app: MakeApp) -> None:
    app = make_app(on_full="drop_oldest", max_outbox=100_000)
    app.start()
    with narrow(app) as peer:
        assert set(broadcast_numbers(app, 1500)) == {1}
        (connection,) = connections(app)
        dropped = connection.writer.outlet.dropped
        assert dropped > 100
        peer.say("done")
        seen = numbers(texts_until(peer, "error"))
        assert len(seen) == 1500 - dropped
        assert seen == sorted(set(seen))
        assert seen[-10:] == list(range(1490, 1500))
        assert connection.open


def test_a_droppable_message_makes_room_for_others_and_cuts_nobody(make_app: MakeApp) -> None:
    app = make_app(max_outbox_messages=5)
    app.start()
    with narrow(app) as peer:
        connection = stuff(app)
        while connection.writer.outlet.queued()[1] < 5:
            app.websocket.broadcast_to_all("chatter", "chatter", droppable=True)
        assert app.websocket.broadcast_to_all("late", "chatter", droppable=True) == 0
        assert app.websocket.broadcast_to_all("weighty", "alarm") == 1
        assert connection.open
        assert connection.writer.outlet.dropped == 2
        peer.say("done")
        texts = [m for m in texts_until(peer, "error") if m["type"] != "stuffing"]
        assert [m["data"] for m in texts] == ["chatter"] * 3 + ["weighty"]


def test_of_conflated_messages_the_newest_arrives_in_the_place_of_the_first(
    make_app: MakeApp,
) -> None:
    app = make_app(max_outbox_messages=20)
    slow = queue.Queue[str]()
    app.websocket.on_slow_consumer(slow.put)
    app.start()
    with narrow(app) as peer:
        connection = stuff(app)
        app.websocket.broadcast_to_all("before", "mark")
        for number in range(5000):
            assert app.websocket.broadcast_to_all(number, "level", conflate="level") == 1
            assert app.websocket.broadcast_to_all(-number, "heat", conflate="heat") == 1
        app.websocket.broadcast_to_all("after", "mark")
        assert connection.writer.outlet.dropped == 2 * 4999
        peer.say("done")
        texts = [m["data"] for m in texts_until(peer, "error") if m["type"] != "stuffing"]
        assert texts == ["before", 4999, -4999, "after"]
    app.stop()
    assert slow.empty()


def test_a_clients_ping_does_not_replace_a_conflated_message(make_app: MakeApp) -> None:
    app = make_app()
    begun, release = threading.Event(), threading.Event()

    @app.socket("wait")
    def wait(req: WebSocketRequest) -> None:
        begun.set()
        assert release.wait(10)

    app.start()
    with narrow(app) as peer:
        connection = stuff(app)
        for key in ("pong", "ping", "close"):
            app.websocket.broadcast_to_all(key, "value", conflate=key)
        bytes_in = connection.reader.bytes_in
        peer.send(PING, b"alive?")
        assert eventually(lambda: connection.reader.bytes_in > bytes_in)
        # Nor the other way round.
        app.websocket.broadcast_to_all("newer", "value", conflate="pong")
        peer.say("done")
        values, pongs = [], []
        while True:
            opcode, payload = peer.frame()
            if opcode == PONG:
                pongs.append(payload)
            elif b'"value"' in payload[:30]:
                values.append(json.loads(payload)["data"])
            elif b'"error"' in payload[:30]:
                break
        assert values == ["newer", "ping", "close"]
        assert pongs == [b"alive?"]


# --- waiting ------------------------------------------------------------------------


def test_block_has_the_handler_wait_until_its_client_reads(make_app: MakeApp) -> None:
    app = make_app(on_full="block", max_outbox=100_000)
    sent = queue.Queue[SendResult]()

    @app.socket("download")
    def download(req: WebSocketRequest) -> str:
        for number in range(1500):
            sent.put(app.websocket.send([number, "x" * 4096], "number"))
        return "end"

    app.start()
    with narrow(app) as peer:
        peer.say("download")
        (connection,) = connections(app)
        assert eventually(lambda: connection.writer.outlet.queued()[0] > 90_000)
        assert not eventually(lambda: sent.qsize() >= 1500, 0.3), "it did not wait"
        # Others do not wait for this client.
        assert app.websocket.broadcast_to_all("x" * 20_000) == 0
        seen = numbers(texts_until(peer, "response"))
        assert seen == list(range(1500))
        assert {sent.get() for _ in range(1500)} == {1}
        assert connection.writer.outlet.dropped == 1


def test_block_gives_up_after_send_timeout(make_app: MakeApp) -> None:
    app = make_app(on_full="block", max_outbox=50_000, send_timeout=0.2)
    outcome = queue.Queue[tuple[bool, float]]()

    @app.socket("send")
    def send(req: WebSocketRequest) -> None:
        while True:
            started = time.monotonic()
            if not app.websocket.send("x" * 4096):
                outcome.put((req.websocket.open, time.monotonic() - started))
                return

    app.start()
    with narrow(app) as peer:
        peer.say("send")
        still_open, seconds = outcome.get(timeout=10)
        assert still_open
        assert 0.2 <= seconds < 3


def test_a_handler_that_waits_for_room_is_woken_when_its_connection_is_closed(
    make_app: MakeApp,
) -> None:
    app = make_app(send_timeout=30, close_timeout=30)
    outcome = queue.Queue[bool]()

    @app.socket("send")
    def send(req: WebSocketRequest) -> None:
        while app.websocket.send("x" * 4096):
            pass
        outcome.put(True)

    app.start()
    with narrow(app) as peer:
        peer.say("send")
        (connection,) = connections(app)
        assert eventually(lambda: connection.writer.outlet.queued()[0] > (1 << 20) - 5000)
        connection.shut(4000, "enough", "server")
        assert outcome.get(timeout=3)
        connection.writer.abort()


def test_a_client_that_floods_requests_and_never_reads_is_slowed_then_cut(
    make_app: MakeApp,
) -> None:
    app = make_app(max_outbox=200_000, send_timeout=0.5)
    app.socket("echo")(lambda req: req.data)
    left = queue.Queue[DisconnectInfo]()
    app.websocket.on_disconnect(lambda client_id, info: left.put(info))
    app.start()
    with narrow(app) as peer:
        request = envelope("echo", "x" * 8192)
        peer.sock.settimeout(0.3)
        accepted = 0
        slowed = False
        try:
            for _ in range(5000):
                peer.sock.sendall(request)
                accepted += 1
        except TimeoutError:
            slowed = True
        except ConnectionError:
            pass
        assert slowed, "TCP did not push back"
        assert app.websocket.stats()["queued_bytes"] <= 200_000 + 9000
        info = left.get(timeout=10)
        assert info.reason == "slow_consumer"
        assert info.messages_in <= accepted + 1


# --- frames stay whole --------------------------------------------------------------


def test_many_senders_and_a_slow_reader_tear_and_mix_nothing(make_app: MakeApp) -> None:
    """Eight threads send numbered messages of any size, pings in between; the client checks."""
    app = make_app(
        on_full="block", max_outbox=1 << 25, max_outbox_messages=1 << 16, ping_interval=0.05
    )
    app.start()
    senders, each = 8, 60
    chance = random.Random(3)
    plans = [[chance.randrange(1, 60_000) for _ in range(each)] for _ in range(senders)]
    with narrow(app) as peer:
        (connection,) = connections(app)
        view = Connection(connection)

        def send(sender: int) -> None:
            for number, size in enumerate(plans[sender]):
                text = chr(97 + sender) * size
                if number % 3:
                    assert app.websocket.broadcast_to_all([sender, number, text]) == 1
                else:
                    assert view.send(json.dumps({"data": [sender, number, text]}))
                view.ping(b"%d" % number)

        threads = [threading.Thread(target=send, args=(n,)) for n in range(senders)]
        for thread in threads:
            thread.start()
        reader = random.Random(4)
        seen: dict[int, int] = dict.fromkeys(range(senders), -1)
        while sum(seen.values()) < senders * (each - 1):
            if reader.random() < 0.05:
                peer.send(PING, b"from the client")
            opcode, payload = peer.frame()
            if opcode in (PING, PONG):
                assert payload == b"from the client" or payload.isdigit()
                continue
            assert opcode == TEXT
            sender, number, text = json.loads(payload)["data"]
            assert number == seen[sender] + 1, "a message is missing or out of order"
            seen[sender] = number
            assert text == chr(97 + sender) * plans[sender][number]
        for thread in threads:
            thread.join(10)
        assert connection.writer.outlet.dropped == 0
        peer.send(CLOSE, (1000).to_bytes(2, "big"))
        assert peer.close_frame() == (1000, "")
