"""The sending half of a connection, over a transport that takes what a test allows."""

from __future__ import annotations

import errno
import threading

import pytest

from daebus.websocket.connection.limits import Limits
from daebus.websocket.connection.outbox import DROPPED, GONE, QUEUED, SENT
from daebus.websocket.connection.states import CLOSED, CLOSING, LOST, OPEN, Cause
from daebus.websocket.connection.writer import MAX_HELD, Writer
from daebus.websocket.protocol.codec import PING, PONG, close_frame, frame
from tests.support.links import FakeMinder, FakeTransport, make_writer
from tests.support.waiting import eventually


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


def drain(writer: Writer) -> None:
    with writer.lock:
        writer.drain_outbox_locked()


def test_it_opens_once_the_handshake_is_out(transport: FakeTransport) -> None:
    writer = make_writer(transport)
    assert writer.open
    assert writer.is_owner()


@pytest.mark.parametrize("problem", ["full", "broken"])
def test_a_client_that_does_not_take_the_handshake_is_lost(problem: str) -> None:
    transport = FakeTransport()
    writer = make_writer(transport)
    again = FakeTransport()
    writer.transport = writer.outlet.transport = again  # type: ignore[assignment]  # the fake has what is used
    if problem == "full":
        again.room = 2
    else:
        again.broken = ConnectionResetError()
    assert not writer.begin(b"101")
    assert writer.state == CLOSED
    assert again.calls == ["abort"]


def test_a_frame_that_fits_leaves_at_once(transport: FakeTransport) -> None:
    writer = make_writer(transport)
    assert writer.offer(b"frame") == SENT
    assert transport.sent == b"frame"
    assert (writer.messages_out, writer.outlet.bytes_out, writer.outlet.queued()) == (1, 5, (0, 0))


def test_what_the_socket_leaves_is_queued_and_follows_in_order(transport: FakeTransport) -> None:
    writer = make_writer(transport)
    attended: list[str] = []
    writer.outlet.attend = lambda: attended.append("looked at")
    transport.room = 3
    assert writer.offer(b"first") == QUEUED
    assert writer.offer(b"second") == QUEUED
    assert attended == ["looked at"]  # once: the minder knows it from then on
    assert writer.outlet.queued() == (8, 2)
    transport.room = None
    drain(writer)
    assert transport.sent == b"firstsecond"
    assert writer.outlet.queued() == (0, 0)
    assert writer.offer(b"third") == SENT


def test_a_broken_socket_ends_it_and_tells_without_the_lock(transport: FakeTransport) -> None:
    writer = make_writer(transport)
    told: list[str] = []

    def ended() -> None:
        assert writer.lock.locked()
        told.append("end")

    def gone() -> None:
        assert not writer.lock.locked()
        told.append("gone")

    writer.on_end.append(ended)
    writer.on_gone = gone
    transport.broken = OSError(errno.EPIPE, "broken")
    assert writer.offer(b"frame") == GONE
    assert told == ["end", "gone"]
    assert (writer.state, writer.cause) == (CLOSED, LOST)
    assert writer.offer(b"frame") == GONE


def test_answers_to_one_read_leave_in_one_write(transport: FakeTransport) -> None:
    writer = make_writer(transport)
    writer.more = True
    writer.answer(b"one ")
    writer.answer(b"two ")
    assert not transport.sent
    writer.more = False
    writer.answer(b"three")
    assert transport.sent == b"one two three"
    assert writer.messages_out == 3


def test_held_answers_go_before_whatever_else_is_sent(transport: FakeTransport) -> None:
    writer = make_writer(transport)
    writer.more = True
    writer.answer(b"held ")
    assert writer.offer(b"broadcast") == SENT
    assert transport.sent == b"held broadcast"
    writer.answer(b" held")
    writer.control(PING, b"")
    assert transport.sent == b"held broadcast held" + frame(PING, b"")


def test_held_answers_are_bounded(transport: FakeTransport) -> None:
    writer = make_writer(transport)
    writer.more = True
    writer.answer(b"x" * MAX_HELD)
    assert not transport.sent
    writer.answer(b"y")
    assert transport.sent == b"x" * MAX_HELD + b"y"


def test_a_full_outbox_cuts_the_client_and_says_so_once(transport: FakeTransport) -> None:
    minder = FakeMinder()
    writer = make_writer(transport, Limits(max_outbox_messages=2), minder)
    overflows: list[tuple[int, int, bool]] = []
    writer.outlet.on_overflow = lambda size, count, cut: overflows.append((size, count, cut))
    transport.room = 1
    assert [writer.offer(b"frame") for _ in range(3)] == [QUEUED, QUEUED, GONE]
    assert overflows == [(9, 2, True)]
    assert (writer.state, writer.cause) == (CLOSING, Cause("slow_consumer", 1013, "too slow"))
    assert transport.calls == ["shutdown_read"]
    ((seconds, timer),) = minder.timers
    assert seconds == writer.limits.slow_close_timeout
    # The frame that was begun is finished, then the reason follows.
    transport.room = None
    drain(writer)
    assert transport.sent == b"frame" + close_frame(1013, "too slow")
    assert timer.callback is not None
    timer.callback()
    assert transport.calls == ["shutdown_read", "abort"]


