"""A message that has begun has a deadline; whatever else the client sends."""

from __future__ import annotations

from typing import Any, cast

import pytest

from daebus.server.sockets.transport import Transport
from daebus.server.threads.fairpool import FairPool
from daebus.server.threads.loop import LoopThread
from daebus.server.threads.pump import Pump
from daebus.websocket.connection.limits import Limits
from daebus.websocket.connection.link import Link, Peer
from daebus.websocket.runtime import Runtime
from tests.support.clock import ManualMinder
from tests.support.fixture_types import Connect, MakeApp
from tests.support.links import FakeTransport, FakeWatch, make_codec
from tests.support.peer import BINARY, PING, PONG, TEXT, frame
from tests.support.peer import Peer as Client


class Case:
    """A connection on a clock that a test sets."""

    def __init__(self, minder: ManualMinder, **limits: Any) -> None:
        self.minder = minder
        self.transport = FakeTransport()
        given = Limits(ping_interval=None, **limits)
        runtime = Runtime(minder, LoopThread(), FairPool("daebus-job", 1, 1), Pump(1.0))
        self.link = Link(
            cast(Transport, self.transport),
            make_codec(given),
            given,
            runtime,
            Peer(),
            watch=FakeWatch(),
            on_gone=lambda link: None,
            on_overflow=lambda link, info: None,
        )
        assert self.link.begin(b"101", b"")

    def read(self, data: bytes) -> None:
        self.link.reader.take(data)
        self.link.reader.inbox.clear()

    def timers(self) -> int:
        return sum(
            entry[2].callback is not None for entry in self.minder._timers
        )  # unguarded: one thread

    def cut(self) -> bool:
        cause = self.link.writer.cause
        if cause is None:
            return False
        assert (cause.why, cause.code) == ("message_timeout", 1008)
        return True


@pytest.fixture
def minder() -> Any:
    with ManualMinder() as made:
        yield made


BEGINNINGS = {
    "a byte": frame(TEXT, "hello")[:1],
    "a frame": frame(TEXT, "hello")[:8],
    "a fragment": frame(TEXT, "hello", fin=False),
    "an empty fragment": frame(TEXT, "", fin=False),
    "a control frame": frame(PING, b"there?")[:4],
    "one after a whole one": frame(TEXT, "whole") + frame(TEXT, "hello")[:8],
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_a_message_that_does_not_end_is_cut(minder: ManualMinder, name: str) -> None:
    case = Case(minder)
    case.read(BEGINNINGS[name])
    minder.advance(29.9)
    assert not case.cut()
    minder.advance(0.2)
    assert case.cut()


def test_drips_pongs_and_empty_fragments_are_no_progress(minder: ManualMinder) -> None:
    case = Case(minder)
    case.read(frame(TEXT, "h", fin=False))
    for part in (
        frame(PONG),
        frame(PING, b"x"),
        frame(0, b"", fin=False),
        frame(0, b"e", fin=False),
    ):
        minder.advance(7)
        case.read(part)
        assert not case.cut()
    minder.advance(7)
    assert case.cut()


def test_a_long_one_may_take_its_time(minder: ManualMinder) -> None:
    case = Case(minder)
    case.read(frame(BINARY, bytes(200_000))[:10])
    for _ in range(9):
        case.read(bytes(16_000))
        minder.advance(15)
    assert not case.cut()
    minder.advance(46)  # it stands still
    assert case.cut()


def test_messages_that_end_are_not_cut(minder: ManualMinder) -> None:
    case = Case(minder)
    whole = frame(TEXT, "hello")
    for _ in range(20):
        case.read(whole[:5])
        minder.advance(9)
        case.read(whole[5:])
        assert case.timers() == 1
    minder.advance(31)
    assert not case.cut()
    assert case.timers() == 0


def test_the_next_one_has_all_of_its_time(minder: ManualMinder) -> None:
    case = Case(minder)
    whole = frame(TEXT, "hello")
    case.read(whole[:5])
    minder.advance(29)
    case.read(whole[5:] + whole[:5])
    minder.advance(29)
    assert not case.cut()
    minder.advance(2)
    assert case.cut()


def test_whole_messages_set_no_timer(minder: ManualMinder) -> None:
    case = Case(minder)
    case.read(frame(TEXT, "a"))
    case.read(frame(TEXT, "a") * 10 + frame(PING))
    assert case.timers() == 0


def test_none_is_never(minder: ManualMinder) -> None:
    case = Case(minder, message_timeout=None)
    case.read(frame(TEXT, "hello")[:3])
    assert case.timers() == 0


def test_while_we_do_not_read_the_time_does_not_count(minder: ManualMinder) -> None:
    case = Case(minder)
    case.read(frame(TEXT, "hello")[:3])
    case.transport.incoming.append(b"more")
    minder.advance(100)
    assert not case.cut()
    case.transport.incoming.clear()
    minder.advance(31)
    assert case.cut()


def test_the_end_of_the_connection_is_the_end_of_the_timer(minder: ManualMinder) -> None:
    case = Case(minder)
    case.read(frame(TEXT, "hello")[:3])
    case.link.end()
    cause = case.link.writer.cause
    minder.advance(100)
    assert case.link.writer.cause == cause


def test_over_a_socket(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(message_timeout=0.2)
    reasons: list[str] = []
    app.websocket.on_disconnect(lambda client, info: reasons.append(info.reason))
    with app:
        peer = Client.joined(connect(app.http.port))
        peer.send(TEXT, "hello", fin=False)
        code, reason = peer.close_frame()
        assert (code, reason) == (1008, "the message does not come to its end")
        peer.sock.close()
    assert reasons == ["message_timeout"]


def test_an_argument_that_makes_no_sense(make_app: MakeApp) -> None:
    with pytest.raises(ValueError, match="message_timeout must be greater than 0, not 0"):
        make_app(message_timeout=0)
