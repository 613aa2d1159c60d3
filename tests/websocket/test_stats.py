"""What ``stats()`` says, after conversations of which everything is known."""

from __future__ import annotations

import json
import threading
from typing import Any

from daebus import ClientError, WebSocketRequest
from tests.support.fixture_types import Connect, MakeApp
from tests.support.handlers import waiting_handler
from tests.support.peer import CLOSE, Peer, frame, upgrade_request
from tests.support.slow_clients import narrow, reset, stuff
from tests.support.waiting import eventually


def test_every_key_after_a_known_conversation(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_clients=2)
    app.socket("echo")(lambda req: req.data)

    @app.socket("refuse")
    def refuse(req: WebSocketRequest) -> None:
        raise ClientError("no", code="my_code")

    assert app.websocket.stats()["connections_total"] == 0
    app.start()
    peer = Peer.joined(connect(app.http.port))
    sent = received = 0

    def say(text: str) -> None:
        nonlocal sent, received
        data = frame(1, text)
        peer.sock.sendall(data)
        sent += len(data)
        received += len(peer.frame()[1]) + 2  # all are shorter than 126 bytes

    for number in range(5):
        say(json.dumps({"type": "echo", "data": number}))
    for text in ("no json", '{"type": "unheard of"}', '{"type": "refuse"}', '{"type": "refuse"}'):
        say(text)
    assert app.websocket.broadcast_to_all("x") == 1
    received += len(peer.frame()[1]) + 2
    # Refused: another site, no key, and one too many.
    elsewhere = upgrade_request(headers={"Origin": "http://elsewhere.example"})
    assert Peer(connect(app.http.port)).ask(elsewhere).status == 403
    keyless = upgrade_request(headers={"Sec-WebSocket-Key": None})
    assert Peer(connect(app.http.port)).ask(keyless).status == 400
    second = Peer.joined(connect(app.http.port))
    assert Peer(connect(app.http.port)).ask(upgrade_request()).status == 503
    second.close(4000)
    assert eventually(lambda: app.websocket.stats()["disconnects"] == {"client": 1})
    stats = app.websocket.stats()
    handlers = stats["handlers"]
    close = len(frame(CLOSE, b"xx"))
    assert stats == {
        "handlers": handlers,
        "connections": 1,
        "connections_total": 2,
        "messages_in": 9,
        "messages_out": 10,
        "bytes_in": sent + close,
        "bytes_out": received + close - 4,  # the server's close frame has no mask
        "dropped": 0,
        "queued_bytes": 0,
        "queued_messages": 0,
        "lost_notices": 0,
        "slow_consumers": 0,
        "disconnects": {"client": 1},
        "refused": {"origin_not_allowed": 1, "bad_handshake": 1, "too_many_clients": 1},
        "errors": {"bad_json": 1, "unknown_type": 1, "my_code": 2},
        "topics": {},
        "json": "orjson" if stats["json"] == "orjson" else "json",
    }
    assert {kind: times["count"] for kind, times in handlers.items()} == {"echo": 5, "refuse": 2}
    for times in handlers.values():
        assert sum(times["buckets"].values()) == times["count"]
        assert list(times["buckets"])[-1] == "inf"
        assert 0 < times["seconds"] < 5
    assert Peer(connect(app.http.port)).ask(b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n").status == 404
    # The second client's thread parks when its descriptor is gone.
    assert eventually(lambda: app.stats()["threads"]["ws"] == 1)
    whole = app.stats()
    assert whole["name"] == "test"
    assert whole["state"] == "running"
    assert 0 < whole["seconds"] < 60
    assert whole["websocket"]["messages_in"] == 9
    assert whole["threads"]["accept"] == whole["threads"]["minder"] == 1
    assert whole["threads"]["http"] >= 1
    peer.close()
    app.stop()
    assert app.websocket.stats()["connections_total"] == 0
    assert app.stats()["state"] == "stopped"


def test_the_histogram_puts_calls_where_they_belong(make_app: MakeApp, connect: Connect) -> None:
    app = make_app()
    app.socket("pause")(lambda req: threading.Event().wait(req.data))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    for seconds in (0, 0, 0.06, 0.2):
        peer.say("pause", seconds)
        peer.message()
    times = app.websocket.stats()["handlers"]["pause"]
    assert times["count"] == 4
    assert 0.26 <= times["seconds"] < 3
    counts = list(times["buckets"].values())
    assert sum(counts[:4]) >= 2  # up to 50 ms
    assert sum(counts[4:]) >= 2


def test_counts_never_go_backwards_while_a_client_leaves(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app()
    begun, release = waiting_handler(app)
    app.socket("echo")(lambda req: req.data)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("echo", 1)
    peer.message()
    peer.say("wait")
    assert begun.wait(5)
    reset(peer)
    assert eventually(lambda: app.websocket.get_client_count() == 0)
    during = app.websocket.stats()
    assert during["connections"] == 0
    assert during["connections_total"] == 1
    assert during["messages_in"] == 2
    assert during["handlers"]["echo"]["count"] == 1
    release.set()
    assert eventually(lambda: app.websocket.stats()["disconnects"] == {"lost": 1})
    assert app.websocket.stats()["connections_total"] == 1
    assert app.websocket.stats()["messages_in"] == 2


def test_what_waits_and_what_was_dropped_is_counted(make_app: MakeApp) -> None:
    app = make_app(on_full="drop_newest", max_outbox_messages=4)
    app.start()
    with narrow(app):
        connection = stuff(app)
        while app.websocket.broadcast_to_all("x"):
            pass
        stats = app.websocket.stats()
        size, count = connection.writer.outlet.queued()
        assert (stats["queued_bytes"], stats["queued_messages"]) == (size, count)
        assert count == 4
        assert stats["dropped"] == 1


def test_all_counts_begin_anew_with_a_new_start(make_app: MakeApp, connect: Connect) -> None:
    app = make_app()
    for _ in range(2):
        app.start()
        peer = Peer.joined(connect(app.http.port))
        peer.say("unheard of")
        assert peer.message()["type"] == "error"
        stats = app.websocket.stats()
        assert stats["messages_in"] == 1
        assert stats["errors"] == {"unknown_type": 1}
        peer.close()
        app.stop()


def test_asking_while_clients_come_and_go_is_always_consistent(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app()
    app.socket("echo")(lambda req: req.data)
    app.start()
    over = threading.Event()
    problems: list[Any] = []

    def ask() -> None:
        last: dict[str, int] = {}
        while not over.wait(0.001):
            stats = app.websocket.stats()
            now = {name: stats[name] for name in ("connections_total", "messages_in", "bytes_in")}
            if any(now[name] < last.get(name, 0) for name in now):
                problems.append((last, now))
            last = now

    asker = threading.Thread(target=ask)
    asker.start()
    for number in range(100):
        peer = Peer.joined(connect(app.http.port))
        peer.say("echo", number)
        peer.message()
        if number % 2:
            reset(peer)
        else:
            peer.close()
    assert eventually(lambda: sum(app.websocket.stats()["disconnects"].values()) == 100)
    over.set()
    asker.join()
    assert problems == []
    assert app.websocket.stats()["messages_in"] == 100
