"""The pains that this library was written against, a test for each."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from daebus import Daebus, DaebusHttp, DaebusWebSocket, Reject, UpgradeRequest, WebSocketRequest
from tests.support.fixture_types import Connect, MakeApp
from tests.support.peer import Peer, upgrade_request
from tests.support.slow_clients import KILOBYTES_16, narrow
from tests.support.waiting import eventually


def test_emitting_from_a_thread_reaches_the_client(app: Daebus) -> None:
    """Any thread of the host may send, with no loop, no queue and no monkey patching."""
    with app.test_client() as client:
        assert eventually(lambda: app.websocket.get_client_count() == 1)
        thread = threading.Thread(target=lambda: app.websocket.broadcast_to_all(21.5, "sensor"))
        thread.start()
        assert client.receive() == {"type": "sensor", "data": 21.5}
        thread.join()


def test_one_slow_browser_does_not_block_the_broadcast(make_app: MakeApp) -> None:
    app = make_app()
    app.start()
    with narrow(app), narrow(app) as reader:
        longest = 0.0
        for number in range(300):
            started = time.monotonic()
            app.websocket.broadcast_to_all([number, KILOBYTES_16])
            longest = max(longest, time.monotonic() - started)
            assert reader.message()["data"][0] == number
        assert longest < 2
        assert app.websocket.stats()["slow_consumers"] <= 1
        assert eventually(lambda: app.websocket.get_client_count() == 1)


def test_it_can_be_stopped_and_tested() -> None:
    """Twice in one process, as a unit test would: nothing is left, the port is free again."""
    app = Daebus("unit")
    http = app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    app.socket("add")(lambda req: req.data["a"] + req.data["b"])
    for _ in range(2):
        app.start()
        port = http.port
        with app.test_client() as client:
            assert client.request("add", {"a": 1, "b": 2}) == 3
        assert app.stop(timeout=5) == []
        assert not [t.name for t in threading.enumerate() if t.name.startswith("daebus-")]
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))


def test_dead_clients_do_not_linger(make_app: MakeApp, connect: Connect) -> None:
    """One that says nothing any more, as after a pulled plug, is gone in time, and once."""
    app = make_app(ping_interval=0.2, ping_timeout=0.2)
    left: list[str] = []
    gone = threading.Event()

    @app.websocket.on_disconnect
    def disconnected(client_id: str, info: Any) -> None:
        left.append(info.reason)
        gone.set()

    app.start()
    Peer.joined(connect(app.http.port))
    assert eventually(lambda: app.websocket.get_client_count() == 1)
    assert gone.wait(2)
    assert app.websocket.get_client_count() == 0
    app.stop()
    assert left == ["ping_timeout"]


def test_a_busy_handler_does_not_starve_others(app: Daebus) -> None:
    release, begun = threading.Event(), threading.Event()

    @app.socket("report")
    def report(req: WebSocketRequest) -> str:
        begun.set()
        assert release.wait(10)
        return "at last"

    with app.test_client() as busy, app.test_client() as other:
        busy.send("report")
        assert begun.wait(5)
        for number in range(50):
            assert other.request("echo", number) == number
        app.websocket.broadcast_to_all("news")
        assert busy.receive()["data"] == other.receive()["data"] == "news"
        release.set()
        assert busy.receive()["data"] == "at last"


def test_a_client_can_be_refused_before_it_is_connected(
    make_app: MakeApp, connect: Connect
) -> None:
    """No 101, no thread, no hook: an ordinary HTTP answer that says why."""
    app = make_app(origins=["https://mine.example"], max_clients=1)
    hooks: list[str] = []

    @app.websocket.authenticate
    def know(request: UpgradeRequest) -> str:
        if request.args.get("token") != "right":
            raise Reject(401, "log in first", code="no_login")
        return "ada"

    app.websocket.on_connect(hooks.append)
    app.websocket.on_disconnect(hooks.append)
    app.start()
    request = upgrade_request(headers={"Origin": "https://theirs.example"})
    answer = Peer(connect(app.http.port)).ask(request)
    assert (answer.status, answer.json["code"]) == (403, "origin_not_allowed")
    answer = Peer(connect(app.http.port)).ask(upgrade_request("/?token=wrong"))
    assert (answer.status, answer.json) == (401, {"error": "log in first", "code": "no_login"})
    assert hooks == []
    first = Peer.joined(connect(app.http.port), "/?token=right")
    assert eventually(lambda: len(hooks) == 1)
    answer = Peer(connect(app.http.port)).ask(upgrade_request("/?token=right"))
    assert (answer.status, answer.json["code"]) == (503, "too_many_clients")
    assert "retry-after" in answer.headers
    assert app.websocket.get_client_count() == 1
    first.close()
    assert eventually(lambda: len(hooks) == 2)
    assert app.websocket.stats()["refused"] == {
        "origin_not_allowed": 1,
        "no_login": 1,
        "too_many_clients": 1,
    }
