"""To one client, to some, to a room, to a user: who gets it, and what the sender is told."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websockets_connect

from daebus import (
    Daebus,
    EncodeError,
    RoomLimitError,
    SendResult,
    WebSocketRequest,
)
from daebus.data import fastjson
from daebus.testing import AppClient
from daebus.websocket.clients import broadcast
from daebus.websocket.protocol import envelope
from tests.support.fixture_types import Connect, MakeApp
from tests.support.inside import hub_of
from tests.support.peer import Peer
from tests.support.slow_clients import KILOBYTES_16, narrow, reset, stuff
from tests.support.waiting import eventually


@pytest.fixture
def clients() -> Iterator[Callable[..., list[Any]]]:
    """Connect so many clients of simple-websocket; they are closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect(app: Daebus, number: int) -> list[tuple[str, AppClient]]:
            found = []
            for _ in range(number):
                before = set(app.websocket.get_clients())
                client = stack.enter_context(app.test_client())
                assert eventually(lambda: len(app.websocket.get_clients()) > len(before))  # noqa: B023
                (client_id,) = set(app.websocket.get_clients()) - before
                found.append((client_id, client))
            return found

        yield connect


Clients = Callable[[Daebus, int], list[tuple[str, AppClient]]]


def got(client: AppClient) -> list[Any]:
    """Return the data of what has arrived so far: the answer to an echo comes behind it."""
    client.send("echo", "that is all")
    found: list[Any] = []
    while True:
        message = client.receive()
        if message["data"] == "that is all":
            return found
        found.append((message["type"], message["data"]))


def other_stack(app: Daebus, stack: contextlib.ExitStack, **options: Any) -> ClientConnection:
    """Connect a client of the websockets package."""
    client: ClientConnection = websockets_connect(
        f"ws://127.0.0.1:{app.http.port}/", close_timeout=5, **options
    )
    return stack.enter_context(client)


# --- one client, and some -----------------------------------------------------------


def test_one_client_gets_it_and_no_other(app: Daebus, clients: Clients) -> None:
    (ann_id, ann), (_, bob) = clients(app, 2)
    assert app.websocket.send_to_client(ann_id, {"n": 1}) == 1
    assert app.websocket.send_to_client(ann_id, [2], "own type") == 1
    assert got(ann) == [("message", {"n": 1}), ("own type", [2])]
    assert got(bob) == []


def test_some_clients_get_it_once_each(app: Daebus, clients: Clients) -> None:
    (ann_id, ann), (_, bob), (eve_id, eve) = clients(app, 3)
    results = app.websocket.broadcast_to_clients([eve_id, "nobody", ann_id, eve_id], "hi")
    assert list(results.items()) == [(eve_id, 1), ("nobody", 0), (ann_id, 1)]
    assert [got(client) for client in (ann, bob, eve)] == [
        [("broadcast", "hi")],
        [],
        [("broadcast", "hi")],
    ]


def test_any_iterable_of_ids_will_do(app: Daebus, clients: Clients) -> None:
    ((ann_id, ann),) = clients(app, 1)
    assert app.websocket.broadcast_to_clients({ann_id}, 1) == {ann_id: 1}
    assert app.websocket.broadcast_to_clients((i for i in [ann_id]), 2) == {ann_id: 1}
    assert app.websocket.broadcast_to_clients([], 3) == {}
    assert got(ann) == [("broadcast", 1), ("broadcast", 2)]


def test_all_but_some(app: Daebus, clients: Clients) -> None:
    (ann_id, ann), (bob_id, bob), (_, eve) = clients(app, 3)
    websocket = app.websocket
    assert websocket.broadcast_to_all(1, exclude=[ann_id]) == 2
    assert websocket.broadcast_to_all(2, exclude={ann_id, bob_id, "nobody"}) == 1
    assert websocket.broadcast_to_all(3, exclude=(i for i in [bob_id])) == 2
    assert websocket.broadcast_to_all(4, "news", (ann_id, bob_id)) == 1
    assert [[data for _, data in got(client)] for client in (ann, bob, eve)] == [
        [3],
        [1],
        [1, 2, 3, 4],
    ]


def test_a_single_id_where_several_belong_is_refused(app: Daebus) -> None:
    with pytest.raises(TypeError, match=r"write exclude=\['ann'\]"):
        app.websocket.broadcast_to_all("x", exclude="ann")
    with pytest.raises(TypeError, match=r"write broadcast_to_clients\(\['ann'\], data\)"):
        app.websocket.broadcast_to_clients("ann", "x")


