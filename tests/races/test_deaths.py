"""A thread of ours that dies is no secret, whichever it is."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import daebus.tasks.task as task_module
from daebus import Daebus, DaebusRedis, StopToken
from daebus.backplane.memory import MemoryBackplane
from daebus.engine import Engine
from daebus.server.threads.loop import LoopThread
from tests.support.inside import hub_of
from tests.support.raw import Raw, server_of
from tests.support.redisserver import RedisServer
from tests.support.tls import dial, secure
from tests.support.waiting import eventually


class _Blow(BaseException):
    """Nobody expects it."""


def find(name: str) -> threading.Thread:
    (found,) = (t for t in threading.enumerate() if t.name.startswith(name))
    return found


def strike(thread: threading.Thread) -> None:
    """Have a thread end with its next bytecode, as nothing of ours should make it."""
    assert thread.ident is not None
    number = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(_Blow)
    )
    assert number == 1


def poke_http(app: Daebus) -> None:
    """Make the acceptor and a worker do something."""
    try:
        with Raw(app) as client:
            client.ask("/")
            client.sock.recv(100)
    except OSError:
        pass


def is_running(loop: LoopThread) -> bool:
    inner = loop._loop  # unguarded: set once
    return inner is not None and inner.is_running()


KINDS = [
    "accept",
    "minder",
    "loop",
    "http-",
    "ws-parked",
    "job-",
    "hook-",
    "background-",
    "thread-",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_death_is_known(
    make_app: Callable[..., Daebus],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    # Those of pytest may be struck themselves.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    app = make_app()
    app.route("/")(lambda req: "here")
    app.socket("pool", run_in="pool")(lambda req: 1)

    @app.socket("async")
    async def handler(req: Any) -> int:
        return 1

    app.background("often", 0.01)(lambda: None)
    monkeypatch.setattr(task_module, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(task_module, "MAX_PAUSE", 0.02)

    @app.thread("always")
    def always(running: StopToken) -> None:
        raise ValueError("so that it mostly waits")

    app.start()
    with app.test_client() as client:
        assert client.request("pool") == 1
        assert client.request("async") == 1
    poke_http(app)
    pool = server_of(app)._pool
    assert eventually(lambda: pool._idle)
    assert eventually(lambda: [t for t in threading.enumerate() if t.name == "daebus-ws-parked"])
    hub_of(app)._notices.submit(lambda: None)
    assert app.running
    waiting = threading.Thread(target=app.wait)
    waiting.start()
    thread = find(f"daebus-{kind}")
    strike(thread)
    assert app._components.context is not None
    hub = app._components.context.hub
    assert hub is not None
    for turn in range(200):  # it notices when it runs next
        if not thread.is_alive():
            break
        hub.runtime.minder.call_later(0, lambda: None)
        if kind == "loop":
            hub.runtime.loop.cancel_all()
        hub.runtime.jobs.submit(object(), lambda: None)
        hub._notices.submit(lambda: None)
        # What it calls may have been struck, which is caught, or the callback of a reference: the
        # loop and the task are mostly there, any other thread now and then. A loop that closes
        # would leave its sockets behind.
        again = kind in ("loop", "thread-") or turn % 20 == 19
        if app.running and again and (kind != "loop" or is_running(hub.runtime.loop)):
            strike(thread)
        if kind in ("accept", "http-"):
            poke_http(app)
        elif kind == "ws-parked":
            hub.start(lambda: None)
        thread.join(0.05)
    assert not thread.is_alive()
    waiting.join(5)
    assert not waiting.is_alive()
    assert app._lifecycle.running is False
    (record,) = [r for r in caplog.records if r.getMessage().endswith("died; stop the app")]
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert record.getMessage().startswith("daebus-")
    if kind != "accept":
        with Raw(app) as raw:
            assert raw.get("/_daebus/health").status == 500
    app.stop(5)
    app.start()
    assert app.running
    with Raw(app) as raw:
        assert raw.get("/_daebus/health").status == 200


def test_a_death_amid_handshakes_is_known(
    make_app: Callable[..., Daebus], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(http=secure())
    app.start()
    with dial(app.http.port):
        pass
    thread = find("daebus-tls-")
    while thread.is_alive():
        strike(thread)  # what it calls may be struck, which is caught
        with contextlib.suppress(OSError), dial(app.http.port):
            pass
        thread.join(0.05)
    assert not app.running
    assert app.wait(5)
    assert "daebus-tls-1 died; stop the app" in caplog.messages
    with dial(app.http.port) as client:  # another thread has its place
        client.sendall(b"GET /_daebus/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("name", ["daebus-redis-out", "daebus-redis-in", "daebus-memory"])
def test_a_death_of_the_backplane_is_known(
    make_app: Callable[..., Daebus], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with RedisServer() as server:
        app = make_app()
        app.attach(MemoryBackplane() if name == "daebus-memory" else DaebusRedis(server.url))
        app.start()
        thread = find(name)
        for _ in range(5):  # what it calls may be struck, which is caught
            if thread.is_alive():
                strike(thread)
                app.websocket.broadcast_to_all(1)
                thread.join(2)
        assert app.wait(5)
        assert not app.running
        assert f"{name} died; stop the app" in caplog.messages
        with Raw(app) as raw:
            assert raw.get("/_daebus/health").status == 500
        assert app.stop(5) == []
        app.start()
        assert app.stats()["backplane"]["up"]
        app.stop(5)


def test_a_death_amid_a_stop_is_known(
    make_app: Callable[..., Daebus],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = make_app()
    app.start()

    def blow(*args: object, **options: object) -> None:
        raise _Blow

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "stop", blow)
        with pytest.raises(_Blow):
            app.stop(5)
        assert app.wait(5)
        assert eventually(lambda: "daebus-stop died; stop the app" in caplog.messages)
    assert eventually(lambda: app.stats()["state"] == "running")
    assert not app.running
    assert app.stop(5) == []
    assert app.stats()["state"] == "stopped"


def test_run_returns(make_app: Callable[..., Daebus]) -> None:
    app = make_app()
    thread = threading.Thread(target=app.run)
    thread.start()
    assert eventually(lambda: app.running)

    def die() -> None:
        raise SystemExit

    assert app._components.context is not None
    hub = app._components.context.hub
    assert hub is not None
    hub.runtime.minder.call_later(0, die)
    thread.join(5)
    assert not thread.is_alive()
    assert app._lifecycle.running is False
