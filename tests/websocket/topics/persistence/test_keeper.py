"""The file of kept topics: what is in it after a clean stop, and after every other end."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from daebus.errors import PersistError
from daebus.websocket.topics.history import Saved
from daebus.websocket.topics.persistence.database import APPLICATION_ID, SCHEMA
from tests.support.child import Child
from tests.support.keeping import Run, rows
from tests.support.waiting import eventually

MakeChild = Callable[..., Child]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "topics.db"


def files(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir())


# --- a clean stop ------------------------------------------------------------------------


def test_clean_stop_keeps_everything_and_leaves_one_file(path: Path) -> None:
    run = Run(path)
    alarms, boiler = run.history(), run.state()
    alarms.publish(b'"before the start"')
    run.start()
    for number in range(3):
        alarms.publish(b"%d" % number, "alarm")
    boiler.change({"celsius": b"21.4", "pump": b"true", "door": b'"\\ud800"'})
    boiler.change({"celsius": b"22.0", "\ud800": b"1"}, ["pump"])
    assert eventually(lambda: len(rows(path)) == 4)
    assert files(path) == ["topics.db", "topics.db-shm", "topics.db-wal"]
    run.stop()

    assert files(path) == ["topics.db"]
    assert path.stat().st_mode & 0o777 == 0o600
    again = Run(path)
    history, state = again.history(), again.state()
    assert (history.log.epoch, history.log.top) == (alarms.log.epoch, 4)
    assert history.log.dump() == alarms.log.dump()
    assert (state.log.epoch, state.log.top) == (boiler.log.epoch, boiler.log.top)
    assert state.values() == boiler.values()
    offsets = [entry.offset for entry in state.log.dump().entries]
    assert sorted(set(offsets)) == offsets  # though one step has changed several keys
    again.start()
    again.stop()
    assert files(path) == ["topics.db"]


def test_topic_that_is_not_declared_stays_as_it_was(path: Path) -> None:
    run = Run(path).start()
    run.history("one").publish(b"1")
    two = run.history("two")
    two.publish(b"2")
    run.stop()
    run = Run(path).start()
    run.history("one").publish(b"3")
    run.stop()

    run = Run(path)
    again = run.history("two")
    run.stop()
    assert (again.texts(), again.log.epoch) == ([b"2"], two.log.epoch)


def test_start_that_fails_elsewhere_changes_nothing(path: Path) -> None:
    run = Run(path).start()
    alarms = run.history()
    alarms.publish(b"1")
    run.stop()
    run = Run(path)
    run.history()
    run.stop()

    assert files(path) == ["topics.db"]
    run = Run(path)
    assert run.history().log.epoch == alarms.log.epoch
    run.stop()


def test_cleared_topic_is_empty_in_its_new_epoch(path: Path) -> None:
    run = Run(path).start()
    alarms = run.history()
    alarms.publish(b"1")
    assert eventually(lambda: rows(path) == [b"1"])
    alarms.clear()
    alarms.publish(b"2")
    run.stop()

    run = Run(path)
    history = run.history()
    run.stop()
    assert (history.texts(), history.log.epoch) == ([b"2"], alarms.log.epoch)


# --- bounds ------------------------------------------------------------------------------


def test_rows_go_as_the_log_lets_go_of_messages(path: Path) -> None:
    run = Run(path).start()
    alarms = run.history(count=10)
    for number in range(500):
        alarms.publish(b"%d" % number)
        if number % 100 == 0:
            assert eventually(lambda: alarms.texts()[-1] in rows(path))
            assert len(rows(path)) <= 10
    run.stop()

    assert rows(path) == alarms.texts() == [b"%d" % number for number in range(490, 500)]


def test_message_that_has_grown_too_old_meanwhile_does_not_come_back(path: Path) -> None:
    run = Run(path).start()
    alarms = run.history(max_age=100.0)
    alarms.publish(b"1")
    run.stop()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE messages SET time = time - 200")
    connection.commit()
    connection.close()

    run = Run(path)
    again = run.history(max_age=100.0)
    assert (again.texts(), again.log.top, again.log.epoch) == ([], 1, alarms.log.epoch)
    run.start().stop()
    assert rows(path) == []


def test_what_the_queue_has_no_room_for_comes_from_the_log(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(path)
    alarms = run.history()
    run.start()
    assert eventually(lambda: not alarms.kept.is_behind)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # the thread waits for its end
    for number in range(5000):
        alarms.publish(b"%d" % number)
    assert len(run.keeper._queue.records) <= 1000
    assert alarms.kept.is_behind
    other.execute("ROLLBACK")
    other.close()
    assert eventually(lambda: rows(path) == alarms.texts())
    alarms.publish(b'"and then"')
    run.stop()

    assert rows(path) == alarms.texts()
    assert "is published on faster than" in caplog.text
    run = Run(path)
    assert run.history().log.epoch == alarms.log.epoch
    run.stop()


@pytest.mark.parametrize("clears", [0, 1, 2])
def test_records_that_are_in_a_dump_too_are_written_once(path: Path, clears: int) -> None:
    """The dump is made while publications go on, and some of those are queued as well."""
    run = Run(path).start()
    alarms = run.history()
    assert eventually(lambda: not alarms.kept.is_behind)
    dumped = threading.Event()

    def dump() -> Saved:
        for number in range(5):
            alarms.publish(b"%d" % number)
        for _ in range(clears):
            alarms.clear()
            alarms.publish(b'"cleared"')
        saved = alarms.dump()
        alarms.publish(b'"after it"')
        dumped.set()
        return saved

    alarms.kept.source = SimpleNamespace(span=alarms.span, retired=False, dump=dump)
    alarms.kept.fall_behind()
    assert dumped.wait(5)
    run.stop()

    assert rows(path) == alarms.texts()
    assert rows(path, "SELECT epoch, top FROM topics") == [(alarms.log.epoch, alarms.log.top)]


# --- an end that is not clean ------------------------------------------------------------

PREAMBLE = """
import sys
from pathlib import Path
from tests.support.keeping import Run
run = Run(Path({path!r}))
alarms, boiler = run.history(), run.state()
run.start()
"""


def start(child: MakeChild, path: Path, code: str) -> Child:
    return child(code, preamble=PREAMBLE.format(path=str(path)))


@pytest.mark.slow
def test_killed_amid_publications_it_keeps_what_was_written_in_a_new_epoch(
    path: Path, child: MakeChild
) -> None:
    process = start(
        child,
        path,
        """
        alarms.publish(b"0")
        print(alarms.log.epoch, flush=True)
        for number in range(1, 10_000_000):
            alarms.publish(b"%d" % number)
            boiler.change({"number": b"%d" % number})
        """,
    )
    epoch = process.line()
    assert eventually(lambda: rows(path, "SELECT top FROM topics WHERE top > 5000"), 15)
    killed = time.time()
    process.process.kill()
    process.exit_code()

    run = Run(path)
    alarms, boiler = run.history(), run.state()
    assert alarms.loaded is not None
    assert alarms.loaded.saved.entries[-1].time > killed - 3.0  # it has little time to write
    assert not alarms.loaded.clean
    assert alarms.loaded.saved.epoch == epoch != alarms.log.epoch
    numbers = [int(text) for text in alarms.texts()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))  # no hole
    assert len(numbers) > 500
    assert alarms.log.top == numbers[-1] + 1
    assert int(boiler.values()["number"]) > 500
    run.start()
    alarms.publish(b'"next"')
    run.stop()
    assert files(path) == ["topics.db"]
    assert rows(path)[-1] == b'"next"'


@pytest.mark.slow
def test_killed_before_the_next_start_it_never_shows_an_old_epoch_as_whole(
    path: Path, child: MakeChild
) -> None:
    run = Run(path).start()
    alarms = run.history()
    alarms.publish(b"1")
    run.stop()
    process = start(child, path, "print('up', flush=True); sys.stdin.read()")
    process.line()
    process.process.kill()
    process.exit_code()

    run = Run(path)
    again = run.history()
    run.stop()
    assert again.texts() == [b"1"]
    assert again.log.epoch != alarms.log.epoch


# --- one owner ---------------------------------------------------------------------------


@pytest.mark.slow
def test_second_process_waits_and_then_names_the_owner(path: Path, child: MakeChild) -> None:
    process = start(child, path, "print('up', flush=True); sys.stdin.read(); run.stop()")
    process.line()
    with pytest.raises(PersistError, match=rf"is in use by process {process.process.pid}; end"):
        Run(path, timeout=0.2)

    got: list[Run] = []
    waiting = threading.Thread(target=lambda: got.append(Run(path, timeout=10)))
    waiting.start()
    assert process.process.stdin is not None
    process.process.stdin.close()
    waiting.join(15)
    got[0].stop()
    assert process.exit_code() == 0, process.stderr()


def test_second_app_of_this_process_is_told_so(path: Path) -> None:
    run = Run(path)
    with pytest.raises(PersistError, match="in use by another app of this process"):
        Run(path, timeout=0.1)
    run.stop()
    Run(path, timeout=0.1).stop()


def test_forked_child_keeps_nobody_waiting(path: Path) -> None:
    run = Run(path).start()
    run.history().publish(b"1")
    end, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(write)
            run.keeper.file.abandon()
            os.read(end, 1)
        finally:
            os._exit(0)
    os.close(end)
    run.stop()
    Run(path, timeout=0.5).stop()
    os.close(write)
    assert os.waitpid(pid, 0)[1] == 0


# --- files that cannot be used -------------------------------------------------------------


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (thing)")
    connection.commit()
    connection.close()


def later(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE topics (name)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()


def damaged(path: Path) -> None:
    run = Run(path).start()
    alarms = run.history()
    for _ in range(200):
        alarms.publish(b'"%s"' % (b"x" * 500))
    run.stop()
    data = bytearray(path.read_bytes())
    for start in range(8192, len(data), 4096):
        data[start : start + 200] = os.urandom(200)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (foreign, "database of another program; write persist= with another path"),
        (later, "by another version of daebus: its schema is 2, this one knows 1; update"),
        (damaged, "cannot be used: .*; move it away, or write persist= with another path"),
        (lambda path: path.write_bytes(b"dear diary" * 200), "cannot be used: .*; move it away"),
        (lambda path: path.mkdir(), "Is a directory; this user must be allowed"),
        (lambda path: os.mkfifo(path), "it is not a file|cannot be opened"),
    ],
)
def test_file_that_cannot_be_used_is_refused_and_left_as_it_is(
    path: Path, make: Callable[[Path], object], text: str
) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(PersistError, match=text):
        Run(path)

    assert files(path) == ["topics.db"]
    assert before == (path.read_bytes() if path.is_file() else b"")


def test_folder_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(PersistError, match=r"there is no folder .*nowhere; make it"):
        Run(path.parent / "nowhere" / "topics.db")


def test_topic_of_another_kind_is_not_replaced(path: Path) -> None:
    run = Run(path).start()
    run.history("boiler").publish(b"1")
    run.stop()
    run = Run(path)
    with pytest.raises(PersistError, match="holds a history topic 'boiler', and this one is a"):
        run.state("boiler")
    run.stop()
    assert rows(path) == [b"1"]


def test_empty_file_is_taken(path: Path) -> None:
    path.touch()
    run = Run(path).start()
    run.history().publish(b"1")
    run.stop()
    assert rows(path) == [b"1"]
