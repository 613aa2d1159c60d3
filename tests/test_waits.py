"""Waits are capped: any number of seconds is taken, or refused by its name."""

from __future__ import annotations

import inspect
import math
import re
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import daebus
from daebus import Connection, Daebus, DaebusHttp, DaebusWebSocket
from daebus.server.sockets.transport import wait_for
from daebus.waits import LONGEST_POLL, lock_timeout, poll_timeout, until
from tests.support.raw import Raw
from tests.support.waiting import eventually

MONTH = 30 * 86400
LONG = [MONTH, 1e300, math.inf]

HTTP = ["head_timeout", "idle_timeout", "body_timeout", "write_timeout"]
WEBSOCKET = [
    name
    for name in inspect.signature(DaebusWebSocket).parameters
    if name.endswith(("_timeout", "_interval", "_lifetime")) or name == "slow_handler"
]


def test_everything_goes_by_the_one_clock() -> None:
    """Which tests that stop the clock of their program do not stop."""
    source = Path(daebus.__file__).parent
    frozen = re.compile(r"(?<!`)\btime\.(monotonic|perf_counter)|from time import")
    found = [path for path in source.rglob("*.py") if frozen.search(path.read_text())]
    assert found == [source / "waits.py"]


@pytest.mark.parametrize("seconds", [-math.inf, -1, 0, math.nan, 1.5, MONTH, 1e300, math.inf])
def test_locks_and_pollers_take_what_the_helper_gives(seconds: float) -> None:
    free = threading.Lock()
    assert free.acquire(timeout=lock_timeout(seconds))
    happened = threading.Event()
    happened.set()
    assert happened.wait(lock_timeout(seconds))
    assert happened.wait(until(time.monotonic() + seconds))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        poller = select.poll()
        poller.register(ours, select.POLLIN)
        timeout = poll_timeout(seconds)
        assert timeout is not None
        assert poller.poll(timeout * 1000)
        assert wait_for(ours.fileno(), seconds)
        with select.epoll() as epoll:
            epoll.register(ours, select.EPOLLIN)
            assert epoll.poll(timeout)


def test_ordinary_times_are_taken_as_they_are() -> None:
    assert lock_timeout(1.5) == poll_timeout(1.5) == 1.5
    assert lock_timeout(-1) == poll_timeout(-1) == lock_timeout(math.nan) == 0
    assert poll_timeout(None) is None


def test_a_wait_longer_than_a_poll_can_be_goes_on_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daebus.waits.LONGEST_POLL", 0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        began = time.monotonic()
        assert not wait_for(ours.fileno(), 0.05)
        assert time.monotonic() - began >= 0.04
        later = threading.Timer(0.05, theirs.send, [b"x"])
        later.start()
        assert wait_for(ours.fileno(), math.inf)
        later.join()
    assert LONGEST_POLL * 1000 < 1 << 31


@pytest.mark.parametrize("name", [*HTTP, "min_rate"])
@pytest.mark.parametrize("seconds", LONG)
def test_http_serves_with_any_patience(
    make_app: Callable[..., Daebus], name: str, seconds: float
) -> None:
    app = make_app(http={name: 5e-324 if name == "min_rate" else seconds})
    app.route("/", methods=["GET", "POST"])(lambda req: "here")
    app.start()
    with Raw(app) as idle, Raw(app) as other, Raw(app) as slow:
        assert idle.get("/").status == 200  # and is idle from now on
        slow.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
        assert other.get("/").status == 200
        slow.send(b"x")
        assert slow.answer().status == 200
        assert idle.get("/").status == 200


@pytest.mark.parametrize("seconds", LONG)
def test_websockets_serve_with_any_patience(
    make_app: Callable[..., Daebus], seconds: float
) -> None:
    app = make_app(on_full="block", **dict.fromkeys(WEBSOCKET, seconds))
    app.socket("echo", timeout=seconds)(lambda req: req.data)
    answers: list[Any] = []

    @app.websocket.raw("/raw")
    def raw(connection: Connection) -> None:
        answers.append(connection.recv(timeout=seconds))

    app.start()
    with app.test_client(timeout=seconds) as client:
        assert client.request("echo", 1) == 1
        (client_id,) = app.websocket.get_clients()

        def ask() -> None:
            answers.append(app.websocket.call(client_id, "ask", timeout=seconds))

        asking = threading.Thread(target=ask)
        asking.start()
        client.answer(client.receive("ask"), 2)
        asking.join(5)
    with app.test_client("/raw", timeout=seconds) as client:
        client.send_raw("hello")
        assert eventually(lambda: answers == [2, "hello"])


@pytest.mark.parametrize("seconds", ["5", None, [], 1j])
def test_what_is_no_number_of_seconds_is_refused_at_once(app: Daebus, seconds: Any) -> None:
    """Above all before the app starts: one that runs and cannot stop is worse."""
    app.start()
    calls: list[Callable[[Any], object]] = [app.stop, app.pump]
    calls += [lambda seconds: app.serve(timeout=seconds), lambda seconds: app.run(timeout=seconds)]
    if seconds is not None:
        calls.append(app.wait)
    for call in calls:
        with pytest.raises(TypeError, match="must be a number"):
            call(seconds)
    assert app.running
    assert app.stop(5) == []


@pytest.mark.parametrize("seconds", LONG)
def test_the_host_waits_as_long_as_it_likes(app: Daebus, seconds: float) -> None:
    app.start()
    ended: list[Any] = []
    waits = [
        threading.Thread(target=lambda wait=wait: ended.append(wait(seconds)))
        for wait in (app.wait, app.pump)
    ]
    for thread in waits:
        thread.start()
    assert app.stop(seconds) == []
    for thread in waits:
        thread.join(5)
    assert sorted(ended) == [0, True]
    assert app.pump(-1) == 0
    assert app.wait(math.nan)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, "5", 10**400])
def test_what_is_no_time_is_refused_by_its_name(seconds: Any) -> None:
    for name in HTTP:
        with pytest.raises((TypeError, ValueError), match=name):
            DaebusHttp(**{name: seconds})
    for name in WEBSOCKET:
        with pytest.raises((TypeError, ValueError), match=name):
            DaebusWebSocket(**{name: seconds})
