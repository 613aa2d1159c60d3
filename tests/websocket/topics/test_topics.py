"""Topics end to end: what a plain page sends and gets, and what the program calls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daebus import (
    ClientError,
    Daebus,
    DuplicateHandlerError,
    EncodeError,
    State,
    StateLimitError,
    Topic,
)
from daebus.checks.functions import fitting
from daebus.testing import AppClient, RequestError
from daebus.websocket.api.context import context_of
from daebus.websocket.topics.feed import Feed
from daebus.websocket.topics.history import History
from tests.support.fixture_types import MakeApp
from tests.support.waiting import eventually

NEW = {"recovered": False, "reason": "new", "missed": None}


def subscribe(client: AppClient, topic: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.request("subscribe", {"topic": topic, **more}, timeout=5)
    return answer


def position(answer: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": answer["epoch"], "offset": answer["offset"]}


def offsets(client: AppClient, count: int, kind: str = "message") -> list[int]:
    return [client.receive(kind, timeout=5)["offset"] for _ in range(count)]


def test_history_topic_from_the_first_message_to_the_last(app: Daebus) -> None:
    alarms = app.websocket.topic("alarms")
    assert isinstance(alarms, Topic)
    assert alarms.publish("before the start").offset == 1
    with app.test_client() as ann, app.test_client() as bob:
        assert subscribe(ann, "alarms") == {
            "topic": "alarms",
            "kind": "history",
            "epoch": alarms.epoch,
            "offset": 1,
            "replay": 0,
            **NEW,
        }
        assert subscribe(bob, "alarms", last=5)["replay"] == 1
        assert bob.receive(timeout=5)["data"] == "before the start"

        result = alarms.publish({"text": "pressure"}, "alarm")
        assert (result, result.queued, result.dropped, result.offset) == (2, 0, 0, 2)
        for client in (ann, bob):
            assert client.receive(timeout=5) == {
                "type": "alarm",
                "topic": "alarms",
                "offset": 2,
                "data": {"text": "pressure"},
            }
        assert app.websocket.get_topics() == {"alarms": 2}
        assert bob.request("unsubscribe", {"topic": "alarms"}) == {
            "topic": "alarms",
            "subscribed": False,
        }
        assert alarms.publish(3) == 1
        assert offsets(ann, 1) == [3]
        assert subscribe(bob, "alarms", since={"epoch": alarms.epoch, "offset": 2})["replay"] == 1
        assert offsets(bob, 1) == [3]
    kept = alarms.history()
    assert [(one.offset, one.message_type, one.data) for one in kept[1:]] == [
        (2, "alarm", {"text": "pressure"}),
        (3, "message", 3),
    ]
    assert alarms.history(last=1) == kept[2:]
    assert alarms.offset == 3


def test_state_is_a_mapping_whose_changes_are_sent(app: Daebus) -> None:
    boiler = app.websocket.state("boiler", message_type="reading", auto=True)
    boiler["celsius"] = 21.4
    with app.test_client() as client:
        told = client.receive("subscribed", timeout=5)
        assert told["topic"] == told["data"]["topic"] == "boiler"
        assert told["data"] == {
            "topic": "boiler",
            "kind": "state",
            "epoch": boiler.epoch,
            "offset": 1,
            "replay": 1,
            **NEW,
        }
        assert client.receive(timeout=5) == {
            "type": "reading",
            "topic": "boiler",
            "offset": 1,
            "data": {"snapshot": True, "set": {"celsius": 21.4}, "removed": [], "synced": True},
        }
        boiler["celsius"] = 21.4
        assert boiler.set("celsius", 21.4) is False
        boiler.update({"pump": True, "celsius": 22}, valve=None)
        assert client.receive(timeout=5)["data"] == {
            "set": {"pump": True, "celsius": 22, "valve": None},
            "removed": [],
        }
        del boiler["pump"]
        assert client.receive(timeout=5)["data"] == {"set": {}, "removed": ["pump"]}
        boiler.clear()
        assert client.receive(timeout=5)["data"] == {"set": {}, "removed": ["celsius", "valve"]}


def test_state_behaves_as_a_dict_does(app: Daebus) -> None:
    boiler: State = app.websocket.state("boiler")
    boiler.update({"a": (1, 2), "b": {"c": "ä"}})
    assert dict(boiler) == boiler.copy() == {"a": [1, 2], "b": {"c": "ä"}}
    assert boiler == {"a": [1, 2], "b": {"c": "ä"}}
    assert ("a" in boiler, "c" in boiler, len(boiler)) == (True, False, 2)
    assert [*boiler] == [*boiler.keys()] == ["a", "b"]
    assert [*boiler.items()] == [("a", [1, 2]), ("b", {"c": "ä"})]
    assert [*boiler.values()] == [[1, 2], {"c": "ä"}]
    assert boiler.get("c", 3) == 3
    assert boiler.pop("a") == [1, 2]
    assert boiler.setdefault("b", 1) == {"c": "ä"}
    with pytest.raises(KeyError, match="a"):
        boiler["a"]
    with pytest.raises(KeyError, match="a"):
        del boiler["a"]
    with pytest.raises(TypeError, match=r"key of a state is a string, not 3; write '3'"):
        boiler[3] = 1  # type: ignore[index]  # that is the mistake
    with pytest.raises(EncodeError, match=r"value of 'x' cannot be sent.*object"):
        boiler["x"] = object()


def test_each_key_of_a_state_is_popped_once(app: Daebus) -> None:
    boiler = app.websocket.state("boiler")
    keys = [str(number) for number in range(300)]
    boiler.update(dict.fromkeys(keys, 1))
    gate = threading.Barrier(3)

    def pop_all() -> int:
        gate.wait(5)
        return sum(boiler.pop(key, 0) for key in keys)

    with ThreadPoolExecutor(3) as pool:
        counts = [pool.submit(pop_all) for _ in range(3)]
    assert sum(count.result() for count in counts) == len(keys)
    assert boiler.setdefault("celsius", 20) == 20
    assert boiler.setdefault("celsius", 21) == 20
    assert boiler.popitem() == ("celsius", 20)
    with pytest.raises(KeyError, match="'celsius'"):
        boiler.pop("celsius")
    with pytest.raises(KeyError, match="empty"):
        boiler.popitem()


def test_a_topic_that_several_threads_need_first_is_made_once(app: Daebus) -> None:
    """A second one would be what is kept and shared, in place of the one that is used."""
    rooms = app.websocket.topic("rooms/*")
    topics = context_of(app.websocket).topics
    made: list[str] = []
    other = threading.Event()

    def opened(feed: Feed[Any]) -> None:
        made.append(feed.name)
        if len(made) == 2:
            other.set()
        other.wait(0.1)  # in vain, unless another thread makes it as well

    gate = threading.Barrier(3)

    def publish(number: int) -> int | None:
        gate.wait(5)
        return rooms["rooms/1"].publish(number).offset

    app.start()
    topics.opened.append(opened)
    with ThreadPoolExecutor(3) as pool:
        offsets = set(pool.map(publish, range(3)))
    assert made == ["rooms/1"]
    assert offsets == {1, 2, 3}
    assert topics._births == {}


def test_who_was_interrupted_within_a_topic_waits_for_no_client(
    app: Daebus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may take the lock of a client in the next moment, and wait for the topic."""
    ws = app.websocket
    alarms, boiler = ws.topic("alarms"), ws.state("boiler")
    append, queued = History.append, []

    def interrupted(*args: Any) -> Any:
        (client_id,) = ws.get_clients()
        queued.append(ws.broadcast_to_all("to all").queued)
        queued.append(ws.send_to_client(client_id, "to one").queued)
        boiler["celsius"] = 21
        return append(*args)

    with app.test_client() as client:
        subscribe(client, "alarms")
        subscribe(client, "boiler")
        assert client.receive("state", timeout=5)["data"]["synced"]
        monkeypatch.setattr(History, "append", interrupted)
        alarms.publish("pressure")
        assert queued == [1, 1]
        assert {client.receive(timeout=5)["type"] for _ in range(4)} == {
            "broadcast", "message", "state",
        }  # fmt: skip


