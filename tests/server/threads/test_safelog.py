"""A handler of the host that raises costs a line in the log, and no thread of ours."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daebus.server.threads.pool import WorkerPool
from daebus.server.threads.safelog import (
    MAX_CHAIN,
    MAX_LINE,
    WARNING_INTERVAL,
    LogThrottle,
    format_exception,
    get_logger,
)
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


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return what a file would hold."""

    def text() -> str:
        caplog.handler.setFormatter(logging.Formatter())
        return "".join(map(caplog.handler.format, caplog.records))

    return text


def test_a_line_is_bounded_in_what_it_takes_of_a_client(told: Callable[[], str]) -> None:
    sent = "<" + "x" * 1_000_000 + ">"
    get_logger(NAME).warning("a client sent %s", sent)
    try:
        raise ValueError(sent)
    except ValueError:
        get_logger(NAME).exception("the handler of %s failed", "a client")
    text = told()
    assert len(text) < 2 * MAX_LINE + 500
    assert text.startswith("a client sent <xxx")
    assert "characters are left out ...\n" in text
    assert "the handler of a client failed\nTraceback (most recent call last)" in text
    assert "raise ValueError(sent)" in text
    assert text.endswith("xxx>")
    assert len(format_exception(ValueError(sent))) < MAX_LINE + 100


def test_a_chain_of_exceptions_is_bounded(told: Callable[[], str]) -> None:
    last: Exception | None = None
    for number in range(20_000):
        exc = KeyError(number)
        exc.__cause__ = last
        last = exc
    began = time.monotonic()
    get_logger(NAME).error("it failed", exc_info=last)
    assert time.monotonic() - began < 5
    lines = told().splitlines()
    assert lines[:2] == ["it failed", "19980 exceptions that led to these are left out:"]
    assert [line for line in lines if line.startswith("KeyError")] == [
        f"KeyError: {number}" for number in range(20_000 - MAX_CHAIN, 20_000)
    ]
