"""Closing from both sides, stopping while clients connect, coming and going."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daebus import Connection, Daebus, DisconnectInfo, WebSocketRequest
from daebus.server.threads import loop
from tests.support.builds import freed
from tests.support.fixture_types import Connect, MakeApp
from tests.support.inside import connections
from tests.support.peer import CLOSE, TEXT, Peer, upgrade_request
from tests.support.slow_clients import narrow, reset
from tests.support.waiting import eventually


class Hooks:
    """Counts hooks by client."""

    def __init__(self, app: Daebus) -> None:
        self.came, self.went = Counter[str](), Counter[str]()
        self.infos = queue.Queue[DisconnectInfo]()
        self._lock = threading.Lock()
        app.websocket.on_connect(self.connected)
        app.websocket.on_disconnect(self.disconnected)

    def connected(self, client_id: str) -> None:
        with self._lock:
            self.came[client_id] += 1

    def disconnected(self, client_id: str, info: DisconnectInfo) -> None:
        with self._lock:
            self.went[client_id] += 1
        self.infos.put(info)

    def paired(self) -> bool:
        with self._lock:
            return self.came == self.went and set(self.came.values()) <= {1}


def at_once(*jobs: Callable[[], object]) -> None:
    """Run the jobs in a thread each, all let go at the same moment."""
    gate = threading.Barrier(len(jobs), timeout=10)
    failures: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        gate.wait()
        try:
            job()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert not failures, failures


def test_both_sides_close_at_once(app: Daebus, connect: Connect) -> None:
    hooks = Hooks(app)
    app.start()
    for _ in range(100):
        peer = Peer.joined(connect(app.http.port))
        (connection,) = eventually(lambda: connections(app))
        at_once(
            lambda: peer.send(CLOSE, (4000).to_bytes(2, "big")),  # noqa: B023  # run in this turn
            lambda: connection.shut(4001, "enough", "server"),  # noqa: B023
        )
        code, _ = peer.close_frame()
        info = hooks.infos.get(timeout=5)
        assert (info.reason, info.code, code) in (("client", 4000, 4000), ("server", 4001, 4001))
        if code == 4001:
            with contextlib.suppress(OSError):
                peer.send(CLOSE, (4001).to_bytes(2, "big"))
        assert peer.ended()
    assert eventually(hooks.paired)


def test_everybody_ends_a_connection_at_once(make_app: MakeApp, connect: Connect) -> None:
    """A close, a cut, a loss, a slow consumer's end: one reason, one hook, one close."""
    app = make_app(max_outbox_messages=2)
    hooks = Hooks(app)
    app.start()
    for _ in range(60):
        with narrow(app) as peer:
            (connection,) = connections(app)

            def overflow() -> None:
                while app.websocket.broadcast_to_all("x" * 16384):
                    pass

            at_once(
                lambda: connection.shut(4001, "", "server"),  # noqa: B023
                lambda: connection.lose("ping_timeout", "silent"),  # noqa: B023
                connection.writer.abort,
                overflow,
                lambda: reset(peer),
            )
            info = hooks.infos.get(timeout=5)
            assert info.reason in ("server", "ping_timeout", "slow_consumer", "lost")
            assert eventually(lambda: not connections(app))
    assert eventually(hooks.paired)
    assert hooks.infos.empty()


@pytest.mark.timeout(60)
def test_a_stop_while_clients_connect_leaves_nobody_behind(make_app: MakeApp) -> None:
    app = make_app(close_timeout=1)
    hooks = Hooks(app)
    for _ in range(4):
        app.start()
        port = app.http.port
        connected = threading.Semaphore(0)

        def visit(number: int) -> str:
            with socket.socket() as sock:
                sock.settimeout(10)
                try:
                    sock.connect(("127.0.0.1", port))  # noqa: B023
                    sock.sendall(upgrade_request())
                    peer = Peer(sock)
                    answer = peer.ask(b"")
                    connected.release()  # noqa: B023
                    if answer.status == 503:
                        return answer.json["code"]  # type: ignore[no-any-return]
                    assert answer.status == 101
                    code, _ = peer.close_frame()
                    peer.send(CLOSE, code.to_bytes(2, "big"))
                    return str(code)
                except (EOFError, ConnectionError):
                    connected.release()  # noqa: B023
                    return "gone"

        with ThreadPoolExecutor(16) as pool:
            visits = [pool.submit(visit, number) for number in range(200)]
            assert connected.acquire(timeout=10)
            assert app.stop(timeout=10) == []
            outcomes = Counter(future.result() for future in visits)
        assert set(outcomes) <= {"1001", "gone", "stopping", "no_thread", "overloaded"}, outcomes
        assert outcomes["1001"]
        assert eventually(hooks.paired)
        assert app.websocket.get_client_count() == 0


def test_broadcasts_while_clients_come_and_go(app: Daebus) -> None:
    hooks = Hooks(app)
    app.start()
    over = threading.Event()
    counts: list[tuple[int, int]] = []

    def broadcast() -> None:
        number = 0
        while not over.is_set():
            reached = app.websocket.broadcast_to_all(number)
            counts.append((reached, app.websocket.get_client_count()))
            number += 1

    def visit(number: int) -> None:
        with socket.create_connection(("127.0.0.1", app.http.port), timeout=10) as sock:
            peer = Peer.joined(sock)
            last = None
            for _ in range(5):
                data = peer.message()["data"]
                assert last is None or data == last + 1, "a broadcast is missing or out of order"
                last = data
            if number % 2:
                reset(peer)
                return
            peer.send(CLOSE, (1000).to_bytes(2, "big"))
            peer.close_frame()

    broadcaster = threading.Thread(target=broadcast)
    broadcaster.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(visit, range(150)))
    finally:
        over.set()
        broadcaster.join()
    assert eventually(hooks.paired)
    assert len(hooks.came) == 150
    assert max(reached for reached, _ in counts) <= 9
    assert app.websocket.get_clients() == []
    stats = app.websocket.stats()
    assert stats["connections"] == 0
    assert stats["connections_total"] == sum(stats["disconnects"].values()) == 150


