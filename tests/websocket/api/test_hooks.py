"""``on_connect`` and ``on_disconnect``: when they run, how often, and what they may do."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daebus import Daebus, WebSocketRequest
from daebus.websocket.clients.broadcast import SendResult
from tests.support.fixture_types import Connect, MakeApp
from tests.support.peer import CLOSE, Peer, envelope, upgrade_request
from tests.support.waiting import eventually

# --- on_connect ---------------------------------------------------------------------


def test_on_connect_runs_registered_and_counted_before_the_first_message(
    app: Daebus, connect: Connect
) -> None:
    seen = queue.Queue[tuple[Any, ...]]()

    @app.websocket.on_connect
    def came(client_id: str) -> None:
        websocket = app.websocket
        seen.put(
            (
                "hook",
                websocket.get_clients() == [client_id],
                websocket.get_client_count(),
                websocket.is_client_connected(client_id),
            )
        )

    @app.socket("first")
    def first(req: WebSocketRequest) -> str:
        seen.put(("handler", req.client_id))
        return "answer"

    app.start()
    peer = Peer.joined(connect(app.http.port), behind=envelope("first"))
    assert peer.message()["data"] == "answer"
    assert seen.get(timeout=5) == ("hook", True, 1, True)
    assert seen.get(timeout=5) == ("handler", app.websocket.get_clients()[0])


def test_every_hook_runs_in_the_order_of_registration(app: Daebus) -> None:
    order = queue.Queue[str]()
    for name in ("one", "two", "three"):
        app.websocket.on_connect(lambda client_id, name=name: order.put(f"{name} came"))
        app.websocket.on_disconnect(lambda client_id, name=name: order.put(f"{name} went"))
    with app.test_client():
        pass
    assert [order.get(timeout=5) for _ in range(6)] == [
        f"{name} {what}" for what in ("came", "went") for name in ("one", "two", "three")
    ]


def test_the_decorators_leave_the_function_as_it_was(app: Daebus) -> None:
    def hook(client_id: str) -> None: ...

    assert app.websocket.on_connect(hook) is hook
    assert app.websocket.on_disconnect(hook) is hook


def test_a_hook_may_send_to_its_client(app: Daebus) -> None:
    outcome = queue.Queue[SendResult]()

    @app.websocket.on_connect
    def welcome(client_id: str) -> None:
        outcome.put(app.websocket.send({"you": client_id}, "welcome"))

    @app.websocket.on_connect
    async def welcome_again(client_id: str) -> None:
        await asyncio.sleep(0)
        outcome.put(app.websocket.send({"you": client_id}))

    @app.websocket.on_disconnect
    def goodbye(client_id: str) -> None:
        outcome.put(app.websocket.send("goodbye"))

    with app.test_client() as client:
        first = client.receive()
        (client_id,) = app.websocket.get_clients()
        assert first == {"type": "welcome", "data": {"you": client_id}}
        assert client.receive() == {"type": "response", "data": {"you": client_id}}
    assert [outcome.get(timeout=5) for _ in range(3)] == [1, 1, 0]


def test_a_hook_may_broadcast_and_ask(app: Daebus) -> None:
    @app.websocket.on_connect
    def came(client_id: str) -> None:
        assert client_id in app.websocket.get_clients()
        app.websocket.broadcast_to_all(app.websocket.get_client_count(), "came")

    @app.websocket.on_disconnect
    def went(client_id: str) -> None:
        assert client_id not in app.websocket.get_clients()
        app.websocket.broadcast_to_all(app.websocket.get_client_count(), "went")

    with app.test_client() as one:
        assert one.receive() == {"type": "came", "data": 1}
        with app.test_client() as two:
            assert one.receive() == {"type": "came", "data": 2}
            assert two.receive() == {"type": "came", "data": 2}
        assert one.receive() == {"type": "went", "data": 1}


@pytest.mark.parametrize("exc", [RuntimeError("broken"), SystemExit(1)], ids=repr)
def test_a_hook_that_raises_stops_neither_the_others_nor_the_client(
    app: Daebus, caplog: pytest.LogCaptureFixture, exc: BaseException
) -> None:
    came, went = queue.Queue[str](), queue.Queue[str]()

    def broken(client_id: str) -> None:
        raise exc

    async def broken_later(client_id: str) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("broken too")

    for hook in (broken, broken_later, came.put):
        app.websocket.on_connect(hook)
    for hook in (broken, broken_later, went.put):
        app.websocket.on_disconnect(hook)
    with app.test_client() as client:
        assert client.request("echo", 1) == 1
    assert came.get(timeout=5) == went.get(timeout=5)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert [text.split()[0] for text in errors] == ["on_connect"] * 2 + ["on_disconnect"] * 2


def test_async_hooks_run_on_the_loop_before_the_first_message(
    app: Daebus, connect: Connect
) -> None:
    order = queue.Queue[str]()

    @app.websocket.on_connect
    async def came(client_id: str) -> None:
        await asyncio.sleep(0)
        order.put(threading.current_thread().name)

    app.socket("first")(lambda req: order.put("handler"))
    app.start()
    Peer.joined(connect(app.http.port), behind=envelope("first"))
    assert order.get(timeout=5) == "daebus-loop"
    assert order.get(timeout=5) == "handler"


def test_a_refused_client_runs_no_hook(app: Daebus, connect: Connect) -> None:
    hooks = queue.Queue[str]()
    app.websocket.on_connect(hooks.put)
    app.websocket.on_disconnect(hooks.put)
    app.start()
    request = upgrade_request(headers={"Origin": "http://elsewhere.example"})
    assert Peer(connect(app.http.port)).ask(request).status == 403
    app.stop()
    assert hooks.empty()


# --- on_disconnect ------------------------------------------------------------------


def reset(peer: Peer) -> None:
    """Vanish with a TCP reset."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.sock.close()