def test_state_refuses_what_is_beyond_its_bounds(app: Daebus) -> None:
    few = app.websocket.state("few", max_keys=2)
    few.update(a=1, b=2)
    with pytest.raises(StateLimitError, match=r"'few' would have 3 keys, and 2 are.*max_keys=4"):
        few.update(a=9, c=3)
    assert dict(few) == {"a": 1, "b": 2}
    small = app.websocket.state("small", max_bytes=20)
    with pytest.raises(StateLimitError, match=r"bytes, and 20 are the most.*max_bytes=40"):
        small["text"] = "x" * 20
    with pytest.raises(StateLimitError, match=r"write max_bytes=320"):  # what is advised is enough
        small["text"] = "x" * 200
    with pytest.raises(StateLimitError, match=r"write max_keys=16"):
        few.update(dict.fromkeys("abcdefghi"))
    assert len(small) == 0


def test_member_of_a_family_has_its_arguments(app: Daebus) -> None:
    topic, state = app.websocket.topic, app.websocket.state
    own = topic("device/0", history=3)
    topic("device/*", history=5, max_age=None)
    state("room/*", ttl=5.0)
    for _ in range(9):
        topic("device/7").publish(1)
        topic("device/7", history=5, max_age=None).publish(1)
        own.publish(1)
    assert (len(topic("device/7").history()), len(own.history())) == (5, 3)
    state("room/1")["lamp"] = state("room/1", ttl=5.0).get("lamp", 1)
    others: list[Callable[[], object]] = [
        lambda: topic("device/7", history=6),
        lambda: topic("device/8", auto=True),
        lambda: state("room/2", ttl=6.0),
    ]
    for other in others:
        with pytest.raises(DuplicateHandlerError, match="is one of the family"):
            other()


