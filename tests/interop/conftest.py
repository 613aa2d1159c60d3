"""The server that other people's clients talk to."""

from __future__ import annotations

import queue
from typing import Any, Literal

import pytest

from daebus import Daebus, DisconnectInfo, WebSocketRequest
from daebus.websocket.connection.connection import Connection
from tests.support.fixture_types import MakeApp

LIMIT = 1 << 20


class Server:
    """A running app that writes down how connections end."""

    def __init__(self, app: Daebus, *, compresses: bool = False) -> None:
        self.app = app
        self.compresses = compresses
        self.left: queue.Queue[DisconnectInfo] = queue.Queue()

        @app.websocket.on_disconnect
        def left(client_id: str, info: DisconnectInfo) -> None:
            self.left.put(info)

        @app.websocket.raw("/echo")
        def echo(ws: Connection) -> None:
            for message in ws:
                ws.send(message)

        @app.websocket.raw("/close")
        def close(ws: Connection) -> None:
            code, _, reason = str(ws.recv()).partition(" ")
            ws.close(int(code), reason)
            for message in ws:
                ws.send(message)  # returns False: we are closing

        @app.socket("echo")
        def answer(req: WebSocketRequest) -> Any:
            return req.data

        @app.socket("shout")
        def shout(req: WebSocketRequest) -> None:
            app.websocket.broadcast_to_all(req.data)

        app.start()

    def url(self, path: str = "/") -> str:
        return f"ws://127.0.0.1:{self.app.websocket.port}{path}"

    @property
    def port(self) -> int:
        port = self.app.websocket.port
        assert port is not None
        return port

    def ended(self) -> tuple[str, int]:
        """Wait for the next client to be gone; return why, and the close code."""
        info = self.left.get(timeout=5)
        return info.reason, info.code


@pytest.fixture(params=["plain", "deflate"])
def server(request: pytest.FixtureRequest, make_app: MakeApp) -> Server:
    compression: Literal["deflate"] | None = "deflate" if request.param == "deflate" else None
    app = make_app(compression=compression, subprotocols=["b", "a"])
    return Server(app, compresses=compression is not None)