ENDINGS: dict[str, Callable[[Daebus, Peer], object]] = {
    "close handshake": lambda app, peer: peer.close(),
    "end of the stream": lambda app, peer: peer.sock.close(),
    "reset": lambda app, peer: reset(peer),
    "half close": lambda app, peer: peer.sock.shutdown(socket.SHUT_WR),
    "broken frame": lambda app, peer: peer.sock.sendall(b"\xff\x80mask"),
    "closed by a handler": lambda app, peer: peer.say("leave"),
    "stop": lambda app, peer: app.stop(timeout=1),
}


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_on_disconnect_runs_once_however_the_connection_ends(
    make_app: MakeApp, connect: Connect, end: Callable[[Daebus, Peer], object]
) -> None:
    app = make_app(close_timeout=0.2)
    calls = queue.Queue[tuple[str, int, bool]]()

    @app.websocket.on_disconnect
    def went(client_id: str) -> None:
        websocket = app.websocket
        calls.put(
            (client_id, websocket.get_client_count(), websocket.is_client_connected(client_id))
        )

    app.socket("who")(lambda req: req.client_id)
    app.socket("leave")(lambda req: req.websocket.close(4000, "enough") and None)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("who")
    client_id = peer.message()["data"]
    end(app, peer)
    assert calls.get(timeout=5) == (client_id, 0, False)
    app.stop()
    assert calls.empty()


def test_on_disconnect_waits_for_the_running_handler_and_the_count_does_not(
    app: Daebus, connect: Connect
) -> None:
    order = queue.Queue[str]()
    release = threading.Event()

    @app.socket("work")
    def work(req: WebSocketRequest) -> None:
        assert req.cancelled.wait(5)
        order.put(f"cancelled, count {app.websocket.get_client_count()}")
        assert release.wait(5)
        order.put("handler ends")

    app.websocket.on_disconnect(lambda client_id: order.put("hook"))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("work")
    peer.send(CLOSE, (1000).to_bytes(2, "big"))
    assert peer.close_frame() == (1000, "")
    first = order.get(timeout=5)
    assert first.startswith("cancelled")
    assert eventually(lambda: app.websocket.get_client_count() == 0)
    assert order.empty()
    release.set()
    assert order.get(timeout=5) == "handler ends"
    assert order.get(timeout=5) == "hook"


# --- wear ---------------------------------------------------------------------------


def test_five_hundred_connections_leave_nothing_and_ran_each_hook_once(
    app: Daebus, connect: Connect
) -> None:
    total, at_once = 500, 10
    came, went = Counter[str](), Counter[str]()
    lock, all_left = threading.Lock(), threading.Event()

    @app.websocket.on_connect
    def note_arrival(client_id: str) -> None:
        with lock:
            came[client_id] += 1

    @app.websocket.on_disconnect
    def note_departure(client_id: str) -> None:
        with lock:
            went[client_id] += 1
            if went.total() == total:
                all_left.set()

    def visit(number: int) -> None:
        sock = socket.create_connection(("127.0.0.1", app.http.port), timeout=10)
        with sock:
            peer = Peer.joined(sock)
            peer.say("echo", number)
            assert peer.message()["data"] == number
            if number % 3:
                peer.close()
            elif number % 2:
                reset(peer)

    app.start()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(visit, range(total)))
    assert all_left.wait(10)
    assert len(came) == len(went) == total
    assert set(came.values()) == set(went.values()) == {1}
    assert came.keys() == went.keys()
    assert app.websocket.get_clients() == []
    if before:
        assert eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)

    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("daebus-ws-")]

    # The last ones close their sockets before they park.
    assert eventually(lambda: set(threads()) <= {"daebus-ws-parked"})
    assert len(threads()) <= 2 * at_once + 1
    assert app.stop() == []


def test_hooks_run_although_the_log_raises(app: Daebus, connect: Connect) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no space left on device")

    seen = queue.Queue[str]()
    app.websocket.on_connect(lambda client_id: seen.put("came"))
    app.websocket.on_disconnect(lambda client_id: seen.put("left"))
    app.start()
    logger, broken = logging.getLogger("daebus.websocket"), Broken(logging.INFO)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(broken)
    try:
        peer = Peer.joined(connect(app.http.port))
        assert seen.get(timeout=5) == "came"
        peer.sock.sendall(envelope("echo", 1))
        assert peer.message()["data"] == 1
        peer.close()
        assert seen.get(timeout=5) == "left"
        assert eventually(lambda: app.websocket.get_client_count() == 0)
    finally:
        logger.removeHandler(broken)
        logger.setLevel(level)
