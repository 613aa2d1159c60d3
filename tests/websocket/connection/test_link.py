"""One connection inside: what its parts do when it begins, ends and is over."""

from __future__ import annotations

import pytest

from daebus.websocket.connection.limits import Limits
from tests.support.links import FakeMinder, FakeTransport, make_link


def test_no_timer_is_set_for_what_nobody_wants() -> None:
    minder = FakeMinder()
    link = make_link("quiet", limits=Limits(ping_interval=None), minder=minder)
    assert link.begin(b"101", b"")
    assert minder.due() == []


def test_the_timers_end_with_the_connection() -> None:
    minder = FakeMinder()
    limits = Limits(ping_interval=17, idle_timeout=23)
    link = make_link("one", limits=limits, minder=minder)
    assert link.begin(b"101", b"")
    assert sorted(round(seconds) for seconds, _ in minder.due()) == [17, 23]
    link.end()
    assert minder.due() == []


def test_a_renewal_sets_the_first_timer_of_a_connection_that_had_none() -> None:
    minder = FakeMinder()
    link = make_link("one", limits=Limits(ping_interval=None), minder=minder)
    assert link.begin(b"101", b"")
    assert link.renew("ada", None)
    assert link.identity == "ada"
    assert len(minder.due()) == 1
    link.end()
    assert minder.due() == []


@pytest.mark.parametrize("how", ["closed", "lost", "ended"])
def test_a_connection_that_is_over_is_not_renewed(how: str) -> None:
    minder, transport = FakeMinder(), FakeTransport()
    link = make_link("one", transport, Limits(ping_interval=None), minder)
    link.identity = "before"
    assert link.begin(b"101", b"")
    if how == "closed":
        assert link.shut(1000, "", "server")
    elif how == "lost":
        transport.broken = ConnectionResetError()
        link.ping(b"1")
    else:
        link.end()
    assert not link.open
    before = len(minder.timers)
    assert link.renew("late", None) is False
    assert link.identity == "before"
    assert len(minder.timers) == before


def test_cancelled_is_set_when_it_ends_and_when_it_is_first_asked_for_after_the_end() -> None:
    early, late = make_link("early"), make_link("late")
    for link in (early, late):
        assert link.begin(b"101", b"")
    assert not early.cancelled.is_set()
    for link in (early, late):
        link.end()
        assert link.cancelled.is_set()
        assert link.cancelled is link.cancelled


def test_a_ping_into_a_broken_socket_loses_the_connection() -> None:
    transport = FakeTransport()
    link = make_link("one", transport)
    gone = []
    link.writer.on_gone = lambda: gone.append("gone")
    assert link.begin(b"101", b"")
    transport.broken = ConnectionResetError()
    assert link.ping(b"1") is False
    assert gone == ["gone"]
    assert not link.open
    assert link.account().reason == "lost"
    assert link.ping(b"2") is False
    link.end()
