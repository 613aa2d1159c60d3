"""Clients that are slow in every way there is, and a normal one beside them."""

from __future__ import annotations

import contextlib
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixture_types import MakeApp, OpenRaw


@contextlib.contextmanager
def crowd(port: int, *numbers: int) -> Iterator[subprocess.Popen[str]]:
    """Have a crowd around; see ``crowd.py``."""
    process = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).parents[2] / "support" / "crowd.py"),
            str(port),
            *map(str, numbers),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
        output, _ = process.communicate(timeout=20)
        assert int(output) == sum(numbers), "some of the crowd were sent away"
    finally:
        process.kill()
        process.communicate()


def test_nobody_slow_holds_a_worker(make_app: MakeApp, raw: OpenRaw) -> None:
    app = make_app(http={"workers": 2})
    app.route("/hello")(lambda req: {"hello": "world"})
    app.route("/big")(lambda req: bytes(8 << 20))
    app.route("/post", methods=["POST"])(lambda req: {"size": len(req.get_data())})
    app.start()
    bodies = [raw(app) for _ in range(10)]
    for client in bodies[:5]:
        client.send(
            "POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n" + "a" * 100_000
        )
    for client in bodies[5:]:
        client.send("POST /post HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na")
    readers = [raw(app) for _ in range(10)]
    for client in readers:
        client.ask("/big")
        assert client.head().status == 200
    with crowd(app.http.port, 30, 30, 30):
        client = raw(app)
        for _ in range(50):
            assert client.get("/hello").json == {"hello": "world"}
        with app.test_client() as websocket:
            websocket.send_raw("{}")
            assert websocket.receive()["type"] == "error"
    workers = [t.name for t in threading.enumerate() if t.name.startswith("daebus-http")]
    assert len(workers) <= 2
    for client in bodies[:5]:
        client.send("a")
        assert client.answer().json == {"size": 100_001}
    for client in bodies[5:]:
        client.send("a\r\n0\r\n\r\n")
        assert client.answer().json == {"size": 2}
    for client in readers:
        assert client.exactly(8 << 20) == bytes(8 << 20)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_2500_slow_clients_cost_the_others_little(make_app: MakeApp, raw: OpenRaw) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4000:
        pytest.skip("this process may not open the 4,000 descriptors that the test needs")
    if soft < 4000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4000, hard))
    app = make_app(http={"workers": 8, "head_timeout": 60, "idle_timeout": 60})
    app.route("/hello")(lambda req: {"hello": "world"})
    app.socket("ping")(lambda req: "pong")
    app.start()
    client = raw(app)

    def rate() -> float:
        """Requests a second of one client, and messages a second of another."""
        began = time.monotonic()
        for _ in range(1000):
            client.get("/hello")
        return 1000 / (time.monotonic() - began)

    def latency(websocket: Any) -> float:
        took = []
        for _ in range(500):
            began = time.monotonic()
            websocket.request("ping")
            took.append(time.monotonic() - began)
        return statistics.median(took)

    def measure(websocket: Any) -> tuple[float, float]:
        """Return the medians of some rounds, in which the two take turns."""
        rounds = [(rate(), latency(websocket)) for _ in range(3)]
        return statistics.median(r for r, _ in rounds), statistics.median(t for _, t in rounds)

    # What else the machine does weighs more than a crowd may: each measure beside a crowd
    # stands between two without, and one median of three comparisons has to hold.
    results = []
    with app.test_client() as websocket:
        before = measure(websocket)
        for _ in range(3):
            rates, latencies = [], []
            for _ in range(3):
                with crowd(app.http.port, 1000, 1000, 500):
                    beside = measure(websocket)
                after = measure(websocket)
                rates.append(2 * beside[0] / (before[0] + after[0]))
                latencies.append(2 * beside[1] / (before[1] + after[1]))
                before = after
            results.append((statistics.median(rates), statistics.median(latencies)))
            if results[-1][0] > 0.8 and results[-1][1] < 1.2:
                return
    pytest.fail(f"rate and latency beside the crowd, relative to none: {results}")