REQUESTS = {
    "no topic": ({}, "unknown_topic"),
    "no such topic": ({"topic": "nope"}, "unknown_topic"),
    "a number": ({"topic": 3}, "unknown_topic"),
    "a pattern": ({"topic": "device/*"}, "unknown_topic"),
    "a long name": ({"topic": "device/" + "x" * 200}, "unknown_topic"),
    "since no object": ({"topic": "alarms", "since": 3}, "bad_position"),
    "since without epoch": ({"topic": "alarms", "since": {"offset": 3}}, "bad_position"),
    "offset below 0": ({"topic": "alarms", "since": {"epoch": "a", "offset": -1}}, "bad_position"),
    "offset true": ({"topic": "alarms", "since": {"epoch": "a", "offset": True}}, "bad_position"),
    "offset 2^53": ({"topic": "alarms", "since": {"epoch": "a", "offset": 2**53}}, "bad_position"),
    "last a text": ({"topic": "alarms", "last": "3"}, "bad_position"),
    "forbidden": ({"topic": "device/secret"}, "forbidden"),
    "refused by name": ({"topic": "device/own"}, "not_yours"),
    "hook fails": ({"topic": "device/broken"}, "handler_error"),
    "one too many": ({"topic": "device/3"}, "too_many_topics"),
}


def test_what_cannot_be_subscribed_to_is_answered_with_an_error(make_app: MakeApp) -> None:
    app = make_app(max_topics=2)
    app.websocket.topic("alarms")
    app.websocket.topic("device/*")

    @app.on_subscribe("device/*")
    def judge(client_id: str, topic: str) -> bool:
        if topic == "device/own":
            raise ClientError("it is another's", "not_yours")
        return topic != "device/secret" and (topic != "device/broken" or bool(1 / 0))

    with app.test_client() as client:
        subscribe(client, "device/1")
        subscribe(client, "device/2")
        subscribe(client, "device/2")  # takes the place of the first
        for name, (data, code) in REQUESTS.items():
            with pytest.raises(RequestError) as caught:
                client.request("subscribe", data, timeout=5)
            assert caught.value.code == code, name
        client.request("unsubscribe", {"topic": "device/2"})
        subscribe(client, "device/3")
        assert app.websocket.get_topics() == {"alarms": 0, "device/1": 1, "device/3": 1}


def test_who_comes_back_goes_on_where_it_stood(app: Daebus) -> None:
    """The failures of others: each line is one that a system of this kind has had."""
    alarms = app.websocket.topic("alarms", history=3)
    other = app.websocket.topic("other")
    alarms.publish(1)
    with app.test_client() as half_open:
        first = position(subscribe(half_open, "alarms"))
        # Nothing was sent before it was cut, and its half-open twin is there still.
        with app.test_client() as client:
            for _ in range(2):  # and it comes back twice, with nothing in between
                again = subscribe(client, "alarms", since=first)
                assert (again["recovered"], again["replay"], again["missed"]) == (True, 0, 0)
            alarms.publish(2)
            assert (offsets(client, 1), offsets(half_open, 1)) == ([2], [2])
            again = subscribe(client, "alarms", since=first)
            assert (again["recovered"], again["replay"]) == (True, 1)
            assert offsets(client, 1) == [2]
        alarms.publish(3)
        assert offsets(half_open, 1) == [3]  # the end of the other was not its own
        beyond = {"epoch": alarms.epoch, "offset": 9}
        assert subscribe(half_open, "alarms", since=beyond)["reason"] == "ahead"
        # An epoch of another stream is none of this one.
        foreign = {"epoch": other.epoch, "offset": 1}
        answer = subscribe(half_open, "alarms", since=foreign, last=2)
        assert (answer["reason"], answer["replay"], answer["missed"]) == ("epoch", 2, None)
        assert offsets(half_open, 2) == [2, 3]
        alarms.clear()
        assert half_open.receive("gap", timeout=5)["data"]["reason"] == "epoch"
        assert subscribe(half_open, "alarms", since=position(answer))["reason"] == "epoch"


