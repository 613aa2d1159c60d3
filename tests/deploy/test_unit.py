"""The units in ``deploy/``: systemd takes them, they are tight, and the program does its part."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.manager import Manager
from tests.support.meter import DEPLOY, environment, program

pytestmark = pytest.mark.slow


def settings(name: str) -> list[tuple[str, str]]:
    """Return the lines ``name=value`` of a unit."""
    lines = (DEPLOY / name).read_text().splitlines()
    return [(key, value) for key, found, value in (x.partition("=") for x in lines) if found]


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    command = dict(settings("meter.service"))["ExecStart"]
    text = (DEPLOY / "meter.service").read_text()
    # It looks whether the program is there.
    (tmp_path / "meter.service").write_text(text.replace(command, sys.executable))
    (tmp_path / "meter.socket").write_text((DEPLOY / "meter.socket").read_text())
    units = ["./meter.service", "./meter.socket"]
    done = subprocess.run(
        [program("systemd-analyze"), "verify", *units],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_is_tight() -> None:
    done = subprocess.run(
        [program("systemd-analyze"), "security", "--offline=true", DEPLOY / "meter.service"],
        capture_output=True,
        text=True,
    )
    found = re.search(r"Overall exposure level for meter.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) < 3
    page = (DEPLOY.parent / "docs" / "deploy.rst").read_text()
    assert float(re.findall(r"rates it ([0-9.]+)", page)[0]) < 3


def test_the_program_does_what_the_unit_expects(tmp_path: Path) -> None:
    unit = settings("meter.service")
    added = dict(value.split("=", 1) for key, value in unit if key == "Environment")
    assert added.keys() <= set(re.findall("METER_[A-Z]+", (DEPLOY / "meter.py").read_text()))
    script = Path(shlex.split(dict(unit)["ExecStart"])[1]).name
    place = tmp_path / "meter.sock"
    with socket.socket(socket.AF_UNIX) as passed, Manager(str(tmp_path / "notify")) as manager:
        passed.bind(str(place))
        passed.listen()
        start = (
            f"import os, sys; os.dup2({passed.fileno()}, 3); "
            f"os.environ['LISTEN_PID'] = str(os.getpid()); "
            f"os.execv(sys.executable, [sys.executable, {str(DEPLOY / script)!r}])"
        )
        told = environment(
            NOTIFY_SOCKET=manager.name, WATCHDOG_USEC="400000", LISTEN_FDS="1", **added
        )
        with subprocess.Popen(
            [sys.executable, "-c", start], env=told, pass_fds=[passed.fileno()]
        ) as process:
            try:
                assert manager.next()["READY"] == "1"
                assert manager.next() == {"WATCHDOG": "1"}
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(5)
                    client.connect(str(place))
                    client.sendall(
                        b"GET / HTTP/1.1\r\nHost: meter.example.com\r\nConnection: close\r\n"
                        b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\r\n"
                    )
                    answer = b""
                    while data := client.recv(65536):
                        answer += data
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert b'"192.0.2.1"' in answer
                assert b'"https://meter.example.com/"' in answer
                process.send_signal(signal.SIGTERM)
                while "STOPPING" not in manager.next():
                    pass
                limit = int(dict(unit)["TimeoutStopSec"])
                assert process.wait(limit) == 0
            finally:
                process.kill()
