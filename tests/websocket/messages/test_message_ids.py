"""The id of a message: every reply to it repeats it, and nothing else does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from daebus import ClientError, Daebus, WebSocketRequest

IDS = ["a", "", "x" * 128, "\N{SPOUTING WHALE}", '"quoted"', "\ud800", 0, 7, -1, 1.5, 10**127]
BAD_IDS: list[Any] = [None, True, False, [], {}, ["a"], "x" * 129, 10**128]


@pytest.mark.parametrize("ident", IDS, ids=lambda ident: ascii(ident)[:20])
def test_an_id_comes_back(app: Daebus, ident: Any) -> None:
    with app.test_client() as client:
        client.send_raw(json.dumps({"type": "echo", "data": 1, "id": ident}))
        assert client.receive() == {"type": "response", "data": 1, "id": ident}


@pytest.mark.parametrize("ident", BAD_IDS, ids=lambda ident: ascii(ident)[:20])
def test_another_id_is_refused_and_not_repeated(app: Daebus, ident: Any) -> None:
    with app.test_client() as client:
        client.send_raw(json.dumps({"type": "echo", "data": 1, "id": ident}))
        message = client.receive()
        assert (message["type"], message["data"]["code"]) == ("error", "bad_id")
        assert set(message) == {"type", "data"}


def test_an_id_that_overflows_is_refused(app: Daebus) -> None:
    with app.test_client() as client:
        client.send_raw('{"type": "echo", "id": 1e999}')
        assert client.receive()["data"]["code"] in ("bad_id", "bad_json")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "no such"}, "unknown_type"),
        ({}, "missing_type"),
        ({"type": 5}, "bad_type"),
        ({"type": "fail"}, "handler_error"),
        ({"type": "refuse"}, "mine"),
        ({"type": "nan"}, "handler_error"),
    ],
)
def test_errors_repeat_it(app: Daebus, message: dict[str, Any], code: str) -> None:
    @app.socket("fail")
    def fail(req: WebSocketRequest) -> None:
        raise ValueError

    @app.socket("refuse")
    def refuse(req: WebSocketRequest) -> None:
        raise ClientError("no", "mine", {"retry_after": 2.5, "code": "not this"})

    app.socket("nan")(lambda req: float("nan"))
    with app.test_client() as client:
        client.send_raw(json.dumps({**message, "id": "x"}))
        answer = client.receive()
    assert (answer["type"], answer["data"]["code"], answer["id"]) == ("error", code, "x")
    assert answer["data"].get("retry_after") == (2.5 if code == "mine" else None)


def test_a_handler_reads_it(app: Daebus) -> None:
    app.socket("which")(lambda req: [req.id])
    with app.test_client() as client:
        client.send_raw('{"type": "which", "id": "x"}')
        assert client.receive() == {"type": "response", "data": ["x"], "id": "x"}
        client.send("which")
        assert client.receive() == {"type": "response", "data": [None]}


def test_sent_responses_repeat_it_and_other_messages_do_not(app: Daebus) -> None:
    @app.socket("say")
    def say(req: WebSocketRequest) -> None:
        app.websocket.send(1)
        app.websocket.send(2, "note")
        app.websocket.broadcast_to_all(3)

    with app.test_client() as client:
        client.send_raw('{"type": "say", "id": 9}')
        assert [client.receive() for _ in range(3)] == [
            {"type": "response", "data": 1, "id": 9},
            {"type": "note", "data": 2},
            {"type": "broadcast", "data": 3},
        ]
        client.send("say")
        assert client.receive() == {"type": "response", "data": 1}


def test_a_task_that_outlives_its_handler_keeps_its_id(app: Daebus) -> None:
    """Its connection is at another message by then."""
    tasks = []
    go = asyncio.Event()

    @app.socket("later")
    async def later(req: WebSocketRequest) -> str:
        async def work() -> None:
            await go.wait()
            app.websocket.send("late")

        tasks.append(asyncio.create_task(work()))
        return "soon"

    @app.socket("go")
    async def release(req: WebSocketRequest) -> str:
        go.set()
        await tasks[0]
        return "gone"

    with app.test_client() as client:
        client.send_raw('{"type": "later", "id": 1}')
        assert client.receive() == {"type": "response", "data": "soon", "id": 1}
        client.send_raw('{"type": "go", "id": 2}')
        assert client.receive() == {"type": "response", "data": "late", "id": 1}
        assert client.receive() == {"type": "response", "data": "gone", "id": 2}