def test_server_subscribes_and_takes_it_back(app: Daebus) -> None:
    alarms = app.websocket.topic("alarms", auto=2)
    log = app.websocket.topic("log")
    for n in range(5):
        alarms.publish(n)
        log.publish(n)
    ws = app.websocket
    with app.test_client() as client:
        assert client.receive("subscribed", timeout=5)["data"]["replay"] == 2
        assert offsets(client, 2) == [4, 5]
        (client_id,) = ws.get_clients()
        assert ws.subscribe(client_id, "log", last=1) is True
        assert client.receive("subscribed", timeout=5)["topic"] == "log"
        assert offsets(client, 1) == [5]
        assert ws.get_client_topics(client_id) == ["alarms", "log"]
        assert ws.unsubscribe(client_id, "log") is True
        assert ws.unsubscribe(client_id, "log") is False
        assert client.receive("unsubscribed", timeout=5)["topic"] == "log"
        log.publish("unheard")
        alarms.publish("heard")
        assert client.receive(timeout=5)["data"] == "heard"
        with pytest.raises(ClientError, match="no topic 'nope'"):
            ws.subscribe(client_id, "nope")
        assert ws.subscribe("nobody", "log") is False


def test_types_are_reserved_once_a_topic_is_declared(make_app: MakeApp) -> None:
    app = make_app()
    app.socket("subscribe")(lambda req: "mine")
    with pytest.raises(DuplicateHandlerError, match=r"'subscribe' would be those of topics"):
        app.websocket.topic("alarms")
    other = make_app()
    other.websocket.topic("alarms")
    with pytest.raises(DuplicateHandlerError, match=r"'subscribe' are those of topics"):
        other.socket("subscribe")(lambda req: "mine")
    with pytest.raises(DuplicateHandlerError, match=r"topic 'alarms' is declared already"):
        other.websocket.state("alarms")
    for wrong in ("", "events", "x" * 129, "a\nb"):
        with pytest.raises(ValueError, match=r"name of a topic|stream of events|'events'"):
            other.websocket.topic(wrong)


def test_members_of_a_family_last_while_they_are_needed(app: Daebus) -> None:
    devices = app.websocket.topic("device/*")
    rooms = app.websocket.state("room/*")
    devices["device/7"].publish("on")
    rooms["room/1"]["lamp"] = True
    assert app.websocket.topic("device/7").history()[0].data == "on"
    assert dict(rooms["room/1"]) == {"lamp": True}
    with pytest.raises(KeyError):
        devices["room/1"]
    with pytest.raises(TypeError, match=r"is a family"):
        devices.publish("to all")
    with app.test_client() as client:
        assert subscribe(client, "device/8")["offset"] == 0
        assert list(app.websocket.get_topics()) == ["device/7", "room/1", "device/8"]
        client.request("unsubscribe", {"topic": "device/8"})
        # It is given up once the answer is on its way.
        assert eventually(lambda: list(app.websocket.get_topics()) == ["device/7", "room/1"])
        devices["device/8"].publish("still there")
        assert subscribe(client, "device/8", last=1)["replay"] == 1


def test_names_that_nobody_uses_stay_few(app: Daebus) -> None:
    lines, rooms = app.websocket.topic("line/*"), app.websocket.state("room/*")
    app.websocket.presence("floor *")
    lines["line/kept"].publish(1)
    for n in range(1000):
        assert lines[f"line/{n}"].history() == []
        assert dict(rooms[f"room/{n}"]) == {}
        assert app.websocket.get_presence(f"floor {n}") == {}
    assert "line/kept" in app.websocket.get_topics()
    assert len(app.websocket.get_topics()) < 100


def test_changes_in_quick_succession_leave_together(app: Daebus) -> None:
    boiler = app.websocket.state("boiler", min_interval=0.2, auto=True)
    short = app.websocket.state("short", ttl=0.05, auto=True)
    with app.test_client() as client:
        for _ in range(2):
            client.receive("state", timeout=5)
        for n in range(200):
            boiler[f"k{n % 3}"] = n
        seen: dict[str, Any] = {}
        frames = 0
        while seen != boiler.copy():
            seen |= client.receive("state", timeout=5)["data"]["set"]
            frames += 1
        assert frames < 20
        short["blink"] = 1
        assert client.receive("state", timeout=5)["data"]["set"] == {"blink": 1}
        assert client.receive("state", timeout=5)["data"]["removed"] == ["blink"]
        assert len(short) == 0


