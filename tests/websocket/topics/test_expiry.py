"""What is too old leaves the memory of a topic that nobody uses, by the minder's clock."""

from __future__ import annotations

import threading
import time as times
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from daebus.server.threads.minder import Timer
from daebus.websocket.topics import changes, feed, topic
from daebus.websocket.topics.history import Entry, History, Saved
from daebus.websocket.topics.live import Live, Offered
from daebus.websocket.topics.spec import Spec
from daebus.websocket.topics.state import State
from daebus.websocket.topics.subscribers import Subscribers
from daebus.websocket.topics.table import Topics
from daebus.websocket.topics.topic import Topic
from tests.support.clock import ManualMinder


class CountingMinder(ManualMinder):
    """Knows which of its calls are still to be made."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Timer] = []
        self.made = 0

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        def call() -> None:
            self.made += 1
            self.calls.remove(timer)
            callback()

        timer = super().call_later(seconds, call)
        self.calls = [one for one in self.calls if one.callback is not None]
        self.calls.append(timer)
        return timer


class House:
    """Topics, and the minder of one start of an app."""

    def __init__(self) -> None:
        self.minder = CountingMinder()
        self.topics = Topics()

    def topic(self, name: str, **options: Any) -> Topic:
        return cast("Topic", self.topics.declare(Spec("history", name, **options)))

    def state(self, name: str, **options: Any) -> State:
        return cast("State", self.topics.declare(Spec("state", name, **options)))

    def start(self) -> None:
        nobody = lambda cursors, payload, span: Offered(0, 0, [])  # noqa: E731  has no name
        self.topics.begin(Live(self.minder, Subscribers(threading.Lock(), {}), nobody, 100))

    def held(self, name: str) -> tuple[int, int]:
        """Return how many messages or keys are in memory, and their bytes; removes none."""
        described = self.topics.describe()[name]
        return described["entries"], described["bytes"]

    @property
    def planned(self) -> int:
        return len([timer for timer in self.minder.calls if timer.callback is not None])


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    house = House()
    for module in (changes, feed, topic):
        monkeypatch.setattr(module, "monotonic", house.minder.clock)
    yield house
    house.topics.end()
    assert house.planned == 0
    house.minder.stop()


def test_old_messages_leave_a_topic_that_nobody_uses(house: House) -> None:
    alarms = house.topic("alarms", max_age=300.0)
    endless = house.topic("endless", max_age=None)
    alarms.publish("before the start")
    house.start()
    for n in range(100):
        alarms.publish(n)
        endless.publish(n)
        house.minder.advance(0.5)
        assert house.planned == 1
    assert house.held("alarms")[0] == 101
    house.minder.advance(249.0)
    assert house.held("alarms")[0] == 101
    made = house.minder.made
    house.minder.advance(25.0)
    assert 48 <= house.held("alarms")[0] <= 52
    house.minder.advance(27.0)
    assert house.held("alarms") == (0, 0)
    assert house.minder.made - made <= 53  # once a second, not once a message
    assert house.held("endless")[0] == 100
    assert house.planned == 0
    # What comes later is let go as well.
    alarms.publish("again")
    house.minder.advance(301.0)
    assert (house.held("alarms"), house.planned) == ((0, 0), 0)
    assert alarms.offset == 102


def test_minder_lets_few_messages_go_at_once(house: House) -> None:
    alarms = house.topic("alarms", max_age=5.0, count=10_000)
    house.start()
    for n in range(3500):
        alarms.publish(n)
    sizes = []
    trim = History.trim

    def count(log: Any, *args: Any) -> bool:
        before = len(log)
        done = trim(log, *args)
        sizes.append(before - len(log))
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "trim", count)
        house.minder.advance(5.0)
    assert sizes == [1000, 1000, 1000, 500]
    assert (house.held("alarms"), house.planned) == ((0, 0), 0)


def test_values_past_their_time_leave_a_state_that_nobody_uses(house: House) -> None:
    boiler = house.state("boiler", ttl=10.0)
    boiler["before"] = 1
    house.start()
    for n in range(20):
        boiler[f"k{n}"] = n
        house.minder.advance(0.1)
        assert house.planned == 1
    house.minder.advance(12.0)
    assert (house.held("boiler"), house.planned) == ((0, 0), 0)


def test_one_of_a_family_goes_with_what_it_held(house: House) -> None:
    lines, rooms = house.topic("line/*"), house.state("room/*", ttl=5.0)
    house.start()
    lines["line/1"].publish("x")
    rooms["room/1"]["lamp"] = True
    rooms["room/2"].set("lamp", value=True, ttl=1000.0)
    house.minder.advance(6.0)
    assert set(house.topics.describe()) == {"line/1", "room/2"}
    house.minder.advance(300.0)
    assert set(house.topics.describe()) == {"room/2"}


def test_minder_does_not_wait_for_a_topic_in_use(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarms = house.topic("alarms", max_age=5.0)
    house.start()
    alarms.publish("first")
    minder = threading.Thread(target=house.minder.advance, args=(5.0,))
    waited = []

    def append(log: Any, *args: Any) -> Any:
        minder.start()
        minder.join(5)
        waited.append(minder.is_alive())
        raise RuntimeError("not published")

    with monkeypatch.context() as patch:
        patch.setattr(History, "append", append)
        with pytest.raises(RuntimeError, match="not published"):
            alarms.publish("second")
    minder.join(5)
    assert waited == [False]
    assert (house.held("alarms")[0], house.planned) == (1, 1)
    house.minder.advance(1.0)
    assert (house.held("alarms")[0], house.planned) == (0, 0)


def test_nothing_is_planned_while_the_app_does_not_run(house: House) -> None:
    alarms = house.topic("alarms", max_age=5.0)
    house.start()
    alarms.publish("x")
    house.topics.end()
    assert house.planned == 0
    alarms.publish("y")
    house.minder.advance(6.0)
    assert house.held("alarms")[0] == 2
    house.start()
    assert (house.held("alarms")[0], house.planned) == (0, 0)


def test_what_a_file_had_goes_too_when_declared_while_the_app_runs(house: House) -> None:
    now, moment = times.time(), house.minder.clock() + 5.0
    kept = {
        "alarms": Saved("epoch", 1, [Entry(1, "message", b"1", now)]),
        "boiler": Saved("epoch", 1, [Entry(1, "celsius", b"21", now, now + 5.0)]),
    }
    house.topics.opened.append(lambda feed: feed.restore(kept[feed.name], now, keep_epoch=True))
    house.start()
    house.topic("alarms", max_age=5.0)
    house.state("boiler")
    assert [house.held(name)[0] for name in kept] == [1, 1]
    assert house.planned == 2
    house.minder.advance(moment - house.minder.clock() + 0.01)
    assert [house.held(name)[0] for name in kept] == [0, 0]
