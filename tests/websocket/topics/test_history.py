"""The log of a history topic: bounds, replay, and that nothing is lost without a word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daebus.websocket.topics.history import History
from daebus.websocket.topics.position import Position, next_epoch

EVERYTHING = 1 << 60


def filled(messages: int, **options: Any) -> History:
    log = History("alarms", **options)
    for n in range(1, messages + 1):
        log.append("alarm", b"%d" % n, 1000.0 + n, float(n))
    return log


def read(log: History, sent: int, limit: int = EVERYTHING) -> list[dict[str, Any]]:
    events, *_ = log.read(log.epoch, sent, 0, limit)
    return [json.loads(event.payload) for event in events]


def test_message_is_the_programs_own_with_topic_and_offset() -> None:
    log = filled(2)
    assert read(log, 1) == [{"type": "alarm", "topic": "alarms", "offset": 2, "data": 2}]


BOUNDS: dict[str, tuple[dict[str, Any], int]] = {
    "count": ({"count": 3}, 8),
    "bytes": ({"max_bytes": 3 * len('{"type":"alarm","topic":"alarms","offset":1,"data":1}')}, 0),
    "age": ({"max_age": 2.0}, 9),
    "none": ({"max_age": None}, 1),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_oldest_goes_when_a_bound_is_reached(name: str) -> None:
    options, floor = BOUNDS[name]
    log = filled(10, **options)
    assert log.floor == (floor or 9)  # offsets above 9 take a byte more
    assert log.size == sum(
        len(json.dumps(m, separators=(",", ":"))) for m in read(log, log.floor - 1)
    )
    assert len(log) == log.top - log.floor + 1


def test_message_that_is_too_large_is_not_kept_and_told_of() -> None:
    log = filled(3, max_bytes=200)
    log.append("alarm", b'"' + b"x" * 300 + b'"', 0.0, 4.0)
    assert (len(log), log.size, log.floor) == (0, 0, 5)
    (gap,) = read(log, 3)
    assert gap == {
        "type": "gap",
        "data": {
            "topic": "alarms",
            "epoch": log.epoch,
            "offset": 4,
            "missed": 1,
            "reason": "slow",
        },
    }


def test_old_messages_go_although_nothing_comes() -> None:
    log = filled(10, max_age=5.0)
    log.trim(100.0)
    assert (len(log), log.floor, log.size) == (0, 11, 0)
    assert log.newest() == []


# name: the position asked for ("own" epoch unless told), last; recovered, reason, replay, missed
BEGINNINGS: dict[str, tuple[Any, int, tuple[Any, ...]]] = {
    "new": (None, 0, (False, "new", 0, None)),
    "new, with some": (None, 3, (False, "new", 3, None)),
    "new, with more than there are": (None, 99, (False, "new", 6, None)),
    "nothing missed": (10, 0, (True, None, 0, 0)),
    "all that is kept": (4, 0, (True, None, 6, 0)),
    "expired by one": (3, 0, (False, "expired", 0, 7)),
    "expired, with some": (3, 2, (False, "expired", 2, 5)),
    "expired, with all": (0, 99, (False, "expired", 6, 4)),
    "ahead": (11, 0, (False, "ahead", 0, None)),
    "another epoch": (("zzzzzz", 10), 0, (False, "epoch", 0, None)),
    "another epoch, with some": (("zzzzzz", 3), 2, (False, "epoch", 2, None)),
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_beginning(name: str) -> None:
    since, last, expected = BEGINNINGS[name]
    log = filled(10, count=6, replay_limit=6)
    epoch, offset = since if isinstance(since, tuple) else (log.epoch, since)
    answer, sent = log.begin(None if since is None else Position(epoch, offset), last)
    assert (answer.recovered, answer.reason, answer.replay, answer.missed) == expected
    assert (answer.epoch, answer.offset) == (log.epoch, 10)
    assert sent == answer.offset - answer.replay
    assert [m["offset"] for m in read(log, sent)] == [*range(sent + 1, 11)]


def test_more_than_the_limit_is_not_replayed() -> None:
    log = filled(10, replay_limit=4)
    answer, sent = log.begin(Position(log.epoch, 5), 2)
    assert (answer.recovered, answer.reason, answer.replay, answer.missed) == (False, "limit", 2, 3)
    assert sent == 8
    answer, _ = log.begin(Position(log.epoch, 6), 0)
    assert (answer.recovered, answer.replay) == (True, 4)


def test_clear_begins_another_epoch() -> None:
    log = filled(3)
    before = log.epoch
    log.clear()
    assert log.epoch == next_epoch(before) != before
    log.append("alarm", b"1", 0.0, 4.0)
    events, epoch, sent, _, more = log.read(before, 2, 0, EVERYTHING)
    assert (epoch, sent, more) == (log.epoch, 1, False)
    gap, alarm = [json.loads(event.payload) for event in events]
    assert gap["data"] == {
        "topic": "alarms",
        "epoch": log.epoch,
        "offset": 0,
        "missed": None,
        "reason": "epoch",
    }
    assert alarm["offset"] == 1


@settings(deadline=None)
@given(
    st.lists(st.integers(min_value=0, max_value=40), max_size=60),
    st.integers(min_value=1, max_value=9),
    st.integers(min_value=100, max_value=1000),
    st.data(),
)
def test_reader_gets_each_message_once_or_is_told_how_many_are_lost(
    sizes: list[int], count: int, max_bytes: int, data: st.DataObject
) -> None:
    """A reader that reads now and then, however much at once."""
    log = History("t", count=count, max_bytes=max_bytes)
    sent, seen, missed, size_limit = 0, list[int](), 0, 300
    for size in sizes:
        log.append("m", b'"' + b"x" * size + b'"', 0.0, 0.0)
        assert len(log) <= count
        assert log.size <= max_bytes
        if data.draw(st.booleans()):
            more = True
            while more:
                events, _, sent, _, more = log.read(log.epoch, sent, 0, size_limit)
                for event in events:
                    message = json.loads(event.payload)
                    if event.message_type == "gap":
                        missed += message["data"]["missed"]
                        assert message["data"]["offset"] == event.offset
                    else:
                        seen.append(message["offset"])
                whole = [event for event in events if event.message_type != "gap"]
                assert len(whole) <= 1 or sum(len(e.payload) for e in whole) <= size_limit
                if not more:
                    break
            assert sent == log.top
            assert len(seen) + missed == log.top
            assert seen == sorted(set(seen))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["publish", "restart", "power cut"]), max_size=30))
def test_what_was_saved_goes_on(steps: list[str]) -> None:
    """Messages have one number for ever, unless the epoch changes."""
    log = History("t", count=5)
    numbers: dict[tuple[str, int], bytes] = {}
    for n, step in enumerate(steps):
        if step == "publish":
            log.append("m", b"%d" % n, float(n), float(n))
            numbers[log.epoch, log.top] = b"%d" % n
            continue
        saved, epoch, log = log.dump(), log.epoch, History("t", count=5)
        log.append("m", b"0", float(n), 0.0)  # before the start
        log.restore(saved, float(n), 0.0, keep_epoch=step == "restart")
        assert (log.epoch == epoch) is (step == "restart")
        numbers |= {(log.epoch, entry.offset): entry.data for entry in log.dump().entries}
        assert [e.data for e in log.dump().entries][-1] == b"0"
        kept = [*saved.entries[-4:], log.dump().entries[-1]]
        assert [(e.data, e.time) for e in log.dump().entries] == [(e.data, e.time) for e in kept]
    for entry in log.dump().entries:
        assert numbers[log.epoch, entry.offset] == entry.data