def test_sync_and_async_handlers_and_threads_may_address_others(
    app: Daebus, clients: Clients
) -> None:
    @app.socket("sync")
    def tell(req: WebSocketRequest) -> int:
        return app.websocket.send_to_client(req.data, "from sync")

    @app.socket("async")
    async def tell_async(req: WebSocketRequest) -> int:
        await asyncio.sleep(0)
        app.websocket.join(req.data, "hall")
        return app.websocket.broadcast_to_room("hall", "from async")

    (_, ann), (bob_id, bob) = clients(app, 2)
    assert ann.request("sync", bob_id) == 1
    assert ann.request("async", bob_id) == 1
    assert ann.request("sync", "nobody") == 0
    thread = threading.Thread(target=app.websocket.send_to_client, args=(bob_id, "from a thread"))
    thread.start()
    thread.join()
    assert [data for _, data in got(bob)] == ["from sync", "from async", "from a thread"]


@pytest.mark.parametrize("name", ["to_client", "to_clients", "to_all", "to_room", "to_user"])
def test_what_has_no_json_form_raises_even_if_nobody_is_there(app: Daebus, name: str) -> None:
    calls: dict[str, Callable[[Any], Any]] = {
        "to_client": lambda data: app.websocket.send_to_client("nobody", data),
        "to_clients": lambda data: app.websocket.broadcast_to_clients([], data),
        "to_all": app.websocket.broadcast_to_all,
        "to_room": lambda data: app.websocket.broadcast_to_room("hall", data),
        "to_user": lambda data: app.websocket.send_to_user("ann", data),
    }
    assert not calls[name]("fine")
    with pytest.raises(EncodeError):
        calls[name](object())


# --- rooms --------------------------------------------------------------------------


def test_a_room_of_clients_from_two_libraries(app: Daebus, clients: Clients) -> None:
    (ann_id, ann), (_, bob) = clients(app, 2)
    with contextlib.ExitStack() as stack:
        other = other_stack(app, stack)
        assert eventually(lambda: app.websocket.get_client_count() == 3)
        other_id = app.websocket.get_clients()[-1]
        for client_id in (other_id, ann_id):
            assert app.websocket.join(client_id, "hall")
        assert app.websocket.get_room_clients("hall") == [other_id, ann_id]
        assert app.websocket.broadcast_to_room("hall", "hello") == 2
        assert json.loads(other.recv(timeout=5)) == {"type": "broadcast", "data": "hello"}
        assert got(ann) == [("broadcast", "hello")]
        assert got(bob) == []
        assert app.websocket.broadcast_to_room("hall", "to ann", "news", [other_id]) == 1
        assert got(ann) == [("news", "to ann")]


def test_a_client_that_leaves_is_in_no_room(app: Daebus, clients: Clients) -> None:
    ((ann_id, _),) = clients(app, 1)
    seen = queue.Queue[Any]()

    @app.websocket.on_disconnect
    def left(client_id: str) -> None:
        websocket = app.websocket
        seen.put(websocket.get_rooms())
        seen.put(websocket.get_client_rooms(client_id))
        seen.put(websocket.get_user_clients("bob"))
        seen.put(websocket.join(client_id, "hall"))
        seen.put(websocket.identify(client_id, "bob"))
        seen.put(websocket.send_to_client(client_id, "too late"))

    with app.test_client() as bob:
        assert eventually(lambda: app.websocket.get_client_count() == 2)
        bob_id = app.websocket.get_clients()[-1]
        for client_id in (ann_id, bob_id):
            app.websocket.join(client_id, "hall")
        app.websocket.join(bob_id, "attic")
        app.websocket.identify(bob_id, "bob")
        assert app.websocket.get_client_rooms(bob_id) == ["hall", "attic"]
        reset_client(bob)
        assert [seen.get(timeout=5) for _ in range(6)] == [["hall"], [], [], False, False, 0]
    assert app.websocket.get_room_clients("hall") == [ann_id]


def reset_client(client: AppClient) -> None:
    """Vanish without a word."""
    sock = client.websocket.sock
    assert isinstance(sock, socket.socket)
    sock.shutdown(socket.SHUT_RDWR)


