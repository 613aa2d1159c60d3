"""Which partitions a node hears, as members come and go in any order."""

from __future__ import annotations

import pytest

from daebus.backplane.memory import MemoryBackplane
from daebus.backplane.names import Names
from daebus.websocket.cluster.partitions import LINGER, Partitions
from tests.support.clock import ManualMinder

NAMES = Names("test", 16)
HALL = NAMES.frames(NAMES.partition("hall"))


@pytest.mark.parametrize(
    ("changes", "heard"),
    [
        ([1], True),
        ([1, 1, -1], True),
        ([1, -1], False),
        ([-1, 1], False),
        ([-1, 1, 1], True),
        ([1, -1, 1], True),
        ([1, -1, -1, 1, 1], True),
    ],
    ids=str,
)
def test_a_partition_is_heard_while_it_has_members(changes: list[int], heard: bool) -> None:
    minder, end, left = ManualMinder(), MemoryBackplane(threaded=False), list[str]()
    partitions = Partitions(NAMES, end, minder, left.append)
    end.start(NAMES, lambda channel, frame: None, lambda: None)
    assert NAMES.partition("hall")
    for change in changes:
        (partitions.add if change > 0 else partitions.remove)("hall")
    minder.advance(LINGER - 1)
    assert partitions.wait("hall", 0) == (changes[0] > 0 or heard)  # another may come
    minder.advance(2)
    assert partitions.wait("hall", 0) == heard
    assert (HALL in partitions.channels()) == heard
    assert left == ([] if heard or changes[0] < 0 else [HALL])
    end.stop(0)
    minder.stop()
