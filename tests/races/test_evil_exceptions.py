"""Exceptions whose own methods raise still get their one error answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from daebus import ClientError, Daebus, StopToken
from daebus.testing import RequestError
from tests.support.raw import Raw
from tests.support.waiting import eventually


class _BadStr(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class _BadRepr(Exception):
    def __repr__(self) -> str:
        raise ValueError("no text")

    __str__ = __repr__


class _BadAttributes(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise ValueError(f"no {name}")


class _BadClientError(ClientError):
    def __getattribute__(self, name: str) -> Any:
        raise ValueError(f"no {name}")


EVIL = [_BadStr, _BadRepr, _BadAttributes, _BadClientError]


def make_evil(kind: type[Exception]) -> Exception:
    return kind("text")


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("kind", EVIL)
def test_one_error_for_each(
    make_app: Callable[..., Daebus],
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
    debug: bool,
) -> None:
    caplog.set_level(logging.ERROR)
    app = make_app(debug=debug)
    calls = threading.Semaphore(0)

    @app.socket("sync")
    @app.socket("pool", run_in="pool")
    @app.socket("main", run_in="main")
    def handler(req: Any) -> None:
        raise make_evil(kind)

    @app.socket("async")
    async def async_handler(req: Any) -> None:
        raise make_evil(kind)

    app.socket("echo")(lambda req: req.data)

    @app.route("/")
    def view(req: Any) -> str:
        raise make_evil(kind)

    @app.background("often", 0.01)
    def often() -> None:
        calls.release()
        raise make_evil(kind)

    app.start()
    with app.test_client() as client:
        for name in ("sync", "pool", "async"):
            with pytest.raises(RequestError) as caught:
                client.request(name)
            assert caught.value.code == "handler_error"
            assert client.request("echo", 1) == 1  # one answer, and the next is the next
        # In the host's own loop: the error is the client's, and nothing reaches the host.
        answers: list[Any] = []

        def ask() -> None:
            with pytest.raises(RequestError) as caught:
                client.request("main")
            answers.append(caught.value.code)

        asking = threading.Thread(target=ask)
        asking.start()
        assert app.pump(timeout=5) == 1
        asking.join(5)
        assert answers == ["handler_error"]
    with Raw(app) as raw:
        answer = raw.get("/")
        assert answer.status == 500
        assert raw.get("/nowhere").status == 404
    for _ in range(3):
        assert calls.acquire(timeout=5)
    assert app.running
    # One line for each kind; what is the same is counted.
    failed = {"dispatcher.py", "router.py", "task.py"}
    assert eventually(lambda: {record.filename for record in caplog.records} >= failed)


@pytest.mark.parametrize("kind", EVIL)
def test_who_cannot_be_authenticated_is_told(
    make_app: Callable[..., Daebus], kind: type[Exception]
) -> None:
    app = make_app()

    @app.websocket.authenticate
    def check(req: Any) -> None:
        raise make_evil(kind)

    app.start()
    with Raw(app) as raw:
        raw.ask(
            "/",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: c2l4dGVlbiBieXRlcyBvaw==",
            "Sec-WebSocket-Version: 13",
        )
        assert raw.answer().status == 500


@pytest.mark.parametrize("seconds", [0, -1, 1e-9])
def test_a_stop_without_time_blames_nobody(
    make_app: Callable[..., Daebus], caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    """It names the threads that user code holds, and none that were about to end."""
    app = make_app()
    app.socket("echo", run_in="pool")(lambda req: req.data)
    app.route("/")(lambda req: "")
    app.thread("waits")(lambda running: running.wait(60))
    app.background("often", 0.01)(lambda: None)
    app.start()
    with app.test_client() as client, Raw(app) as raw:
        assert client.request("echo", 1) == 1
        assert raw.get("/").status == 200
        assert app.stop(timeout=seconds) == []
    assert [record.getMessage() for record in caplog.records if record.name == "daebus"] == []


def test_a_stop_without_time_names_what_is_held(make_app: Callable[..., Daebus]) -> None:
    app = make_app()
    begun, go_on = threading.Event(), threading.Event()

    @app.thread("stuck")
    def stuck(running: StopToken) -> None:
        begun.set()
        go_on.wait(10)

    app.start()
    assert begun.wait(5)
    try:
        assert app.stop(timeout=0) == ["daebus-thread-stuck"]
    finally:
        go_on.set()
