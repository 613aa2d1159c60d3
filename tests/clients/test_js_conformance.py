"""The browser client, under node, and the table of what every client must do."""

from __future__ import annotations

import itertools
import json
import queue
import shutil
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import SCRIPTS, install, missing

table = pytest.importorskip("tests.clients.conformance")
scripted = pytest.importorskip("tests.clients.scripted")

pytestmark = pytest.mark.slow

Outcome = dict[str, Any]

PATIENCE = 10.0


class NodeDriver:
    """Drives a client in a process of node.

    Args:
        command: starts it.
    """

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._results: queue.Queue[dict[str, Any]] = queue.Queue()
        self._events: dict[str, queue.Queue[dict[str, Any]]] = defaultdict(queue.Queue)
        self._statuses: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._reader = threading.Thread(target=self._read, name="node-output")
        self._reader.start()

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            event = told.get("event")
            if event is None:
                self._results.put(told)
            elif event["kind"] == "status":
                with self._changed:
                    self._statuses.append({"code": None, **event})
                    self._changed.notify_all()
            else:
                self._events[event["kind"]].put(event)

    def _do(self, method: str, **options: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"method": method, **options}) + "\n")
        self._process.stdin.flush()
        told = self._results.get(timeout=PATIENCE)
        assert "failed" not in told, told["failed"]
        return told["result"]

    # --- the driver

    def connect(
        self,
        url: str,
        *,
        tokens: list[str] | None = None,
        timeout: float = 5.0,
        heartbeat: float = 25.0,
        heartbeat_timeout: float = 10.0,
        min_delay: float = 0.02,
        jitter: float | None = None,
        reset_after: float = 5.0,
    ) -> None:
        self._do(
            "connect",
            url=url,
            tokens=tokens,
            timeout=timeout,
            heartbeat=heartbeat,
            heartbeat_timeout=heartbeat_timeout,
            min_delay=min_delay,
            jitter=jitter,
            reset_after=reset_after,
        )

    def wait_status(self, *statuses: str, timeout: float = 5.0) -> dict[str, Any]:
        with self._changed:
            assert self._changed.wait_for(
                lambda: bool(self._statuses) and self._statuses[-1]["status"] in statuses, timeout
            ), self._statuses
            return self._statuses[-1]

    def statuses(self) -> list[str]:
        with self._changed:
            return [status["status"] for status in self._statuses]

    def request(
        self, message_type: str, data: Any = None, *, timeout: float = 5.0, repeat: bool = False
    ) -> int:
        number = next(self._numbers)
        self._do(
            "request", number=number, type=message_type, data=data, timeout=timeout, repeat=repeat
        )
        return number

    def cancel(self, request: int) -> None:
        self._do("cancel", number=request)

    def outcome(self, request: int, timeout: float = 8.0) -> Outcome:
        event = self._events[f"outcome {request}"].get(timeout=timeout)
        return dict(event["outcome"])

    def send(self, message_type: str, data: Any = None) -> bool:
        return bool(self._do("send", type=message_type, data=data))

    def on(self, message_type: str) -> None:
        self._do("on", type=message_type)

    def handle(self, message_type: str, answer: Any = None, *, error: str | None = None) -> None:
        self._do("handle", type=message_type, answer=answer, error=error)

    def topic(
        self, name: str, *, last: int | None = None, since: dict[str, Any] | None = None
    ) -> None:
        self._do("topic", name=name, last=last, since=since)

    def leave_topic(self, name: str) -> None:
        self._do("leave_topic", name=name)

    def position(self, name: str) -> dict[str, Any] | None:
        position: dict[str, Any] | None = self._do("position", name=name)
        return position

    def state(self, name: str) -> None:
        self._do("state", name=name)

    def values(self, name: str) -> dict[str, Any]:
        return dict(self._do("values", name=name))

    def next_event(self, kind: str, timeout: float = 5.0) -> dict[str, Any]:
        return self._events[kind].get(timeout=timeout)

    def tokens_asked(self) -> int:
        return int(self._do("tokens_asked"))

    def close(self) -> None:
        self._do("close")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``ws``."""
    return install(tmp_path_factory.mktemp("npm"))


@pytest.fixture(params=["ws", "of node"])
def driver(request: pytest.FixtureRequest) -> Iterator[Callable[[], NodeDriver]]:
    """Make drivers whose WebSocket is that of ``ws``, or node's own."""
    node = shutil.which("node") or missing("there is no node on this machine")
    script = str(SCRIPTS / "driver.mjs")
    if request.param == "ws":
        command = [node, script, str(request.getfixturevalue("packages"))]
    else:
        command = [node, "--experimental-websocket", "--no-warnings", script]
    made: list[NodeDriver] = []

    def make() -> NodeDriver:
        made.append(NodeDriver(command))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.mark.parametrize("scenario", table.SCENARIOS, ids=str)
def test_the_browser_client_conforms(
    scenario: Any, driver: Callable[[], NodeDriver], request: pytest.FixtureRequest
) -> None:
    if str(scenario) == "refusal_is_final-421" and "of node" in request.node.name:
        pytest.skip("node's own WebSocket repeats a handshake that is answered 421")
    with scripted.ScriptedServer() as server:
        client = driver()
        try:
            scenario(server, client)
        finally:
            client.end()
