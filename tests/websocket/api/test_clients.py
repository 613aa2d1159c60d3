"""What is known about clients, and sending them away."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections import UserDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import simple_websocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websockets_connect

from daebus import (
    ClientMetadata,
    Connection,
    Daebus,
    DisconnectInfo,
    NoClientError,
    WebSocketRequest,
)
from daebus.server.threads.safelog import flush_repeats
from daebus.websocket.clients import metadata
from tests.support.fixture_types import Connect, MakeApp
from tests.support.handlers import waiting_handler
from tests.support.inside import connections, hub_of
from tests.support.logs import records
from tests.support.peer import PING, PONG, Peer, upgrade_request
from tests.support.slow_clients import narrow, reset, stuff
from tests.support.waiting import eventually


def ids_in_use(app: Daebus) -> set[str]:
    return set(hub_of(app).client_ids._used)


def the_only(app: Daebus) -> str:
    """Wait for the one client of an app; return its id."""
    assert eventually(app.websocket.get_clients)
    (client_id,) = app.websocket.get_clients()
    return client_id


def known(app: Daebus, client_id: str) -> ClientMetadata:
    found = app.websocket.get_client_metadata(client_id)
    assert found is not None
    return found


# --- metadata -----------------------------------------------------------------------


def test_what_is_known_of_a_client(make_app: MakeApp) -> None:
    app = make_app(subprotocols=["chat"])
    app.socket("echo")(lambda req: req.data)
    app.start()
    before = time.time()
    client: ClientConnection
    with websockets_connect(
        f"ws://127.0.0.1:{app.http.port}/room?x=1",
        user_agent_header="tests/1.0 " + "x" * 1000,
        subprotocols=["chat"],  # type: ignore[list-item]  # a NewType of str
    ) as client:
        client_id = the_only(app)
        found = known(app, client_id)
        assert tuple(found) == metadata.KEYS
        assert found["client_id"] == client_id
        assert found["user"] is None
        assert (found["path"], found["subprotocol"]) == ("/room", "chat")
        assert found["remote_address"] == "127.0.0.1"
        assert found["secure"] is False
        assert found["user_agent"] == ("tests/1.0 " + "x" * 1000)[:512]
        assert before - 1 <= found["connected_at"] <= time.time()
        assert (found["messages_in"], found["messages_out"]) == (0, 0)
        assert found["round_trip"] is None
        text = '{"type":"echo","data":"hello"}'
        client.send(text)
        client.recv(timeout=5)
        later = known(app, client_id)
        assert (later["messages_in"], later["messages_out"]) == (1, 1)
        assert later["bytes_in"] - found["bytes_in"] == len(text) + 6
        assert later["bytes_out"] > len(text)
        assert later["connected_at"] == found["connected_at"]
        assert found["last_activity"] <= later["last_activity"] + 0.01
        assert later["last_activity"] <= time.time() + 0.01
        app.websocket.identify(client_id, "ann")
        assert known(app, client_id)["user"] == "ann"


def test_a_client_that_does_not_say_what_it_is(app: Daebus, connect: Connect) -> None:
    app.start()
    Peer.joined(connect(app.http.port))
    assert known(app, the_only(app))["user_agent"] == ""


def test_what_waits_for_a_client_that_does_not_read(make_app: MakeApp) -> None:
    app = make_app(on_full="drop_newest")
    app.start()
    with narrow(app):
        client_id = the_only(app)
        connection = stuff(app)
        found = known(app, client_id)
        queued = connection.writer.outlet.queued()
        assert (found["queued_bytes"], found["queued_messages"]) == queued
        assert found["dropped"] == 0
        while app.websocket.send_to_client(client_id, "x" * 16384):
            pass
        assert known(app, client_id)["dropped"] == 1


def test_a_client_that_is_not_there(app: Daebus) -> None:
    with app:
        assert app.websocket.get_client_metadata("nobody") is None
        assert app.websocket.set_client_metadata("nobody", name="x") is False


def test_a_client_that_left_is_known_no_more(app: Daebus) -> None:
    seen = queue.Queue[Any]()

    @app.websocket.on_disconnect
    def left(client_id: str) -> None:
        seen.put(app.websocket.get_client_metadata(client_id))
        seen.put(app.websocket.set_client_metadata(client_id, name="x"))
        seen.put(app.websocket.disconnect_client(client_id))

    with app.test_client():
        assert known(app, the_only(app))
    assert [seen.get(timeout=5) for _ in range(3)] == [None, False, False]


# --- the time of a ping -------------------------------------------------------------


def test_the_round_trip_of_a_ping(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(ping_interval=0.1, ping_timeout=20)
    app.socket("known")(lambda req: [known(app, req.client_id)["round_trip"]])
    app.start()
    peer = Peer.joined(connect(app.http.port))

    def round_trip() -> Any:
        peer.say("known")
        while True:
            opcode, payload = peer.frame()
            if opcode != PING:
                return json.loads(payload)["data"][0]

    opcode, data = peer.frame()
    assert opcode == PING
    peer.send(PONG, b"unasked")
    assert round_trip() is None
    peer.send(PONG, data)
    first = round_trip()
    assert 0 < first < 5
    peer.send(PONG, data)  # once more: no second measurement
    assert round_trip() == first


@pytest.mark.parametrize("timeout", [None, 5])
def test_clients_of_other_libraries_answer_with_what_they_were_sent(
    make_app: MakeApp, timeout: float | None
) -> None:
    app = make_app(ping_interval=0.05, ping_timeout=timeout)
    app.start()
    with (
        app.test_client(),
        websockets_connect(f"ws://127.0.0.1:{app.http.port}/", ping_interval=None),
    ):
        assert eventually(lambda: app.websocket.get_client_count() == 2)
        for client_id in app.websocket.get_clients():
            found = eventually(lambda: known(app, client_id)["round_trip"])  # noqa: B023
            assert 0 < found < 5


# --- what the app notes -------------------------------------------------------------


def test_the_app_notes_something_and_finds_clients_by_it(app: Daebus) -> None:
    with app.test_client(), app.test_client():
        assert eventually(lambda: app.websocket.get_client_count() == 2)
        ann, bob = app.websocket.get_clients()
        assert app.websocket.set_client_metadata(ann, name="Ann", level=3)
        assert app.websocket.set_client_metadata(ann, level=4)
        assert app.websocket.set_client_metadata(bob, level=9)
        assert (known(app, ann).get("name"), known(app, ann).get("level")) == ("Ann", 4)
        find = app.websocket.get_clients_by_filter
        assert find(lambda client_id, known: known.get("level") in (4, 9)) == [ann, bob]
        assert find(lambda client_id, known: client_id == bob) == [bob]
        assert find(lambda client_id, known: known.get("name") == "Ann") == [ann]
        assert find(lambda client_id, known: None) == []


def test_what_is_returned_is_a_copy(app: Daebus) -> None:
    with app.test_client():
        client_id = the_only(app)
        known(app, client_id)["user"] = "changed"
        assert known(app, client_id)["user"] is None


def test_a_filter_may_change_the_world(app: Daebus) -> None:
    """It runs without a lock: it may send, disconnect and raise."""
    with app.test_client() as client, app.test_client():
        assert eventually(lambda: app.websocket.get_client_count() == 2)

        def check(client_id: str, known: ClientMetadata) -> bool:
            app.websocket.send_to_client(client_id, "checked")
            return app.websocket.disconnect_client(client_id)

        assert len(app.websocket.get_clients_by_filter(check)) == 2
        assert app.websocket.get_client_count() == 0
        assert client.receive()["data"] == "checked"

    with app.test_client():
        the_only(app)
        with pytest.raises(ZeroDivisionError):
            app.websocket.get_clients_by_filter(lambda client_id, known: 1 / 0)


@pytest.mark.parametrize("name", metadata.KEYS)
def test_names_that_are_taken(app: Daebus, name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is filled by daebus; write .*my_{name}=..."):
        app.websocket.set_client_metadata("ann", **{name: "x"})


def test_as_many_entries_as_there_may_be(app: Daebus) -> None:
    with app.test_client():
        client_id = the_only(app)
        for number in range(100):
            assert app.websocket.set_client_metadata(client_id, **{f"name{number}": number})
        assert app.websocket.set_client_metadata(client_id, name7="again")
        with pytest.raises(ValueError, match="would have 101 entries of metadata"):
            app.websocket.set_client_metadata(client_id, one_more=True)
        assert "one_more" not in known(app, client_id)


class Holding(UserDict[str, Any]):
    """Values that hold up who reads them until another thread has had its chance."""

    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self.read, self.passed = threading.Event(), threading.Event()

    def keys(self) -> Any:
        self.read.set()
        self.passed.wait(0.1)  # in vain if the others are locked out, as they should be
        return super().keys()


def test_two_threads_that_note_at_once_lose_nothing(app: Daebus) -> None:
    with app.test_client():
        client_id = the_only(app)
        (connection,) = connections(app)
        first = Holding(first=1)

        def other() -> None:
            assert first.read.wait(5)
            app.websocket.set_client_metadata(client_id, second=2)
            first.passed.set()

        with ThreadPoolExecutor(2) as pool:
            noting = [pool.submit(connection.note, first), pool.submit(other)]
            assert [future.result(timeout=5) for future in noting] == [None, None]
        assert known(app, client_id).keys() - set(metadata.KEYS) == {"first", "second"}


# --- the session --------------------------------------------------------------------


def test_each_client_has_a_session(app: Daebus) -> None:
    ends = queue.Queue[Any]()

    @app.websocket.on_connect
    def came(client_id: str) -> None:
        app.websocket.session["count"] = 10

    @app.websocket.on_disconnect
    async def went(client_id: str) -> None:
        await asyncio.sleep(0)
        ends.put(app.websocket.session["count"])

    @app.socket("count")
    def count(req: WebSocketRequest) -> int:
        req.session["count"] += 1
        assert app.websocket.session is req.session is req.websocket.session
        return int(req.session["count"])

    @app.socket("count async")
    async def count_async(req: WebSocketRequest) -> int:
        await asyncio.sleep(0)
        app.websocket.session["count"] += 1
        return int(req.session["count"])

    with app.test_client() as ann:
        with app.test_client() as bob:
            assert [ann.request("count"), ann.request("count async")] == [11, 12]
            assert bob.request("count") == 11
        assert ends.get(timeout=5) == 11
        with app.test_client() as again:
            assert again.request("count") == 11
        assert ends.get(timeout=5) == 11
    assert ends.get(timeout=5) == 12


def test_where_no_message_is_handled_there_is_no_session(app: Daebus) -> None:
    with app, pytest.raises(NoClientError, match=r"write set_client_metadata\(client_id"):
        app.websocket.session["x"] = 1


def test_before_a_client_is_connected_there_is_no_session(app: Daebus) -> None:
    """The thread that judges a handshake was that of another client."""
    seen = queue.Queue[Any]()

    def name(websocket: Connection, path: str) -> str:
        try:
            seen.put(app.websocket.session)
        except NoClientError as exc:
            seen.put(exc)
        return path[1:]

    @app.socket("log in")
    def log_in(req: WebSocketRequest) -> int:
        req.session["secret"] = "of ann"
        return threading.get_ident()

    app.websocket.set_client_id_generator(name)
    with app:
        hub = hub_of(app)
        assert hub is not None
        with app.test_client("/ann") as ann:
            thread = ann.request("log in")
        assert eventually(lambda: hub.threads.count() == (1, 1))
        with app.test_client("/bob") as bob:
            assert bob.request("log in") == thread
    for _ in range(2):
        assert isinstance(seen.get(timeout=5), NoClientError)


# --- sending away -------------------------------------------------------------------


def test_a_client_is_sent_away_with_code_and_reason(app: Daebus) -> None:
    left = queue.Queue[DisconnectInfo]()

    @app.websocket.on_disconnect
    def went(client_id: str, info: DisconnectInfo) -> None:
        left.put(info)

    app.socket("who")(lambda req: req.client_id)
    with app.test_client() as client, app.test_client() as other:
        client_id = client.request("who")
        app.websocket.send_to_client(client_id, "last words")
        assert app.websocket.disconnect_client(client_id, 4002, "enough") is True
        assert not app.websocket.is_client_connected(client_id)
        assert app.websocket.disconnect_client(client_id) is False
        assert client.receive()["data"] == "last words"
        with pytest.raises(simple_websocket.ConnectionClosed) as closed:
            client.websocket.receive(timeout=5)
        assert (closed.value.reason, closed.value.message) == (4002, "enough")
        info = left.get(timeout=5)
        assert (info.reason, info.code) == ("server", 4002)
        assert other.request("echo", "still here") == "still here"


def test_all_clients_are_sent_away(app: Daebus) -> None:
    with (
        app.test_client() as one,
        websockets_connect(f"ws://127.0.0.1:{app.http.port}/") as other,
    ):
        assert eventually(lambda: app.websocket.get_client_count() == 2)
        assert app.websocket.disconnect_all_clients(1012, "back soon") == 2
        assert app.websocket.get_client_count() == 0
        assert app.websocket.disconnect_all_clients() == 0
        with pytest.raises(simple_websocket.ConnectionClosed) as closed:
            one.websocket.receive(timeout=5)
        assert closed.value.reason == 1012
        with pytest.raises(ConnectionClosed) as gone:
            other.recv(timeout=5)
        assert gone.value.rcvd is not None
        assert (gone.value.rcvd.code, gone.value.rcvd.reason) == (1012, "back soon")


@pytest.mark.parametrize("code", [0, 999, 1005, 1006, 1015, 2999, 5000, -1])
def test_codes_that_must_not_be_sent(app: Daebus, code: int) -> None:
    with pytest.raises(ValueError, match=f"close code {code} must not be sent"):
        app.websocket.disconnect_client("nobody", code)
    with pytest.raises(ValueError, match=f"close code {code} must not be sent"):
        app.websocket.disconnect_all_clients(code)


def test_of_two_threads_one_sends_a_client_away(app: Daebus, connect: Connect) -> None:
    app.start()
    for _ in range(10):
        peer = Peer.joined(connect(app.http.port))
        client_id = the_only(app)
        gate = threading.Barrier(4, timeout=5)

        def away(code: int, gate: threading.Barrier = gate, client_id: str = client_id) -> bool:
            gate.wait()
            return app.websocket.disconnect_client(client_id, code)

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(away, range(4000, 4004)))
        assert sorted(results) == [False, False, False, True]
        assert peer.part() == 4000 + results.index(True)


def test_a_client_is_sent_away_while_its_handler_runs(app: Daebus, connect: Connect) -> None:
    begun, release = waiting_handler(app)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("wait")
    assert begun.wait(5)
    assert app.websocket.disconnect_client(the_only(app), 4001)
    assert peer.close_frame() == (4001, "")
    assert app.websocket.get_client_count() == 0
    release.set()


def test_a_handler_sends_its_own_client_away(app: Daebus) -> None:
    @app.socket("bye")
    def bye(req: WebSocketRequest) -> str:
        assert app.websocket.disconnect_client(req.client_id, 4000, "as you wish")
        return "not sent any more"

    with app.test_client() as client:
        client.send("bye")
        with pytest.raises(simple_websocket.ConnectionClosed) as closed:
            client.receive()
        assert closed.value.reason == 4000


# --- ids of the app's own -----------------------------------------------------------


def test_the_app_chooses_ids(make_app: MakeApp) -> None:
    app = make_app(subprotocols=["chat"])
    seen = queue.Queue[Any]()

    def choose(websocket: Connection, path: str) -> str:
        seen.put((websocket.remote_address, websocket.path, websocket.subprotocol, path))
        return f"client of {path[1:]}"

    app.websocket.set_client_id_generator(choose)
    app.socket("who")(lambda req: req.client_id)
    with app.test_client("/ann", subprotocols=["chat"]) as ann:
        assert ann.request("who") == "client of ann"
        with app.test_client("/bob") as bob:
            assert bob.request("who") == "client of bob"
            assert app.websocket.get_clients() == ["client of ann", "client of bob"]
        assert seen.get(timeout=5) == ("127.0.0.1", "/ann", "chat", "/ann")
        app.websocket.set_client_id_generator(None)
        with app.test_client("/eve") as eve:
            assert len(eve.request("who")) == 32


@pytest.mark.parametrize(
    "made", [None, "", 7, b"ann", "x" * 129, "a\nb", "\x1b[31m", ["ann"]], ids=repr
)
def test_ids_that_are_none(app: Daebus, made: Any) -> None:
    app.websocket.set_client_id_generator(lambda websocket, path: made)
    app.socket("who")(lambda req: req.client_id)
    with records() as log, app.test_client() as client:
        assert len(client.request("who")) == 32
        log.wait_for("the client id generator returned")
        assert not any("\n" in text or "\x1b" in text for text in log.texts)


def test_the_longest_id(app: Daebus) -> None:
    app.websocket.set_client_id_generator(lambda websocket, path: "x" * 128)
    with app.test_client():
        assert the_only(app) == "x" * 128


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_generator_that_raises_costs_nobody_the_connection(
    app: Daebus, error: type[BaseException]
) -> None:
    def choose(websocket: Connection, path: str) -> str:
        raise error("no id today")

    app.websocket.set_client_id_generator(choose)
    with records() as log, app.test_client() as client:
        assert client.request("echo", 1) == 1
        log.wait_for("the client id generator failed")


def test_a_generator_that_cannot_be_called(app: Daebus) -> None:
    with pytest.raises(TypeError, match=r"lambda websocket, path: \.\.\."):
        app.websocket.set_client_id_generator("ann")  # type: ignore[arg-type]


def test_no_two_clients_have_the_same_id(app: Daebus, connect: Connect) -> None:
    """All at once: the generator holds them until everybody has asked."""
    gate = threading.Barrier(5, timeout=5)

    def choose(websocket: Connection, path: str) -> str:
        gate.wait()
        return "ann"

    app.websocket.set_client_id_generator(choose)
    app.start()
    with records() as log:
        socks = [connect(app.http.port) for _ in range(5)]
        for sock in socks:
            sock.sendall(upgrade_request())
        assert eventually(lambda: app.websocket.get_client_count() == 5)
        client_ids = app.websocket.get_clients()
        assert len(set(client_ids)) == 5
        assert "ann" in client_ids
        flush_repeats()
        told = [text for text in log.texts if "'ann' is in use" in text]
        assert len(told) == 2
        assert told[1].startswith("3 more like this")
    assert ids_in_use(app) == set(client_ids)
    for sock in socks:
        sock.close()
    assert eventually(lambda: not ids_in_use(app))


def test_an_id_is_in_use_until_the_last_hook_has_run(app: Daebus) -> None:
    leaving, go_on = threading.Event(), threading.Event()

    @app.websocket.on_disconnect
    def went(client_id: str) -> None:
        if client_id == "ann":
            leaving.set()
            assert go_on.wait(5)

    app.websocket.set_client_id_generator(lambda websocket, path: "ann")
    app.socket("who")(lambda req: req.client_id)
    with app:
        with app.test_client() as first:
            assert first.request("who") == "ann"
        assert leaving.wait(5)
        with app.test_client() as second:
            assert second.request("who") != "ann"
        go_on.set()
        assert eventually(lambda: not ids_in_use(app))
        with app.test_client() as third:
            assert third.request("who") == "ann"


def test_refused_and_vanished_clients_keep_no_id(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_clients=1)
    asked = queue.Queue[str]()
    held, go_on = threading.Event(), threading.Event()

    def choose(websocket: Connection, path: str) -> str:
        asked.put(path)
        if path == "/vanishes":
            held.set()
            assert go_on.wait(5)
        return path

    app.websocket.set_client_id_generator(choose)
    app.start()
    sock = connect(app.http.port)
    sock.sendall(upgrade_request("/vanishes"))
    assert held.wait(5)
    assert Peer(connect(app.http.port)).ask(upgrade_request("/refused")).status == 503
    reset(Peer(sock))
    go_on.set()
    registry = hub_of(app).registry
    assert eventually(lambda: not (registry._reserved or len(registry)))
    assert eventually(lambda: not ids_in_use(app))
    Peer.joined(connect(app.http.port), "/taken")
    assert [asked.get(timeout=5), asked.get(timeout=5)] == ["/vanishes", "/taken"]
    assert asked.empty()


# --- without a running app ----------------------------------------------------------


def test_before_the_start_and_after_the_stop(app: Daebus) -> None:
    for _ in range(2):
        assert app.websocket.get_client_metadata("ann") is None
        assert app.websocket.set_client_metadata("ann", name="x") is False
        assert app.websocket.get_clients_by_filter(lambda client_id, known: True) == []
        assert app.websocket.disconnect_client("ann") is False
        assert app.websocket.disconnect_all_clients() == 0
        with app, app.test_client():
            assert known(app, the_only(app))


def test_a_stop_while_everybody_asks(app: Daebus, connect: Connect) -> None:
    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(4)]
    assert eventually(lambda: app.websocket.get_client_count() == 4)
    client_ids = app.websocket.get_clients()
    gate = threading.Barrier(5, timeout=5)
    done = threading.Event()
    calls: list[Callable[[], object]] = [
        lambda: [app.websocket.get_client_metadata(client_id) for client_id in client_ids],
        lambda: app.websocket.get_clients_by_filter(lambda client_id, known: True),
        lambda: app.websocket.disconnect_client(client_ids[0]),
        lambda: app.websocket.set_client_metadata(client_ids[1], name="x"),
    ]

    def keep(call: Callable[[], object]) -> None:
        gate.wait()
        while not done.is_set():
            call()

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(keep, call) for call in calls]
        parting = [pool.submit(peer.part) for peer in peers]
        gate.wait()
        try:
            assert app.stop(timeout=5) == []
        finally:
            done.set()
        assert [future.result(timeout=5) for future in asking] == [None] * 4
        assert {future.result(timeout=5) for future in parting} <= {1000, 1001}
