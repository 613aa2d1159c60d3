"""Topics that several nodes share, on a store in memory."""

from __future__ import annotations

import pytest

from daebus.websocket.topics.position import Position
from tests.support.sharing import Reader, SharingWorld


def test_all_have_one_order_and_its_offsets() -> None:
    with SharingWorld() as world:
        one, two = world.nodes
        readers = [one.read(), two.read()]
        results = [(one, two)[number % 2].log.publish(number) for number in range(4)]
        assert [result.offset for result in results] == [None] * 4
        world.settle()
        assert [reader.data() for reader in readers] == [[0, 1, 2, 3]] * 2
        assert [message["offset"] for message in readers[1].got] == [1, 2, 3, 4]
        assert one.log.epoch == two.log.epoch
        assert [entry.data for entry in two.log.history()] == [0, 1, 2, 3]


def test_what_was_published_before_the_start_comes_behind_what_is_there() -> None:
    world = SharingWorld()
    one, two = world.nodes
    one.log.publish("early")
    one.now["a"] = 1
    with world:
        assert [entry.data for entry in two.log.history()] == ["early"]
        assert dict(two.now) == {"a": 1}
        three = world.add(3)
        three.log.publish("later")
        three.start()
        world.advance(0.25)
        assert [entry.data for entry in one.log.history()] == ["early", "later"]
        three.stop()
        three.log.publish("between")
        three.start()
        world.advance(0.25)
        assert [entry.data for entry in one.log.history()] == ["early", "later", "between"]


def test_who_comes_to_another_node_goes_on_there() -> None:
    with SharingWorld() as world:
        one, two = world.nodes
        for number in range(5):
            one.log.publish(number)
            one.now[f"k{number}"] = number
        world.settle()
        since = Position(one.log.epoch, 2)
        reader = two.read(since=since)
        assert (reader.answer.recovered, reader.answer.replay) == (True, 3)
        assert reader.data() == [2, 3, 4]
        state = two.read("now", since=Position(one.now.epoch, 4))
        assert state.answer.recovered
        assert state.state() == {"k4": 4}
        three = world.add(3)  # it has only just come
        three.start()
        world.advance(0.25)
        assert three.read(since=since).data() == [2, 3, 4]
        assert three.read("now", since=Position(one.now.epoch, 4)).answer.recovered


def test_a_hole_is_fetched() -> None:
    with SharingWorld() as world:
        one, two = world.nodes
        reader, state = two.read(), two.read("now")
        two.end.lose(3)
        one.log.publish("a")
        one.log.publish("b")
        one.now["x"] = 1
        one.log.publish("c")
        one.now["y"] = 2
        world.settle()
        assert reader.data() == ["a", "b", "c"]
        assert state.state() == {"x": 1, "y": 2}


def test_a_lost_tail_is_found_by_comparing() -> None:
    with SharingWorld() as world:
        one, two = world.nodes
        reader = two.read()
        two.end.lose(1)
        one.log.publish("tail")
        world.settle()
        assert reader.data() == []
        world.advance(12)
        assert reader.data() == ["tail"]


def test_a_hole_that_cannot_be_fetched_is_told() -> None:
    with SharingWorld(count=3) as world:
        one, two = world.nodes
        reader = two.read()
        two.end.lose(9)
        for number in range(10):
            one.log.publish(number)
        world.settle()
        messages = reader.read()
        assert messages[0]["data"] == {
            "topic": "log", "epoch": one.log.epoch, "offset": 7, "missed": 7,
            "reason": "backplane",
        }  # fmt: skip
        assert [message["data"] for message in messages[1:]] == [7, 8, 9]


def test_a_short_outage_delays_and_loses_nothing() -> None:
    with SharingWorld() as world:
        one, two = world.nodes
        readers = [one.read(), two.read()]
        one.log.publish("before")
        one.end.cut()
        one.log.publish("during")
        one.now["a"] = 1
        assert one.now["a"] == 1
        two.log.publish("elsewhere")
        world.advance(3)
        assert readers[0].data() == []  # it was cut off before it heard of the first
        one.end.restore()
        world.advance(1)
        for reader in readers:
            assert reader.data() == ["before", "elsewhere", "during"]
        assert dict(two.now) == {"a": 1}


def test_what_came_back_is_confirmed_though_the_answer_is_lost() -> None:
    with SharingWorld() as world:
        one, _ = world.nodes
        reader = one.read()
        one.log.publish("once")
        assert one.end.deliver(1) == 1  # the message, which comes before the answer
        one.end.cut()
        one.log.publish("during")
        assert reader.data() == ["once"]
        world.advance(6)
        assert reader.data() == ["backplane", "during"]
        one.end.restore()
        world.advance(2)
        assert reader.data() == ["epoch"]


