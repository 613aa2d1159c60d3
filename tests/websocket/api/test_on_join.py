"""Who may enter a room: the ``on_join`` hooks."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daebus import Blueprint, ClientError, Daebus
from daebus.testing import RequestError
from tests.support.waiting import eventually


@pytest.fixture
def club(app: Daebus) -> Daebus:
    """An app whose clients ask to be let into rooms, and answer who is in one."""
    app.websocket.authenticate(lambda req: req.args.get("name", "guest"))

    @app.socket("enter")
    def enter(req: Any) -> bool:
        return app.websocket.join(req.client_id, req.data)

    @app.socket("later")
    async def later(req: Any) -> bool:
        return app.websocket.join(req.client_id, req.data)

    return app


@pytest.mark.parametrize("way", ["enter", "later"])
def test_a_hook_decides_for_the_rooms_that_fit(club: Daebus, way: str) -> None:
    asked = queue.Queue[str]()

    @club.websocket.on_join("team-*")
    def members(client_id: str, room: str) -> bool:
        asked.put(room)
        return bool(club.websocket.get_identity(client_id) == room.removeprefix("team-"))

    with club.test_client("/?name=red") as red, club.test_client("/?name=blue") as blue:
        assert red.request(way, "team-red") is True
        assert blue.request(way, "team-red") is False
        assert blue.request(way, "lounge") is True
        assert blue.request(way, "Team-red") is True  # names differ by case everywhere
        assert len(club.websocket.get_room_clients("team-red")) == 1
        assert list(asked.queue) == ["team-red", "team-red"]
        # From a thread of the host, and for one who is in already and is not asked again.
        ids = {club.websocket.get_identity(c): c for c in club.websocket.get_clients()}
        red_id, blue_id = ids["red"], ids["blue"]
        assert club.websocket.join(red_id, "team-red") is True
        assert club.websocket.join(blue_id, "team-green") is False
        assert list(asked.queue) == ["team-red", "team-red", "team-green"]
        assert "team-green" not in club.websocket.get_rooms()


@pytest.mark.parametrize("verdict", [False, 0, "", []], ids=repr)
def test_what_is_false_refuses(club: Daebus, verdict: object) -> None:
    club.websocket.on_join("*")(lambda client_id, room: verdict)
    with club.test_client() as client:
        assert client.request("enter", "x") is False
        assert club.websocket.get_rooms() == []


def test_a_hook_that_only_looks_refuses_nobody(club: Daebus) -> None:
    seen = queue.Queue[tuple[str, str]]()
    club.websocket.on_join("*")(lambda client_id, room: seen.put((client_id, room)))
    with club.test_client() as client:
        assert client.request("enter", "x") is True
        assert seen.get_nowait() == (club.websocket.get_clients()[0], "x")


def test_all_that_fit_are_asked_until_one_refuses(club: Daebus) -> None:
    asked: list[int] = []
    for number, verdict in enumerate((True, None, False, True)):

        def hook(client_id: str, room: str, number: int = number, verdict: Any = verdict) -> Any:
            asked.append(number)
            return verdict

        club.websocket.on_join("x?")(hook)
    with club.test_client() as client:
        assert client.request("enter", "x1") is False
        assert asked == [0, 1, 2]


def test_what_a_hook_raises_comes_out_of_join(club: Daebus) -> None:
    @club.websocket.on_join("*")
    def full(client_id: str, room: str) -> None:
        if room == "full":
            raise ClientError("there is no seat left", code="full")
        raise OSError("the list is on a disk that is gone")

    with club.test_client() as client:
        with pytest.raises(RequestError, match="full: there is no seat left"):
            client.request("enter", "full")
        with pytest.raises(RequestError, match="handler_error"):
            client.request("enter", "other")
        (client_id,) = club.websocket.get_clients()
        with pytest.raises(OSError, match="gone"):
            club.websocket.join(client_id, "other")
        assert club.websocket.get_rooms() == []


def test_coroutines_are_refused_since_nobody_could_wait(club: Daebus) -> None:
    async def later(client_id: str, room: str) -> bool:
        return False

    with pytest.raises(TypeError, match="write def"):
        club.websocket.on_join("*")(later)
    club.websocket.on_join("*")(lambda client_id, room: later(client_id, room))
    with club.test_client() as client:
        client.request("echo", 1)
        (client_id,) = club.websocket.get_clients()
        with pytest.raises(TypeError, match="write def"):
            club.websocket.join(client_id, "x")
        assert club.websocket.get_rooms() == []


@pytest.mark.parametrize(("pattern", "error"), [(3, TypeError), ("", ValueError)])
def test_a_pattern_is_a_string(club: Daebus, pattern: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        club.websocket.on_join(pattern)


def test_a_blueprint_has_them_too(club: Daebus) -> None:
    part = Blueprint("part")
    part.on_join("secret")(lambda client_id, room: False)
    club.register(part)
    with club.test_client() as client:
        assert client.request("enter", "secret") is False
        assert client.request("enter", "public") is True


def test_nobody_asks_about_strangers_or_without_an_app(club: Daebus) -> None:
    asked: list[str] = []
    club.websocket.on_join("*")(lambda client_id, room: asked.append(room))
    assert club.websocket.join("nobody", "x") is False
    with club.test_client():
        assert club.websocket.join("nobody", "x") is False
    assert asked == []


def test_a_client_that_leaves_while_its_hook_runs_is_in_no_room(club: Daebus) -> None:
    asked, go = threading.Event(), threading.Event()

    @club.websocket.on_join("*")
    def slow(client_id: str, room: str) -> bool:
        asked.set()
        return go.wait(10)

    with club.test_client() as other, ThreadPoolExecutor(1) as pool:
        other.request("echo", 1)
        with club.test_client() as client:
            client.request("echo", 1)
            client_id = club.websocket.get_clients()[1]  # in the order of arrival
            joined = pool.submit(club.websocket.join, client_id, "x")
            assert asked.wait(5)
        assert eventually(lambda: not club.websocket.is_client_connected(client_id))
        go.set()
        assert joined.result(timeout=5) is False
        assert club.websocket.get_rooms() == []


def test_an_app_that_stops_while_a_hook_runs(club: Daebus) -> None:
    asked, go = threading.Event(), threading.Event()

    @club.websocket.on_join("*")
    def slow(client_id: str, room: str) -> bool:
        asked.set()
        return go.wait(10)

    with club.test_client() as client, ThreadPoolExecutor(1) as pool:
        client.request("echo", 1)
        (client_id,) = club.websocket.get_clients()
        joined = pool.submit(club.websocket.join, client_id, "x")
        assert asked.wait(5)
        assert club.stop(timeout=5) == []
        go.set()
        assert joined.result(timeout=5) is False
