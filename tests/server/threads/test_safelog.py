"""A handler of the host that raises costs a line in the log, and no thread of ours."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daebus.server.threads.pool import WorkerPool
from daebus.server.threads.safelog import WARNING_INTERVAL, LogThrottle, get_logger
from tests.support.clock import ManualClock

NAME = "daebus.server"


class Failing(logging.Handler):
    """As some are: it lets its errors out."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        raise OSError("the disk is full")


@pytest.fixture
def failing() -> Iterator[Failing]:
    handler = Failing()
    logging.getLogger(NAME).addHandler(handler)
    yield handler
    logging.getLogger(NAME).removeHandler(handler)


def test_a_handler_that_raises_is_told_of(
    failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    get_logger(NAME).warning("number %d", 1)
    (record,) = failing.records
    assert record.getMessage() == "number 1"
    assert record.pathname == __file__
    assert "the disk is full" in capsys.readouterr().err


def test_logging_may_be_told_to_say_nothing(
    failing: Failing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    get_logger(NAME).warning("number %d", 1)
    assert capsys.readouterr().err == ""


def test_a_worker_goes_on(failing: Failing, capsys: pytest.CaptureFixture[str]) -> None:
    pool = WorkerPool("daebus-work", 1, 2)
    pool.submit(lambda: 1 / 0)
    pool.submit(lambda: None)
    (thread,) = pool.stop()
    thread.join(5)
    assert failing.records[0].getMessage() == "daebus-work-1 failed"
    assert not pool._jobs  # the second was done too
    assert capsys.readouterr().err


OUT_OF_DESCRIPTORS = """
import logging, os, resource, socket, sys
from daebus import Daebus, DaebusHttp

logging.getLogger().addHandler(logging.FileHandler(sys.argv[1], delay=True))
app = Daebus("test")
app.attach(DaebusHttp(port=0))
app.start()
clients = [socket.socket() for _ in range(2)]
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
answers = []
for client in clients:
    client.settimeout(5)
    client.connect(("127.0.0.1", app.http.port))
    client.sendall(b"GET /no HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    answers.append(client.recv(100)[:12].decode())
    while held:
        os.close(held.pop())
print(answers)
"""


def test_a_log_that_cannot_be_opened_does_not_end_the_server(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", OUT_OF_DESCRIPTORS, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert found.stdout == "['HTTP/1.1 503', 'HTTP/1.1 404']\n"
    # What the traceback says needs descriptors too: not every Python has one left for it.
    told = ("Too many open files", "--- Logging error ---")
    assert any(text in found.stderr for text in told)


def test_lasting_trouble_is_one_warning_an_interval() -> None:
    clock = ManualClock()
    throttle = LogThrottle(clock)
    assert throttle.is_due()
    assert not throttle.is_due()
    clock.now += WARNING_INTERVAL - 0.5
    assert not throttle.is_due()
    clock.now += 0.5
    assert throttle.is_due()
    assert not throttle.is_due()
