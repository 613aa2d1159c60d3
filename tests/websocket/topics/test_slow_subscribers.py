"""Subscribers that do not read: they cost the one log, and delay nobody."""

from __future__ import annotations

import resource
from typing import Any

from tests.support.fixture_types import MakeApp
from tests.support.inside import connections
from tests.support.slow_clients import narrow


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_stalled_subscriber_is_told_of_a_gap_when_it_wakes(make_app: MakeApp) -> None:
    app = make_app(max_outbox=1000, max_outbox_messages=2)
    alarms = app.websocket.topic("alarms", history_bytes=1 << 18)
    app.start()
    with narrow(app) as stalled, app.test_client() as quick:
        stalled.say("subscribe", {"topic": "alarms"})
        assert stalled.message()["type"] == "response"
        quick.request("subscribe", {"topic": "alarms"})
        text, count = "x" * 8192, 2500  # 20 MB
        for n in range(count):
            alarms.publish(text)
            assert quick.receive(timeout=5)["offset"] == n + 1
            if n == 500:
                before = resident()
        assert resident() - before < 2 << 20
        assert app.websocket.stats()["slow_consumers"] == 0
        assert all(link.writer.open for link in connections(app))
        expected, gaps = 1, list[dict[str, Any]]()
        while expected <= count:
            message = stalled.message()
            if message["type"] == "gap":
                gaps.append(message["data"])
                assert message["data"]["missed"] == message["data"]["offset"] - expected + 1
                expected = message["data"]["offset"] + 1
            else:
                assert message["offset"] == expected
                expected += 1
        assert [gap["reason"] for gap in gaps] == ["slow"]
        alarms.publish("on time")
        assert stalled.message()["data"] == "on time"
        assert app.websocket.stats()["topics"]["alarms"]["gaps"] == 1
