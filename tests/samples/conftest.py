"""Samples as a user runs them: a process of its own, found by the line it prints."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import simple_websocket

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0  # seconds until a test gives up on an event
FILES = ("KIOSK_FILE", "JOB_FILE", "METER_FILE", "LOG_FILE")  # what samples keep


class Sample:
    """One running sample; its output is read by a thread, so no pipe fills up."""

    def __init__(self, name: str, port: str = "0", **environment: str) -> None:
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "samples" / f"{name}.py")],
            env={
                **os.environ,
                **environment,
                "PORT": port,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.name = name
        self.output: list[str] = []
        self.port = 0
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name=f"read-{name}", daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_until_listening(self) -> None:
        """Take the port from the address that the sample prints."""
        deadline = time.monotonic() + PATIENCE
        while True:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line is not None, f"the sample ended: {''.join(self.output)}"
            self.output.append(line)
            if match := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(match[1])
                return

    def take(self) -> str:
        """Return what it has printed so far."""
        while not self._lines.empty():
            self.output.append(self._lines.get() or "")
        return "".join(self.output)

    def finish(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and everything printed."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        while (line := self._lines.get_nowait()) is not None:
            self.output.append(line)
        return code, "".join(self.output)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


class _Socket(simple_websocket.Client):
    def handshake(self) -> None:
        # It would not look at frames that came in one read with the 101, such as a welcome,
        # until more bytes arrive: read byte by byte, the handshake takes none of them.
        size, self.receive_bytes = self.receive_bytes, 1
        super().handshake()
        self.receive_bytes = size


class Client:
    """A WebSocket client that speaks the envelope over an independent stack."""

    def __init__(
        self, sample: Sample, *, cookie: str = "", subprotocols: list[str] | None = None
    ) -> None:
        self.states: dict[str, dict[str, Any]] = {}  # the values of each state that came
        self._socket = _Socket(
            f"ws://127.0.0.1:{sample.port}/",
            headers=[(b"Cookie", cookie.encode())] if cookie else None,
            subprotocols=subprotocols,
        )

    def send(self, message_type: str, data: object) -> None:
        self._socket.send(json.dumps({"type": message_type, "data": data}))

    def receive(self, message_type: str, wanted: Callable[[Any], bool] = lambda data: True) -> Any:
        """Return the data of the next message of that type that is wanted; skip the others."""
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self._next(deadline, message_type)
            if message["type"] == message_type and wanted(message["data"]):
                return message["data"]

    def receive_values(
        self, topic: str, wanted: Callable[[dict[str, Any]], bool] = lambda values: True
    ) -> dict[str, Any]:
        """Return the values of a state as soon as there are some that are wanted."""
        deadline = time.monotonic() + PATIENCE
        while topic not in self.states or not wanted(self.states[topic]):
            self._next(deadline, topic)
        return self.states[topic]

    def _next(self, deadline: float, wanted: str) -> Any:
        text = self._socket.receive(timeout=max(0.0, deadline - time.monotonic()))
        assert text is not None, f"no {wanted!r} message came within {PATIENCE} seconds"
        message = json.loads(text)
        data = message.get("data")
        if isinstance(data, dict) and "set" in data:
            before = {} if data.get("snapshot") else self.states.get(message["topic"], {})
            self.states[message["topic"]] = {**before, **data["set"]}
        return message

    def closing_code(self) -> int:
        """Read until the server closes; return its close code."""
        try:
            while self._socket.receive(timeout=PATIENCE) is not None:
                pass
        except simple_websocket.ConnectionClosed as closed:
            return int(closed.reason)
        raise AssertionError(f"the connection did not end within {PATIENCE} seconds")

    def close(self) -> None:
        if self._socket.connected:
            self._socket.close()
        thread: Any = self._socket.thread
        thread.join(PATIENCE)


@pytest.fixture
def run_sample(tmp_path: Path) -> Iterator[Callable[..., Sample]]:
    """Start samples and end them with the test: ``run_sample("chat", port="0")``."""
    started: list[Sample] = []
    files = {name: str(tmp_path / f"{name}.sqlite") for name in FILES}

    def run(name: str, port: str = "0", listening: bool = True, **environment: str) -> Sample:
        sample = Sample(name, port, **{**files, **environment})
        started.append(sample)
        if listening:
            sample.wait_until_listening()
        return sample

    yield run
    for sample in started:
        sample.close()


@pytest.fixture
def open_client() -> Iterator[Callable[..., Client]]:
    """Open WebSocket clients and close them with the test."""
    clients: list[Client] = []

    def connect(sample: Sample, **options: Any) -> Client:
        client = Client(sample, **options)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()
