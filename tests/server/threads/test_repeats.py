"""Logs cannot fill a disk: repeats are counted, and kinds are never mixed."""

from __future__ import annotations

import io
import itertools
import logging
import os
from collections.abc import Callable, Iterator

import pytest

from daebus import WebSocketRequest
from daebus.server.threads import safelog
from daebus.server.threads.repeats import FOLD_SECONDS, MAX_KINDS, Repeats
from daebus.server.threads.safelog import flush_repeats, get_logger
from tests.support.clock import ManualClock
from tests.support.fixture_types import Connect, MakeApp
from tests.support.peer import Peer, envelope
from tests.support.waiting import eventually

log = get_logger("daebus.server")


class Written(logging.StreamHandler[io.StringIO]):
    """What a file would hold."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))

    @property
    def text(self) -> str:
        return self.stream.getvalue()


@pytest.fixture
def written() -> Iterator[Written]:
    handler, logger = Written(), logging.getLogger("daebus")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    clock = ManualClock()
    monkeypatch.setattr(safelog, "_repeats", Repeats(clock))
    return clock


def fail(number: int) -> None:
    """Log an exception, raised in one of two places."""
    try:
        if number == 1:
            raise ValueError("one")
        if number == 2:
            raise KeyError("two")
        [][number]
    except Exception:
        log.exception("part %d failed", number)


def test_the_first_is_whole_and_the_others_are_a_count_a_minute(
    written: Written, clock: ManualClock
) -> None:
    for _ in range(180):
        fail(1)
        clock.now += 1
    fail(1)
    assert written.text.count("Traceback") == 1
    lines = [line for line in written.text.splitlines() if "more like this" in line]
    assert [line.partition("daebus.server ")[2] for line in lines] == [
        "59 more like this within 59 s: part 1 failed",
        "60 more like this within 59 s: part 1 failed",
        "60 more like this within 59 s: part 1 failed",
    ]


def test_what_was_silent_for_a_minute_is_whole_again(written: Written, clock: ManualClock) -> None:
    fail(1)
    fail(1)
    clock.now += FOLD_SECONDS
    fail(1)
    assert written.text.count("Traceback") == 2
    assert written.text.count("1 more like this within 1 s: part 1 failed") == 1


def test_a_count_leaves_with_the_next_record_of_another_kind(
    written: Written, clock: ManualClock
) -> None:
    fail(1)
    fail(1)
    clock.now += FOLD_SECONDS
    log.debug("nothing")
    assert "more like this" not in written.text
    log.info("a client came")
    assert "1 more like this" in written.text


def test_the_last_count_leaves_at_the_stop(written: Written, make_app: MakeApp) -> None:
    app = make_app()
    app.start()
    for _ in range(3):
        fail(1)
    app.stop()
    assert "2 more like this" in written.text
    fail(1)
    assert written.text.count("Traceback") == 2


@pytest.mark.parametrize(
    "other",
    [
        lambda: fail(2),
        lambda: fail(3),
        lambda: log.error("part %d failed", 1),
        lambda: log.error("another text"),
        lambda: log.error("part %d failed", 1, kind="another kind"),
        lambda: log.warning("part %d failed", 1),
        lambda: get_logger("daebus.websocket").error("part %d failed", 1),
    ],
)
def test_other_kinds_are_whole(
    written: Written, clock: ManualClock, other: Callable[[], None]
) -> None:
    fail(1)
    before = written.text
    other()
    assert len(written.text) > len(before)
    assert "more like this" not in written.text


def test_two_callers_of_one_helper_are_two_kinds(written: Written, clock: ManualClock) -> None:
    def helper() -> None:
        raise ValueError("deep")

    for _ in range(2):
        try:
            helper()
        except ValueError:
            log.exception("failed")
        try:
            helper()
        except ValueError:
            log.exception("failed")
    assert written.text.count("Traceback") == 2


def test_a_recursion_that_a_client_makes_deeper_is_one_kind(
    written: Written, clock: ManualClock
) -> None:
    def walk(depth: int) -> None:
        if not depth:
            raise ValueError("deep")
        walk(depth - 1)

    for depth in range(3, 50):
        try:
            walk(depth)
        except ValueError:
            log.exception("failed")
    assert written.text.count("Traceback") == 1


def test_what_is_below_a_warning_is_left_alone(written: Written, clock: ManualClock) -> None:
    for _ in range(5):
        log.info("a client came")
        log.debug("nobody waits")
    assert written.text.count("a client came") == written.text.count("nobody waits") == 5


def test_the_table_is_bounded(written: Written, clock: ManualClock) -> None:
    for number in itertools.chain(range(3 * MAX_KINDS), range(2)):
        log.error("failed", kind=number)
        log.error("failed", kind=number)
    assert len(safelog._repeats._counts) == MAX_KINDS
    flush_repeats()
    lines = written.text.splitlines()
    assert sum("1 more like this" in line for line in lines) == 3 * MAX_KINDS + 2
    assert len(lines) == 2 * (3 * MAX_KINDS + 2)


def test_what_cannot_be_formatted_harms_nobody(written: Written, clock: ManualClock) -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> object:
            raise RuntimeError(name)

    class Odd(Exception, metaclass=Meta):
        pass

    for _ in range(2):
        try:
            raise Odd
        except Odd:
            log.exception("failed")
    log.error("what comes next")
    assert "what comes next" in written.text


def test_a_child_begins_anew_whatever_the_parent_was_at(clock: ManualClock) -> None:
    repeats = safelog._repeats
    with repeats._lock:
        pid = os.fork()
        if not pid:
            os._exit(safelog._repeats is repeats)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_hundreds_of_failing_messages_write_little(
    written: Written, make_app: MakeApp, connect: Connect
) -> None:
    logging.getLogger("daebus").setLevel(logging.WARNING)
    app = make_app()

    @app.socket("bad")
    def bad(req: WebSocketRequest) -> None:
        raise ValueError(req.data)

    @app.socket("worse")
    def worse(req: WebSocketRequest) -> None:
        raise KeyError(req.data)

    @app.background("failing", 0.01)
    def failing() -> None:
        raise RuntimeError("again")

    app.start()
    peer = Peer.joined(connect(app.http.port))
    for number in range(200):
        peer.sock.sendall(envelope("bad", "x" * 50 + str(number)) + envelope("worse", number))
        assert {peer.message()["type"], peer.message()["type"]} == {"error"}
    assert eventually(lambda: "background 'failing' failed" in written.text)
    peer.sock.close()  # the stop would wait for its answer
    app.stop()
    assert written.text.count("Traceback") == 3
    assert "199 more like this" in written.text
    assert len(written.text) < 20_000
