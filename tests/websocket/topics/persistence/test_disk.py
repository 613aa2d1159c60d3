"""Disks that are full, read-only or not ours: real ones, small and in memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.child import Child
from tests.support.disks import fill, mount
from tests.support.keeping import Run, rows
from tests.support.waiting import eventually

MakeChild = Callable[..., Child]


BIG = b'"%s"' % (b"x" * 20_000)


def test_full_disk_stops_no_publisher_and_is_made_up_for(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "daebus")
    path = disk / "topics.db"
    run = Run(path).start()
    alarms = run.history(max_bytes=200_000)
    alarms.publish(b'"first"')
    assert eventually(lambda: rows(path) == [b'"first"'])
    ballast = fill(disk)
    for _ in range(20):
        alarms.publish(BIG)
    assert eventually(lambda: alarms.kept.error)
    assert "full" in (alarms.kept.error or "")
    for number in range(5000):
        alarms.publish(b"%d" % number)
    assert len(run.keeper._queue.records) == 0
    assert caplog.text.count("topics are not kept in") == 1
    ballast.unlink()
    assert eventually(lambda: alarms.kept.error is None)
    assert f"topics are kept in {path} again" in caplog.text
    assert eventually(lambda: rows(path) == alarms.texts())
    alarms.publish(b'"last"')
    run.stop()

    assert [found.name for found in disk.iterdir()] == ["topics.db"]
    run = Run(path)
    again = run.history(max_bytes=200_000)
    run.stop()
    assert (again.texts(), again.log.epoch) == (alarms.texts(), alarms.log.epoch)


def test_stop_on_a_full_disk_ends_and_says_what_is_missing(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = disk / "topics.db"
    run = Run(path, retry=60.0).start()
    alarms = run.history()
    alarms.publish(b'"first"')
    assert eventually(lambda: rows(path))
    ballast = fill(disk)
    for _ in range(20):
        alarms.publish(BIG)
    assert eventually(lambda: alarms.kept.error)
    run.stop()
    assert "lack what was published last" in caplog.text

    ballast.unlink()
    run = Run(path)
    again = run.history()
    run.stop()
    assert again.texts() == [b'"first"']
    assert again.log.epoch != alarms.log.epoch


def test_app_starts_on_a_full_disk(disk: Path) -> None:
    path = disk / "topics.db"
    run = Run(path).start()
    alarms = run.history()
    alarms.publish(b'"first"')
    run.stop()
    ballast = fill(disk)

    run = Run(path)
    again = run.history()
    assert again.texts() == [b'"first"']
    assert again.kept.error
    assert again.log.epoch != alarms.log.epoch  # nobody could note that it goes on
    run.start()
    again.publish(b'"second"')
    ballast.unlink()
    assert eventually(lambda: again.kept.error is None)
    run.stop()
    assert rows(path) == [b'"first"', b'"second"']


@pytest.mark.parametrize("exists", [True, False])
def test_app_starts_on_a_read_only_disk(disk: Path, exists: bool) -> None:
    path = disk / "topics.db"
    if exists:
        run = Run(path).start()
        run.history().publish(b'"first"')
        run.stop()
    assert mount("-o", "remount,ro", str(disk))

    run = Run(path)
    alarms = run.history()
    assert alarms.texts() == [b'"first"'] * exists
    assert "Read-only file system" in (alarms.kept.error or "")
    run.start()
    alarms.publish(b'"second"')
    assert mount("-o", "remount,rw", str(disk))
    assert eventually(lambda: alarms.kept.error is None)
    assert eventually(lambda: rows(path) == alarms.texts())
    epoch = alarms.log.epoch
    run.stop()
    run = Run(path)
    assert run.history().log.epoch == epoch
    run.stop()


def test_file_that_was_moved_away_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As somebody does who is told that it is damaged."""
    path = tmp_path / "topics.db"
    run = Run(path, sync=0.02).start()
    alarms = run.history()
    alarms.publish(b'"first"')
    assert eventually(lambda: rows(path))
    away = tmp_path / "away"
    away.mkdir()
    for found in tmp_path.glob("topics.db*"):
        found.rename(away / found.name)
    alarms.publish(b'"second"')
    assert eventually(lambda: path.exists() and rows(path) == alarms.texts())
    run.stop()
    assert "the file was moved or deleted" in caplog.text
    assert [found.name for found in tmp_path.iterdir() if found.is_file()] == ["topics.db"]
    assert rows(path) == [b'"first"', b'"second"']


CHILD = """
import os, resource, sys
from pathlib import Path
from tests.support.disks import fill, mount
from tests.support.keeping import Run, rows
from tests.support.waiting import eventually
path = Path({path!r})
"""


@pytest.mark.slow
def test_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path, child: MakeChild) -> None:
    process = child(
        """
        run = Run(path).start()
        alarms = run.history()
        alarms.publish(b"1")
        assert eventually(lambda: rows(path) == [b"1"])
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        for _ in range(20):
            alarms.publish(b'"%s"' % (b"x" * 20_000))
        assert eventually(lambda: alarms.kept.error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert eventually(lambda: alarms.kept.error is None)
        run.stop()
        assert rows(path) == alarms.texts()
        print("fine", flush=True)
        """,
        preamble=CHILD.format(path=str(tmp_path / "topics.db")),
    )
    assert process.line() == "fine", process.stderr()
    assert process.exit_code() == 0


@pytest.mark.slow
def test_folder_of_somebody_else_is_named(tmp_path: Path, child: MakeChild) -> None:
    if os.getuid() == 0:
        os.chmod(tmp_path, 0o755)
        for parent in tmp_path.parents:
            if parent.name.startswith(("pytest-", "popen-")):
                os.chmod(parent, 0o755)
    else:
        os.chmod(tmp_path, 0o555)
    code = """
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            Run(path)
        except Exception as exc:
            print(type(exc).__name__, exc, flush=True)
        """
    process = child(code, preamble=CHILD.format(path=str(tmp_path / "topics.db")))
    line = process.line()
    assert line.startswith("PersistError"), line
    assert "Permission denied; this user must be allowed to write it" in line
    (tmp_path / "ours.db").touch()
    (tmp_path / "ours.db").chmod(0o666)
    process = child(code, preamble=CHILD.format(path=str(tmp_path / "ours.db")))
    line = process.line()
    assert f"and to make files in {tmp_path}" in line, line
