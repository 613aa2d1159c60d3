"""The id of a message: every reply to it repeats it, and nothing else does."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from daebus import ClientError, Daebus, WebSocketRequest
from daebus.websocket.messages.options import RunIn

IDS = ["a", "", "x" * 128, "\N{SPOUTING WHALE}", '"quoted"', "\ud800", 0, 7, -1, 1.5, 10**127]
BAD_IDS: list[Any] = [True, False, [], {}, ["a"], "x" * 129, 10**128]


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


def test_an_id_of_null_is_none(app: Daebus) -> None:
    app.socket("which")(lambda req: [req.id])
    app.socket("nothing")(lambda req: None)
    with app.test_client() as client:
        client.send_raw('{"type": "nothing", "id": null}')
        client.send_raw('{"type": "which", "id": null}')
        assert client.receive() == {"type": "response", "data": [None]}


@pytest.mark.parametrize("run_in", ["connection", "pool"])
@pytest.mark.parametrize("code", ["timeout", "cancelled"])
def test_a_handler_that_ends_as_it_was_told_has_not_succeeded(
    app: Daebus, run_in: RunIn, code: str
) -> None:
    began = threading.Event()

    @app.socket("work", run_in=run_in, timeout=0.1 if code == "timeout" else None)
    def work(req: WebSocketRequest) -> None:
        began.set()
        assert req.cancelled.wait(10)

    with app.test_client() as client:
        client.send_raw('{"type": "work", "id": 7}')
        assert began.wait(10)
        if code == "cancelled":
            client.send_raw('{"type": "cancel", "id": 7}')
        message = client.receive()
        assert (message["type"], message["id"], message["data"]["code"]) == ("error", 7, code)


def register_those_that_return_nothing(app: Daebus) -> None:
    send = app.websocket.send

    @app.socket("nothing")
    @app.socket("in pool", run_in="pool")
    @app.socket("*")
    def nothing(req: WebSocketRequest) -> None:
        pass

    @app.socket("async")
    async def later(req: WebSocketRequest) -> None:
        await asyncio.sleep(0)

    @app.socket("no items")
    def no_items(req: WebSocketRequest) -> Iterator[int]:
        yield from ()

    @app.socket("items")
    def items(req: WebSocketRequest) -> Iterator[int]:
        yield from (1, 2)

    @app.socket("async items")
    async def async_items(req: WebSocketRequest) -> AsyncIterator[int]:
        yield 1
        yield 2

    @app.socket("sends")
    @app.socket("sends in pool", run_in="pool")
    def sends(req: WebSocketRequest) -> None:
        send(1)
        send(2)

    @app.socket("async sends")
    async def async_sends(req: WebSocketRequest) -> None:
        send(1)
        send(2)

    @app.socket("sends others")
    def sends_others(req: WebSocketRequest) -> None:
        req.progress(1)
        send(3, "note")


@pytest.mark.parametrize("with_id", [True, False])
def test_a_message_with_an_id_gets_one_answer_at_least(app: Daebus, with_id: bool) -> None:
    register_those_that_return_nothing(app)
    app.socket("last")(lambda req: "last")
    once = ["nothing", "in pool", "unregistered", "async", "no items"]
    none: list[Any] = [None]
    expected: dict[str, list[Any]] = dict.fromkeys(once, none) | {
        "items": [1, 2],
        "async items": [1, 2],
        "sends": [1, 2],
        "sends in pool": [1, 2],
        "async sends": [1, 2],
        "sends others": [{"done": 1}, 3, None],
    }
    ident = {"id": 7} if with_id else {}
    with app.test_client() as client:
        for kind, data in expected.items():
            client.send_raw(json.dumps({"type": kind, **ident}))
            count = len(data) - (data[-1] is None and not with_id)
            got = [client.receive() for _ in range(count)]
            assert [message["data"] for message in got] == data[:count], kind
            answers = [message for message in got if message["type"] != "note"]
            assert all(message.get("id") == ident.get("id") for message in answers), kind
        client.send("last")
        assert client.receive()["data"] == "last"


@pytest.mark.parametrize("kind", ["response", "error", "cancel"])
def test_an_answer_without_an_id_is_a_type_like_any_other(app: Daebus, kind: str) -> None:
    with app.test_client() as client:
        for message in ({"type": kind}, {"type": kind, "id": None}):
            client.send_raw(json.dumps(message))
            error = client.receive()
            assert (error["type"], error["data"]["code"]) == ("error", "unknown_type")
            assert "id" not in error
        client.send_raw(json.dumps({"type": kind, "id": 1}))  # nobody waits: no answer
        assert client.request("echo", 1) == 1
        app.socket(kind)(lambda req: [req.data])
        client.send(kind, "mine")
        assert client.receive()["data"] == ["mine"]


@pytest.mark.parametrize("kind", ["response", "error", "cancel"])
def test_an_answer_is_never_answered_with_null(app: Daebus, kind: str) -> None:
    """Its id is that of another message, and two ends that answer answers do so for ever."""
    app.socket(kind)(lambda req: None)
    with app.test_client() as client:
        client.send_raw(json.dumps({"type": kind, "id": 1}))
        assert client.request("echo", 1) == 1
        assert client.request("echo", 2) == 2


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
        ({"type": "odd"}, "handler_error"),
    ],
)
def test_errors_repeat_it(app: Daebus, message: dict[str, Any], code: str) -> None:
    @app.socket("fail")
    def fail(req: WebSocketRequest) -> None:
        raise ValueError

    @app.socket("refuse")
    def refuse(req: WebSocketRequest) -> None:
        raise ClientError("no", "mine", {"retry_after": 2.5, "code": "not this"})

    app.socket("odd")(lambda req: object())
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
