# pyright: standard, reportUnnecessaryTypeIgnoreComment=true
"""What type checkers see: what is right has its type, and what is wrong is an error.

``make lint`` runs mypy over this file: an ``assert_type`` that does not hold is an error, and so is
an ``ignore`` that is not needed, which is one of a mistake that is not seen any more. pyright
judges the same lines.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, assert_type

import pytest
from werkzeug.wrappers import Response

from daebus import (
    AppStats,
    Blueprint,
    Client,
    ClientMetadata,
    ClientState,
    ClientStatus,
    ClientTopic,
    Connection,
    Daebus,
    DaebusHttp,
    DaebusWebSocket,
    DisconnectInfo,
    Gap,
    HandlerStats,
    Message,
    Request,
    SendResult,
    SlowConsumerInfo,
    SlowHandlerInfo,
    StopToken,
    TaskStats,
    UpgradeRequest,
    WebSocketRequest,
    WebSocketStats,
)


class Chat(TypedDict):
    """What a client sends."""

    text: str


@dataclass
class Thing:
    """An app and its parts; for the type checkers alone, nothing makes one."""

    app: Daebus
    blueprint: Blueprint
    http: DaebusHttp
    websocket: DaebusWebSocket


def data_of_a_message(req: WebSocketRequest, said: WebSocketRequest[Chat]) -> str:
    """No value is of a type that nobody has named, where the request names it."""
    assert_type(req.data, Any)
    assert_type(said.data, Chat)
    assert_type(said.data["text"], str)
    said.data["txet"]  # type: ignore[typeddict-item]  # pyright: ignore
    if isinstance(req.data, str):
        return req.data
    return said.data["text"]


def handlers(it: Thing) -> None:
    @it.app.socket("chat")
    def chat(req: WebSocketRequest[Chat]) -> str:
        return req.data["text"]

    assert_type(chat(WebSocketRequest.__new__(WebSocketRequest)), str)

    @it.blueprint.socket("add", timeout=5.0, rate="10/s")
    async def add(data: dict[str, int], client_id: str) -> int:
        return data["a"] + data["b"]

    @it.app.socket("none")  # type: ignore[type-var]  # pyright: ignore
    def none() -> None: ...

    @it.app.socket("http")  # type: ignore[type-var]  # pyright: ignore
    def of_http(req: Request) -> None: ...

    it.app.socket("x", tiemout=5)  # type: ignore[call-arg]  # pyright: ignore
    it.blueprint.socket("x", tiemout=5)  # type: ignore[call-arg]  # pyright: ignore
    it.websocket.socket("x", tiemout=5)  # type: ignore[call-arg]  # pyright: ignore
    it.blueprint.socket("x", run_in="nope")  # type: ignore[arg-type]  # pyright: ignore
    it.blueprint.socket(chat)  # type: ignore[arg-type]  # pyright: ignore

    @it.app.raw("/raw")
    def raw(connection: Connection) -> None:
        assert_type(connection.recv(), str | bytes)

    it.app.raw(raw)  # type: ignore[arg-type]  # pyright: ignore


def hooks(it: Thing) -> None:
    @it.app.on_connect
    def came(client_id: str) -> None: ...

    @it.blueprint.on_disconnect
    def left(client_id: str) -> None: ...

    @it.blueprint.on_disconnect
    async def left_because(client_id: str, info: DisconnectInfo) -> None: ...

    @it.app.on_slow_consumer
    def slow(client_id: str, info: SlowConsumerInfo) -> None: ...

    @it.app.on_slow_handler
    def stuck(client_id: str, info: SlowHandlerInfo) -> None: ...

    @it.app.on_error
    def failed(req: WebSocketRequest, exc: BaseException) -> dict[str, str]:
        return {}

    @it.blueprint.on_error
    def failed_too(req: WebSocketRequest, exc: Exception) -> dict[str, object]:
        return {"kind": type(exc).__name__}

    @it.app.authenticate
    def check(req: UpgradeRequest) -> str | None:
        return req.cookies.get("session")

    for part in (it.app, it.blueprint, it.websocket):
        part.on_connect(nothing)  # type: ignore[type-var]  # pyright: ignore
        part.on_connect(slow)  # type: ignore[type-var]  # pyright: ignore
        part.on_disconnect(slow)  # type: ignore[type-var]  # pyright: ignore
        part.on_slow_consumer(nothing)  # type: ignore[type-var]  # pyright: ignore
        part.on_error(came)  # type: ignore[type-var]  # pyright: ignore
        part.on_error(of_a_message)  # type: ignore[type-var]  # pyright: ignore
        part.authenticate(nothing)  # type: ignore[type-var]  # pyright: ignore
        part.on_join("*")(came)  # type: ignore[type-var]  # pyright: ignore
        part.on_connect()  # type: ignore[call-arg]  # pyright: ignore
    it.app.authenticate(of_a_message)  # type: ignore[type-var]  # pyright: ignore
    it.blueprint.authenticate(of_a_message)  # type: ignore[type-var]  # pyright: ignore


def nothing() -> None: ...


def of_a_message(req: WebSocketRequest) -> str:
    return "guest"


def views(it: Thing) -> None:
    @it.app.route("/items/<int:number>", methods=["GET", "POST"])
    def item(req: Request, number: int) -> dict[str, int]:
        return {"number": number}

    @it.blueprint.before_request
    def before(req: Request) -> None: ...

    @it.blueprint.after_request
    def after(req: Request, response: Response) -> None: ...

    @it.blueprint.error_handler(KeyError)
    def missing(req: Request, exc: KeyError) -> tuple[str, int]:
        return "missing", 404

    assert_type(item(Request({}), 1), dict[str, int])
    for part in (it.app, it.blueprint, it.http):
        part.route("/")(nothing)  # type: ignore[type-var]  # pyright: ignore
        part.route("/")(of_a_message)  # type: ignore[type-var]  # pyright: ignore
        part.route("/", method=["GET"])  # type: ignore[call-arg]  # pyright: ignore
        part.before_request(nothing)  # type: ignore[type-var]  # pyright: ignore
        part.after_request(before)  # type: ignore[type-var]  # pyright: ignore
        part.error_handler(404)(before)  # type: ignore[type-var]  # pyright: ignore


def tasks(it: Thing) -> None:
    @it.app.background("tick", 1.0)
    def tick() -> None: ...

    @it.blueprint.thread("reader")
    def reader(running: StopToken) -> None:
        while running.wait(1.0):
            pass

    it.app.background("b", "1")  # type: ignore[arg-type]  # pyright: ignore
    it.blueprint.background("b", 1)(reader)  # type: ignore[type-var]  # pyright: ignore
    it.blueprint.thread("b")(tick)  # type: ignore[type-var]  # pyright: ignore


def counts(it: Thing) -> None:
    stats = it.app.stats()
    assert_type(stats, AppStats)
    assert_type(stats["tasks"]["background"]["tick"], TaskStats)
    assert_type(it.websocket.stats(), WebSocketStats)
    assert_type(it.websocket.stats()["handlers"]["chat"], HandlerStats)
    assert_type(it.websocket.stats()["handlers"]["chat"]["seconds"], float)
    it.websocket.stats()["connectoins"]  # type: ignore[typeddict-item]  # pyright: ignore
    known = it.websocket.get_client_metadata("x")
    assert_type(known, ClientMetadata | None)
    if known is not None:
        assert_type(known["user"], str | None)
        known["usre"]  # type: ignore[typeddict-item]  # pyright: ignore
        assert known.get("city") != "Paris"  # noted by the app, so of any type
    it.websocket.get_clients_by_filter(lambda client_id, known: known["bytes_in"] > 1 << 20)


async def sends(it: Thing) -> None:
    assert_type(it.websocket.send({"a": 1}), SendResult)
    await it.websocket.send({"a": 1})  # type: ignore[misc]  # pyright: ignore
    it.websocket.send_to_client({"a": 1}, "abc")  # type: ignore[arg-type]  # pyright: ignore


def other_end(client: Client) -> None:
    assert_type(client.receive(), Message)
    assert_type(client.receive().topic, str | None)
    assert_type(client.topic("alarms", last=3), ClientTopic)
    assert_type(client.state("boiler"), ClientState)
    assert_type(client.close(), bool)
    for message in client:
        assert_type(message, Message)
    for message in client.topic("alarms"):
        assert_type(message.offset, int | None)
    client.state("boiler")["celsius"] = 3  # type: ignore[index]  # pyright: ignore
    client.request("x", repaet=True)  # type: ignore[call-arg]  # pyright: ignore
    Client("http://x/", timeout="5")  # type: ignore[arg-type]  # pyright: ignore

    @client.on("reading")
    def reading(data: dict[str, int]) -> None: ...

    assert_type(reading({}), None)

    @client.handle("confirm")
    def confirm(data: str, message: Message) -> bool:
        return True

    assert_type(confirm("", Message("x")), bool)

    @client.on_status
    def changed(status: ClientStatus) -> None:
        assert_type(status.retry_in, float | None)

    @client.topic("alarms").on_gap
    def lost(gap: Gap) -> None:
        assert_type(gap.missed, int | None)

    client.on(reading)  # type: ignore[arg-type]  # pyright: ignore


@pytest.mark.slow
def test_pyright_agrees() -> None:
    """By basedpyright, which pip can install: it brings its own Node.js."""
    if importlib.util.find_spec("basedpyright") is None:
        if os.environ.get("DAEBUS_REQUIRE_BROWSER"):
            pytest.fail("basedpyright is not installed")
        pytest.skip("basedpyright is not installed; make lint has it")
    result = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, __file__],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
