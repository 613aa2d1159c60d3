"""An exception that comes between any two steps of a log, as Ctrl-C does, leaves it whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from daebus import Daebus
from daebus.websocket.topics import history, values
from daebus.websocket.topics.history import History
from daebus.websocket.topics.position import SNAPSHOT, UNTOLD
from daebus.websocket.topics.values import Values

FILES = {history.__file__, values.__file__}
EVERYTHING = 1 << 60
SAVED = History("t").dump()._replace(top=7, entries=[history.Entry(7, "m", b"7", 7.0)])


def interrupted(action: Callable[[], object], step: int) -> bool:
    """Raise at that bytecode of the two modules; return False if the action ends before."""
    left = step

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    # 3.12 looks when the tracing begins whether any frame asks for its bytecodes.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        action()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def publish(log: History, number: int) -> None:
    log.append("m", b"%d" % number, float(number), float(number))


# name: how many messages were published before, and what is interrupted
OF_HISTORY: dict[str, tuple[int, Callable[[History], object]]] = {
    "first": (0, lambda log: publish(log, 1)),
    "at a bound": (5, lambda log: publish(log, 6)),
    "given up": (68, lambda log: publish(log, 69)),
    "old": (5, lambda log: log.trim(9.5)),
    "clear": (5, lambda log: log.clear()),
    "restore": (2, lambda log: log.restore(SAVED, 9.0, 9.0, keep_epoch=True)),
}


@pytest.mark.parametrize("name", OF_HISTORY)
def test_history_is_whole_wherever_it_was_interrupted(name: str) -> None:
    filled, action = OF_HISTORY[name]
    step, more = 0, True
    while more:
        log = History("t", count=3, max_age=5.0)
        for number in range(1, filled + 1):
            publish(log, number)
        epoch, sent = log.epoch, log.top
        more = interrupted(lambda log=log: action(log), step)  # type: ignore[misc]  # bound
        step += 1
        top = log.top
        for number in range(filled + 1, filled + 6):
            publish(log, number)
            events, *_ = log.read(log.epoch, log.floor - 1, 0, EVERYTHING)
            assert [event.offset for event in events] == [*range(log.floor, log.top + 1)]
            assert log.size == sum(len(event.payload) for event in events)
            assert [payload for payload, _ in log.newest()] == [e.payload for e in events]
            assert len(log) <= 3
        assert log.top == top + 5
        assert log.read(epoch, sent, 0, EVERYTHING).sent == log.top
    assert step > 10


class Reader:
    """Stands somewhere in a state, and applies what it is sent."""

    def __init__(self, log: Values) -> None:
        self.log = log
        self.state: dict[str, Any] = {}
        self.place = (log.epoch, SNAPSHOT, UNTOLD)

    def read(self) -> dict[str, Any]:
        events, epoch, sent, base, _ = self.log.read(*self.place, EVERYTHING)
        self.place = (epoch, sent, base)
        for event in events:
            data = json.loads(event.payload)["data"]
            kept = {} if data.get("snapshot") else self.state
            self.state = {
                key: value for key, value in kept.items() if key not in data["removed"]
            } | data["set"]
        return self.state


def test_state_is_whole_wherever_it_was_interrupted() -> None:
    step, more = 0, True
    while more:
        log = Values("t", max_keys=4)
        log.change({"a": b"1", "b": b"2", "gone": b"3"}, expires=5.0)
        for number in range(4):  # as many removals as are remembered
            log.change({f"k{number}": b"4"})
            log.change({}, [f"k{number}"])
        reader, late = Reader(log), Reader(log)
        reader.read()
        late.read()

        def act(log: Values = log) -> None:
            log.change({"a": b"2", "k3": b"5", "b": b"2"}, ["gone"], expires=7.0)
            log.change({}, log.due(6.0))
            log.change({}, log.due(7.0))

        more = interrupted(act, step)
        step += 1
        found = dict(log.items(0.0))
        assert found.get("a", b"1") in (b"1", b"2")
        assert reader.read() == {key: json.loads(value) for key, value in log.items(0.0)}
        log.change({}, log.due(7.0))
        assert not [key for key in log._items if key in ("a", "b", "gone")]
        assert log.next_due() is None
        log.change({"z": b"6"}, expires=9.0)
        assert log.due(9.0)[-1] == "z"
        now = {key: json.loads(value) for key, value in log.items(0.0)}
        assert reader.read() == late.read() == Reader(log).read() == now
        assert log.size == sum(len(f'"{key}":') + len(v) for key, v in log.items(0.0))
        assert log._gone_size == sum(map(len, log._gone))
        assert [*log._gone.values()] == sorted(log._gone.values())
    assert step > 100


def test_publications_go_on_wherever_one_was_interrupted(app: Daebus) -> None:
    alarms = app.websocket.topic("alarms", history=3, auto=True)
    boiler = app.websocket.state("boiler", auto=True)
    for number in range(3):
        alarms.publish(number)
    with app.test_client() as client:
        client.receive("state", timeout=5)
        step, more = 0, True
        while more:
            more = interrupted(lambda: alarms.publish("x"), step)
            more |= interrupted(lambda step=step: boiler.set("a", step), step)  # type: ignore[misc]
            step += 1
            alarms.publish("y")
            boiler["b"] = step
        last, offset, state = alarms.offset, 3, dict[str, int]()
        while offset < last or state != boiler.copy():
            message = client.receive(timeout=5)
            if message.get("topic") == "alarms" and message["type"] == "message":
                offset += 1
                assert message["offset"] == offset
            elif message["type"] == "state":
                state |= message["data"]["set"]
        assert step > 50
