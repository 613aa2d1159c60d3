"""Who is told goodbye, and when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import cast

import pytest

from daebus.websocket.clients.farewells import Farewells
from daebus.websocket.clients.registry import Registry
from daebus.websocket.connection.link import Link
from tests.support.clock import ManualMinder
from tests.support.links import FakeTransport, make_link


class Crowd:
    """Clients of a registry, which leave it as they are told."""

    def __init__(self, minder: ManualMinder) -> None:
        self.minder = minder
        self.registry = Registry(1000)
        self.farewells = Farewells(self.registry, minder)
        self.sent: dict[str, FakeTransport] = {}

    def enter(self, name: str, *, busy: bool = False) -> Link:
        link = make_link(name, FakeTransport())
        self.sent[name] = cast(FakeTransport, link.writer.transport)
        assert link.writer.begin(b"101")
        link.reader.reading = not busy
        self.sent[name].sent.clear()
        link.writer.on_gone = partial(self._left, link)
        assert self.registry.reserve()
        self.registry.add(link)
        return link

    def _left(self, link: Link) -> None:
        self.registry.remove(link)

    def told(self) -> set[str]:
        return {name for name, transport in self.sent.items() if transport.sent}

    def data(self, name: str) -> dict[str, object]:
        sent = bytes(self.sent[name].sent)
        text, close = sent[2 : 2 + sent[1]], sent[2 + sent[1] :]
        assert close[0] == 0x88
        message = json.loads(text)
        assert message.pop("type") == "goodbye"
        return {"code": int.from_bytes(close[2:4], "big"), **message["data"]}


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    with ManualMinder() as minder:
        yield Crowd(minder)


def test_each_is_told_at_its_own_moment(crowd: Crowd) -> None:
    names = [f"client-{n:03}" for n in range(200)]
    for name in names:
        crowd.enter(name)
    crowd.farewells.begin(10.0, restart=True)
    order: list[set[str]] = []
    for _ in range(10):
        crowd.minder.advance(1.0)
        order.append(crowd.told() - set().union(*order))
    crowd.minder.advance(0.1)
    assert crowd.told() == set(names)
    assert crowd.farewells.over.is_set()
    assert all(10 <= len(some) <= 30 for some in order)  # an even pace
    assert sorted(order[0]) != names[: len(order[0])]  # in no order
    waits = [crowd.data(name)["retry_after"] for name in names]
    assert all(isinstance(wait, float) and 0.2 <= wait <= 2.0 for wait in waits)
    assert len(set(waits)) > 100
    assert {(crowd.data(n)["code"], crowd.data(n)["reason"]) for n in names} == {(1012, "restart")}


def test_one_client_alone_may_be_told_at_any_moment() -> None:
    moments: list[int] = []
    for _ in range(40):
        with ManualMinder() as minder:
            crowd = Crowd(minder)
            crowd.enter("ann")
            crowd.farewells.begin(4.0, restart=False)
            minder.advance()
            while not crowd.told():
                moments.append(int(minder.clock.now * 1000))
                minder.advance(0.5)
            assert crowd.data("ann")["code"] == 1001
            assert crowd.data("ann")["reason"] == "shutdown"
    assert 80 < len(moments) < 240  # of 40 times 8 halves of a second, about every second one


def test_one_at_work_is_told_behind_its_answer_or_at_the_end(crowd: Crowd) -> None:
    busy, stuck = crowd.enter("busy", busy=True), crowd.enter("stuck", busy=True)
    idle = crowd.enter("idle")
    crowd.farewells.begin(10.0, restart=False)
    crowd.minder.advance(9.8)
    assert not crowd.told() & {"busy", "stuck"}
    busy.reader.reading = True
    crowd.minder.advance(0.15)
    assert "stuck" not in crowd.told()
    crowd.minder.advance(0.1)
    assert crowd.told() == {"busy", "idle", "stuck"}
    assert not any(link.open for link in (busy, stuck, idle))


def test_a_second_farewell_can_only_hurry(crowd: Crowd) -> None:
    for n in range(50):
        crowd.enter(str(n))
    crowd.farewells.begin(2.0, restart=False)
    crowd.farewells.begin(100.0, restart=True)
    crowd.minder.advance(2.1)
    assert len(crowd.told()) == 50
    for n in range(50, 60):
        crowd.farewells.came(crowd.enter(str(n)))
    assert len(crowd.told()) == 60  # who comes late is told at once


def test_no_clients_are_no_time(crowd: Crowd) -> None:
    crowd.farewells.begin(1000.0, restart=False)
    crowd.minder.advance()
    assert crowd.farewells.over.is_set()


def test_who_does_not_read_is_told_behind_what_waits(crowd: Crowd) -> None:
    full = crowd.enter("full")
    transport = crowd.sent["full"]
    transport.room = 0
    full.writer.offer(b"\x81\x02hi")
    crowd.enter("other")
    crowd.farewells.end()
    assert crowd.told() == {"other"}
    transport.room = None
    full.ready(2)
    assert bytes(transport.sent).startswith(b"\x81\x02hi\x81")
    assert b'"goodbye"' in transport.sent
    assert bytes(transport.sent[-4:]) == b"\x88\x02\x03\xe9"
