"""A program that embeds daebus, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import IO

import daebus

__all__ = ["PATIENCE", "Child"]

PATIENCE = 20.0  # seconds until a test gives up on another process

# All are errors, but that of a fork beside threads: some programs are there to try that.
_WARNINGS = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]

PREAMBLE = """
import logging, os, signal, sys, threading
from daebus import Daebus, DaebusHttp, DaebusWebSocket

app = Daebus("child")
app.attach(DaebusHttp(port=0))
app.attach(DaebusWebSocket())
app.socket("echo")(lambda req: req.data)

def tell_port():
    pause = threading.Event()
    while not app.running:
        pause.wait(0.002)
    print("port", app.http.port, flush=True)

"""


class Child:
    """A Python process that prints lines; it is killed when the test ends."""

    def __init__(self, code: str, *, preamble: str = PREAMBLE) -> None:
        paths = [str(Path(daebus.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, *_WARNINGS, "-c", preamble + textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.told = 0  # the port, once it was asked for
        self.lines = self._follow(self.process.stdout)
        self.errors = self._follow(self.process.stderr)

    def _follow(self, stream: IO[str] | None) -> queue.Queue[str]:
        lines = queue.Queue[str]()

        def read() -> None:
            assert stream is not None
            for line in stream:
                lines.put(line.rstrip("\n"))

        thread = threading.Thread(target=read, name="child-output")
        thread.start()
        self._readers = [*getattr(self, "_readers", []), thread]
        return lines

    def line(self) -> str:
        """Return the next line it prints."""
        try:
            return self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no line came: {list(self.errors.queue)}") from None

    def port(self) -> int:
        """Return the port, once it runs."""
        word, port = self.line().split()
        assert word == "port"
        self.told = int(port)
        return self.told

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """Wait until it ends; its complaints show up in the failure."""
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    def stderr(self) -> list[str]:
        return list(self.errors.queue)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what it has forked holds its pipes
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
