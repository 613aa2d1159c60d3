"""The raw connection: ``@app.websocket.raw(path)`` and ``req.websocket``."""

from __future__ import annotations

import queue
import threading

import pytest

from daebus import (
    Connection,
    ConnectionClosed,
    Daebus,
    DuplicateHandlerError,
    StateError,
    WebSocketRequest,
)
from tests.support.fixture_types import Connect, MakeApp
from tests.support.peer import BINARY, PING, PONG, TEXT, Peer


def test_iterating_yields_text_as_str_and_binary_as_bytes(app: Daebus, connect: Connect) -> None:
    seen = queue.Queue[str | bytes]()

    @app.websocket.raw("/raw")
    def copy(ws: Connection) -> None:
        for message in ws:
            seen.put(message)
            ws.send(message)

    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    for opcode, payload in ((TEXT, "süß"), (BINARY, b"\x00\xff"), (TEXT, ""), (BINARY, b"")):
        data = payload.encode() if isinstance(payload, str) else payload
        peer.send(opcode, payload)
        assert peer.frame() == (opcode, data)
        arrived = seen.get(timeout=5)
        assert arrived == payload
        assert type(arrived) is type(payload)
    peer.close()


def test_fragments_arrive_as_one_message(app: Daebus, connect: Connect) -> None:
    app.websocket.raw("/raw")(lambda ws: ws.send(ws.recv()))
    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    peer.send(TEXT, "one ", fin=False)
    peer.send(PING, b"between")
    peer.send(0, "two ", fin=False)
    peer.send(0, "three")
    assert peer.frame() == (PONG, b"between")
    assert peer.frame() == (TEXT, b"one two three")


def test_recv_with_a_timeout_loses_nothing(app: Daebus, connect: Connect) -> None:
    waited = threading.Event()

    @app.websocket.raw("/raw")
    def slow(ws: Connection) -> None:
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0)
        ws.send("ready")
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.01)
        waited.set()
        ws.send(ws.recv(timeout=5))
        ws.send(ws.recv(timeout=5))

    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    assert peer.frame() == (TEXT, b"ready")
    assert waited.wait(5)
    peer.send(TEXT, "half ", fin=False)
    peer.send(0, "a message")
    peer.send(BINARY, b"another")
    assert peer.frame() == (TEXT, b"half a message")
    assert peer.frame() == (BINARY, b"another")
    assert peer.close_frame() == (1000, "")


def test_recv_on_an_ended_connection_tells_code_and_reason(app: Daebus, connect: Connect) -> None:
    outcome = queue.Queue[ConnectionClosed]()

    @app.websocket.raw("/raw")
    def wait(ws: Connection) -> None:
        for _ in range(2):
            with pytest.raises(ConnectionClosed, match="4711: that is all") as caught:
                ws.recv()
            outcome.put(caught.value)
        assert not ws.open
        assert ws.send("too late") is False
        assert ws.ping() is False
        assert ws.close() is False

    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    peer.send(8, (4711).to_bytes(2, "big") + b"that is all")
    assert peer.close_frame()[0] == 4711
    for _ in range(2):
        exc = outcome.get(timeout=5)
        assert (exc.code, exc.reason) == (4711, "that is all")
        assert isinstance(exc, ConnectionError)


def test_recv_says_1006_when_the_client_vanished(app: Daebus, connect: Connect) -> None:
    codes = queue.Queue[int]()

    @app.websocket.raw("/raw")
    def wait(ws: Connection) -> None:
        try:
            ws.recv()
        except ConnectionClosed as exc:
            codes.put(exc.code)

    app.start()
    Peer.joined(connect(app.http.port), "/raw").sock.close()
    assert codes.get(timeout=5) == 1006


def test_messages_before_the_close_are_still_read(app: Daebus, connect: Connect) -> None:
    go_on, seen = threading.Event(), queue.Queue[object]()

    @app.websocket.raw("/raw")
    def late(ws: Connection) -> None:
        assert go_on.wait(5)
        seen.put(list(ws))

    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    for text in ("one", "two"):
        peer.send(TEXT, text)
    peer.sock.close()
    go_on.set()
    assert seen.get(timeout=5) == ["one", "two"]


def test_close_sends_code_and_reason(app: Daebus, connect: Connect) -> None:
    outcome = queue.Queue[object]()

    @app.websocket.raw("/raw")
    def leave(ws: Connection) -> None:
        ws.send("last words")
        outcome.put((ws.close(4001, "tea time"), ws.close(4002), ws.send("more"), ws.open))

    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    assert peer.frame() == (TEXT, b"last words")
    assert peer.close_frame() == (4001, "tea time")
    peer.send(8, (4001).to_bytes(2, "big"))
    assert peer.ended()
    assert outcome.get(timeout=5) == (True, False, False, False)


def test_a_long_reason_is_cut_between_characters(app: Daebus, connect: Connect) -> None:
    app.websocket.raw("/raw")(lambda ws: ws.close(4000, "€" * 100))
    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    assert peer.close_frame() == (4000, "€" * 41)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_codes_that_must_not_be_sent_are_refused(app: Daebus, connect: Connect, code: int) -> None:
    @app.websocket.raw("/raw")
    def leave(ws: Connection) -> None:
        with pytest.raises(ValueError, match=f"close code {code} must not be sent; use 1000"):
            ws.close(code)
        ws.send("still open")

    app.start()
    assert Peer.joined(connect(app.http.port), "/raw").frame() == (TEXT, b"still open")