def test_a_long_outage_makes_a_world_of_its_own() -> None:
    with SharingWorld() as world:
        one, two = world.nodes
        one.log.publish("before")
        world.settle()
        readers = [one.read(), two.read()]
        state = one.read("now")
        shared = one.log.epoch
        one.end.cut()
        one.log.publish("during")
        one.now["a"] = 1
        world.advance(6)
        assert readers[0].data() == ["backplane", "during"]
        assert one.log.epoch != shared
        assert state.state() == {"a": 1}
        one.log.publish("alone")
        one.now["b"] = 2
        two.log.publish("elsewhere")
        two.now["b"] = 3
        two.now["c"] = 3
        assert readers[0].data() == ["alone"]
        assert one.read(last=2).data() == ["during", "alone"]
        one.end.restore()
        world.advance(2)
        assert readers[0].data() == ["epoch", "elsewhere"]
        assert readers[0].got[-1]["offset"] == 2
        assert readers[1].data() == ["elsewhere"]
        assert one.log.epoch == two.log.epoch == shared
        assert dict(one.now) == dict(two.now) == {"a": 1, "b": 2, "c": 3}
        assert state.state() == dict(one.now)
        one.log.publish("after")
        world.settle()
        assert [reader.data() for reader in readers] == [["after"], ["after"]]


@pytest.mark.parametrize("how", ["flush", "restart", "older", "rewind"])
def test_a_store_that_forgets_has_a_new_epoch(how: str) -> None:
    with SharingWorld() as world:
        one, two = world.nodes
        one.log.publish("kept")
        one.now.update({"a": 1, "b": 2})
        world.settle()
        saved = world.save()
        one.log.publish("lost")
        one.now["a"] = 3
        del one.now["b"]
        two.now["c"] = 4
        world.settle()
        readers = [one.read(), two.read(), two.read("now")]
        for reader in readers:
            reader.read()
        before = one.log.epoch, one.now.epoch, one.log.offset
        world.lose(
            {"older": "restart"}.get(how, how), saved if how in ("older", "rewind") else None
        )
        if how != "flush":
            for node in world.nodes:
                node.end.restore()
        world.advance(3)
        if how == "rewind":  # only who knows more than the store sees it
            one.log.publish("found out")
            one.now["z"] = 0
            world.advance(1)
        for node in world.nodes:
            assert node.log.epoch == one.log.epoch != before[0]
            assert node.now.epoch == one.now.epoch != before[1]
            assert node.now.copy().items() >= {"a": 3, "c": 4}.items()
            assert "b" not in node.now
        one.log.publish("new")
        world.settle()
        assert one.log.offset > before[2]
        for reader in readers[:2]:
            data = reader.data()
            assert data[0] == "epoch"
            assert data[-1] == "new"
            assert "kept" not in data
        assert readers[2].state() == dict(two.now)
        late = two.read(since=Position(before[0], before[2]))
        assert (late.answer.recovered, late.answer.reason) == (False, "epoch")


def test_a_storm_is_answered_by_the_copies() -> None:
    with SharingWorld() as world:
        one, two = world.nodes
        for number in range(20):
            one.log.publish(number)
        world.settle()
        loads = []
        load = world.nodes[0].end.topics.load
        world.nodes[0].end.topics.load = lambda *args: loads.append(args) or load(*args)  # type: ignore[method-assign,func-returns-value]  # counts
        readers = [Reader(two.topics, "log", since=Position(one.log.epoch, 5)) for _ in range(50)]
        assert all(len(reader.data()) == 15 for reader in readers)
        assert not loads


def test_values_expire_everywhere_once() -> None:
    with SharingWorld() as world:
        one, two = world.nodes
        one.now.set("a", 1, ttl=0.001)
        one.now.set("b", 1)
        world.settle()
        reader = two.read("now")
        reader.read()
        world.advance(2)
        assert dict(two.now) == dict(one.now) == {"b": 1}
        removed = [message["data"]["removed"] for message in reader.read()]
        assert removed == [["a"]]


def test_a_crowd_of_changes_is_in_one_order() -> None:
    with SharingWorld(partitions=4) as world:
        one, two = world.nodes
        readers = [one.read("now"), two.read("now")]
        for number in range(50):
            (one, two)[number % 2].now[f"k{number % 7}"] = number
            if number % 3 == 0:
                (two, one)[number % 2].now.pop(f"k{number % 5}", None)
        world.settle()
        assert dict(one.now) == dict(two.now)
        assert [reader.state() for reader in readers] == [dict(one.now)] * 2
