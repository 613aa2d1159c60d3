"""The log of a state: what changed since when, and that every reader ends up with the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daebus.errors import StateLimitError
from daebus.websocket.topics.history import Chunk
from daebus.websocket.topics.position import SNAPSHOT, UNTOLD, Position
from daebus.websocket.topics.values import Values

EVERYTHING = 1 << 60
NOW = 0.0


class Reader:
    """A client that applies what it is sent as a page does."""

    def __init__(self, log: Values, sent: int = SNAPSHOT) -> None:
        self.log = log
        self.epoch, self.sent, self.base = log.epoch, sent, UNTOLD
        self.state: dict[str, Any] = {}
        self.frames: list[dict[str, Any]] = []

    def read(self, limit: int = EVERYTHING) -> bool:
        """Read one chunk; return whether there is more."""
        chunk: Chunk = self.log.read(self.epoch, self.sent, self.base, limit)
        events, self.epoch, self.sent, self.base, more = chunk
        for event in events:
            frame = json.loads(event.payload)
            self.frames.append(frame)
            if frame["type"] == "gap":
                continue
            assert frame["offset"] == event.offset
            data = frame["data"]
            if data.get("snapshot"):
                self.state = {}
            self.state |= data["set"]
            for key in data["removed"]:
                self.state.pop(key, None)
            assert data.get("synced", False) is not more
        return more


def state_of(log: Values) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in log.items(NOW)}


def test_unchanged_value_is_no_change() -> None:
    log = Values("t")
    assert log.change({"a": b"1", "b": b"2"}) == (["a", "b"], [])
    assert log.change({"a": b"1", "b": b"3"}, ["c"]) == (["b"], [])
    assert log.change({"a": b"1"}, ["b", "b", "a"]) == ([], ["b"])
    assert (log.top, len(log), state_of(log)) == (4, 1, {"a": 1})


def test_resume_gets_the_keys_that_changed_since() -> None:
    log = Values("t")
    log.change({"a": b"1", "b": b"2", "c": b"3"})
    log.change({"a": b"4"})
    log.change({}, ["b"])
    answer, sent = log.begin(Position(log.epoch, 3), 0)
    assert (answer.recovered, answer.reason, answer.replay, answer.missed) == (True, None, 2, 0)
    reader = Reader(log, sent)
    assert reader.read() is False
    assert [frame["data"] for frame in reader.frames] == [
        {"set": {"a": 4}, "removed": ["b"], "synced": True}
    ]


@pytest.mark.parametrize("since", [None, ("zzzzzz", 3), ("own", 99), ("own", 1)], ids=str)
def test_snapshot_for_who_cannot_go_on(since: tuple[str, int] | None) -> None:
    log = Values("t", max_keys=2)
    for n in range(4):  # more removals than are remembered
        log.change({f"k{n}": b"0"})
        log.change({}, [f"k{n}"])
    log.change({"a": b"1"})
    epoch = log.epoch if since and since[0] == "own" else "zzzzzz"
    answer, sent = log.begin(since and Position(epoch, since[1]), 0)
    reasons = {None: "new", ("own", 99): "ahead", ("own", 1): "expired"}
    assert (answer.recovered, answer.reason) == (False, reasons.get(since, "epoch"))
    assert answer.missed == (0 if answer.reason == "expired" else None)
    assert (sent, answer.replay) == (SNAPSHOT, 1)
    reader = Reader(log, sent)
    assert reader.read() is False
    assert [frame["data"] for frame in reader.frames] == [
        {"snapshot": True, "set": {"a": 1}, "removed": [], "synced": True}
    ]


def test_every_answer_is_followed_by_synced_and_that_once() -> None:
    log = Values("t")
    for sent in (SNAPSHOT, log.top):
        reader = Reader(log, sent)
        assert [reader.read() for _ in range(3)] == [False] * 3
        assert [frame["data"].get("synced") for frame in reader.frames] == [True]


def test_large_snapshot_is_cut_between_keys() -> None:
    log = Values("t", max_keys=500)
    log.change({f"key{n}": json.dumps("x" * 20).encode() for n in range(300)})
    reader = Reader(log)
    while reader.read(1000):
        pass
    assert reader.state == state_of(log)
    assert len(reader.frames) > 5
    assert [bool(f["data"].get("snapshot")) for f in reader.frames[:2]] == [True, False]
    assert max(len(json.dumps(frame)) for frame in reader.frames) < 1300
    offsets = [frame["offset"] for frame in reader.frames]
    assert offsets == sorted(set(offsets))
    assert offsets[-1] == log.top


def test_old_keys_do_not_make_a_snapshot_begin_again() -> None:
    log = Values("t", max_keys=10)
    log.change({f"old{n}": b"1" for n in range(5)})
    for n in range(40):
        log.change({f"k{n}": b"0"})
        log.change({}, [f"k{n}"])
    assert log.floor > 5
    reader = Reader(log)
    rounds = 1
    while reader.read(10):
        rounds += 1
        assert rounds < 20
    assert reader.state == state_of(log)


BEYOND: dict[str, dict[str, bytes]] = {
    "keys": {"c": b"1"},
    "bytes": {"a": b'"' + b"x" * 99 + b'"'},
    "bytes of a key": {"k" * 99: b"1"},
}


@pytest.mark.parametrize("name", BEYOND)
def test_change_beyond_a_bound_is_refused_as_a_whole(name: str) -> None:
    log = Values("t", max_keys=2, max_bytes=60)
    log.change({"a": b"1", "b": b"2"})
    before = (log.top, log.size, log.items(NOW))
    with pytest.raises(StateLimitError):
        log.change({"b": b"3", **BEYOND[name]})
    assert (log.top, log.size, log.items(NOW)) == before
    log.change({"c": b"3"}, ["a"])  # in its place there is room
    assert state_of(log) == {"b": 2, "c": 3}


@pytest.mark.parametrize("bound", [{"max_keys": 2}, {"max_bytes": 20}], ids=str)
def test_only_growth_is_refused_beyond_a_bound_that_was_lowered(bound: dict[str, Any]) -> None:
    before = Values("t")
    before.change(dict.fromkeys("abcdef", b"1"))
    log = Values("t", **bound)
    log.restore(before.dump(), 0.0, 0.0, keep_epoch=True)
    log.change({"a": b"2"})
    log.change({"g": b"3"}, ["b"])
    assert state_of(log) == {"a": 2, "c": 1, "d": 1, "e": 1, "f": 1, "g": 3}
    with pytest.raises(StateLimitError):
        log.change({"h": b"4"})
    log.change({}, "acdefg")
    log.change({"h": b"4"})


def test_values_expire_unless_they_are_set_again() -> None:
    log = Values("t")
    log.change({"a": b"1", "b": b"2"}, expires=5.0)
    log.change({"c": b"3"})
    assert log.change({"a": b"1"}, expires=9.0) == ([], [])
    assert (log.get("b", 4.9), log.get("b", 5.0)) == (b"2", None)
    assert [key for key, _ in log.items(6.0)] == ["a", "c"]
    assert log.next_due() == 5.0
    assert log.due(6.0) == log.due(6.0) == ["b"]
    log.change({}, ["b"])
    assert log.next_due() == 9.0
    log.change({"a": b"1"})  # for ever
    assert log.due(10.0) == []
    for n in range(1000):
        log.change({"d": b"4"}, expires=100.0 + n)
    assert len(log._expiries) < 200


CHANGES = st.tuples(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), max_size=3),
    st.lists(st.sampled_from("abcdef"), max_size=3),
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(CHANGES, st.integers(0, 3), st.booleans(), st.booleans()), max_size=40),
    st.integers(1, 6),
)
def test_every_reader_converges(
    steps: list[tuple[tuple[dict[str, int], list[str]], int, bool, bool]], max_keys: int
) -> None:
    """Readers that read now and then, part of it, and come back with their last position."""
    log = Values("t", max_keys=max_keys, max_bytes=200)
    readers = [Reader(log) for _ in range(3)]
    for (values, removed), which, finish, comes_back in steps:
        try:
            log.change({key: b"%d" % value for key, value in values.items()}, removed)
        except StateLimitError:
            pass
        assert len(log) <= max_keys
        assert len(log._gone) <= max_keys
        assert log.size == sum(len(f'"{key}":') + len(v) for key, v in log.items(NOW))
        if which < 3:
            reader = readers[which]
            while reader.read(6) and finish:
                pass
            synced = reader.frames[-1]["data"].get("synced")
            if comes_back and synced:
                _, sent = log.begin(Position(reader.epoch, reader.sent), 0)
                reader.sent, reader.base = sent, UNTOLD
    for reader in readers:
        while reader.read(6):
            pass
        assert reader.state == state_of(log)
        told = [frame["offset"] for frame in reader.frames]
        assert told == sorted(told)


@settings(deadline=None)
@given(st.lists(CHANGES, max_size=10), st.booleans())
def test_what_was_saved_goes_on(
    steps: list[tuple[dict[str, int], list[str]]], keep_epoch: bool
) -> None:
    log = Values("t", max_keys=9)
    for values, removed in steps:
        log.change({key: b"%d" % value for key, value in values.items()}, removed, time=7.0)
    later = Values("t", max_keys=9)
    later.change({"own": b"1"})
    later.restore(log.dump(), 10.0, 10.0, keep_epoch=keep_epoch)
    assert (later.epoch == log.epoch) is keep_epoch
    assert state_of(later) == {**state_of(log), "own": 1}
    assert later.top == log.top + 1
    answer, _ = later.begin(Position(log.epoch, log.top), 0)
    assert (answer.recovered, answer.replay) == ((True, 1) if keep_epoch else (False, len(later)))
