"""Clients that come, go, stall and come back, at random: what every one of them can rely on.

Nothing comes twice or out of order within a connection; what was seen and what was told as
missed is what was published since; a state ends up as the server has it; and a topic neither
fills an outbox nor ends a connection. ``Told`` checks each message as it comes.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from daebus.errors import StateLimitError
from daebus.websocket.connection import outbox
from daebus.websocket.connection.states import OPEN
from daebus.websocket.topics.position import Position
from tests.support.subscribers import Hall, Seat, Told

NAMES = ("ann", "bob", "cy")
CLIENTS = st.sampled_from(NAMES)
TOPICS = st.sampled_from(("alarms", "log", "boiler"))


class Machine(RuleBasedStateMachine):
    """Three clients, two history topics and a state, all with little room."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(outbox, "_TAKE", 150)  # so that who is behind has several turns
        self.hall = Hall()
        self.logs = {
            "alarms": self.hall.topic("alarms", count=5, replay_limit=4),
            "log": self.hall.topic("log", max_bytes=300),
        }
        self.boiler = self.hall.state("boiler", count=3)
        self.seats = {name: Seat(self.hall, name) for name in NAMES}
        self.positions: dict[tuple[str, str], Position] = {}
        self.states: dict[tuple[str, str], dict[str, Any]] = {}
        # Where each client began that was never cut since, to count all that came then.
        self.began: dict[tuple[str, str], tuple[str, int]] = {}

    @rule(topic=st.sampled_from(("alarms", "log")), count=st.integers(1, 9))
    def publish(self, topic: str, count: int) -> None:
        for n in range(count):
            result = self.logs[topic].publish("x" * (7 * n), "alarm")
            assert result.offset == self.logs[topic].offset
            assert result.dropped == 0
            assert result == self.hall.registry.subscribers.count(topic)

    @rule(
        values=st.dictionaries(st.sampled_from("abcde"), st.integers(0, 2), max_size=3),
        removed=st.lists(st.sampled_from("abcde"), max_size=2),
    )
    def change(self, values: dict[str, int], removed: list[str]) -> None:
        for key in removed:
            self.boiler.pop(key, None)
        with contextlib.suppress(StateLimitError):
            self.boiler.update(values)

    @rule(topic=st.sampled_from(("alarms", "log")))
    def clear(self, topic: str) -> None:
        self.logs[topic].clear()

    @rule(client=CLIENTS, topic=TOPICS, resume=st.booleans(), last=st.integers(0, 4))
    def subscribe(self, client: str, topic: str, resume: bool, last: int) -> None:
        seat = self.seats[client]
        seat.drain()
        self.note(client)
        since = self.positions.get((client, topic)) if resume else None
        if since is not None and topic not in seat.told:
            seat.told[topic] = Told()
            seat.told[topic].state = dict(self.states[client, topic])
        assert self.hall.subscribe(seat, topic, since, last)

    @rule(client=CLIENTS, topic=TOPICS)
    def unsubscribe(self, client: str, topic: str) -> None:
        seat = self.seats[client]
        seat.drain()
        had = self.hall.registry.subscribers.has(client, topic)
        seat.told.setdefault(topic, Told())
        assert self.hall.unsubscribe(seat, topic) is had

    @rule(client=CLIENTS, room=st.integers(0, 200))
    def stall(self, client: str, room: int) -> None:
        self.seats[client].drain(room)

    @rule(client=CLIENTS)
    def wake(self, client: str) -> None:
        self.seats[client].drain()

    @rule(client=CLIENTS, read=st.booleans())
    def cut(self, client: str, read: bool) -> None:
        """It loses its connection, with what had not come yet; a newer one takes its id."""
        seat = self.seats[client]
        if read:
            seat.drain()
        self.note(client)
        self.hall.registry.remove(seat.link)
        self.seats[client] = Seat(self.hall, client)

    def note(self, client: str) -> None:
        """Keep the positions of a client, as its page does."""
        seat = self.seats[client]
        seat.take()
        for topic, told in seat.told.items():
            if told.position is not None:
                self.positions[client, topic] = told.position
                self.states[client, topic] = told.kept

    @invariant()
    def no_topic_ends_a_connection_or_fills_an_outbox(self) -> None:
        for seat in self.seats.values():
            assert seat.link.writer.state == OPEN
            waiting = seat.link.writer.outlet.outbox
            assert waiting is None or (waiting.size, len(waiting)) == (0, 0)

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.patch.undo()

    def settle(self) -> None:
        for client, seat in self.seats.items():
            seat.drain()
            seat.take()
            assert seat.link.writer.outlet.outbox is None
            for topic, told in seat.told.items():
                if not self.hall.registry.subscribers.has(client, topic):
                    continue
                if topic == "boiler":
                    assert told.state == self.boiler.copy()
                    assert told.position == Position(self.boiler.epoch, self.boiler.offset)
                else:
                    log = self.logs[topic]
                    assert told.position == Position(log.epoch, log.offset)


Machine.TestCase.settings = settings(
    deadline=None, max_examples=25, stateful_step_count=30, phases=[Phase.explicit, Phase.generate]
)
TestSubscribers: Any = Machine.TestCase
