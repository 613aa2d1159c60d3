"""The program in ``deploy/``, run as it is, and what the other files there are tried with."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import daebus

__all__ = ["DEPLOY", "NAME", "environment", "free_port", "meter", "program"]

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

NAME = "meter.example.com"  # in all of the files


def program(name: str) -> str:
    """Return the path of a program; the test is skipped where there is none."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        if os.environ.get("DAEBUS_REQUIRE_BROWSER"):
            pytest.fail(f"there is no {name} on this machine")
        pytest.skip(f"there is no {name} on this machine")
    return path


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that imports daebus as this one does."""
    source = str(Path(daebus.__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": paths, **more}


@contextmanager
def meter(**settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program; it must end well when it is told to."""
    command = [sys.executable, "-W", "error", str(DEPLOY / "meter.py")]
    with subprocess.Popen(command, env=environment(**settings)) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