def answer_the_close(peer: Peer) -> None:
    peer.close_frame()
    peer.sock.close()


def test_two_stops_at_once_both_return_and_stop_once(app: Daebus, connect: Connect) -> None:
    hooks = Hooks(app)
    for _ in range(20):
        app.start()
        peer = Peer.joined(connect(app.http.port))
        answered = threading.Thread(target=answer_the_close, args=(peer,))
        answered.start()
        results: list[list[str]] = []
        at_once(*[lambda: results.append(app.stop(timeout=5))] * 3)  # noqa: B023
        answered.join(5)
        assert results == [[], [], []]
        assert not app.running
        assert eventually(hooks.paired)


@pytest.mark.timeout(30)
def test_two_handlers_that_stop_at_once_do_not_wait_for_each_other(
    app: Daebus, connect: Connect
) -> None:
    gate = threading.Barrier(2, timeout=5)
    left = queue.Queue[list[str]]()

    @app.socket("stop")
    def stop(req: WebSocketRequest) -> None:
        gate.wait()
        left.put(app.stop(timeout=20))

    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(2)]
    for peer in peers:
        peer.say("stop")
    for peer in peers:
        assert peer.close_frame() == (1001, "")
        peer.send(CLOSE, (1001).to_bytes(2, "big"))
    assert [left.get(timeout=5) for _ in range(2)] == [[], []]
    assert app.wait(5)


def test_a_client_that_leaves_while_it_is_welcomed_gets_both_hooks_once(
    app: Daebus, connect: Connect
) -> None:
    begun, release = threading.Event(), threading.Event()

    @app.websocket.on_connect
    def welcome(client_id: str) -> None:
        begun.set()
        assert release.wait(5)
        assert app.websocket.send("welcome") in (1, 0)

    hooks = Hooks(app)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    assert begun.wait(5)
    reset(peer)
    release.set()
    assert hooks.infos.get(timeout=5).reason == "lost"
    assert hooks.paired()
    assert len(hooks.came) == 1


def test_a_connection_closed_by_its_own_connect_hook(app: Daebus, connect: Connect) -> None:
    app.websocket.on_connect(lambda client_id: connections(app)[0].shut(4003, "not you", "server"))
    hooks = Hooks(app)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    assert peer.close_frame() == (4003, "not you")
    peer.send(CLOSE, (4003).to_bytes(2, "big"))
    assert hooks.infos.get(timeout=5).reason == "server"
    assert hooks.paired()


def test_eight_threads_send_to_one_client(app: Daebus, connect: Connect) -> None:
    app.start()
    peer = Peer.joined(connect(app.http.port))
    (connection,) = eventually(lambda: connections(app))
    view = Connection(connection)
    each = 400

    def sender(number: int) -> Callable[[], None]:
        def send() -> None:
            for turn in range(each):
                assert view.send(json.dumps([number, turn, "x" * (turn % 50 * 7)]))

        return send

    seen: dict[int, list[int]] = {number: [] for number in range(8)}

    def read() -> None:
        for _ in range(8 * each):
            opcode, payload = peer.frame()
            assert opcode == TEXT
            number, turn, filling = json.loads(payload)
            assert filling == "x" * (turn % 50 * 7)
            seen[number].append(turn)

    at_once(read, *[sender(number) for number in range(8)])
    assert seen == {number: list(range(each)) for number in range(8)}
    assert app.websocket.stats()["messages_out"] == 8 * each
    peer.close()


def test_an_async_handler_that_ignores_its_cancellation_leaves_no_thread_for_ever(
    app: Daebus,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(loop, "TIDY_TIMEOUT", 0.05)
    begun = threading.Event()

    @app.socket("stubborn")
    async def stubborn(req: WebSocketRequest) -> None:
        begun.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("stubborn")
    assert begun.wait(5)
    app.stop(timeout=1)
    assert eventually(
        lambda: not [t.name for t in threading.enumerate() if t.name.startswith("daebus-")]
    )
    # asyncio complains about the task that is dropped, and should do so here.
    gc.collect()
    assert freed(lambda: "Task was destroyed but it is pending" in caplog.text)


def test_a_release_and_the_last_bytes_at_the_same_time_close_one_descriptor_once(
    make_app: MakeApp,
) -> None:
    """The minder writes the rest while the owner ends: no other socket may be hit."""
    app = make_app()
    app.start()
    bystanders: list[Any] = []
    for _ in range(60):
        with narrow(app) as peer:
            (connection,) = connections(app)
            while not connection.writer.outlet.queued()[1]:
                app.websocket.broadcast_to_all("x" * 16384)
            at_once(
                lambda: connection.shut(4000, "", "server"),  # noqa: B023
                lambda: reset(peer),
                # New descriptors, which take the numbers that come free.
                lambda: bystanders.append(socket.socketpair()),
            )
            assert eventually(lambda: connection.fileno() == -1)  # noqa: B023
    for one, two in bystanders:
        with one, two:
            one.settimeout(5)
            two.sendall(b"whole")
            assert one.recv(10) == b"whole"
