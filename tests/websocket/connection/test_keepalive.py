"""Peers that vanished are found, and idle ones that live are kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from daebus.websocket.connection.keepalive import Keepalive
from daebus.websocket.connection.limits import Limits
from daebus.websocket.connection.reader import MAX_READ_AHEAD
from tests.support.clock import ManualClock, ManualMinder
from tests.support.fixture_types import Connect, MakeApp
from tests.support.handlers import departures, waiting_handler
from tests.support.inside import connections
from tests.support.peer import PING, PONG, Peer
from tests.support.slow_clients import narrow, stuff
from tests.support.waiting import eventually


class Silent:
    """A peer that does nothing unless a test says so; it notes what it is told.

    Attributes:
        pings: moment of each ping, and its payload.
        lost: when it was given up.
        answers: it sends a pong at once.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.open = True
        self.answers = False
        self.waiting = False
        self.last_in = self.last_life = clock()
        self.pings: list[tuple[float, bytes]] = []
        self.lost: list[tuple[float, str]] = []
        self.keepalive: Keepalive | None = None

    def talk(self) -> None:
        self.last_in = self.last_life = self.clock()

    def ping(self, data: bytes) -> bool:
        self.pings.append((self.clock(), data))
        if self.answers:
            self.talk()
            self.pong(data)
        return True

    def pong(self, data: bytes) -> float | None:
        """Answer; return the round trip that is known by now."""
        assert self.keepalive is not None
        self.keepalive.answered(data)
        return self.keepalive.round_trip

    def unread(self) -> bool:
        return self.waiting

    def lose(self, why: str, text: str) -> None:
        assert why == "ping_timeout"
        assert text
        self.open = False
        self.lost.append((self.clock(), why))


@pytest.fixture
def minder() -> Iterator[ManualMinder]:
    with ManualMinder(ManualClock(0.0)) as made:
        yield made


def watched(minder: ManualMinder, interval: float, timeout: float | None) -> Silent:
    """Return a peer whose connection has just opened, at the moment 0."""
    peer = Silent(minder.clock)
    peer.keepalive = Keepalive(peer, minder, Limits(ping_interval=interval, ping_timeout=timeout))
    return peer


def when(moments: list[tuple[float, bytes]]) -> list[float]:
    return [moment for moment, _ in moments]


@pytest.mark.parametrize(
    ("interval", "timeout"), [(20, 20), (1, 100), (100, 1), (0.25, 0.375), (0.375, 0.25)]
)
def test_a_silent_peer_is_pinged_once_then_given_up(
    minder: ManualMinder, interval: float, timeout: float
) -> None:
    peer = watched(minder, interval, timeout)
    minder.advance(interval - 0.001)
    assert peer.pings == []
    minder.advance(timeout)
    assert when(peer.pings) == [interval]
    assert peer.lost == []
    minder.advance(1000)
    assert peer.lost == [(interval + timeout, "ping_timeout")]
    assert when(peer.pings) == [interval]


def test_an_idle_peer_that_answers_is_never_given_up(minder: ManualMinder) -> None:
    peer = watched(minder, 20, 10)
    peer.answers = True
    minder.advance(2000)
    assert when(peer.pings) == [20 * number for number in range(1, 101)]
    assert len({data for _, data in peer.pings}) == 100
    assert peer.lost == []


def test_a_peer_that_talks_is_not_pinged(minder: ManualMinder) -> None:
    peer = watched(minder, 20, 10)
    for _ in range(50):
        minder.advance(19)
        peer.talk()
    assert peer.pings == []


def test_any_byte_after_the_ping_will_do_for_an_answer(minder: ManualMinder) -> None:
    """Half a frame is a sign of life, and the silence is counted from there."""
    peer = watched(minder, 20, 10)
    minder.advance(29)
    peer.talk()
    minder.advance(29)
    assert when(peer.pings) == [20, 49]
    assert peer.lost == []
    minder.advance(1000)
    assert peer.lost == [(59, "ping_timeout")]


def test_a_peer_that_takes_bytes_lives(minder: ManualMinder) -> None:
    """It is slow: what it takes now lies before the ping."""
    peer = watched(minder, 20, 10)
    for _ in range(20):
        minder.advance(9)
        peer.last_life = minder.clock()
    assert peer.lost == []
    minder.advance(1000)
    assert peer.lost == [(20 * 9 + 30, "ping_timeout")]


def test_a_peer_that_waits_for_a_busy_handler_is_not_given_up(minder: ManualMinder) -> None:
    peer = watched(minder, 20, 10)
    peer.waiting = True
    minder.advance(200)
    assert peer.lost == []
    peer.waiting = False
    minder.advance(20)
    assert len(peer.lost) == 1


