"""The receiving half of a connection, over a transport that gives what a test put in."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from daebus.server.sockets.transport import Transport
from daebus.websocket.connection.limits import Limits
from daebus.websocket.connection.reader import MAX_READ_AHEAD, MAX_WAITING, Reader, Watch
from daebus.websocket.connection.states import CLOSED, CLOSING, LOST, Cause
from daebus.websocket.connection.writer import Writer
from daebus.websocket.protocol import codec
from daebus.websocket.protocol.codec import PONG, close_frame
from daebus.websocket.protocol.codec import frame as server_frame
from tests.support.links import FakeTransport, FakeWatch, make_codec, make_writer
from tests.support.peer import CLOSE, PING, TEXT, frame


class Both:
    """A reader, its writer, its transport and its watch."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.transport = FakeTransport()
        limits = limits or Limits()
        self.writer: Writer = make_writer(self.transport, limits)
        self.watch = FakeWatch()
        self.reader = Reader(self.writer, make_codec(limits), cast(Watch, self.watch))
        self.reader.reading = False

    def read_ahead(self, data: bytes) -> None:
        """Read on the owner's behalf, as the minder does."""
        self.transport.incoming.append(data)
        with self.writer.lock:
            self.reader.read_for_owner_locked()

    def wants_more(self) -> bool:
        with self.writer.lock:
            return self.reader.wants_more_locked()


def text(number: int) -> bytes:
    return frame(TEXT, str(number))


def test_messages_come_in_order_and_the_end_after_them() -> None:
    both = Both()
    both.transport.incoming += [text(1) + text(2), text(3) + frame(CLOSE, b"\x03\xe8")]
    assert list(both.reader.messages()) == ["1", "2", "3"]
    assert both.reader.messages_in == 3
    assert both.writer.cause == Cause("client", 1000, "")
    assert both.transport.sent == close_frame(1000)


def test_the_writer_knows_whether_more_answers_follow() -> None:
    both = Both()
    both.transport.incoming.append(text(1) + text(2))
    messages = both.reader.messages()
    next(messages)
    assert both.writer.more
    next(messages)
    assert not both.writer.more


def test_what_is_left_after_our_close_is_not_handled() -> None:
    both = Both()
    both.transport.incoming.append(text(1) + text(2))
    messages = both.reader.messages()
    assert next(messages) == "1"
    both.writer.shut(4000, "enough", "server")
    assert list(messages) == []


@pytest.mark.parametrize("end", ["closed", "reset"])
def test_the_end_of_the_stream_is_a_loss(end: str) -> None:
    both = Both()
    if end == "closed":
        both.transport.incoming.append(b"")
    else:
        both.transport.broken = ConnectionResetError()
    assert list(both.reader.messages()) == []
    assert (both.writer.state, both.writer.cause) == (CLOSED, LOST)


def test_a_broken_rule_ends_it() -> None:
    both = Both()
    both.transport.incoming.append(b"\xff\xff garbage")
    assert list(both.reader.messages()) == []
    assert both.writer.cause is not None
    assert both.writer.cause.why == "protocol"
    assert both.writer.state == CLOSING


def test_pings_are_answered_while_nobody_waits_for_messages() -> None:
    both = Both()
    both.transport.incoming += [frame(PING, b"there?"), text(1)]
    assert next(both.reader.messages()) == "1"
    assert both.transport.sent == server_frame(PONG, b"there?")


def test_pongs_are_passed_on() -> None:
    both = Both()
    pongs: list[bytes] = []
    both.reader.controls.on_pong = pongs.append
    both.transport.incoming += [frame(PONG, b"1"), text(1)]
    next(both.reader.messages())
    assert pongs == [b"1"]


def test_receiving_with_a_deadline_loses_no_message_that_has_begun() -> None:
    both = Both()
    whole = text(1)
    both.transport.incoming.append(whole[:3])
    with pytest.raises(TimeoutError):
        both.reader.receive(0.0)
    both.transport.incoming.append(whole[3:])
    assert both.reader.receive(0.0) == "1"


def test_receiving_ends_with_none() -> None:
    both = Both()
    both.transport.incoming.append(frame(CLOSE, b"\x03\xe8"))
    assert both.reader.receive(None) is None


def test_a_dozing_watch_is_roused_once_the_owner_is_busy() -> None:
    both = Both()
    both.watch.dozing = True
    both.transport.incoming.append(text(1))
    next(both.reader.messages())
    assert both.watch.roused == 1
    assert both.reader.busy


# --- the minder reads for a busy owner ----------------------------------------------


def test_nobody_reads_until_it_is_lent() -> None:
    both = Both()
    assert not both.wants_more()
    both.read_ahead(text(1))
    assert not both.reader.inbox