def elsewhere(action: Callable[[], object]) -> None:
    """Do something in another thread, and wait for it."""
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


def test_key_that_another_thread_removes_ends_no_loop(app: Daebus) -> None:
    rooms = app.websocket.state("room/*")
    boiler = rooms["room/1"]
    boiler.update(a=1, b=2, c=3)
    found = {}
    for key in boiler.keys():  # noqa: SIM118  as dict(boiler) and {**boiler} do
        if key == "b":
            elsewhere(boiler.clear)
        found[key] = rooms["room/1"][key]
    assert found == {"a": 1, "b": 2, "c": 3}
    assert boiler == {}


def test_key_that_is_gone_is_gone_for_all_else(app: Daebus) -> None:
    boiler, other = app.websocket.state("boiler"), app.websocket.state("other")
    removals: list[Callable[[str], object]] = [
        boiler.__delitem__,
        boiler.pop,
        lambda key: boiler.popitem(),
        lambda key: boiler.clear(),
    ]
    for remove in removals:
        boiler["a"] = 1
        for key in boiler:  # the thread that removes it knows
            with pytest.raises(KeyError):
                other[key]
            remove(key)
            with pytest.raises(KeyError):
                boiler[key]
    boiler["a"] = 1
    key = next(iter(boiler))  # no loop
    elsewhere(boiler.clear)
    with pytest.raises(KeyError):
        boiler[key]
    boiler["a"] = 1
    for key in boiler:
        elsewhere(boiler.clear)
        assert (key in boiler, boiler[key]) == (False, 1)
        with pytest.raises(KeyError):
            boiler["b"]
    with pytest.raises(KeyError):
        boiler[key]


def test_timers_of_a_member_end_with_it(app: Daebus, caplog: pytest.LogCaptureFixture) -> None:
    rooms = app.websocket.state("room/*", ttl=0.05)
    last = app.websocket.state("last", ttl=0.1, auto=True)
    with app.test_client() as client:
        client.receive("state", timeout=5)
        for n in range(200):  # now and then those that are empty are given up
            rooms[f"room/{n}"]["lamp"] = True
            del rooms[f"room/{n}"]["lamp"]
        assert len(app.websocket.get_topics()) < 200
        last["key"] = 1
        assert client.receive("state", timeout=5)["data"]["set"] == {"key": 1}
        assert client.receive("state", timeout=5)["data"]["removed"] == ["key"]
    assert "Retired" not in caplog.text


def test_refused_and_repeated_subscriptions_leave_nothing(make_app: MakeApp) -> None:
    app = make_app(max_topics=1)
    alarms = app.websocket.topic("alarms", auto=True)
    app.websocket.topic("device/*")
    with app.test_client() as client:
        since = position(client.receive("subscribed", timeout=5)["data"])
        assert subscribe(client, "device/1")["replay"] == 0
        with pytest.raises(RequestError, match="most it may have"):
            subscribe(client, "device/2")
        assert list(app.websocket.get_topics()) == ["alarms", "device/1"]
        # The place of what the server gave it is the client's own already.
        alarms.publish(1)
        assert subscribe(client, "alarms", since=since)["replay"] == 1
        assert subscribe(client, "alarms", since=since)["recovered"] is True
        with pytest.raises(RequestError, match="most it may have"):
            subscribe(client, "device/2")


# the pattern of a hook: names that fit it, and some that do not
PATTERNS: dict[str, tuple[list[str], list[str]]] = {
    "device/*": (["device/7", "device/", "device/7/b"], ["my device/7", "device"]),
    "line[12]": (["line1", "line2", "line[12]"], ["line3", "line[1]"]),
    "rack[*]": (["rack[7]", "rack*"], ["rack7", "rack[7"]),
    "[!a]?": (["bc", "[!a]?"], ["ac"]),
    "a.b\n*": (["a.b\n", "a.b\n\n"], ["axb\n", "a.b"]),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_of_a_hook_fits_the_name_that_it_is(pattern: str) -> None:
    fits, (right, wrong) = fitting(pattern), PATTERNS[pattern]
    assert [name for name in [*right, *wrong] if fits(name)] == right


def test_hook_is_asked_for_names_with_brackets(app: Daebus) -> None:
    app.websocket.topic("rack[*]")
    app.websocket.state("line[1]")
    for name in ("rack[*]", "line[1]"):
        app.websocket.on_subscribe(name)(lambda client_id, topic: False)
    with app.test_client() as client:
        for name in ("rack[7]", "line[1]"):
            with pytest.raises(RequestError, match="may not subscribe"):
                subscribe(client, name)
