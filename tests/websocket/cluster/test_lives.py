"""Sends and calls between apps of which one stops, is cut off, refuses or is divided."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from daebus import ClientError, ClientGone
from tests.support.cluster import cluster, node_of, open_calls, routes_of
from tests.support.inside import hub_of
from tests.support.redisserver import RedisCluster
from tests.support.waiting import eventually


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.mark.parametrize("who", ["asker", "asked"])
@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_stop_on_either_side_ends_a_call_at_once(
    threads: ThreadPoolExecutor, who: str, flavour: str
) -> None:
    with cluster("a", "b") as (here, there), there.client() as visitor:
        asked: Any
        if flavour == "sync":
            asked = threads.submit(here.ws.call, visitor.id, "confirm", timeout=60)
        else:
            call = here.ws.call_async(visitor.id, "confirm", timeout=60)
            asked = threads.submit(asyncio.run, call)
        visitor.client.receive("confirm")
        (here if who == "asker" else there).app.stop(timeout=5)
        assert isinstance(asked.exception(timeout=5), ClientGone)
        if who == "asker":  # which has said goodbye, so its call is forgotten
            assert eventually(lambda: open_calls(there) == 0)
            assert visitor.client.request("echo", 1) == 1


def test_a_node_that_falls_silent_ends_calls_and_is_sent_nothing(
    threads: ThreadPoolExecutor,
) -> None:
    with (
        cluster("a", "b", plane={"node_timeout": 2.0}) as (here, there),
        there.client("hall") as visitor,
    ):
        asked = threads.submit(here.ws.call, visitor.id, "confirm", timeout=60)
        visitor.client.receive("confirm")
        there.backplane.cut()
        assert isinstance(asked.exception(timeout=10), ClientGone)
        assert here.ws.send_to_client(visitor.id, 1) == 0
        assert here.ws.broadcast_to_room("hall", 1).nodes == 0
        assert not here.ws.join(visitor.id, "attic")
        assert here.ws.cluster.get_clients() == []
        assert here.ws.cluster.get_clients().missing == ()


def test_an_outage_costs_local_clients_nothing_and_is_told_in_queries() -> None:
    with (
        cluster("a", "b") as (here, there),
        here.client("hall") as near,
        there.client("hall") as far,
    ):
        here.backplane.cut()
        result = here.ws.broadcast_to_room("hall", 1)
        assert near.received() == [1]
        assert result == 1
        found = here.ws.cluster.get_clients(timeout=0.05)
        assert found == [near.id]
        assert found.missing == ("b",)
        answers = here.ws.call_room("hall", "confirm", timeout=0.05)
        assert list(answers) == [near.id]
        assert answers.missing == ("b",)
        here.backplane.restore()  # what was kept is sent now
        assert far.client.receive("broadcast")["data"] == 1


def test_own_hooks_decide_for_clients_that_others_have_join(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with cluster("a", "b", max_rooms=2) as (here, there), there.client() as visitor:
        asked = queue.Queue[tuple[str, str, str]]()

        @there.ws.on_join("team-*")
        def check(client_id: str, room: str) -> bool:
            asked.put((client_id, room, threading.current_thread().name))
            if room == "team-3":
                raise OSError("no such team")
            return room == "team-1"

        @here.ws.on_join("*")
        def never(client_id: str, room: str) -> bool:
            return False

        for room in ("team-1", "team-2", "team-3", "hall", "attic"):
            assert here.ws.join(visitor.id, room)  # it was handed over
        assert here.ws.leave(visitor.id, "hall")
        assert here.ws.join(visitor.id, "attic")
        assert eventually(lambda: there.ws.get_client_rooms(visitor.id) == ["team-1", "attic"])
        client_id, room, thread = asked.get(timeout=5)
        assert (client_id, room, thread) == (visitor.id, "team-1", "daebus-cluster-1")
    texts = [record.getMessage() for record in caplog.records]
    assert any("node a had a client join in vain" in text and "max_rooms" in text for text in texts)


def test_who_is_made_to_join_gets_what_is_sent_next(caplog: pytest.LogCaptureFixture) -> None:
    with cluster("a", "b") as (here, there), there.client() as visitor:
        go_on = threading.Event()

        @there.ws.on_join("*")
        def slow(client_id: str, room: str) -> None:
            go_on.wait(5)
            if room == "closed":
                raise ClientError("no entry")

        with caplog.at_level("INFO"):
            for number in range(3):
                assert here.ws.join(visitor.id, f"room {number}")
                here.ws.broadcast_to_room(f"room {number}", number)
                here.ws.broadcast_to_room(f"room {number}", number)
            assert here.ws.identify(visitor.id, "ann")
            here.ws.send_to_user("ann", "ann", "broadcast")
            assert here.ws.join(visitor.id, "closed")
            here.ws.broadcast_to_room("closed", "nobody hears it")
            here.ws.cluster.get_clients()  # all of it is there by now
            go_on.set()
            got = [visitor.client.receive("broadcast", timeout=5)["data"] for _ in range(7)]
            assert got == [0, 0, 1, 1, 2, 2, "ann"]
            assert eventually(lambda: routes_of(there.app)._ahead == {})
    refused = [record for record in caplog.records if "may not join" in record.getMessage()]
    assert [record.levelname for record in refused] == ["INFO"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_orders_beyond_a_slow_hook_are_lost_and_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daebus.websocket.cluster.routes.MAX_ORDERS", 1)
    with cluster("a", "b") as (here, there), there.client() as visitor:
        entered, leave = threading.Event(), threading.Event()

        @there.ws.on_join("*")
        def slow(client_id: str, room: str) -> None:
            entered.set()
            leave.wait(5)

        assert here.ws.join(visitor.id, "one")
        assert entered.wait(5)
        for room in ("two", "three"):
            assert here.ws.join(visitor.id, room)
        here.ws.cluster.get_clients()  # they are there by now
        leave.set()
        assert eventually(lambda: there.ws.get_client_rooms(visitor.id) == ["one", "two"])
    assert "a join of client" in caplog.text


@pytest.mark.parametrize("servers", ["memory", pytest.param("redis", marks=pytest.mark.slow)])
def test_partitions_are_heard_before_join_and_identify_return(servers: str) -> None:
    with ExitStack() as stack:
        if servers == "redis":
            url = stack.enter_context(RedisCluster()).url
            joined = cluster("a", "b", plane={"cluster": True}, url=url)
        else:
            joined = cluster("a", "b", plane={"partitions": 16})
        here, there = stack.enter_context(joined)
        visitor = stack.enter_context(there.client())
        there.ws.presence("room *")  # which listens to what clients join as well
        for number in range(8):
            room = f"room {number}"
            assert there.ws.join(visitor.id, room)
            assert here.ws.broadcast_to_room(room, number).nodes == 1
        assert there.ws.identify(visitor.id, "ann")
        here.ws.send_to_user("ann", 8, "broadcast")
        here.ws.broadcast_to_all(9)
        # Channels may overtake each other.
        data = {visitor.client.receive("broadcast")["data"] for _ in range(10)}
        assert data == {*range(10)}


def test_what_is_handed_over_while_nobody_may_wait_is_handed_over_later() -> None:
    """A destructor that broadcasts, of an object that dies within ``post``."""
    with cluster("a", "b") as (here, there), there.client() as visitor:
        outgoing = node_of(here.app)._life.outgoing
        results: list[Any] = []

        class Late:
            def __del__(self) -> None:
                assert outgoing._lock.locked()
                results.append(here.ws.broadcast_to_all("late"))

        class Numbers(dict[str, int]):
            def __setitem__(self, key: str, value: int) -> None:
                late.clear()
                super().__setitem__(key, value)

        late = [Late()]
        outgoing._numbers = Numbers(outgoing._numbers)
        here.ws.broadcast_to_all("first")
        got = [visitor.client.receive("broadcast")["data"] for _ in range(2)]
        assert got == ["first", "late"]
        assert [result.nodes for result in results] == [1]


def test_frames_that_are_nonsense_are_logged_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nonsense: list[tuple[str, dict[str, Any]]] = [
        ("call", {}),
        ("call", {"r": [], "m": 1, "t": "x", "ids": 5}),
        ("answer", {"r": "none"}),
        ("answer", {}),
        ("cancel", {"r": {}}),
        ("query", {"q": "secrets"}),
        ("reply", {"r": "none", "p": 1}),
        ("client", {"ids": [[]]}),
        ("close", {"code": "x"}),
        ("join", {}),
        ("identify", {"user": 5}),
    ]
    with cluster("a", "b") as (here, there), there.client() as visitor:
        for kind, more in nonsense:
            node_of(here.app).post_to("b", kind, b"{", to=visitor.id, more=more)
        assert here.ws.send_to_client(visitor.id, "on", "note") == 1
        assert visitor.client.receive("note")["data"] == "on"
        assert open_calls(there) == 0
        assert hub_of(there.app).registry.users.names() == []
