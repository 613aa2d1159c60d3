"""What waits to be sent, by itself."""

from __future__ import annotations

from typing import Any

import pytest

from daebus.backplane.redis.queue import Entry, Part, Queue


def never(slot: int) -> bool:
    return False


def ignore(answer: Any) -> None:
    pass


def put(queue: Queue, number: int, series: str = "a", size: int = 1) -> bool:
    """Put one step; return whether it joined the one before."""
    part, argument = Part(series, number - 1, number), b"x" * size
    if queue.join(0, part, argument, ignore):
        return True
    queue.put(Entry(["SCRIPT", argument], 0, keep=False, done=ignore, part=part), never)
    return False


def sizes(queue: Queue) -> list[int]:
    """Take all; return how many arguments each command has, and check that nothing is left."""
    taken = queue.take(1000, lambda slot: True, hurried=False)
    assert queue.is_empty()
    assert [len(entry.command) - 1 for entry in taken] == [
        max(1, len(entry.dones)) for entry in taken
    ]
    return [len(entry.command) - 1 for entry in taken]


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([(1, "a"), (2, "a"), (3, "a")], [3]),
        ([(1, "a"), (3, "a"), (2, "a")], [1, 1, 1]),
        ([(1, "a"), (1, "a"), (2, "a")], [1, 2]),
        ([(1, "a"), (2, "b"), (2, "a"), (3, "a")], [1, 1, 2]),
    ],
)
def test_only_the_next_step_joins_what_was_put_last(
    steps: list[tuple[int, str]], found: list[int]
) -> None:
    queue = Queue(1 << 20, 5.0)
    for number, series in steps:
        put(queue, number, series)
    assert sizes(queue) == found


def test_nothing_is_overtaken_by_what_joins() -> None:
    queue = Queue(1 << 20, 5.0)
    put(queue, 1)
    queue.put(Entry(("PUBLISH", "c", b"frame"), 0, keep=True), never)
    assert not put(queue, 2)
    assert put(queue, 3)
    assert [len(entry.dones) for entry in queue.take(9, lambda slot: True, hurried=False)] == [
        1, 0, 2,
    ]  # fmt: skip


def test_what_was_taken_takes_nothing_in() -> None:
    queue = Queue(1 << 20, 5.0)
    put(queue, 1)
    taken = queue.take(9, lambda slot: True, hurried=False)
    assert not put(queue, 2)
    assert len(taken[0].command) == 2


def test_what_joins_is_bounded() -> None:
    queue = Queue(1 << 20, 5.0)
    for number in range(1, 251):
        put(queue, number)
    assert sizes(queue) == [100, 100, 50]
    for number in range(1, 5):
        put(queue, number, size=40_000)
    assert sizes(queue) == [1, 1, 1, 1]
    queue = Queue(30_000, 5.0)
    for number in range(1, 6):
        put(queue, number, size=9_000)
        assert queue.size <= 30_000
    assert sum(sizes(queue)) < 5
    assert queue.tidy()