def test_a_handler_whose_client_left_meanwhile_cannot_join_it(
    app: Daebus, connect: Connect
) -> None:
    begun, results = threading.Event(), queue.Queue[Any]()

    @app.socket("join")
    def join(req: WebSocketRequest) -> None:
        begun.set()
        assert req.cancelled.wait(10)
        assert eventually(lambda: not app.websocket.is_client_connected(req.client_id))
        results.put(app.websocket.join(req.client_id, "hall"))
        results.put(app.websocket.get_rooms())

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("join")
    assert begun.wait(5)
    reset(peer)
    assert results.get(timeout=10) is False
    assert results.get(timeout=5) == []


def test_clients_that_join_and_vanish_while_others_broadcast(app: Daebus, connect: Connect) -> None:
    """Whatever meets, nobody raises and no room is left with a ghost in it."""
    app.websocket.on_connect(lambda client_id: app.websocket.join(client_id, "hall"))
    left = queue.Queue[str]()
    app.websocket.on_disconnect(left.put)
    app.start()
    failures = queue.Queue[BaseException]()
    done = threading.Event()

    def keep(call: Callable[[], object]) -> None:
        try:
            while not done.is_set():
                call()
        except BaseException as exc:
            failures.put(exc)

    def rejoin() -> None:
        for client_id in app.websocket.get_room_clients("hall"):
            app.websocket.leave(client_id, "hall")
            app.websocket.join(client_id, "hall")

    threads = [
        threading.Thread(target=keep, args=(lambda: app.websocket.broadcast_to_room("hall", 1),)),
        threading.Thread(target=keep, args=(rejoin,)),
    ]
    for thread in threads:
        thread.start()
    for _ in range(30):
        reset(Peer.joined(connect(app.http.port)))
    for _ in range(30):
        left.get(timeout=5)
    done.set()
    for thread in threads:
        thread.join(5)
    assert failures.empty()
    assert app.websocket.get_rooms() == []


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        (7, TypeError, r"not 7; write join\(client_id, '7'\)"),
        (None, TypeError, r"write join\(client_id, 'my_name'\)"),
        ("", ValueError, "1 to 128 characters, not 0"),
        ("x" * 129, ValueError, "1 to 128 characters, not 129"),
    ],
)
def test_names_of_rooms(app: Daebus, name: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        app.websocket.join("ann", name)


def test_the_longest_name_of_a_room(app: Daebus, clients: Clients) -> None:
    ((ann_id, _),) = clients(app, 1)
    assert app.websocket.join(ann_id, "x" * 128)
    assert app.websocket.get_rooms() == ["x" * 128]


def test_more_rooms_than_a_client_may_be_in(make_app: MakeApp, clients: Clients) -> None:
    app = make_app(max_rooms=2)
    app.socket("join")(lambda req: app.websocket.join(req.client_id, req.data))
    ((ann_id, ann),) = clients(app, 1)
    assert ann.request("join", "one")
    assert ann.request("join", "two")
    with pytest.raises(RoomLimitError, match=f"client {ann_id} is in 2 rooms"):
        app.websocket.join(ann_id, "three")
    ann.send("join", "three")
    assert ann.receive()["data"]["code"] == "handler_error"
    assert app.websocket.get_rooms() == ["one", "two"]


def test_max_rooms_must_be_positive(make_app: MakeApp) -> None:
    with pytest.raises(ValueError, match="max_rooms must be greater than 0, not 0"):
        make_app(max_rooms=0)


def test_a_room_costs_a_broadcast_what_all_clients_do(
    app: Daebus, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One encoding, one frame and one snapshot, however many members; none asked one by one."""
    members = clients(app, 5)
    for client_id, _ in members:
        app.websocket.join(client_id, "hall")
    registry = hub_of(app).registry
    snapshot = registry.rooms.writers("hall")
    encodings, walked = [], []
    encode, offer = envelope.encode, broadcast._offer_to_all

    def counting_encode(kind: str, *rest: Any) -> bytes:
        encodings.append(kind)
        return encode(kind, *rest)

    def counting_offer(connections: Any, *rest: Any) -> tuple[int, int, int]:
        walked.append(connections)
        return offer(connections, *rest)

    monkeypatch.setattr(envelope, "encode", counting_encode)
    monkeypatch.setattr("daebus.websocket.clients.broadcast._offer_to_all", counting_offer)
    for _ in range(3):
        assert app.websocket.broadcast_to_room("hall", "x") == 5
    assert encodings == ["broadcast"] * 3
    assert all(connections is snapshot for connections in walked)
    assert len(walked) == 3


def test_a_room_of_compressing_and_plain_clients(make_app: MakeApp) -> None:
    app = make_app(compression="deflate")
    app.start()
    with contextlib.ExitStack() as stack:
        plain = other_stack(app, stack, compression=None)
        assert eventually(lambda: app.websocket.get_client_count() == 1)
        packed = other_stack(app, stack, extensions=[ClientPerMessageDeflateFactory()])
        assert eventually(lambda: app.websocket.get_client_count() == 2)
        plain_id, packed_id = app.websocket.get_clients()
        for client_id in (plain_id, packed_id):
            app.websocket.join(client_id, "hall")
        assert app.websocket.broadcast_to_room("hall", "x" * 1000) == 2
        assert app.websocket.broadcast_to_clients([plain_id, packed_id], "y") == {
            plain_id: 1,
            packed_id: 1,
        }
        assert app.websocket.send_to_client(packed_id, "z") == 1
        assert app.websocket.broadcast_to_room("nowhere", "x") == 0
        for client in (plain, packed):
            assert json.loads(client.recv(timeout=5))["data"] == "x" * 1000
            assert json.loads(client.recv(timeout=5))["data"] == "y"
        assert json.loads(packed.recv(timeout=5))["data"] == "z"


# --- users --------------------------------------------------------------------------


def test_a_user_with_two_tabs(app: Daebus, clients: Clients) -> None:
    (one_id, one), (two_id, two), (_, bob) = clients(app, 3)
    websocket = app.websocket
    assert websocket.identify(one_id, "ann")
    assert websocket.identify(two_id, "ann")
    assert websocket.get_user_clients("ann") == [one_id, two_id]
    assert websocket.send_to_user("ann", "hello") == 2
    assert websocket.send_to_user("ann", "seen", "read", [one_id]) == 1
    assert websocket.send_to_user("nobody", "hello") == 0
    assert got(one) == [("message", "hello")]
    assert got(two) == [("message", "hello"), ("read", "seen")]
    assert got(bob) == []
    assert websocket.identify(one_id, None)
    assert websocket.get_user_clients("ann") == [two_id]
    assert websocket.get_rooms() == []


def test_names_of_users(app: Daebus) -> None:
    with pytest.raises(TypeError, match=r"not 7; write identify\(client_id, '7'\)"):
        app.websocket.identify("ann", 7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"write send_to_user\('7', data\)"):
        app.websocket.send_to_user(7, "x")  # type: ignore[arg-type]


# --- what the sender is told --------------------------------------------------------


def test_a_number_that_tells_more() -> None:
    result = SendResult(5, 2, 1)
    assert (result, result.queued, result.dropped) == (5, 2, 1)
    assert repr(result) == "SendResult(5, queued=2, dropped=1)"
    assert (str(result), f"{result}", f"{result:03}", "%d" % result) == ("5", "5", "005", "5")  # noqa: UP031
    assert result
    assert not SendResult(0, 0, 3)
    assert {result: "five"}[5] == "five"  # type: ignore[index]
    twin = copy.copy(result)
    assert (twin, twin.queued, twin.dropped) == (5, 2, 1)
    with pytest.raises(AttributeError):
        result.queued = 7  # type: ignore[misc]


@pytest.mark.parametrize("fast", [False, True] if fastjson.AVAILABLE else [False])
def test_the_number_goes_to_clients_as_a_number(
    app: Daebus, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, "_fast", fast)
    app.socket("tell")(lambda req: app.websocket.broadcast_to_all("x"))
    with app.test_client() as client:
        client.send("tell")
        assert client.receive("response") == {"type": "response", "data": 1}


def told(app: Daebus, client_id: str, data: str, **options: Any) -> set[tuple[int, int, int]]:
    """Address one client in every way; return the different answers."""
    websocket = app.websocket
    others = [other for other in websocket.get_clients() if other != client_id]
    results = [
        websocket.send_to_client(client_id, data, **options),
        websocket.broadcast_to_clients([client_id], data, **options)[client_id],
        websocket.broadcast_to_all(data, exclude=others, **options),
        websocket.broadcast_to_room("hall", data, **options),
        websocket.send_to_user("ann", data, **options),
    ]
    return {(result, result.queued, result.dropped) for result in results}


def test_sent_queued_dropped_and_gone(make_app: MakeApp) -> None:
    app = make_app(max_outbox=1 << 17, on_full="drop_newest")
    app.start()
    with narrow(app) as slow, narrow(app):
        client_id = app.websocket.get_clients()[0]
        app.websocket.join(client_id, "hall")
        app.websocket.identify(client_id, "ann")
        assert told(app, client_id, "small") == {(1, 0, 0)}
        stuff(app)
        assert told(app, client_id, "small") == {(1, 1, 0)}
        while app.websocket.send_to_client(client_id, KILOBYTES_16):
            pass
        assert told(app, client_id, KILOBYTES_16) == {(0, 0, 1)}
        assert told(app, client_id, KILOBYTES_16, droppable=True) == {(0, 0, 1)}
        reset(slow)
        assert eventually(lambda: not app.websocket.is_client_connected(client_id))
        assert told(app, client_id, "small") == {(0, 0, 0)}


def test_a_frame_of_which_the_socket_took_a_part_counts_as_queued(make_app: MakeApp) -> None:
    app = make_app(max_outbox=1 << 26)
    app.start()
    with narrow(app):
        client_id = app.websocket.get_clients()[0]
        result = app.websocket.broadcast_to_all("x" * (1 << 24))
        assert (result, result.queued, result.dropped) == (1, 1, 0)
        (again,) = app.websocket.broadcast_to_clients([client_id], "x").values()
        assert (again, again.queued, again.dropped) == (1, 1, 0)


def test_conflated_messages_replace_each_other_however_they_are_addressed(
    make_app: MakeApp,
) -> None:
    app = make_app()
    app.start()
    with narrow(app):
        client_id = app.websocket.get_clients()[0]
        app.websocket.join(client_id, "hall")
        app.websocket.identify(client_id, "ann")
        connection = stuff(app)
        told(app, client_id, "first", conflate="key")
        waiting = connection.writer.outlet.queued()[1]
        assert told(app, client_id, "second", conflate="key") == {(1, 1, 0)}
        assert connection.writer.outlet.queued()[1] == waiting


# --- without a running app ----------------------------------------------------------


def nothing_happens(app: Daebus) -> None:
    websocket = app.websocket
    assert websocket.send_to_client("ann", "x") == 0
    assert websocket.broadcast_to_clients(["ann"], "x") == {"ann": 0}
    assert websocket.broadcast_to_all("x", exclude=["ann"]) == 0
    assert websocket.broadcast_to_room("hall", "x") == 0
    assert websocket.send_to_user("ann", "x") == 0
    assert websocket.join("ann", "hall") is False
    assert websocket.leave("ann", "hall") is False
    assert websocket.identify("ann", "ann") is False
    assert websocket.get_rooms() == []
    assert websocket.get_room_clients("hall") == []
    assert websocket.get_client_rooms("ann") == []
    assert websocket.get_user_clients("ann") == []


def test_before_the_start_and_after_the_stop(app: Daebus) -> None:
    nothing_happens(app)
    with app, app.test_client():
        assert eventually(app.websocket.get_clients)
        (client_id,) = app.websocket.get_clients()
        assert app.websocket.join(client_id, "hall")
        assert app.websocket.identify(client_id, "ann")
    nothing_happens(app)
    with app:
        nothing_happens(app)


def test_a_stop_amid_joins_and_broadcasts(app: Daebus, connect: Connect) -> None:
    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(5)]
    assert eventually(lambda: app.websocket.get_client_count() == 5)
    client_ids = app.websocket.get_clients()
    gate = threading.Barrier(3, timeout=5)
    failures = queue.Queue[BaseException]()

    def keep(*calls: Callable[[], object]) -> None:
        gate.wait()
        try:
            while app.running:
                for call in calls:
                    call()
            for call in calls:
                call()
        except BaseException as exc:
            failures.put(exc)

    threads = [
        threading.Thread(
            target=keep, args=[lambda i=i: app.websocket.join(i, "hall") for i in client_ids]
        ),
        threading.Thread(target=keep, args=(lambda: app.websocket.broadcast_to_room("hall", 1),)),
    ]
    for thread in threads:
        thread.start()
    gate.wait()
    for peer in peers:
        threading.Thread(target=peer.part).start()
    assert app.stop(timeout=5) == []
    for thread in threads:
        thread.join(5)
    assert failures.empty()
    nothing_happens(app)
