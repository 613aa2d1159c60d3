"""Why a client left, and what ``on_disconnect`` is told of it."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import pytest

from daebus import Connection, Daebus, DisconnectInfo
from tests.support.fixture_types import Connect, MakeApp
from tests.support.handlers import departures
from tests.support.peer import CLOSE, Peer
from tests.support.slow_clients import narrow, reset
from tests.support.waiting import eventually


def bye_server(app: Daebus, peer: Peer) -> None:
    peer.say("leave")
    assert peer.close_frame() == (4001, "enough")
    peer.send(CLOSE, (4001).to_bytes(2, "big"))


def bye_slow(app: Daebus, peer: Peer) -> None:
    while app.websocket.broadcast_to_all("x" * 16384):
        pass


ENDINGS: dict[str, tuple[str, int, Callable[[Daebus, Peer], object]]] = {
    "client": ("client", 4000, lambda app, peer: peer.close(4000)),
    "client without code": ("client", 1005, lambda app, peer: peer.send(CLOSE)),
    "ping_timeout": ("ping_timeout", 1006, lambda app, peer: None),
    "slow_consumer": ("slow_consumer", 1013, bye_slow),
    "server": ("server", 4001, bye_server),
    "protocol": ("protocol", 1002, lambda app, peer: peer.sock.sendall(b"\xff\x80mask")),
    "not utf-8": ("protocol", 1007, lambda app, peer: peer.send(1, b"\xff")),
    "too big": ("protocol", 1009, lambda app, peer: peer.send(1, b"x" * 2000)),
    "shutdown": ("shutdown", 1001, lambda app, peer: app.stop(timeout=2)),
    "lost": ("lost", 1006, lambda app, peer: reset(peer)),
    "end of stream": ("lost", 1006, lambda app, peer: peer.sock.close()),
    "raw handler returned": ("server", 1000, lambda app, peer: peer.send(1, "bye")),
    "raw handler raised": ("server", 1011, lambda app, peer: peer.send(1, "raise")),
}


@pytest.mark.parametrize(("reason", "code", "end"), ENDINGS.values(), ids=ENDINGS)
def test_on_disconnect_says_why(
    make_app: MakeApp,
    request: pytest.FixtureRequest,
    reason: str,
    code: int,
    end: Callable[[Daebus, Peer], object],
) -> None:
    app = make_app(
        ping_interval=0.2 if reason == "ping_timeout" else None, ping_timeout=0.2,
        close_timeout=0.3, max_message_size=1000,
    )  # fmt: skip
    left = departures(app)
    one = queue.Queue[str]()
    app.websocket.on_disconnect(one.put)
    app.socket("echo")(lambda req: req.data)
    app.socket("leave")(lambda req: req.websocket.close(4001, "enough") and None)

    @app.websocket.raw("/raw")
    def raw(ws: Connection) -> None:
        if ws.recv() == "raise":
            raise RuntimeError("on purpose")

    app.start()
    raw_path = "raw" in request.node.callspec.id
    with narrow(app, "/raw" if raw_path else "/") as peer:
        (client_id,) = app.websocket.get_clients()
        if not raw_path:
            peer.say("echo", 1)
            assert peer.message()["data"] == 1
        end(app, peer)
        who, info = left.get(timeout=5)
    assert (who, info.reason, info.code) == (client_id, reason, code)
    assert one.get(timeout=5) == client_id
    expected = 0 if raw_path else 1
    assert info.messages_in >= expected
    assert info.messages_out >= expected
    assert info.bytes_in > 0 or raw_path
    assert info.bytes_out > 0
    assert 0 < info.seconds < 10
    app.stop()
    assert left.empty()
    assert one.empty()


def test_hooks_of_one_and_of_two_arguments_stand_side_by_side(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app()
    calls = queue.Queue[tuple[Any, ...]]()

    class Hooks:
        def method(self, client_id: str, info: DisconnectInfo) -> None:
            calls.put(("method", client_id, info.reason))

    def one(client_id: str) -> None:
        calls.put(("one", client_id))

    def two(client_id: str, info: DisconnectInfo) -> None:
        calls.put(("two", client_id, info.reason))

    def any_number(*arguments: Any) -> None:
        calls.put(("any", len(arguments)))

    async def later(client_id: str, info: DisconnectInfo) -> None:
        calls.put(("later", client_id, info.reason))

    def closure(client_id: str, name: str = "default") -> None:
        calls.put(("closure", name))

    for hook in (one, two, Hooks().method, any_number, later, closure):
        app.websocket.on_disconnect(hook)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    (client_id,) = eventually(app.websocket.get_clients)
    peer.close()
    assert [calls.get(timeout=5) for _ in range(6)] == [
        ("one", client_id),
        ("two", client_id, "client"),
        ("method", client_id, "client"),
        ("any", 2),
        ("later", client_id, "client"),
        ("closure", "default"),
    ]
