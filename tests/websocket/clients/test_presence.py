"""Who is in a room, as its clients are shown it."""

from __future__ import annotations

import json
import queue
import threading
from typing import Any

import pytest

from daebus import Daebus, DuplicateHandlerError
from daebus.websocket.clients import presence
from tests.support.fixture_types import Connect, MakeApp
from tests.support.peer import TEXT, Peer
from tests.support.waiting import eventually


@pytest.fixture
def app(make_app: MakeApp) -> Daebus:
    app = make_app(on_duplicate="rename")

    @app.socket("enter")
    def enter(req: Any) -> None:
        if isinstance(req.data, dict):
            app.websocket.identify(req.client_id, req.data["as"])
        app.websocket.join(req.client_id, "floor 3")

    @app.socket("leave")
    def leave(req: Any) -> None:
        app.websocket.leave(req.client_id, "floor 3")

    return app


def go(peer: Peer, data: Any) -> None:
    peer.send(TEXT, json.dumps({"type": "enter", "data": data, "id": 1}))
    assert peer.message()["type"] == "response"


def enter(app: Daebus, connect: Connect, user: str) -> Peer:
    peer = Peer.joined(connect(app.http.port))
    go(peer, {"as": user})
    return peer


def shown(app: Daebus) -> dict[str, int]:
    return {user: value["clients"] for user, value in app.websocket.get_presence("floor 3").items()}


def test_users_are_shown_once_with_all_their_clients(app: Daebus, connect: Connect) -> None:
    app.websocket.presence("floor *", grace=0)
    app.start()
    watcher = Peer.joined(connect(app.http.port))
    watcher.say("subscribe", {"topic": "presence:floor 3"})
    assert watcher.message()["data"]["kind"] == "state"
    assert watcher.message()["data"]["set"] == {}
    ada = enter(app, connect, "ada")
    first = watcher.message()
    assert (first["type"], first["topic"]) == ("presence", "presence:floor 3")
    since = first["data"]["set"]["ada"]["since"]
    assert first["data"]["set"] == {"ada": {"since": since, "clients": 1}}
    tab = enter(app, connect, "ada")
    assert watcher.message()["data"]["set"] == {"ada": {"since": since, "clients": 2}}
    enter(app, connect, "bob")
    assert list(watcher.message()["data"]["set"]) == ["bob"]
    tab.sock.close()
    assert watcher.message()["data"]["set"]["ada"]["clients"] == 1
    ada.say("leave")
    assert watcher.message()["data"]["removed"] == ["ada"]
    assert shown(app) == {"bob": 1}
    late = Peer.joined(connect(app.http.port))
    late.say("subscribe", {"topic": "presence:floor 3"})
    late.message()
    assert list(late.message()["data"]["set"]) == ["bob"]


def test_a_reload_makes_no_noise(app: Daebus, connect: Connect) -> None:
    told: queue.Queue[tuple[str, str, bool]] = queue.Queue()
    app.websocket.presence("floor 3", grace=60)
    app.websocket.on_presence("floor *")(lambda *move: told.put(move))
    app.start()
    ada = enter(app, connect, "ada")
    assert told.get(timeout=5) == ("floor 3", "ada", True)
    assert eventually(lambda: shown(app) == {"ada": 1})
    offset = app.stats()["websocket"]["topics"]["presence:floor 3"]["offset"]
    for _ in range(3):
        ada.sock.close()
        assert eventually(lambda: app.websocket.get_room_clients("floor 3") == [])
        ada = enter(app, connect, "ada")
    enter(app, connect, "bob")
    assert told.get(timeout=5) == ("floor 3", "bob", True)
    assert eventually(lambda: shown(app) == {"ada": 1, "bob": 1})
    assert app.stats()["websocket"]["topics"]["presence:floor 3"]["offset"] == offset + 1


def test_who_does_not_come_back_is_taken_away(app: Daebus, connect: Connect) -> None:
    told: queue.Queue[tuple[str, str, bool]] = queue.Queue()
    app.websocket.presence("floor *", grace=0.05)
    app.websocket.on_presence("*")(lambda *move: told.put(move))
    app.start()
    peer = enter(app, connect, "ada")
    assert told.get(timeout=5) == ("floor 3", "ada", True)
    peer.sock.close()
    assert told.get(timeout=5) == ("floor 3", "ada", False)
    assert eventually(lambda: shown(app) == {})


