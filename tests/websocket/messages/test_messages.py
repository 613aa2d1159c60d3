"""What handlers return and send, and how it arrives."""

from __future__ import annotations

import base64
import contextvars
import dataclasses
import datetime
import decimal
import enum
import json
import queue
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daebus import Daebus, EncodeError, NoClientError, WebSocketRequest
from daebus.websocket.clients.broadcast import SendResult
from tests.support.fixture_types import Connect
from tests.support.peer import Peer, envelope


class Colour(enum.Enum):
    AMBER = "amber"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Reading:
    sensor: str
    value: float


@dataclasses.dataclass
class Report:
    readings: list[Reading]
    day: datetime.date


# --- returned values ----------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 0.0, False, "", [], {}], ids=repr)
def test_a_falsy_value_is_an_answer(app: Daebus, value: Any) -> None:
    app.socket("give")(lambda req: value)
    with app.test_client() as client:
        client.send("give")
        message = client.receive()
    assert message == {"type": "response", "data": value}
    assert type(message["data"]) is type(value)


def test_none_is_no_answer(app: Daebus) -> None:
    app.socket("nothing")(lambda req: None)
    with app.test_client() as client:
        client.send("nothing")
        client.send("echo", "next")
        assert client.receive() == {"type": "response", "data": "next"}


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Reading("boiler", 81.5), {"sensor": "boiler", "value": 81.5}),
        (
            Report([Reading("pump", 2.0)], datetime.date(2026, 2, 3)),
            {"readings": [{"sensor": "pump", "value": 2.0}], "day": "2026-02-03"},
        ),
        (datetime.datetime(2026, 2, 3, 4, 5, tzinfo=datetime.UTC), "2026-02-03T04:05:00+00:00"),
        (datetime.time(4, 5), "04:05:00"),
        (datetime.timedelta(minutes=1.5), 90.0),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (decimal.Decimal("1.10"), "1.10"),
        (Colour.AMBER, "amber"),
        (Level.HIGH, 3),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"only"}), ["only"]),
        ({None}, [None]),
        (b"\x00\xff", base64.b64encode(b"\x00\xff").decode()),
        (bytearray(b"ab"), base64.b64encode(b"ab").decode()),
        ((1, 2), [1, 2]),
        ({"inside": [{"deep": Colour.AMBER}]}, {"inside": [{"deep": "amber"}]}),
    ],
    ids=repr,
)
def test_common_objects_have_a_json_form(app: Daebus, value: object, arrives: object) -> None:
    app.socket("give")(lambda req: value)
    with app.test_client() as client:
        assert client.request("give") == arrives
        assert app.websocket.broadcast_to_all(value) == 1
        assert client.receive("broadcast")["data"] == arrives


# --- what a handler gets ------------------------------------------------------------


@pytest.mark.parametrize("data", [None, 0, "text", [1], {"a": {"b": None}}, True], ids=repr)
def test_data_may_be_any_json_value(app: Daebus, data: Any) -> None:
    seen = queue.Queue[Any]()
    app.socket("take")(lambda req: seen.put(req.data))
    with app.test_client() as client:
        client.send("take", data)
        assert seen.get(timeout=5) == data


def test_missing_data_is_an_empty_object(app: Daebus) -> None:
    app.socket("look")(lambda req: [req.data, req.payload])
    with app.test_client() as client:
        client.send_raw('{"type": "look"}')
        assert client.receive()["data"] == [{}, {"type": "look"}]


def test_many_messages_in_one_segment_are_answered_in_order(app: Daebus, connect: Connect) -> None:
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.sock.sendall(b"".join(envelope("echo", n) for n in range(300)))
    assert [peer.message()["data"] for _ in range(300)] == list(range(300))


def test_a_large_message_makes_the_round(app: Daebus) -> None:
    text = "ß€\N{SPOUTING WHALE}x" * 20_000
    with app.test_client() as client:
        assert client.request("echo", text) == text


