"""Whatever happens to nodes and store: topics are equal everywhere once it is quiet."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.support.sharing import Reader, SharingWorld

NODES = strategies.integers(0, 2)
KEYS = strategies.sampled_from("abc")


class Sharing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = SharingWorld(3, count=20)
        self.world.__enter__()
        self.nodes = self.world.nodes
        self.cut: set[int] = set()
        self.count = 0
        self.saved: Any = None
        self.readers: list[Reader] = [node.read() for node in self.nodes]
        self.states = [node.read("now") for node in self.nodes]

    @rule(node=NODES)
    def publish(self, node: int) -> None:
        self.count += 1
        self.nodes[node].log.publish([node, self.count])

    @rule(node=NODES, key=KEYS)
    def set_key(self, node: int, key: str) -> None:
        self.count += 1
        self.nodes[node].now[key] = self.count
        assert self.nodes[node].now[key] == self.count

    @rule(node=NODES, key=KEYS)
    def remove(self, node: int, key: str) -> None:
        self.nodes[node].now.pop(key, None)
        assert key not in self.nodes[node].now

    @rule(node=NODES, frames=strategies.integers(1, 5))
    def lose(self, node: int, frames: int) -> None:
        self.nodes[node].end.lose(frames)

    @rule(node=NODES)
    def cut_off(self, node: int) -> None:
        self.nodes[node].end.cut()
        self.cut.add(node)

    @rule(node=NODES)
    def restore(self, node: int) -> None:
        if node in self.cut:
            self.cut.discard(node)
            self.nodes[node].end.restore()

    @rule(node=NODES, most=strategies.integers(1, 4))
    def deliver(self, node: int, most: int) -> None:
        self.nodes[node].end.deliver(most)

    @rule(seconds=strategies.sampled_from([0.25, 1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def save(self) -> None:
        self.saved = self.world.save()

    @rule(how=strategies.sampled_from(["flush", "restart", "older", "rewind"]))
    def forget(self, how: str) -> None:
        if how in ("older", "rewind"):
            if self.saved is not None:
                self.world.lose("restart" if how == "older" else how, self.saved)
        else:
            self.world.lose(how)
        if how in ("restart", "older"):
            for node in set(range(3)) - self.cut:
                self.nodes[node].end.cut()
                self.nodes[node].end.restore()

    @rule(node=NODES)
    def come(self, node: int) -> None:
        self.readers.append(self.nodes[node].read(last=5))

    @rule()
    def read(self) -> None:
        for reader in self.readers:
            reader.read()

    def teardown(self) -> None:
        try:
            self._be_quiet()
        finally:
            self.world.__exit__()

    def _be_quiet(self) -> None:
        for node in self.nodes:
            node.end.lose(-node.end._to_lose)
        for place in list(self.cut):
            self.restore(place)
        self.world.advance(13)
        for place in range(3):  # who knows more than a store that was rewound says so
            self.publish(place)
            self.set_key(place, "abc"[place])
            self.world.advance(1)
        self.world.advance(13)
        one = self.nodes[0]
        for node in self.nodes:
            assert node.log.epoch == one.log.epoch
            assert node.log.offset == one.log.offset
            assert node.now.epoch == one.now.epoch
            assert dict(node.now) == dict(one.now)
        histories = [node.log.history() for node in self.nodes]
        least = min(map(len, histories))
        assert least >= 3 or self.saved is not None
        tails = [[(entry.offset, entry.data) for entry in found[-least:]] for found in histories]
        assert tails[0] == tails[1] == tails[2]
        for state in self.states:
            assert state.state() == dict(one.now)
        for reader in self.readers:
            reader.read()
            self._judge(reader)

    def _judge(self, reader: Reader) -> None:
        """No message twice, none out of order, and none missing that no gap tells of."""
        offset = reader.answer.offset - reader.answer.replay
        last: dict[int, int] = {}
        for message in reader.got:
            if message["type"] == "gap":
                offset = message["data"]["offset"]
                last = {}
                continue
            assert message["offset"] == offset + 1
            offset += 1
            node, number = message["data"]
            assert number > last.get(node, 0)
            last[node] = number


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=8, stateful_step_count=40, deadline=None)


class Longer(Sharing):
    pass


TestLonger = pytest.mark.slow(Longer.TestCase)
TestLonger.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
