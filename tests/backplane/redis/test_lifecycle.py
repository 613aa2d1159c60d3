"""Starts and stops beside a server that is up, down, or takes connections and never answers."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daebus import Daebus, DaebusHttp, DaebusRedis, DaebusWebSocket
from daebus.errors import AttachError, BackplaneError
from daebus.server.threads.track import role_of
from daebus.websocket.cluster import node
from tests.support.child import Child
from tests.support.redisserver import VALKEY, RedisServer
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def valkey() -> Iterator[RedisServer]:
    with RedisServer(VALKEY) as server:
        yield server


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that takes connections, for the kernel, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        yield sock.getsockname()[1]


def make(url: str, **options: Any) -> Daebus:
    app = Daebus("test")
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    app.attach(DaebusRedis(url, **options))
    return app


def joined(app: Daebus) -> bool:
    return app.stats()["backplane"]["up"]


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if role_of(thread) == "backplane"]


def test_an_app_joins_and_leaves(valkey: RedisServer) -> None:
    app = make(valkey.url, node="one")
    app.start()
    try:
        assert joined(app)
        assert sorted(ours()) == ["daebus-redis-in", "daebus-redis-out"]
        assert valkey.command("EXISTS", "d:test:node:one") == 1
        with pytest.raises(AttachError):
            app.attach(DaebusRedis(valkey.url))
    finally:
        app.stop()
    assert ours() == []
    assert valkey.command("EXISTS", "d:test:node:one") == 0
    app.start()
    assert joined(app)
    app.stop()


def test_an_app_starts_without_server_and_joins_when_it_comes() -> None:
    with RedisServer(VALKEY) as server:
        server.kill()
        app = make(server.url)
        began = time.monotonic()
        app.start()
        try:
            assert time.monotonic() - began < 3.0
            assert not joined(app)
            server.start()
            assert eventually(lambda: joined(app))
        finally:
            app.stop()


@pytest.mark.parametrize(
    ("hole", "patience"),
    [(False, 0.3), (True, 0.3), pytest.param(True, 5.0, marks=pytest.mark.slow)],
)
def test_what_requires_a_server_does_not_start_without(
    black_hole: int, hole: bool, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "REQUIRED", patience)
    app = make(f"redis://:s3cret@127.0.0.1:{black_hole if hole else 1}/0", required=True)
    began = time.monotonic()
    with pytest.raises(BackplaneError, match="is required, and is not there after") as caught:
        app.start()
    assert patience <= time.monotonic() - began < patience + 3.0
    assert "s3cret" not in str(caught.value)
    assert eventually(lambda: ours() == [])


def test_health_says_whether_a_required_server_is_there() -> None:
    with RedisServer(VALKEY) as server:
        app = make(server.url, required=True, node_timeout=2.0)
        app.start()
        try:
            url = f"http://localhost:{app.http.port}/_daebus/health"
            assert json.load(urllib.request.urlopen(url, timeout=5))["backplane"] == "up"
            server.kill()

            def status() -> int:
                try:
                    return int(urllib.request.urlopen(url, timeout=5).status)
                except urllib.error.HTTPError as exc:
                    with exc:
                        return exc.code

            assert eventually(lambda: status() == 503)
            server.start()
            assert eventually(lambda: status() == 200)
        finally:
            app.stop()


@pytest.mark.parametrize("timeout", [5.0, 0.5])
def test_a_stop_beside_a_black_hole_ends_in_time(
    black_hole: int, timeout: float, caplog: pytest.LogCaptureFixture
) -> None:
    app = make(f"redis://:pw@127.0.0.1:{black_hole}/0")
    app.start()
    for number in range(1000):
        app.websocket.broadcast_to_all(number)
    began = time.monotonic()
    app.stop(timeout=timeout)
    assert time.monotonic() - began < timeout + 0.5
    assert eventually(lambda: ours() == [])
    assert "it is to end" not in caplog.text


def state() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def cycle(make_app: Callable[[], Daebus], times: int, together: int = 10) -> None:
    """Start and stop apps, some of them at once."""
    apps = [make_app() for _ in range(together)]

    def run(app: Daebus) -> None:
        for _ in range(times // together):
            app.start()
            began = time.monotonic()
            app.stop(timeout=5)
            took.append(time.monotonic() - began)

    took: list[float] = []
    threads = [threading.Thread(target=run, args=(app,)) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == times
    assert max(took) < 5.5


@pytest.mark.parametrize(
    "times", [20, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(400)])]
)
@pytest.mark.parametrize("what", ["up", pytest.param("down", marks=pytest.mark.slow), "black hole"])
def test_starts_and_stops_leave_nothing(
    valkey: RedisServer, black_hole: int, what: str, times: int
) -> None:
    urls = {
        "up": valkey.url,
        "down": "redis://127.0.0.1:1/0",
        "black hole": f"redis://:pw@127.0.0.1:{black_hole}/0",
    }
    cycle(lambda: make(urls[what]), 10)
    before = state()
    cycle(lambda: make(urls[what]), times)
    assert eventually(lambda: state()[0] <= before[0] and state()[1] <= before[1]), (
        before,
        state(),
    )


def test_a_forked_child_leaves_the_connections_to_its_parent(
    child: Callable[..., Child], valkey: RedisServer
) -> None:
    process = child(
        f"""
        from daebus import DaebusRedis
        app.attach(DaebusRedis({valkey.url!r}, node="parent"))
        app.start()
        pid = os.fork()
        if not pid:
            sockets = [os.readlink(f"/proc/self/fd/{{n}}") for n in os.listdir("/proc/self/fd")
                       if os.path.exists(f"/proc/self/fd/{{n}}")]
            app.stop()
            print("child", len([n for n in sockets if n.startswith("socket:")]), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        input()
        stats = app.stats()["backplane"]
        print("parent", stats["up"], stats["reconnects"], flush=True)
        app.stop()
        """
    )
    assert process.line() == "child 0"
    lease = "d:child:node:parent"
    left = [valkey.command("PTTL", lease)]

    def is_renewed() -> bool:
        left.append(valkey.command("PTTL", lease))
        return bool(left[-1] > left[-2])

    assert eventually(is_renewed)
    assert process.process.stdin is not None
    process.process.stdin.write("\n")
    process.process.stdin.flush()
    assert process.line() == "parent True 0"
    assert process.exit_code() == 0