def test_a_message_that_may_be_dropped_is(transport: FakeTransport) -> None:
    writer = make_writer(transport, Limits(max_outbox_messages=1))
    transport.room = 1
    assert writer.offer(b"frame") == QUEUED
    assert writer.offer(b"late", droppable=True) == DROPPED
    assert writer.outlet.dropped == 1
    assert writer.open


def test_only_the_owner_and_its_jobs_wait_for_room(transport: FakeTransport) -> None:
    writer = make_writer(transport, Limits(max_outbox_messages=1, send_timeout=60))
    transport.room = 1
    assert writer.offer(b"frame") == QUEUED
    results: list[int] = []
    # From another thread it does not wait, and the client is cut.
    other = threading.Thread(target=lambda: results.append(writer.reply(b"other")))
    other.start()
    other.join(5)
    assert results == [GONE]


def test_the_owner_goes_on_once_there_is_room(transport: FakeTransport) -> None:
    writer = make_writer(transport, Limits(max_outbox_messages=1, send_timeout=60))
    transport.room = 1
    assert writer.offer(b"frame") == QUEUED

    def make_room() -> None:
        assert eventually(lambda: writer.outlet._room is not None)  # it has begun to wait
        transport.room = None
        drain(writer)

    helper = threading.Thread(target=make_room)
    helper.start()
    assert writer.reply(b" more") == SENT
    helper.join(5)
    assert transport.sent == b"frame more"


def test_a_close_follows_what_was_sent_and_is_said_once(transport: FakeTransport) -> None:
    minder = FakeMinder()
    writer = make_writer(transport, minder=minder)
    gone: list[bool] = []
    writer.on_gone = lambda: gone.append(True)
    writer.offer(b"last words ")
    assert writer.shut(4000, "enough", "server")
    assert not writer.shut(4001, "again", "client")
    assert transport.sent == b"last words " + close_frame(4000, "enough")
    assert writer.cause == Cause("server", 4000, "enough")
    assert gone == [True]
    assert [seconds for seconds, _ in minder.timers] == [writer.limits.close_timeout]
    assert writer.offer(b"frame") == GONE


def test_a_pong_passes_a_full_outbox(transport: FakeTransport) -> None:
    writer = make_writer(transport, Limits(max_outbox_messages=1))
    transport.room = 1
    writer.offer(b"frame")
    assert writer.control(PONG, b"1")
    assert writer.control(PONG, b"2")
    transport.room = None
    drain(writer)
    assert transport.sent == b"frame" + frame(PONG, b"2")  # the newest alone


def test_the_end_drops_everything_that_refers_back(transport: FakeTransport) -> None:
    writer = make_writer(transport)
    writer.on_gone = writer.outlet.attend = lambda: pytest.fail("called after the end")
    writer.on_end.append(lambda: pytest.fail("called after the end"))
    assert not writer.finish()
    assert writer.offer(b"frame") == GONE
    writer.lose("ping_timeout", "silent")
    assert transport.calls == []  # the descriptor may be somebody else's by now


def test_the_minder_closes_what_it_has_watched(transport: FakeTransport) -> None:
    writer = make_writer(transport)
    transport.room = 0
    writer.offer(b"frame")
    assert writer.finish()
    assert writer.state != OPEN


# --- what interrupts a send -------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError("from a signal handler")])
def test_an_exception_amid_a_send_cuts_the_connection(
    transport: FakeTransport, error: BaseException | type[BaseException]
) -> None:
    writer = make_writer(transport)

    def interrupted(data: bytes | memoryview, flags: int) -> int:
        raise error

    writer.outlet.send = interrupted
    with pytest.raises((KeyboardInterrupt, TimeoutError)):
        writer.offer(b"frame")
    assert (writer.state, transport.calls) == (CLOSED, ["abort"])
    assert writer.offer(b"next") == GONE
    assert not writer.lock.locked()


def test_what_is_sent_within_a_send_leaves_right_behind_it(transport: FakeTransport) -> None:
    minder = FakeMinder()
    writer = make_writer(transport, minder=minder)
    done: list[int] = []
    send = writer.outlet.send

    def interrupted(data: bytes | memoryview, flags: int) -> int:
        writer.outlet.send = send
        done.append(writer.offer(b"inner "))
        done.append(writer.shut(1000, "", "server"))
        return send(data, flags)

    writer.outlet.send = interrupted
    assert writer.offer(b"outer ") == SENT
    assert done == [QUEUED, True]
    assert writer.offer(b"next ") == SENT
    assert transport.sent == b"outer inner next "
    for _, timer in list(minder.timers):
        assert timer.callback is not None
        timer.callback()
    assert transport.sent == b"outer inner next " + close_frame(1000)
    assert writer.messages_out == 3


def test_what_is_sent_within_a_send_is_bounded(transport: FakeTransport) -> None:
    writer = make_writer(transport, Limits(max_outbox_messages=2), FakeMinder())
    done: list[int] = []
    send = writer.outlet.send

    def interrupted(data: bytes | memoryview, flags: int) -> int:
        writer.outlet.send = send
        done.extend(writer.offer(b"inner") for _ in range(3))
        return send(data, flags)

    writer.outlet.send = interrupted
    writer.offer(b"outer")
    assert done == [QUEUED, QUEUED, DROPPED]
    assert writer.outlet.dropped == 1