def test_without_a_timeout_pings_go_out_and_nobody_is_given_up(minder: ManualMinder) -> None:
    peer = watched(minder, 20, None)
    minder.advance(200)
    assert when(peer.pings) == [20 * number for number in range(1, 11)]
    assert len({data for _, data in peer.pings}) == 10
    assert peer.lost == []


def test_a_connection_that_closes_is_not_pinged(minder: ManualMinder) -> None:
    peer = watched(minder, 20, 10)
    minder.advance(19)
    peer.open = False
    minder.advance(1000)
    assert peer.pings == []
    assert peer.lost == []


@pytest.mark.parametrize("moment", [0, 25], ids=["before a ping", "after a ping"])
def test_nothing_happens_after_a_stop(minder: ManualMinder, moment: float) -> None:
    peer = watched(minder, 20, 10)
    minder.advance(moment)
    pings = list(peer.pings)
    assert peer.keepalive is not None
    peer.keepalive.stop()
    minder.advance(1000)
    assert peer.pings == pings
    assert peer.lost == []


def test_the_round_trip_is_that_of_the_last_ping_and_its_first_pong(minder: ManualMinder) -> None:
    peer = watched(minder, 20, 10)
    assert peer.pong(b"1") is None, "unasked: none was sent yet"
    minder.advance(20.5)
    peer.talk()
    assert peer.pong(b"another") is None
    ((_, first),) = peer.pings
    assert peer.pong(first) == 0.5
    minder.advance(5)
    assert peer.pong(first) == 0.5, "once more"
    minder.advance(16)
    (_, (_, second)) = peer.pings
    assert peer.pong(first) == 0.5, "late"
    assert peer.pong(second) == 1.0


# --- with sockets -------------------------------------------------------------------


def test_a_silent_client_is_gone(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(ping_interval=0.05, ping_timeout=0.05)
    left = departures(app)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    (client_id,) = eventually(app.websocket.get_clients)
    assert peer.frame()[0] == PING
    who, info = left.get(timeout=5)
    assert (who, info.reason, info.code) == (client_id, "ping_timeout", 1006)
    assert not app.websocket.is_client_connected(client_id)
    assert peer.ended()
    app.stop()
    assert left.empty()


def test_a_pong_is_a_sign_of_life_and_no_message(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(ping_interval=0.05, ping_timeout=60)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    (link,) = eventually(lambda: connections(app))
    before = link.last_life
    opcode, data = peer.frame()
    assert opcode == PING
    peer.send(PONG, data)
    assert eventually(lambda: link.last_life > before)
    assert peer.frame()[0] == PING, "silent again, it is pinged again"
    stats = app.websocket.stats()
    assert (stats["messages_in"], stats["messages_out"]) == (0, 0)


@pytest.mark.parametrize("on_full", ["drop_oldest", "drop_newest"])
def test_a_slow_reader_that_the_app_keeps_is_pinged_and_answers(
    make_app: MakeApp, on_full: str
) -> None:
    """Its outbox is full all the time, but it reads and answers what it is asked."""
    app = make_app(ping_interval=0.1, ping_timeout=5, on_full=on_full, max_outbox=30_000)
    left = departures(app)
    app.start()
    over = threading.Event()

    def flood() -> None:
        while not over.wait(0.0005):
            app.websocket.broadcast_to_all("x" * 4096)

    flooder = threading.Thread(target=flood)
    with narrow(app) as peer:
        stuff(app)
        flooder.start()
        try:
            for _ in range(3):
                opcode, payload = peer.frame()
                while opcode != PING:
                    opcode, payload = peer.frame()
                peer.send(PONG, payload)
            assert left.empty(), left.get()
        finally:
            over.set()
            flooder.join()


def test_a_handler_so_busy_that_nothing_is_read_does_not_cost_its_client(
    make_app: MakeApp, connect: Connect
) -> None:
    """The client talks on; nobody reads it, for the read-ahead is full."""
    app = make_app(ping_interval=None)
    begun, release = waiting_handler(app)
    app.socket("echo")(lambda req: req.data)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("wait")
    assert begun.wait(5)
    (link,) = connections(app)
    for number in range(MAX_READ_AHEAD):
        peer.say("echo", number)
    assert eventually(lambda: len(link.reader.inbox) == MAX_READ_AHEAD)
    peer.say("echo", "unread")
    assert eventually(link.unread)
    with ManualMinder(ManualClock(time.monotonic())) as minder:
        Keepalive(link, minder, Limits(ping_interval=20, ping_timeout=20))
        minder.advance(1000)
    assert link.open
    release.set()
    assert peer.frame()[0] == PING
    answers = [peer.message()["data"] for _ in range(MAX_READ_AHEAD + 2)]
    assert answers == ["waited", *range(MAX_READ_AHEAD), "unread"]
