"""Heartbeats of clients, which are answered beside the handlers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daebus import Connection, Daebus, DaebusHttp, DaebusWebSocket
from tests.support.fixture_types import Connect, MakeApp
from tests.support.handlers import waiting_handler
from tests.support.inside import connections
from tests.support.peer import TEXT, Peer, envelope, frame

BEAT = frame(TEXT, '{"type":"heartbeat"}')
ANSWER = {"type": "heartbeat"}


def test_it_is_answered_and_no_handler_sees_it(app: Daebus, connect: Connect) -> None:
    seen: list[Any] = []
    app.socket("*")(lambda req: seen.append(req.payload))
    app.websocket.enable_rate_limiting(1, 3600)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    for _ in range(3):
        peer.sock.sendall(BEAT)
        assert peer.message() == ANSWER
    peer.send(TEXT, json.dumps({"id": 7, "data": {"x": 1}, "type": "heartbeat"}))
    assert peer.message() == {**ANSWER, "id": 7}
    assert seen == []
    peer.say("echo", 1)  # the first message that counts
    assert peer.message()["data"] == 1
    peer.say("heartbeat", "x" * 1000)  # so long that it counts too
    assert peer.message()["data"]["code"] == "rate_limited"
    assert seen == []


@pytest.mark.parametrize("together", [False, True])
def test_a_busy_handler_does_not_hold_it_up(app: Daebus, connect: Connect, together: bool) -> None:
    begun, release = waiting_handler(app)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.sock.sendall(envelope("wait") + BEAT * together)
    assert begun.wait(5)
    peer.sock.sendall(BEAT * (not together))
    assert peer.message() == ANSWER
    release.set()
    assert peer.message()["data"] == "waited"


def test_of_several_in_one_read_the_newest_is_answered(app: Daebus, connect: Connect) -> None:
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.sock.sendall(
        BEAT + frame(TEXT, '{"type":"heartbeat","id":1}') + BEAT + envelope("echo", "end")
    )
    answers = [peer.message(), peer.message()]
    assert sorted(answer["type"] for answer in answers) == ["heartbeat", "response"]
    assert ANSWER in answers


def test_it_is_no_message_of_somebody_who_is_there(app: Daebus, connect: Connect) -> None:
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("echo", 1)
    peer.message()
    (link,) = connections(app)
    last = link.reader.last_message
    peer.sock.sendall(BEAT)
    assert peer.message() == ANSWER
    assert link.reader.last_message == last
    peer.sock.sendall(BEAT * 2)
    assert peer.message() == ANSWER
    assert link.reader.last_message == last
    peer.say("echo", 1)
    peer.message()
    assert link.reader.last_message > last


def test_a_handler_of_that_name_gets_them(app: Daebus, connect: Connect) -> None:
    app.socket("heartbeat")(lambda req: "mine")
    app.start()
    peer = Peer.joined(connect(app.http.port))
    for data in (BEAT, BEAT * 2):
        peer.sock.sendall(data)
        for _ in range(len(data) // len(BEAT)):
            assert peer.message() == {"type": "response", "data": "mine"}


def test_raw_handlers_get_them_too(app: Daebus, connect: Connect) -> None:
    @app.websocket.raw("/raw")
    def copy(connection: Connection) -> None:
        for message in connection:
            connection.send(message)

    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    peer.sock.sendall(BEAT * 2)
    assert [peer.frame(), peer.frame()] == [(TEXT, b'{"type":"heartbeat"}')] * 2


def test_it_is_read_where_messages_are_compressed(make_app: MakeApp) -> None:
    app = make_app(compression="deflate")
    app.start()
    with app.test_client() as client:
        client.send("heartbeat")
        assert client.receive("heartbeat") == ANSWER


def test_each_answer_tells_the_version_of_the_app(connect: Connect) -> None:
    app = Daebus("test", version="1.4.2")
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    app.start()
    peer = Peer.joined(connect(app.http.port))
    for _ in range(2):
        peer.sock.sendall(BEAT)
        assert peer.message() == {**ANSWER, "data": {"version": "1.4.2"}}
    peer.sock.close()  # the stop would wait for its answer
    app.stop()


@pytest.mark.parametrize("version", ["", "1\r\nX: y", "ü", "1" * 129])
def test_a_version_fits_a_header(version: str) -> None:
    with pytest.raises(ValueError, match=r"write version='1\.4\.2'"):
        Daebus("test", version=version)
