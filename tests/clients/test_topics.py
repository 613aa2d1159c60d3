"""``daebus.Client`` and the topics of the real server: what one says the other understands."""

from __future__ import annotations

import threading
from typing import Any

from daebus import Client, Daebus
from tests.support.waiting import eventually


def test_topics_and_states_survive_cuts_and_a_restart(app: Daebus) -> None:
    websocket: Any = app.websocket
    alarms, boiler = websocket.topic("alarms"), websocket.state("boiler")
    app.socket("cut")(lambda req: req.websocket.abort())
    app.start()
    port = app.http.port
    with Client(f"http://127.0.0.1:{port}/") as client:
        topic, state = client.topic("alarms"), client.state("boiler")
        gaps: list[Any] = []
        topic.on_gap(gaps.append)
        boiler["celsius"] = 21.4
        assert state.wait("celsius") == 21.4
        assert eventually(lambda: topic.position)
        alarms.publish(1, "alarm")
        assert topic.receive().data == 1
        assert topic.position == {"epoch": alarms.epoch, "offset": alarms.offset}

        for number in range(300):  # more than one frame holds
            boiler[f"key {number}"] = "x" * 500
        cut = threading.Event()
        client.on_status(lambda status: cut.set())
        client.send("cut")
        assert cut.wait(5)
        for number in range(2, 6):
            alarms.publish(number, "alarm")
        del boiler["celsius"]
        assert [topic.receive().data for _ in range(4)] == [2, 3, 4, 5]
        assert eventually(lambda: state.synced and dict(state) == boiler.copy())
        assert gaps == []

        alarms.clear()
        alarms.publish("after", "alarm")
        assert topic.receive().data == "after"
        assert eventually(lambda: [gap.reason for gap in gaps] == ["epoch"])
        boiler.clear()
        assert eventually(lambda: not dict(state))

        app.stop()
        app.start(port=port)
        boiler["again"] = True
        assert state.wait("again") is True
        assert eventually(lambda: dict(state) == boiler.copy())
    app.stop()