def test_another_name_is_another_user(app: Daebus, connect: Connect) -> None:
    told: queue.Queue[tuple[str, str, bool]] = queue.Queue()
    app.websocket.presence("floor *", grace=60)
    app.websocket.on_presence("floor *")(lambda *move: told.put(move))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    go(peer, None)
    (client_id,) = app.websocket.get_clients()
    assert eventually(lambda: shown(app) == {client_id: 1})
    peer.say("subscribe", {"topic": "presence:floor 3"})
    assert [peer.message()["type"] for _ in range(2)] == ["response", "presence"]
    app.websocket.identify(client_id, "ada")  # it is there all the time: there is no grace
    change = peer.message()["data"]
    assert ([*change["set"]], change["removed"]) == (["ada"], [client_id])
    assert [told.get(timeout=5)[1:] for _ in range(3)] == [
        (client_id, True), (client_id, False), ("ada", True),
    ]  # fmt: skip
    # Of two tabs one is somebody else now.
    second = enter(app, connect, "ada")
    assert eventually(lambda: shown(app) == {"ada": 2})
    go(second, {"as": "bob"})
    assert eventually(lambda: shown(app) == {"ada": 1, "bob": 1})


def test_more_is_said_of_a_client(app: Daebus, connect: Connect) -> None:
    app.websocket.presence("floor *", info=lambda client_id: {"seat": (4, 2)})
    app.start()
    enter(app, connect, "ada")
    presence = app.websocket.get_presence
    assert eventually(lambda: presence("floor 3").get("ada", {}).get("seat")) == [4, 2]


@pytest.mark.parametrize("said", [None, {"x": object()}, {1: 2, "y": {3}}, RuntimeError("no")])
def test_info_that_fails_keeps_nobody_out(app: Daebus, connect: Connect, said: Any) -> None:
    def info(client_id: str) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    app.websocket.presence("floor *", info=info)
    app.start()
    enter(app, connect, "ada")
    assert eventually(lambda: shown(app) == {"ada": 1})


def test_a_crowd_is_counted(app: Daebus, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "MAX_PEOPLE", 4)
    app.websocket.presence("floor *", grace=0)
    app.start()
    peers = [enter(app, connect, f"user {n}") for n in range(4)]
    assert eventually(lambda: len(app.websocket.get_presence("floor 3")) == 4)
    peers += [enter(app, connect, f"user {n}") for n in (4, 5)]
    assert eventually(lambda: app.websocket.get_presence("floor 3") == {"#": 6})
    for peer in peers[:3]:
        peer.sock.close()
    assert eventually(lambda: app.websocket.get_presence("floor 3") == {"#": 3})
    peers[3].sock.close()
    assert eventually(lambda: {"user 4", "user 5"} == {*app.websocket.get_presence("floor 3")})


def test_nobody_is_there_after_a_stop(app: Daebus, connect: Connect) -> None:
    app.websocket.presence("floor *", grace=60)
    app.start()
    enter(app, connect, "ada")
    assert eventually(lambda: shown(app) == {"ada": 1})
    app.stop(timeout=0.5)  # she does not answer
    assert shown(app) == {}
    app.start()
    assert shown(app) == {}
    enter(app, connect, "bob")
    assert eventually(lambda: shown(app) == {"bob": 1})


def test_it_may_be_turned_on_while_people_are_there(app: Daebus, connect: Connect) -> None:
    app.start()
    enter(app, connect, "ada")
    app.websocket.presence("floor *")
    assert eventually(lambda: shown(app) == {"ada": 1})
    with pytest.raises(DuplicateHandlerError, match="presence:floor"):
        app.websocket.presence("floor *")


def test_other_rooms_have_none(app: Daebus, connect: Connect) -> None:
    app.websocket.presence("hall")
    app.start()
    enter(app, connect, "ada")
    assert app.websocket.get_presence("floor 3") == {}
    assert app.websocket.get_presence("hall") == {}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((3,), TypeError),
        (("",), ValueError),
        (("x" * 120,), ValueError),
    ],
)
def test_rooms_that_make_no_sense(app: Daebus, arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        app.websocket.presence(*arguments)


def test_many_who_come_and_go_at_once_leave_the_truth(app: Daebus, connect: Connect) -> None:
    app.websocket.presence("floor *", grace=0)
    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(4)]
    ids = app.websocket.get_clients()

    def stir(client_id: str) -> None:
        for n in range(100):
            app.websocket.identify(client_id, f"user {n % 3}")
            app.websocket.join(client_id, "floor 3")
            app.websocket.leave(client_id, "floor 3")
        app.websocket.identify(client_id, client_id)
        app.websocket.join(client_id, "floor 3")

    threads = [threading.Thread(target=stir, args=(client_id,)) for client_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert eventually(lambda: shown(app) == dict.fromkeys(ids, 1))
    assert len(peers) == 4
