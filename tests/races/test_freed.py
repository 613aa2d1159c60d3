"""A connection that has ended is freed at once, without the collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from daebus import ClientError, Daebus, WebSocketRequest
from daebus.websocket.connection.link import Link
from tests.support.builds import freed
from tests.support.fixture_types import MakeApp
from tests.support.inside import connections
from tests.support.slow_clients import narrow, stuff


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is freed now is freed by its last reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def busy_app(make_app: MakeApp) -> Daebus:
    """An app with a handler of each kind."""
    app = make_app(idle_timeout=60)
    app.socket("echo")(lambda req: req.data)

    @app.socket("async")
    async def wait(req: WebSocketRequest) -> int:
        return 1

    @app.socket("generator")
    def generate(req: WebSocketRequest) -> Iterator[int]:
        yield 1

    @app.socket("async generator")
    async def generate_async(req: WebSocketRequest) -> AsyncIterator[int]:
        yield 1

    @app.socket("job", run_in="pool")
    def job(req: WebSocketRequest) -> int:
        return 1

    @app.socket("timed", timeout=60)
    def timed(req: WebSocketRequest) -> int:
        return 1

    @app.socket("stoppable")
    def stoppable(req: WebSocketRequest) -> bool:
        return req.cancelled.is_set()

    @app.socket("refuse")
    def refuse(req: WebSocketRequest) -> None:
        raise ClientError("no")

    @app.socket("belong")
    def belong(req: WebSocketRequest) -> bool:
        app.websocket.identify(req.client_id, "ann")
        app.websocket.set_client_metadata(req.client_id, seen=1)
        return app.websocket.join(req.client_id, "room")

    @app.socket("ask")
    def ask(req: WebSocketRequest) -> Any:
        return app.websocket.call(req.client_id, "confirm", timeout=5)

    return app


def reference(app: Daebus) -> weakref.ref[Link]:
    (connection,) = connections(app)
    return weakref.ref(connection)


KINDS = ["echo", "async", "generator", "async generator", "job", "timed", "stoppable", "refuse"]
SLOW = {"async generator", "timed", "stoppable", "refuse"}  # variants of others


@pytest.mark.parametrize(
    "kind",
    [
        *(pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in KINDS),
        "belong",
        "ask",
    ],
)
def test_a_connection_that_has_ended_is_freed(
    busy_app: Daebus, no_collector: None, kind: str
) -> None:
    with busy_app:
        with busy_app.test_client() as client:
            client.send_raw(f'{{"type": "{kind}", "id": 1, "data": 1}}')
            if kind == "ask":
                client.answer(client.receive("confirm"), 1)
            client.receive("error" if kind == "refuse" else "response")
            ended = reference(busy_app)
        assert freed(lambda: ended() is None)


def test_a_connection_that_the_minder_wrote_for_is_freed(app: Daebus, no_collector: None) -> None:
    with app:
        with narrow(app) as peer:
            stuff(app)
            ended = reference(app)
            app.websocket.broadcast_to_all(None, message_type="end")
            while peer.message()["type"] != "end":
                pass
        assert freed(lambda: ended() is None)