def test_lending_asks_the_minder_to_look() -> None:
    both = Both()
    looks: list[int] = []
    both.writer.outlet.attend = lambda: looks.append(1)
    both.reader.lend(both.reader.turn)
    assert looks == [1]
    assert both.wants_more()
    both.read_ahead(text(1) + frame(PING, b"2"))
    assert list(both.reader.inbox) == ["1"]
    assert both.transport.sent == server_frame(PONG, b"2")


def test_lending_while_the_owner_takes_a_message_out(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Both()
    both.transport.incoming.append(text(1) + text(2) + text(3))
    messages = both.reader.messages()
    next(messages)

    def weigh(message: str | bytes) -> int:
        if len(both.reader.inbox) == 2:
            next(messages)
        return len(message)

    monkeypatch.setattr(codec, "weigh", weigh)
    both.reader.lend(both.reader.turn)
    assert both.reader.ahead == 1
    assert both.reader.lent


def test_a_late_look_lends_nothing() -> None:
    """The owner has come back and begun another turn since the watch looked."""
    both = Both()
    both.reader.lend(both.reader.turn - 1)
    assert not both.wants_more()


def test_the_owner_takes_it_back() -> None:
    both = Both()
    both.reader.lend(both.reader.turn)
    both.read_ahead(text(1))
    assert next(both.reader.messages()) == "1"
    both.transport.incoming.append(text(2))
    assert next(both.reader.messages()) == "2"
    assert not both.reader.lent


def test_reading_ahead_is_bounded_in_messages() -> None:
    both = Both()
    both.reader.lend(both.reader.turn)
    for number in range(MAX_READ_AHEAD):
        assert both.wants_more()
        both.read_ahead(text(number))
    assert not both.wants_more()


def test_reading_ahead_is_bounded_in_bytes() -> None:
    both = Both(Limits(max_message_size=100))
    both.reader.lend(both.reader.turn)
    both.read_ahead(frame(TEXT, "x" * 60))
    assert both.wants_more()
    both.read_ahead(frame(TEXT, "x" * 60))
    assert not both.wants_more()


class Calls:
    """An interceptor that waits for one answer, ``"answer"``."""

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock
        self.waiting = True
        self.taken: list[str] = []

    def takes_locked(self, text: str) -> bool:
        assert self.lock.locked()
        if text == "answer":
            self.taken.append(text)
        return text == "answer"


def test_an_answer_is_taken_out_of_turn() -> None:
    both = Both()
    calls = both.reader.interceptor = Calls(both.writer.lock)
    both.reader.lend(both.reader.turn)
    both.read_ahead(text(1) + frame(TEXT, "answer") + text(2))
    assert list(both.reader.inbox) == ["1", "2"]
    assert calls.taken == ["answer"]
    assert both.reader.messages_in == 1


def test_while_an_answer_is_awaited_more_is_read() -> None:
    both = Both()
    both.reader.interceptor = Calls(both.writer.lock)
    both.reader.lend(both.reader.turn)
    both.read_ahead(b"".join(map(text, range(MAX_READ_AHEAD))))
    assert both.wants_more()
    both.read_ahead(b"".join(map(text, range(MAX_WAITING))))
    assert not both.wants_more()


def test_a_cancel_that_was_read_with_its_request_is_found() -> None:
    both = Both()
    both.transport.incoming.append(text(1) + text(2) + frame(TEXT, "answer"))
    next(both.reader.messages())
    calls = both.reader.interceptor = Calls(both.writer.lock)
    both.reader.take_cancels()
    assert calls.taken == ["answer"]
    assert list(both.reader.inbox) == ["2"]


# --- the end ------------------------------------------------------------------------


def test_after_a_broken_rule_the_rest_is_drained_so_that_the_reason_arrives() -> None:
    both = Both()
    both.transport.incoming += [b"\xff\xff garbage", b"more", b"and more", b""]
    assert list(both.reader.messages()) == []
    both.reader.take_back()
    both.reader.drain(0.0)
    assert both.transport.calls == ["shutdown_write"] * 3
    assert not both.transport.incoming


def test_after_a_close_of_ours_the_answer_is_awaited() -> None:
    both = Both()
    both.writer.shut(1001, "", "shutdown")
    both.transport.incoming += [text(1), frame(CLOSE, b"\x03\xe9"), b"never read"]
    both.reader.take_back()
    both.reader.drain(0.0)
    assert list(both.transport.incoming) == [b"never read"]
    assert not both.reader.inbox
    assert both.transport.calls == []


def test_a_transport_is_what_the_fake_stands_for() -> None:
    """Every name that the halves use exists on the real one."""
    names = {name for name in vars(FakeTransport) if not name.startswith("_")}
    assert names <= set(dir(Transport)) | {"recv", "send"}