# --- send ---------------------------------------------------------------------------


def test_sends_come_before_the_returned_value_and_in_order(app: Daebus) -> None:
    results = queue.Queue[SendResult]()

    @app.socket("count")
    def count(req: WebSocketRequest) -> str:
        for n in range(5):
            results.put(app.websocket.send(n, "step" if n % 2 else "response"))
        return "end"

    with app.test_client() as client:
        client.send("count")
        messages = [client.receive() for _ in range(6)]
    assert [message["data"] for message in messages] == [0, 1, 2, 3, 4, "end"]
    assert [message["type"] for message in messages] == [
        *("response", "step", "response", "step", "response"),
        "response",
    ]
    assert all(results.get_nowait() for _ in range(5))


def test_replies_held_back_for_one_write_keep_their_place(app: Daebus, connect: Connect) -> None:
    @app.socket("both")
    def both(req: WebSocketRequest) -> str:
        app.websocket.send(f"{req.data} sent")
        req.websocket.send(json.dumps({"type": "raw", "data": f"{req.data} raw"}))
        app.websocket.broadcast_to_all(f"{req.data} broadcast")
        return f"{req.data} returned"

    app.start()
    peer = Peer.joined(connect(app.http.port))
    names = ("one", "two", "three")
    peer.sock.sendall(b"".join(envelope("both", name) for name in names))
    assert [peer.message()["data"] for _ in range(12)] == [
        f"{name} {how}" for name in names for how in ("sent", "raw", "broadcast", "returned")
    ]


def test_send_outside_of_a_handler_says_what_to_write_instead(app: Daebus) -> None:
    with app, pytest.raises(NoClientError, match=r"app\.websocket\.broadcast_to_all\(data\)"):
        app.websocket.send("whom?")


