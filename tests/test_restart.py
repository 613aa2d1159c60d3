"""A daemon that is restarted behind a socket of somebody else: nobody is refused."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daebus import Client, Gap
from tests.support.meter import environment
from tests.support.peer import CLOSE, Peer
from tests.support.waiting import eventually

RESTARTS = 3

PROGRAM = """
import sys
from daebus import Daebus, DaebusHttp, DaebusWebSocket

app = Daebus("service", version=sys.argv[2])
app.attach(DaebusHttp(fd=int(sys.argv[1])))
websocket = app.attach(DaebusWebSocket())
app.route("/")(lambda req: app.version)
app.socket("version")(lambda req: app.version)
readings = websocket.topic("readings", persist=sys.argv[3])
with app.serve():
    while True:
        websocket.broadcast_to_all("still here")
        readings.publish({"version": app.version})
        if app.wait(0.05):
            break
    app.stop(5, spread=0.3, restart=True)
"""


class Clients:
    """Clients that ask again and again; whatever does not succeed is noted."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.failed: list[str] = []
        self.versions: dict[str, set[str]] = {}
        self._over = threading.Event()
        loops = (self.ask_anew, self.ask_on, self.talk)
        self._threads = [
            threading.Thread(target=self._repeat, args=(loop,)) for loop in (*loops, *loops)
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(20)

    def have_met(self, version: str) -> bool:
        return len(self.versions) == 3 and all(version in met for met in self.versions.values())

    def _repeat(self, loop: Callable[[], None]) -> None:
        self.versions.setdefault(loop.__name__, set())
        while not self._over.is_set():
            try:
                loop()
            except Exception as exc:
                self.failed.append(f"{loop.__name__}: {exc!r}")
            self._over.wait(0.002)

    def ask_anew(self) -> None:
        """Ask once, on a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            self._ask(connection)
        finally:
            connection.close()

    def ask_on(self) -> None:
        """Ask on one connection until the server says that it is the last time."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            while self._ask(connection) and not self._over.wait(0.002):
                pass
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> bool:
        connection.request("GET", "/")
        with connection.getresponse() as answer:
            text = answer.read().decode()
            assert answer.status == 200, (answer.status, text)
            self.versions["ask_anew"].add(text)
            self.versions["ask_on"].add(text)
            return answer.getheader("Connection") != "close"

    def talk(self) -> None:
        """Stay connected until the server says goodbye."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            peer = Peer.joined(sock)
            while not self._over.is_set():
                peer.say("version")
                while (message := peer.message())["type"] == "still here":
                    pass
                if message["type"] == "goodbye":
                    assert message["data"]["reason"] == "restart"
                    opcode, payload = peer.frame()
                    assert (opcode, int.from_bytes(payload, "big")) == (CLOSE, 1012)
                    return
                self.versions["talk"].add(message["data"])


@pytest.fixture
def passed() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:
        yield sock


@pytest.mark.slow
def test_three_restarts_refuse_nobody_and_lose_nothing(
    passed: socket.socket, tmp_path: Path
) -> None:
    def start(version: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM]
            + [str(passed.fileno()), str(version), str(tmp_path / "topics.db")],
            env=environment(),
            pass_fds=[passed.fileno()],
            stderr=subprocess.DEVNULL,
        )

    process = start(0)
    port = passed.getsockname()[1]
    try:
        with Clients(port) as clients, Client(f"http://127.0.0.1:{port}/", timeout=20) as client:
            readings, gaps = client.topic("readings"), list[Gap]()
            readings.on_gap(gaps.append)
            first = readings.receive(20)
            for version in range(RESTARTS):
                assert eventually(lambda: clients.have_met(str(version)), 20), clients.failed  # noqa: B023  # used at once
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
                process = start(version + 1)
            assert eventually(lambda: clients.have_met(str(RESTARTS)), 20), clients.failed
            assert first.offset is not None
            offset, seen = first.offset, {first.data["version"]}
            while seen != {str(version) for version in range(RESTARTS + 1)}:
                message = readings.receive(20)
                offset += 1
                assert message.offset == offset
                seen.add(message.data["version"])
            assert gaps == []
        assert clients.failed == []
    finally:
        process.kill()
        process.wait()
