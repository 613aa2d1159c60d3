"""``daebus.Client`` and the table of what every client must do."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daebus import (
    Client,
    ClientError,
    ClientState,
    ClientStatus,
    ClientTopic,
    Disconnected,
    Refused,
    RequestError,
)
from daebus.client import rules
from tests.clients.conformance import SCENARIOS, Driver, Outcome, Scenario
from tests.clients.scripted import ScriptedServer


class PythonDriver:
    """Drives a client of this process.

    Args:
        patch: for what is no argument of a client.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._client: Client | None = None
        self._later: list[Callable[[Client], None]] = []
        self._statuses: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._events: dict[str, queue.Queue[dict[str, Any]]] = {}
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count(1)
        self._outcomes: dict[int, queue.Queue[Outcome]] = {}
        self._cancels: dict[int, threading.Event] = {}
        self._topics: dict[str, ClientTopic] = {}
        self._states: dict[str, ClientState] = {}
        self._asked = 0

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
        self._patch.setattr(rules, "MIN_DELAY", min_delay)
        self._patch.setattr(rules, "RESET_AFTER", reset_after)
        if jitter is not None:
            self._patch.setattr(rules, "draw", lambda: jitter)

        def token() -> str:
            assert tokens is not None
            self._asked += 1
            return tokens[self._asked - 1]

        self._client = client = Client(
            url,
            token=None if tokens is None else token,
            timeout=timeout,
            heartbeat=heartbeat,
            heartbeat_timeout=heartbeat_timeout,
        )
        client.on_status(self._status)
        self._begin(lambda: self._connect(client))

    def _connect(self, client: Client) -> None:
        try:
            client.connect()
        except (Disconnected, Refused):
            pass

    def _status(self, status: ClientStatus) -> None:
        with self._changed:
            self._statuses.append({"status": status.status, "code": status.code})
            self._changed.notify_all()

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
        cancel = self._cancels[number] = threading.Event()
        outcomes = self._outcomes[number] = queue.Queue()

        def ask() -> None:
            client = self._open_client()
            try:
                answer = client.request(
                    message_type,
                    data,
                    timeout=timeout,
                    repeat=repeat,
                    on_progress=lambda value: self._note("progress", data=value),
                    cancel=cancel,
                )
                outcomes.put({"data": answer})
            except RequestError as exc:
                outcomes.put({"error": exc.code})
            except TimeoutError:
                outcomes.put({"error": "timeout"})
            except Disconnected as exc:
                outcomes.put({"error": "disconnected", "sent": exc.sent})

        self._begin(ask)
        return number

    def _open_client(self) -> Client:
        assert self._client is not None
        self.wait_status("connecting", "open", "waiting", "closed")
        return self._client

    def cancel(self, request: int) -> None:
        self._cancels[request].set()

    def outcome(self, request: int, timeout: float = 8.0) -> Outcome:
        return self._outcomes[request].get(timeout=timeout)

    def send(self, message_type: str, data: Any = None) -> bool:
        try:
            self._open_client().send(message_type, data)
        except Disconnected:
            return False
        return True

    def on(self, message_type: str) -> None:
        assert self._client is not None

        @self._client.on(message_type)
        def note(data: Any) -> None:
            self._note("message", type=message_type, data=data)

    def handle(self, message_type: str, answer: Any = None, *, error: str | None = None) -> None:
        assert self._client is not None

        @self._client.handle(message_type)
        def give(data: Any) -> Any:
            if error is not None:
                raise ClientError("not like this", error)
            return answer

    def topic(
        self, name: str, *, last: int | None = None, since: dict[str, Any] | None = None
    ) -> None:
        assert self._client is not None
        topic = self._client.topic(name, last=last, since=since)
        self._topics[name] = topic

        @topic.on_gap
        def gap(gap: Any) -> None:
            self._note("gap", topic=gap.topic, reason=gap.reason, missed=gap.missed)

        def read() -> None:
            for message in topic:
                self._note(
                    "publication",
                    topic=message.topic,
                    type=message.type,
                    data=message.data,
                    offset=message.offset,
                )

        self._begin(read)

    def leave_topic(self, name: str) -> None:
        self._topics[name].close()

    def position(self, name: str) -> dict[str, Any] | None:
        return self._topics[name].position

    def state(self, name: str) -> None:
        assert self._client is not None
        self._states[name] = self._client.state(name)

    def values(self, name: str) -> dict[str, Any]:
        return dict(self._states[name])

    def next_event(self, kind: str, timeout: float = 5.0) -> dict[str, Any]:
        return self._queue(kind).get(timeout=timeout)

    def tokens_asked(self) -> int:
        return self._asked

    def close(self) -> None:
        if self._client is not None:
            began = time.monotonic()
            self._client.close()
            assert time.monotonic() - began < 5.5

    def _begin(self, function: Callable[[], None]) -> None:
        thread = threading.Thread(target=function, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _queue(self, kind: str) -> queue.Queue[dict[str, Any]]:
        return self._events.setdefault(kind, queue.Queue())

    def _note(self, kind: str, **fields: Any) -> None:
        self._queue(kind).put({"kind": kind, **fields})

    def end(self) -> None:
        """Close the client, and wait for what was begun."""
        self.close()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as made:
        yield made


@pytest.fixture
def driver(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PythonDriver]:
    made = PythonDriver(monkeypatch)
    yield made
    made.end()


# What takes a second, since time is what it is about.
SLOW = {"retry_after_of_a_refusal_is_honoured", "any_message_is_a_sign_of_life"}


def rows() -> list[Any]:
    """Return the table; of scenarios with several values all but the first are slow."""
    seen, found = set(SLOW), []
    for row in SCENARIOS:
        marks = [pytest.mark.slow] if row.name in seen else []
        seen.add(row.name)
        found.append(pytest.param(row, marks=marks, id=str(row)))
    return found


@pytest.mark.parametrize("scenario", rows())
def test_the_python_client_conforms(
    scenario: Scenario, server: ScriptedServer, driver: PythonDriver
) -> None:
    client: Driver = driver
    scenario(server, client)
