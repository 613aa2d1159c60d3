"""What systemd passes to a service, and what a service tells it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daebus.server.sockets import systemd
from daebus.server.sockets.systemd import Notifier, passed_descriptors
from tests.support.manager import Manager


@pytest.mark.parametrize(
    ("count", "pid", "text"),
    [
        (None, None, "systemd has passed no socket"),
        (None, "own", "systemd has passed no socket"),
        ("1", None, "systemd has passed no socket"),
        ("0", "own", "systemd has passed no socket"),
        ("-1", "own", "systemd has passed no socket"),
        ("one", "own", "systemd has passed no socket"),
        ("9" * 5000, "own", "systemd has passed no socket"),
        ("1", "1", "start the program with exec in the script between"),
    ],
)
def test_no_sockets(
    monkeypatch: pytest.MonkeyPatch, count: str | None, pid: str | None, text: str
) -> None:
    for name, value in (("LISTEN_FDS", count), ("LISTEN_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    with pytest.raises(OSError, match=text):
        passed_descriptors()


# --- notices ------------------------------------------------------------------------


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(systemd, "monotonic", made.monotonic)
    return made


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    """Stand in for systemd, at a socket file and at an abstract name."""
    name = str(tmp_path / "notify")
    with Manager(name if request.param == "path" else f"@daebus{name}") as made:
        monkeypatch.setenv("NOTIFY_SOCKET", made.name)
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield made


def test_ready_and_stopping(manager: Manager) -> None:
    notifier = Notifier()
    notifier.ready("listens on 127.0.0.1:8080")
    notifier.stopping()
    assert manager.next() == {"READY": "1", "STATUS": "listens on 127.0.0.1:8080"}
    assert manager.next() == {"STOPPING": "1", "STATUS": "stopping"}


def test_a_line_break_is_no_further_field(manager: Manager) -> None:
    Notifier().ready("unix:/a\nMAINPID=1")
    assert manager.next() == {"READY": "1", "STATUS": "unix:/a MAINPID=1"}


def test_heartbeats_are_passed_on_a_quarter_apart(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    notifier = Notifier()
    for _ in range(3):
        notifier.heartbeat()
    assert manager.next() == {"WATCHDOG": "1"}
    clock.now += 0.49
    notifier.heartbeat()
    assert manager.empty()
    clock.now += 0.02
    notifier.heartbeat()
    assert manager.next() == {"WATCHDOG": "1"}
    assert manager.empty()


@pytest.mark.parametrize("interval", [None, "0", "", "soon", "-5", "9" * 5000])
def test_no_watchdog(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, interval: str | None
) -> None:
    if interval is not None:
        monkeypatch.setenv("WATCHDOG_USEC", interval)
    Notifier().heartbeat()
    assert manager.empty()


@pytest.mark.parametrize(("pid", "beats"), [("own", True), ("1", False)])
def test_the_watchdog_of_another_process_is_not_fed(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, pid: str, beats: bool
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    Notifier().heartbeat()
    assert manager.empty() != beats


def test_nobody_asks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    notifier = Notifier()
    notifier.ready("")
    notifier.heartbeat()
    notifier.stopping()
    assert not caplog.records


@pytest.mark.parametrize("name", ["/nowhere/notify", "vsock:2:1", "@"])
def test_a_manager_that_is_not_there_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    notifier = Notifier()
    notifier.ready("")
    notifier.stopping()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"cannot notify {name}: " in caplog.text


def fill(name: str) -> None:
    """Fill the manager's queue."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(name)
        while True:
            try:
                sock.send(b"X=1")
            except BlockingIOError:
                return


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A manager whose queue is full."""
    with Manager(str(tmp_path / "notify")) as made:
        monkeypatch.setenv("NOTIFY_SOCKET", made.name)
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        fill(made.name)
        yield made


def drain(manager: Manager) -> list[dict[str, str]]:
    found = []
    while not manager.empty():
        found.append(manager.next())
    return [fields for fields in found if fields != {"X": "1"}]


def test_a_full_queue_costs_no_heartbeat(full: Manager) -> None:
    notifier = Notifier()
    notifier.heartbeat()  # does not wait, and tries again at the next call
    assert drain(full) == []
    notifier.heartbeat()
    assert drain(full) == [{"WATCHDOG": "1"}]


def test_a_full_queue_ends_the_wait(full: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_PATIENCE", 0.02)
    Notifier().stopping()
    assert drain(full) == []