def test_a_thread_of_a_handler_has_no_client_unless_it_takes_the_context_along(
    app: Daebus,
) -> None:
    outcome = queue.Queue[object]()

    def work() -> None:
        try:
            outcome.put(app.websocket.send("from a thread"))
        except NoClientError as exc:
            outcome.put(exc)

    @app.socket("spawn")
    def spawn(req: WebSocketRequest) -> None:
        context = contextvars.copy_context()
        for target in (work, lambda: context.run(work)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()

    with app.test_client() as client:
        client.send("spawn")
        assert client.receive()["data"] == "from a thread"
        assert isinstance(outcome.get(timeout=5), NoClientError)
        assert outcome.get(timeout=5) == 1


@pytest.mark.parametrize(
    ("value", "told"),
    [
        pytest.param({"x": [object()]}, r"\$\.x\[0\] is an object, which", id="object"),
        ({(1, 2): 3}, "tuple"),
    ],
    ids=repr,
)
def test_data_without_a_json_form_is_refused_where_it_is_sent(
    app: Daebus, value: object, told: str
) -> None:
    raised = queue.Queue[tuple[str, threading.Thread]]()

    @app.socket("send")
    def send(req: WebSocketRequest) -> str:
        try:
            app.websocket.send(value, "sample")
        except EncodeError as exc:
            raised.put((str(exc), threading.current_thread()))
        return "still here"

    with app.test_client() as client:
        assert client.request("send") == "still here"
        text, thread = raised.get(timeout=5)
        assert thread.name.startswith("daebus-ws-")
        with pytest.raises(EncodeError, match=told):
            app.websocket.broadcast_to_all(value, "sample")
        assert "'sample'" in text
        assert "; send " in text, "the message says what to do"


def test_a_circular_value_is_refused(app: Daebus) -> None:
    ring: list[Any] = []
    ring.append(ring)
    with app, pytest.raises(EncodeError, match="contains itself"):
        app.websocket.broadcast_to_all(ring)


@pytest.mark.parametrize("kind", [{"text": "swapped"}, 5, None, True, b"bytes"], ids=repr)
def test_a_message_type_is_a_string(app: Daebus, kind: Any) -> None:
    @app.socket("send")
    def send(req: WebSocketRequest) -> str:
        with pytest.raises(TypeError, match=r"a message type is a string, not .*; write "):
            app.websocket.send("chat", kind)
        return "refused"

    with app.test_client() as client:
        assert client.request("send") == "refused"
        with pytest.raises(TypeError, match=r"a message type is a string, not .*; write "):
            app.websocket.broadcast_to_all("chat", kind)


def test_send_to_a_client_that_has_left_returns_false(app: Daebus, connect: Connect) -> None:
    outcome = queue.Queue[tuple[SendResult, bool]]()

    @app.socket("wait")
    def wait(req: WebSocketRequest) -> str:
        assert req.cancelled.wait(5)
        outcome.put((app.websocket.send("too late"), req.websocket.send("too late")))
        return "too late"

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("wait")
    peer.close()
    assert outcome.get(timeout=5) == (0, False)


def test_send_after_the_stop_returns_false(app: Daebus) -> None:
    outcome = queue.Queue[tuple[SendResult, SendResult]]()

    @app.socket("stop")
    def stop(req: WebSocketRequest) -> None:
        assert app.stop() == []
        outcome.put((app.websocket.send("too late"), app.websocket.broadcast_to_all("too late")))

    with app.test_client() as client:
        client.send("stop")
        assert outcome.get(timeout=5) == (0, 0)


# --- broadcast ----------------------------------------------------------------------


def test_a_broadcast_counts_its_receivers(app: Daebus, connect: Connect) -> None:
    left = threading.Event()
    app.websocket.on_disconnect(lambda client_id: left.set())
    assert app.websocket.broadcast_to_all("nobody listens yet") == 0
    app.start()
    assert app.websocket.broadcast_to_all("nobody is here") == 0
    peers = [Peer.joined(connect(app.http.port)) for _ in range(3)]
    for peer in peers:  # an answer: so it is registered
        peer.say("echo", "here")
        peer.message()
    assert app.websocket.broadcast_to_all("all") == 3
    peers[0].message()
    peers[0].close()
    assert left.wait(5)
    assert app.websocket.broadcast_to_all("two") == 2
    for peer in peers[1:]:
        assert [peer.message()["data"] for _ in range(2)] == ["all", "two"]
        peer.close()
    app.stop()
    assert app.websocket.broadcast_to_all("too late") == 0
    assert app.websocket.get_clients() == []
    assert app.websocket.get_client_count() == 0


def test_a_broadcast_of_a_handler_reaches_its_own_client(app: Daebus) -> None:
    app.socket("shout")(lambda req: app.websocket.broadcast_to_all(req.data, "shout"))
    with app.test_client() as one, app.test_client() as two:
        assert two.request("echo", 0) == 0
        one.send("shout", "hear")
        assert [one.receive()["data"] for _ in range(2)] == ["hear", 2]
        assert two.receive() == {"type": "shout", "data": "hear"}


# --- many clients -------------------------------------------------------------------


def test_fifty_clients_get_their_own_replies_only(app: Daebus) -> None:
    clients, rounds = 50, 20
    together = threading.Barrier(clients)

    @app.socket("twice")
    def twice(req: WebSocketRequest) -> list[Any]:
        app.websocket.send([req.client_id, req.data], "sent")
        return [req.client_id, req.data]

    def talk(number: int) -> str:
        with app.test_client(timeout=20) as client:
            together.wait(20)
            ids = set()
            for turn in range(rounds):
                client.send("twice", [number, turn])
                for kind in ("sent", "response"):
                    message = client.receive()
                    client_id, data = message["data"]
                    assert (message["type"], data) == (kind, [number, turn])
                    ids.add(client_id)
            together.wait(20)
            with pytest.raises(TimeoutError):
                client.receive(timeout=0)
            (client_id,) = ids
            return str(client_id)

    with app, ThreadPoolExecutor(clients) as pool:
        assert len(set(pool.map(talk, range(clients)))) == clients