def test_ping_reaches_the_client(app: Daebus, connect: Connect) -> None:
    @app.websocket.raw("/raw")
    def check(ws: Connection) -> None:
        assert ws.ping(b"alive?")
        with pytest.raises(ValueError, match="at most 125 bytes, not 126"):
            ws.ping(b"x" * 126)
        ws.send(ws.recv())

    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    assert peer.frame() == (PING, b"alive?")
    peer.send(PONG, b"alive?")
    peer.send(TEXT, "yes")
    assert peer.frame() == (TEXT, b"yes")


def test_when_the_handler_returns_the_connection_is_closed(app: Daebus, connect: Connect) -> None:
    app.websocket.raw("/raw")(lambda ws: ws.send("hello") and None)
    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    assert peer.frame() == (TEXT, b"hello")
    assert peer.close_frame() == (1000, "")


@pytest.mark.parametrize("exc", [ValueError("secret"), SystemExit("secret")], ids=repr)
def test_when_the_handler_raises_the_client_is_told_1011_and_nothing_else(
    app: Daebus, connect: Connect, caplog: pytest.LogCaptureFixture, exc: BaseException
) -> None:
    @app.websocket.raw("/raw")
    def fail(ws: Connection) -> None:
        raise exc

    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    assert peer.close_frame() == (1011, "")
    peer.sock.close()
    app.stop()
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None
    assert record.exc_info[1] is exc


def test_json_handlers_do_not_see_a_raw_path_and_the_other_way_round(
    app: Daebus, connect: Connect
) -> None:
    @app.websocket.raw("/raw")
    def copy(ws: Connection) -> None:
        for message in ws:
            ws.send(message)

    app.start()
    raw, ordinary = (Peer.joined(connect(app.http.port), path) for path in ("/raw?x=1", "/other"))
    for peer, answer in ((raw, {"type": "echo", "data": 1}), (ordinary, {"type": "response"})):
        peer.say("echo", 1)
        assert peer.message() == {**answer, "data": 1}


def test_a_raw_connection_counts_as_a_client(app: Daebus, connect: Connect) -> None:
    came, went = queue.Queue[str](), queue.Queue[str]()
    app.websocket.on_connect(came.put)
    app.websocket.on_disconnect(went.put)
    ids = queue.Queue[str]()

    @app.websocket.raw("/raw")
    def wait(ws: Connection) -> None:
        ids.put(ws.client_id)
        list(ws)

    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    client_id = ids.get(timeout=5)
    assert came.get(timeout=5) == client_id
    assert app.websocket.get_clients() == [client_id]
    peer.close()
    assert went.get(timeout=5) == client_id
    assert app.websocket.get_client_count() == 0


def test_the_connection_describes_itself(app: Daebus, connect: Connect) -> None:
    seen = queue.Queue[tuple[object, ...]]()

    @app.websocket.raw("/raw/ä")
    def look(ws: Connection) -> None:
        seen.put((ws.client_id in repr(ws), ws.path, ws.remote_address, ws.subprotocol, ws.open))

    app.start()
    Peer.joined(connect(app.http.port), "/raw/%C3%A4?query=1")
    assert seen.get(timeout=5) == (True, "/raw/ä", "127.0.0.1", None, True)


def test_the_raw_connection_of_a_json_handler(app: Daebus, connect: Connect) -> None:
    same = queue.Queue[bool]()

    @app.socket("question")
    def question(req: WebSocketRequest) -> str:
        assert isinstance(req.websocket, Connection)
        same.put(req.websocket.client_id == req.client_id)
        req.websocket.send(b"\x01\x02")
        req.websocket.send("and what?")
        return f"you said {req.websocket.recv(timeout=5)!r}"

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("question")
    assert peer.frame() == (BINARY, b"\x01\x02")
    assert peer.frame() == (TEXT, b"and what?")
    peer.send(TEXT, "that")
    assert peer.message()["data"] == "you said 'that'"
    assert same.get(timeout=5)


def test_receiving_belongs_to_the_handlers_thread_and_sending_to_any(
    app: Daebus, connect: Connect
) -> None:
    @app.websocket.raw("/raw")
    def hand_out(ws: Connection) -> None:
        def elsewhere() -> None:
            with pytest.raises(
                StateError, match=r"recv\(\) was called outside of the connection's own"
            ):
                ws.recv()
            ws.send("from another thread")

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    app.start()
    peer = Peer.joined(connect(app.http.port), "/raw")
    assert peer.frame() == (TEXT, b"from another thread")


def test_a_path_has_one_raw_handler_and_begins_with_a_slash(app: Daebus) -> None:
    app.websocket.raw("/raw")(lambda ws: None)
    with pytest.raises(DuplicateHandlerError, match="'/raw' has a raw handler already; use an"):
        app.websocket.raw("/raw")(lambda ws: None)
    with pytest.raises(ValueError, match="has no leading slash; write '/feed'"):
        app.websocket.raw("feed")


def test_a_raw_path_is_open_beside_a_configured_one(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(path="/ws")
    app.websocket.raw("/raw")(lambda ws: ws.send("raw") and None)
    app.start()
    assert Peer.joined(connect(app.http.port), "/raw").frame() == (TEXT, b"raw")
