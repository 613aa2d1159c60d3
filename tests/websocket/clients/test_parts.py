"""Who is in a room of several nodes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from daebus.websocket.api.context import context_of
from daebus.websocket.clients import parts
from daebus.websocket.topics.changes import StateFeed
from tests.support.cluster import Site, cluster
from tests.support.redisserver import VALKEY, RedisServer
from tests.support.waiting import eventually


def shown(site: Site) -> dict[str, int]:
    return {
        user: value["clients"] if isinstance(value, dict) else value
        for user, value in site.ws.get_presence("floor 3").items()
    }


def agree(sites: list[Site], expected: dict[str, int]) -> bool:
    return bool(eventually(lambda: all(shown(site) == expected for site in sites)))


@pytest.mark.parametrize("real", [False, True], ids=["memory", "redis"])
def test_each_node_shows_those_of_all(real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_UPKEEP", 0.1)
    with (
        RedisServer(VALKEY) as server,
        cluster("a", "b", url=server.url if real else None) as sites,
    ):
        a, b = sites
        for site in sites:
            site.ws.presence("floor *", grace=0, info=lambda client: {"x": 1})
        with a.client() as watcher:
            watcher.client.request("subscribe", {"topic": "presence:floor 3"})
            with b.client("floor 3", "ada"), a.client("floor 3", "ada") as second:
                assert agree(sites, {"ada": 2})
                with b.client("floor 3", "bob"):
                    assert agree(sites, {"ada": 2, "bob": 1})
                    assert b.ws.get_presence("floor 3")["bob"]["x"] == 1
                assert agree(sites, {"ada": 2})
                a.ws.leave(second.id, "floor 3")
                assert agree(sites, {"ada": 1})
            assert agree(sites, {})
            seen: dict[str, int] = {}
            events = []

            def read() -> bool:
                message = watcher.client.receive(message_type="presence")
                for user in message["data"]["removed"]:
                    seen.pop(user, None)
                    events.append(user)
                seen.update({u: value["clients"] for u, value in message["data"]["set"].items()})
                return "bob" in events and "ada" in events and not seen

            assert eventually(read)


def test_those_of_a_node_that_stops_or_dies_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_UPKEEP", 0.1)
    with cluster("a", "b", "c", plane={"node_timeout": 2.0}) as sites:
        a, b, c = sites
        for site in sites:
            site.ws.presence("floor *", grace=0)
        with a.client("floor 3", "ada"), b.client("floor 3", "bob"), c.client("floor 3", "cid"):
            assert agree(sites, {"ada": 1, "bob": 1, "cid": 1})
            c.app.stop()
            assert agree([a, b], {"ada": 1, "bob": 1})
            b.backplane.cut()  # as if it were dead
            assert agree([a], {"ada": 1})
            said = context_of(a.app.websocket).presence._parts
            assert said is not None
            assert eventually(lambda: len(said.follow("floor 3").values()) == 1)  # buried
            b.backplane.restore()
            assert agree([a, b], {"ada": 1, "bob": 1})
            a.backplane.topics.flush()
            assert agree([a, b], {"ada": 1, "bob": 1})


def test_a_crowd_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MAX_PEOPLE", 2)
    with cluster("a", "b") as sites:
        a, b = sites
        for site in sites:
            site.ws.presence("floor *", grace=0)
        with a.client("floor 3", "1"), a.client("floor 3", "2"), b.client("floor 3", "3"):
            assert eventually(
                lambda: all(site.ws.get_presence("floor 3") == {"#": 3} for site in sites)
            )
        assert agree(sites, {})


def test_a_stop_comes_while_the_minder_writes() -> None:
    with cluster("a") as (site,):
        site.ws.presence("floor *")
        everybody = context_of(site.ws).presence._parts
        assert everybody is not None
        everybody._mine["floor 9"] = {"ada": b"{}"}  # as between two steps of ``put``
        assert site.app.stop(timeout=5) == []
        assert everybody.put("floor 9", {"bob": b"{}"}, ())
        assert "floor 9" not in everybody._feeds


def test_a_change_before_the_room_is_followed_wakes_who_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The program may look at a room in the moment in which somebody comes into it."""
    with cluster("a") as (site,):
        site.ws.presence("floor *")
        everybody = context_of(site.ws).presence._parts
        assert everybody is not None
        shown: list[str] = []
        monkeypatch.setattr(everybody, "_show", shown.append)
        watch = StateFeed.watch

        def late(feed: StateFeed, *args: Any) -> Any:
            watched = watch(feed, *args)
            monkeypatch.setattr(StateFeed, "watch", watch)
            assert everybody.put("floor 1", {"ada": b"1"}, ())
            done = threading.Event()
            everybody._minder.call_later(0.0, done.set)
            assert done.wait(5)
            return watched

        monkeypatch.setattr(StateFeed, "watch", late)
        everybody.follow("floor 1")
        shown.clear()
        assert everybody.put("floor 1", {"bob": b"1"}, ())
        assert eventually(lambda: "floor 1" in shown)
