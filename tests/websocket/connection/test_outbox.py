"""The outbox against a plain model: nothing torn, nothing reordered, counts exact."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daebus.websocket.connection.outbox import Outbox

OnFull = Literal["disconnect", "drop_oldest", "drop_newest", "block"]


def drain(outbox: Outbox) -> bytes:
    out = b""
    while len(outbox):
        chunk = bytes(outbox.chunk())
        assert chunk
        outbox.advance(len(chunk))
        out += chunk
    return out


# --- examples -----------------------------------------------------------------------


def test_an_empty_outbox() -> None:
    outbox = Outbox(100, 10)
    assert len(outbox) == 0
    assert outbox.size == 0
    assert outbox.low


def test_frames_leave_in_order() -> None:
    outbox = Outbox(100, 10)
    for data in (b"one", b"two", b"three"):
        outbox.push(data)
    assert (len(outbox), outbox.size) == (3, 11)
    assert drain(outbox) == b"onetwothree"
    assert (len(outbox), outbox.size) == (0, 0)


def test_the_rest_of_a_frame_that_was_begun() -> None:
    outbox = Outbox(100, 10)
    outbox.push(b"abcdef", 2)
    assert (len(outbox), outbox.size) == (1, 4)
    assert bytes(outbox.chunk()) == b"cdef"
    outbox.advance(1)
    outbox.push(b"next")
    assert drain(outbox) == b"defnext"


def test_a_frame_larger_than_the_bound_is_taken_alone() -> None:
    outbox = Outbox(10, 10)
    assert outbox.has_room(1000)
    outbox.push(b"x" * 1000)
    assert not outbox.has_room(1)


def test_the_bounds() -> None:
    outbox = Outbox(10, 3)
    outbox.push(b"12345")
    assert outbox.has_room(5)
    assert not outbox.has_room(6)
    outbox.push(b"1")
    outbox.push(b"1")
    assert not outbox.has_room(1)


@pytest.mark.parametrize(("size", "count", "low"), [(50, 1, True), (51, 1, False), (10, 6, False)])
def test_low_is_half_of_both_bounds(size: int, count: int, low: bool) -> None:
    outbox = Outbox(100, 10)
    outbox.push(b"x" * (size - count + 1))
    for _ in range(count - 1):
        outbox.push(b"x")
    assert outbox.low is low


def test_a_large_frame_leaves_alone_and_small_ones_together() -> None:
    outbox = Outbox(1 << 20, 100)
    small, large = b"s" * 10, b"l" * 1000
    for data in (small, small, large, small):
        outbox.push(data)
    assert bytes(outbox.chunk(100)) == small * 2
    outbox.advance(20)
    assert bytes(outbox.chunk(100)) == large
    outbox.advance(1000)
    assert bytes(outbox.chunk(100)) == small


def test_a_newer_frame_takes_the_place_of_the_older() -> None:
    outbox = Outbox(100, 10)
    outbox.push(b"first")
    outbox.push(b"old", key="k")
    outbox.push(b"last")
    assert outbox.replace(b"newer", "k")
    assert not outbox.replace(b"other", "unknown")
    assert outbox.dropped == 1
    assert (len(outbox), outbox.size) == (3, 14)
    assert drain(outbox) == b"firstnewerlast"
    assert not outbox.replace(b"late", "k")


def test_a_frame_that_was_begun_is_not_replaced() -> None:
    outbox = Outbox(100, 10)
    outbox.push(b"old", key="k")
    outbox.advance(1)
    assert not outbox.replace(b"new", "k")
    outbox.push(b"new", key="k")
    assert drain(outbox) == b"ldnew"


def test_a_frame_that_was_begun_is_not_dropped() -> None:
    outbox = Outbox(10, 10)
    outbox.push(b"12345678", 3)
    outbox.push(b"abc")
    assert outbox.drop_oldest(9) == 1
    assert outbox.clear() == 0
    assert drain(outbox) == b"45678"


def test_the_oldest_are_dropped_first_and_no_more_than_needed() -> None:
    outbox = Outbox(10, 10)
    for data in (b"aaaa", b"bbb", b"ccc"):
        outbox.push(data)
    assert outbox.drop_oldest(2) == 1
    assert outbox.drop_oldest(2) == 0
    assert drain(outbox) == b"bbbccc"


def test_only_droppable_ones_are_dropped() -> None:
    outbox = Outbox(10, 10)
    outbox.push(b"aaaa")
    outbox.push(b"bbb", droppable=True)
    outbox.push(b"ccc")
    assert outbox.drop_oldest(4, droppable_only=True) == 1
    assert not outbox.has_room(4)
    assert drain(outbox) == b"aaaaccc"


def test_dropped_and_replaced_frames_leave_no_heap_behind() -> None:
    outbox = Outbox(100, 10)
    outbox.push(b"x" * 90, 1)
    for number in range(10_000):
        outbox.drop_oldest(10)
        outbox.push(b"%010d" % number)
    assert len(outbox) == 2
    assert len(outbox._entries) < 50
    assert len(outbox._keyed) == 0
    assert drain(outbox) == b"x" * 89 + b"0000009999"


def test_there_is_always_something_to_write() -> None:
    outbox = Outbox(100, 10)
    outbox.push(b"a" * 60)
    outbox.push(b"b" * 40)
    assert outbox.drop_oldest(10) == 1
    assert bytes(outbox.chunk(30)) == b"b" * 40


def test_keys_of_dropped_frames_are_forgotten() -> None:
    outbox = Outbox(10, 10)
    for number in range(1000):
        outbox.drop_oldest(10)
        outbox.push(b"1234567890", key=str(number))
    assert list(outbox._keyed) == ["999"]
    outbox.clear()
    assert not outbox._keyed


@pytest.mark.parametrize(
    ("on_full", "admitted", "left"),
    [
        ("disconnect", None, b"aaaabbbb"),
        ("drop_oldest", True, b"bbbbnew"),
        ("drop_newest", False, b"aaaabbbb"),
        ("block", False, b"aaaabbbb"),
    ],
)
def test_what_happens_when_it_is_full(on_full: OnFull, admitted: bool | None, left: bytes) -> None:
    outbox = Outbox(10, 10)
    outbox.push(b"aaaa")
    outbox.push(b"bbbb")
    assert outbox.admit(b"new", on_full, droppable=False, key=None) is admitted
    assert outbox.dropped == (admitted is not None)
    assert drain(outbox) == left


@pytest.mark.parametrize("on_full", ["disconnect", "drop_oldest", "drop_newest", "block"])
def test_droppable_ones_make_room_first(on_full: OnFull) -> None:
    outbox = Outbox(10, 10)
    outbox.push(b"aaaa")
    outbox.push(b"bbbb", droppable=True)
    assert outbox.admit(b"new", on_full, droppable=False, key=None) is True
    assert outbox.dropped == 1
    assert drain(outbox) == b"aaaanew"


@pytest.mark.parametrize("on_full", ["disconnect", "drop_oldest", "drop_newest", "block"])
def test_a_droppable_one_makes_nobody_leave(on_full: OnFull) -> None:
    outbox = Outbox(10, 10)
    outbox.push(b"aaaabbbb")
    assert outbox.admit(b"new", on_full, droppable=True, key=None) is False
    assert outbox.dropped == 1
    assert drain(outbox) == b"aaaabbbb"


def test_replacing_counts_the_older_as_dropped() -> None:
    outbox = Outbox(10, 10)
    assert outbox.admit(b"old", "disconnect", droppable=False, key="k") is True
    assert outbox.admit(b"new", "disconnect", droppable=False, key="k") is True
    assert outbox.dropped == 1
    assert drain(outbox) == b"new"


@pytest.mark.parametrize("on_full", ["disconnect", "drop_oldest", "drop_newest", "block"])
def test_a_larger_replacement_does_not_pass_the_bound(on_full: OnFull) -> None:
    outbox = Outbox(20, 10)
    outbox.push(b"begun.", 1)
    outbox.push(b"old", key="k")
    outbox.push(b"rest......")
    outbox.admit(b"n" * 19, on_full, droppable=False, key="k")
    assert outbox.size <= 20


def test_a_larger_replacement_that_has_no_room_takes_the_older_along() -> None:
    outbox = Outbox(20, 10)
    outbox.push(b"rest......")
    outbox.push(b"old", key="k")
    assert outbox.admit(b"n" * 19, "drop_newest", droppable=False, key="k") is False
    assert outbox.dropped == 2
    assert drain(outbox) == b"rest......"


def test_control_frames_pass_the_bound_once_each() -> None:
    outbox = Outbox(10, 1)
    outbox.push(b"x" * 10)
    assert not outbox.has_room(1)
    for number in range(1000):
        outbox.push_control(b"ping%d" % number, 9)
        outbox.push_control(b"pong%d" % number, 10)
    assert len(outbox) == 3
    assert outbox.drop_oldest(100) == 1
    assert drain(outbox) == b"ping999pong999"
    assert outbox.dropped == 1


def test_a_control_frame_that_was_begun_is_not_replaced() -> None:
    outbox = Outbox(10, 10)
    outbox.push_control(b"pong1", 10)
    outbox.advance(2)
    outbox.push_control(b"pong2", 10)
    outbox.push_control(b"pong3", 10)
    assert drain(outbox) == b"ng1pong3"


def admit_seconds(waiting: int, on_full: OnFull, *, droppable: bool) -> float:
    """Return the least time in which 200 messages meet that many that wait."""
    outbox = Outbox(1 << 30, waiting)
    outbox.push(b"begun", 1)
    outbox.push_control(b"pong", 10)
    for number in range(waiting):
        skippable = droppable and number % 2 == 0
        outbox.admit(b"%06d" % number, on_full, droppable=skippable, key=None)
    best = 60.0
    for _ in range(10):
        began = time.process_time()
        for _ in range(200):
            outbox.admit(b"newest", on_full, droppable=False, key=None)
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize("droppable", [False, True])
@pytest.mark.parametrize("on_full", ["disconnect", "drop_oldest", "drop_newest", "block"])
def test_a_message_costs_the_same_however_many_wait(on_full: OnFull, droppable: bool) -> None:
    few = admit_seconds(50, on_full, droppable=droppable)
    many = admit_seconds(5000, on_full, droppable=droppable)
    assert many < 10 * few


# --- the model ----------------------------------------------------------------------


@dataclass
class Queued:
    """What the model knows of a frame."""

    frame: bytes
    droppable: bool = False
    key: str | None = None
    written: int = 0
    opcode: int = 0


MAX_BYTES, MAX_MESSAGES = 60, 8
keys = st.none() | st.sampled_from("ab")


class OutboxMachine(RuleBasedStateMachine):
    """Any sequence of calls, on the outbox and on a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(MAX_BYTES, MAX_MESSAGES)
        self.model: list[Queued] = []
        self.dropped = 0
        self.serial = itertools.count()
        self.limit = 30

    def frame(self, size: int) -> bytes:
        """Make a frame that no other resembles: a number, then filling."""
        return (b"<%d" % next(self.serial)).ljust(size - 1, b".") + b">"

    # The model's side.

    def queued(self) -> int:
        return sum(len(entry.frame) - entry.written for entry in self.model)

    def room(self, size: int) -> bool:
        if not self.model:
            return True
        return self.queued() + size <= MAX_BYTES and len(self.model) < MAX_MESSAGES

    def append(self, entry: Queued) -> None:
        if entry.key is not None:  # an older one with that key is past replacing
            for other in self.model:
                if other.key == entry.key:
                    other.key = None
        self.model.append(entry)

    def drop(self, size: int, droppable_only: bool) -> int:
        dropped = 0
        for entry in list(self.model):
            if self.room(size):
                break
            if entry.written or entry.opcode or (droppable_only and not entry.droppable):
                continue
            self.model.remove(entry)
            dropped += 1
        self.dropped += dropped
        return dropped

    def put_instead(self, data: bytes, key: str) -> bool:
        for entry in self.model:
            if entry.key == key and not entry.written:
                break
        else:
            return False
        self.dropped += 1
        growth = len(data) - len(entry.frame)
        if growth > 0 and len(self.model) > 1 and self.queued() + growth > MAX_BYTES:
            self.model.remove(entry)
            return False
        entry.frame = data
        return True

    # The calls.

    @rule(size=st.integers(4, 40), droppable=st.booleans(), key=keys)
    def push(self, size: int, droppable: bool, key: str | None) -> None:
        if not self.room(size):
            return
        data = self.frame(size)
        self.outbox.push(data, droppable=droppable, key=key)
        self.append(Queued(data, droppable, key))

    @precondition(lambda self: not self.model)
    @rule(size=st.integers(4, 200), written=st.integers(1, 3))
    def push_the_rest_of_one(self, size: int, written: int) -> None:
        data = self.frame(size)
        self.outbox.push(data, written)
        self.append(Queued(data, written=written))

    @rule(size=st.integers(4, 20), opcode=st.sampled_from([9, 10]))
    def push_control(self, size: int, opcode: int) -> None:
        data = self.frame(size)
        self.outbox.push_control(data, opcode)
        for entry in self.model:
            if entry.opcode == opcode and not entry.written:
                entry.frame = data
                return
        self.append(Queued(data, opcode=opcode))

    @rule(size=st.integers(4, 40), key=st.sampled_from("ab"))
    def replace(self, size: int, key: str) -> None:
        data = self.frame(size)
        expected = self.put_instead(data, key)
        assert self.outbox.replace(data, key) is expected

    @rule(size=st.integers(1, 80), droppable_only=st.booleans())
    def drop_oldest(self, size: int, droppable_only: bool) -> None:
        expected = self.drop(size, droppable_only)
        assert self.outbox.drop_oldest(size, droppable_only=droppable_only) == expected

    @rule()
    def clear(self) -> None:
        kept = [entry for entry in self.model if entry.written]
        dropped = len(self.model) - len(kept)
        assert self.outbox.clear() == dropped
        self.model = kept
        self.dropped += dropped

    @rule(limit=st.integers(1, 100))
    def change_the_size_of_a_write(self, limit: int) -> None:
        self.limit = limit

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        chunk = bytes(self.outbox.chunk(self.limit))
        waiting = b"".join(entry.frame[entry.written :] for entry in self.model)
        assert chunk
        assert waiting.startswith(chunk)
        written = data.draw(st.integers(0, len(chunk)))
        self.outbox.advance(written)
        while written:
            entry = self.model[0]
            step = min(written, len(entry.frame) - entry.written)
            entry.written += step
            written -= step
            if entry.written == len(entry.frame):
                self.model.pop(0)

    @rule(
        size=st.integers(4, 40),
        on_full=st.sampled_from(["disconnect", "drop_oldest", "drop_newest", "block"]),
        droppable=st.booleans(),
        key=keys,
    )
    def admit(self, size: int, on_full: OnFull, droppable: bool, key: str | None) -> None:
        data = self.frame(size)
        expected = self.admitted(data, on_full, droppable, key)
        assert self.outbox.admit(data, on_full, droppable=droppable, key=key) is expected

    def admitted(
        self, data: bytes, on_full: OnFull, droppable: bool, key: str | None
    ) -> bool | None:
        size = len(data)
        if key is not None and self.put_instead(data, key):
            return True
        if not self.room(size) and not droppable:
            self.drop(size, droppable_only=True)
            if on_full == "drop_oldest":
                self.drop(size, droppable_only=False)
        if self.room(size):
            self.append(Queued(data, droppable, key))
            return True
        if on_full == "disconnect" and not droppable:
            return None
        self.dropped += 1
        return False

    # What holds after each of them.

    @invariant()
    def size_and_count_are_exact(self) -> None:
        assert len(self.outbox) == len(self.model)
        assert self.outbox.size == self.queued()
        assert self.outbox.dropped == self.dropped

    @invariant()
    def it_knows_its_room(self) -> None:
        for size in (1, 10, 60):
            assert self.outbox.has_room(size) is self.room(size)

    @invariant()
    def what_was_dropped_is_gone(self) -> None:
        assert len(self.outbox._entries) <= 2 * (MAX_MESSAGES + 4) + 9
        assert len(self.outbox._keyed) <= len(self.model)
        assert len(self.outbox._droppable) <= 2 * (MAX_MESSAGES + 4) + 9

    def teardown(self) -> None:
        waiting = b"".join(entry.frame[entry.written :] for entry in self.model)
        assert drain(self.outbox) == waiting
        assert not self.outbox._keyed


quick = settings(
    max_examples=30, stateful_step_count=40, derandomize=True, deadline=None, database=None
)

TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = quick


class LongMachine(OutboxMachine):
    """The same, for longer."""


TestOutboxThoroughly = pytest.mark.slow(pytest.mark.timeout(600)(LongMachine.TestCase))
TestOutboxThoroughly.settings = settings(quick, max_examples=1500)
