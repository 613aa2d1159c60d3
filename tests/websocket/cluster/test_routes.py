"""What one of several apps sends reaches the clients of all."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from daebus import CallError, CallTimeout, ClientError, ClientGone, SendResult, TooLargeError
from tests.support.cluster import Site, cluster, node_of, open_calls
from tests.support.inside import activity_of, connections, hub_of
from tests.support.redisserver import any_server
from tests.support.waiting import eventually

pytestmark = pytest.mark.leaves_thread  # those of the apps, which all tests here share

SMALL = 4096


@pytest.fixture(scope="module", params=["memory", pytest.param("redis", marks=pytest.mark.slow)])
def sites(request: pytest.FixtureRequest) -> Iterator[list[Site]]:
    """Three apps that run, joined by what this process has, or by a server."""
    with ExitStack() as stack:
        url = stack.enter_context(any_server()) if request.param == "redis" else None
        plane = {"max_frame": SMALL, "secret": "of all"}
        made = stack.enter_context(cluster("a", "b", "c", plane=plane, url=url))
        for site in made:
            site.ws.raw("/raw")(lambda connection: [None for _ in connection])
        yield made


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def settle(sites: list[Site]) -> None:
    """Wait until what was handed over is carried out: channels have an order."""
    for site in sites:
        site.ws.cluster.get_clients(timeout=5)


def spy(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, tell: Callable[[Any], object]
) -> None:
    """Have somebody told of the arguments before a method is called."""
    method = getattr(owner, name)

    def told(*args: Any, **options: Any) -> Any:
        tell(args)
        return method(*args, **options)

    monkeypatch.setattr(owner, name, told)


# --- sends ---------------------------------------------------------------------------

Send = Callable[[Site, Any, list[str]], Any]

SENDS: dict[str, Send] = {
    "all": lambda site, data, ids: site.ws.broadcast_to_all(data),
    "room": lambda site, data, ids: site.ws.broadcast_to_room("hall", data),
    "user": lambda site, data, ids: site.ws.send_to_user("ann", data, "broadcast"),
}


@pytest.mark.parametrize("way", SENDS)
def test_everybody_everywhere_gets_it_once_and_in_order(sites: list[Site], way: str) -> None:
    with (
        sites[0].client("hall", "ann") as here,
        sites[1].client("hall", "ann") as there,
        sites[2].client("hall", "ann") as yonder,
        sites[1].client() as stranger,
    ):
        results = [SENDS[way](sites[0], number, []) for number in range(5)]
        settle(sites)
        assert here.received() == there.received() == yonder.received() == [*range(5)]
        assert stranger.received() == ([*range(5)] if way == "all" else [])
    assert results == [1] * 5
    assert {result.nodes for result in results} == {2}
    assert "nodes=2" in repr(results[0])


@pytest.mark.parametrize("way", SENDS)
def test_who_is_excluded_gets_nothing_wherever_it_is(sites: list[Site], way: str) -> None:
    sends: dict[str, Any] = {
        "all": sites[0].ws.broadcast_to_all,
        "room": lambda data, **more: sites[0].ws.broadcast_to_room("hall", data, **more),
        "user": lambda data, **more: sites[0].ws.send_to_user("ann", data, "broadcast", **more),
    }
    with (
        sites[0].client("hall", "ann") as here,
        sites[1].client("hall", "ann") as there,
        sites[1].client("hall", "ann") as neighbour,
    ):
        result = sends[way]("x", exclude=[here.id, there.id])
        settle(sites)
        assert (here.received(), there.received(), neighbour.received()) == ([], [], ["x"])
    assert (result, result.nodes) == (0, 2)


@pytest.mark.parametrize("data", [None, {"ü": [1, 2.5, 10**30]}, "\U0001f600", "\ud800"], ids=ascii)
def test_others_get_the_very_bytes(sites: list[Site], data: Any) -> None:
    with sites[0].client() as here, sites[1].client() as there:
        sites[0].ws.broadcast_to_all(data, "reading")
        texts = {visitor.client.receive("reading")["data"] == data for visitor in (here, there)}
    assert texts == {True}


def test_droppable_and_conflate_go_with_it(
    sites: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    door = hub_of(sites[1].app).door
    seen = queue.Queue[Any]()
    for name in ("deliver", "deliver_each"):
        spy(monkeypatch, door, name, seen.put)
    with sites[1].client("hall", "ann") as there:
        ws, how = sites[0].ws, {"droppable": True, "conflate": "k"}
        ws.broadcast_to_all(1, **how)  # type: ignore[arg-type]
        ws.broadcast_to_room("hall", 1, **how)  # type: ignore[arg-type]
        ws.send_to_user("ann", 1, **how)  # type: ignore[arg-type]
        ws.send_to_client(there.id, 1, **how)  # type: ignore[arg-type]
        ws.broadcast_to_clients([there.id], 1, **how)  # type: ignore[arg-type]
        policies = [seen.get(timeout=5)[2] for _ in range(5)]
    assert {(policy.droppable, policy.conflate) for policy in policies} == {(True, "k")}


def test_one_client_elsewhere(sites: list[Site]) -> None:
    with sites[0].client() as here, sites[1].client() as there:
        results = [
            sites[0].ws.send_to_client(there.id, "x", "note"),
            sites[0].ws.send_to_client(here.id, "x", "note"),
            sites[0].ws.send_to_client("nowhere.1", "x", "note"),
            sites[0].ws.send_to_client("nobody", "x", "note"),
        ]
        assert there.client.receive("note")["data"] == "x"
    assert [(result, result.nodes) for result in results] == [(1, 1), (1, 0), (0, 0), (0, 0)]


def test_several_clients_everywhere(sites: list[Site]) -> None:
    with (
        sites[0].client() as here,
        sites[1].client() as there,
        sites[1].client() as neighbour,
        sites[2].client() as yonder,
    ):
        ids = [there.id, here.id, "x.1", yonder.id, neighbour.id, there.id]
        results = sites[0].ws.broadcast_to_clients(ids, "x")
        settle(sites)
        everybody = (here, there, neighbour, yonder)
        assert [one.received() for one in everybody] == [["x"]] * 4
    assert list(results) == ids[:-1]
    assert [(result, result.nodes) for result in results.values()] == [
        (1, 1),
        (1, 0),
        (0, 0),
        (1, 1),
        (1, 1),
    ]


def test_ids_begin_with_the_name_of_the_node(sites: list[Site]) -> None:
    with sites[0].client() as here, sites[1].client() as there:
        assert (here.id[:2], there.id[:2]) == ("a.", "b.")
        assert sites[0].ws.get_clients() == [here.id]
        sites[1].ws.set_client_id_generator(lambda connection, path: "device")
        try:
            with sites[1].client() as named, sites[1].client() as twin:
                assert named.id == "b.device"
                assert twin.id[:2] == "b."
                assert twin.id != named.id
                assert sites[0].ws.send_to_client("b.device", "x", "note") == 1
                assert named.client.receive("note")["data"] == "x"
        finally:
            sites[1].ws.set_client_id_generator(None)


def test_others_are_handed_it_before_clients_here_are_written_to(
    sites: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    node, door = node_of(sites[0].app), hub_of(sites[0].app).door
    spy(monkeypatch, node, "post", lambda args: order.append("node"))
    spy(monkeypatch, door, "deliver", lambda args: order.append("door"))
    sites[0].ws.broadcast_to_room("hall", 1)
    assert order == ["node", "door"]


def test_what_is_too_large_is_sent_nowhere(sites: list[Site]) -> None:
    large = "x" * SMALL
    with (
        sites[0].client("hall", "ann") as here,
        sites[1].client("hall", "ann") as there,
        sites[2].client("hall", "ann") as yonder,
    ):
        ws = sites[0].ws
        sends: list[Callable[[], Any]] = [
            lambda: ws.broadcast_to_all(large),
            lambda: ws.broadcast_to_room("hall", large),
            lambda: ws.send_to_user("ann", large),
            lambda: ws.send_to_client(there.id, large),
            lambda: ws.broadcast_to_clients([here.id, there.id, yonder.id], large),
            lambda: ws.call(there.id, "confirm", large),
            lambda: ws.call_room("hall", "confirm", large),
            lambda: ws.call_clients([here.id, there.id], "confirm", large),
        ]
        for send in sends:
            with pytest.raises(TooLargeError):
                send()
        settle(sites)
        for one in (here, there, yonder):
            one.client.send("echo", "now")
            assert one.client.receive()["data"] == "now"
        # A client of this process needs no frame.
        assert ws.send_to_client(here.id, large, "note") == 1
        assert here.client.receive("note")["data"] == large


# --- calls ---------------------------------------------------------------------------


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, threads: ThreadPoolExecutor) -> Callable[..., Any]:
    """Call something of ``DaebusWebSocket`` in another thread; the future has what came of it."""

    def start(site: Site, name: str, *args: Any, **options: Any) -> Any:
        if request.param == "sync":
            return threads.submit(getattr(site.ws, name), *args, **options)
        method = getattr(site.ws, f"{name}_async")
        return threads.submit(lambda: asyncio.run(method(*args, **options)))

    return start


def waiting(site: Site) -> list[bool]:
    """Tell of each client of a site whether a call waits for it."""
    return [activity_of(link).pending.waiting for link in connections(site.app)]


@pytest.mark.parametrize("data", [None, {"yes": [1, None, "ü", 10**30]}, "\ud800"], ids=ascii)
def test_an_answer_comes_back(sites: list[Site], call: Callable[..., Any], data: Any) -> None:
    with sites[1].client() as there:
        asked = call(sites[0], "call", there.id, "confirm", {"file": "a"}, timeout=5)
        question = there.client.receive("confirm")
        assert question["data"] == {"file": "a"}
        there.client.answer(question, data)
        assert asked.result(timeout=5) == data


def test_an_error_comes_back(sites: list[Site], call: Callable[..., Any]) -> None:
    with sites[1].client() as there:
        asked = call(sites[0], "call", there.id, "confirm", timeout=5)
        error = ClientError("the disk is full", "full", {"bytes": 7})
        there.client.answer(there.client.receive("confirm"), error=error)
        exc = asked.exception(timeout=5)
    assert isinstance(exc, CallError)
    assert (exc.text, exc.code) == ("the disk is full", "full")
    assert exc.data == {"error": "the disk is full", "code": "full", "bytes": 7}


def test_an_answer_that_is_too_large_is_an_error(sites: list[Site]) -> None:
    with sites[1].client() as there, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(sites[0].ws.call, there.id, "confirm", timeout=5)
        there.client.answer(there.client.receive("confirm"), "x" * SMALL)
        exc = asked.exception(timeout=5)
    assert isinstance(exc, CallError)
    assert exc.code == "too_large"


def test_a_client_that_leaves_ends_the_call(sites: list[Site], call: Callable[..., Any]) -> None:
    with sites[1].client() as there:
        asked = call(sites[0], "call", there.id, "confirm", timeout=5)
        there.client.receive("confirm")
        there.client.close()
        exc = asked.exception(timeout=4)
    assert isinstance(exc, ClientGone)
    assert exc.client_id == there.id


@pytest.mark.parametrize("who", ["b.nobody", "nowhere.1", "a.nobody"])
def test_who_is_not_there_is_gone_at_once(sites: list[Site], who: str) -> None:
    with pytest.raises(ClientGone, match=who):
        sites[0].ws.call(who, "confirm", timeout=5)


def test_a_call_that_is_not_answered_is_forgotten_on_both_sides(
    sites: list[Site], call: Callable[..., Any]
) -> None:
    with sites[1].client() as there:
        asked = call(sites[0], "call", there.id, "confirm", timeout=0.05)
        exc = asked.exception(timeout=5)
        assert isinstance(exc, CallTimeout)
        assert "did not answer 'confirm'" in str(exc)
        assert eventually(lambda: waiting(sites[1]) == [False])
    assert open_calls(sites[0]) == 0
    assert eventually(lambda: open_calls(sites[1]) == 0)


def test_a_call_that_is_given_up_is_forgotten_there_at_once(
    sites: list[Site], threads: ThreadPoolExecutor
) -> None:
    async def give_up(client_id: str) -> None:
        task = asyncio.create_task(sites[0].ws.call_async(client_id, "confirm", timeout=3600))
        await asyncio.to_thread(lambda: there.client.receive("confirm"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with sites[1].client() as there:
        threads.submit(lambda: asyncio.run(give_up(there.id))).result(20)
        assert eventually(lambda: waiting(sites[1]) == [False])
        assert open_calls(sites[1]) == 0
        # A late answer is nobody's.
        assert there.client.request("echo", "on") == "on"


def test_a_raw_client_elsewhere_has_no_calls(sites: list[Site]) -> None:
    with sites[1].app.test_client("/raw"):
        (client_id,) = eventually(sites[1].ws.get_clients)
        with pytest.raises(CallError, match="raw path '/raw'") as caught:
            sites[0].ws.call(client_id, "confirm", timeout=5)
    assert caught.value.code == "raw_path"


@pytest.mark.parametrize("way", ["call_room", "call_user", "call_clients"])
def test_all_of_several_sites_are_asked(
    sites: list[Site], call: Callable[..., Any], way: str
) -> None:
    with (
        sites[0].client("hall", "ann") as here,
        sites[1].client("hall", "ann") as there,
        sites[1].client("hall", "ann") as neighbour,
        sites[2].client() as stranger,
    ):
        everybody = [here, there, neighbour]
        who: Any = {
            "call_room": "hall",
            "call_user": "ann",
            "call_clients": [one.id for one in everybody],
        }[way]
        asked = call(sites[0], way, who, "vote", timeout=5)
        for number, one in enumerate(everybody):
            one.client.answer(one.client.receive("vote"), number)
        answers = asked.result(timeout=5)
        assert answers == {one.id: number for number, one in enumerate(everybody)}
        if way != "call_clients":
            assert answers.missing == ()
        assert stranger.received("vote") == []


# --- rooms, users, ends --------------------------------------------------------------


def test_a_client_elsewhere_joins_and_leaves(sites: list[Site]) -> None:
    with sites[1].client() as there:
        assert sites[0].ws.join(there.id, "attic")
        sites[0].ws.broadcast_to_room("attic", 1)
        assert sites[0].ws.leave(there.id, "attic")
        sites[0].ws.broadcast_to_room("attic", 2)
        settle(sites)
        assert there.received() == [1]
        assert sites[1].ws.get_rooms() == []
    assert not sites[0].ws.join("nowhere.1", "attic")
    assert not sites[0].ws.leave("nowhere.1", "attic")


def test_a_client_elsewhere_is_identified(sites: list[Site]) -> None:
    with sites[1].client() as there:
        assert sites[0].ws.identify(there.id, "bob")
        sites[0].ws.send_to_user("bob", 1, "broadcast")
        assert sites[0].ws.identify(there.id, None)
        sites[0].ws.send_to_user("bob", 2, "broadcast")
        settle(sites)
        assert there.received() == [1]
    assert not sites[0].ws.identify("nowhere.1", "bob")


def test_a_client_elsewhere_is_disconnected(sites: list[Site]) -> None:
    with sites[1].client() as there:
        sites[0].ws.send_to_client(there.id, "bye", "note")
        assert sites[0].ws.disconnect_client(there.id, 4000, "enough")
        assert there.client.receive("note")["data"] == "bye"
        assert eventually(lambda: sites[1].ws.get_clients() == [])
        assert not sites[0].ws.disconnect_client("nowhere.1")
        with pytest.raises(ValueError, match="1005"):
            sites[0].ws.disconnect_client(there.id, 1005)


# --- who is where --------------------------------------------------------------------


@pytest.mark.parametrize("what", ["clients", "room_clients", "user_clients"])
def test_clients_of_all_are_found(
    sites: list[Site], threads: ThreadPoolExecutor, what: str
) -> None:
    args = {"clients": [], "room_clients": ["hall"], "user_clients": ["ann"]}[what]
    with (
        sites[1].client("hall", "ann") as there,
        sites[0].client("hall", "ann") as here,
        sites[2].client("hall", "ann") as yonder,
        sites[0].client() as stranger,
    ):
        found = getattr(sites[0].ws.cluster, f"get_{what}")(*args)
        later = getattr(sites[0].ws.cluster, f"get_{what}_async")(*args)
        expected = [here.id, *([stranger.id] if what == "clients" else []), there.id, yonder.id]
        assert found == expected == threads.submit(asyncio.run, later).result()
        assert found.missing == ()
        assert json.dumps(found) == json.dumps(expected)


def test_nodes_know_each_other(sites: list[Site]) -> None:
    nodes = sites[0].ws.cluster.nodes()
    assert [(name, info.own) for name, info in nodes.items()] == [
        ("a", True),
        ("b", False),
        ("c", False),
    ]


def test_a_long_list_takes_several_frames(
    sites: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"b.{number}" for number in range(2000)]
    monkeypatch.setattr(hub_of(sites[1].app).registry.rooms, "members", lambda room: ids)
    assert sites[0].ws.cluster.get_room_clients("hall") == ids


def test_who_says_nothing_is_missing(sites: list[Site], monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = threading.Event()
    spy(monkeypatch, hub_of(sites[1].app).registry.rooms, "members", lambda args: deaf.wait(5))
    with sites[2].client("hall") as yonder:
        found = sites[0].ws.cluster.get_room_clients("hall", timeout=0.1)
        assert found == [yonder.id]
        assert found.missing == ("b",)
    deaf.set()


def test_what_waits_is_refused_in_an_async_handler(sites: list[Site]) -> None:
    @sites[2].ws.socket("look")
    async def look(req: Any) -> Any:
        try:
            return sites[2].ws.cluster.get_clients()
        except RuntimeError as exc:
            return [str(exc), await sites[2].ws.cluster.get_clients_async()]

    with sites[2].client() as one:
        text, ids = one.client.request("look")
        assert "await app.websocket.cluster.get_clients_async" in text
        assert ids == [one.id]


def test_a_result_of_a_client_elsewhere_is_a_number(sites: list[Site]) -> None:
    with sites[1].client() as there:
        result = sites[0].ws.send_to_client(there.id, 1)
    assert isinstance(result, SendResult)
    assert (result.queued, result.dropped, result.offset) == (0, 0, None)
