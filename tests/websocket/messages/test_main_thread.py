"""``run_in="main"`` and ``app.pump()``: handlers in a thread of the host."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from daebus import (
    AttachError,
    Blueprint,
    ClientError,
    Daebus,
    DaebusHttp,
    StateError,
    WebSocketRequest,
)
from daebus.testing import AppClient, RequestError
from tests.support.fixture_types import Connect
from tests.support.inside import activity_of, connections, handed_over, is_pumped
from tests.support.peer import TEXT, Peer, envelope
from tests.support.waiting import eventually


@pytest.fixture
def requests() -> Iterator[Callable[..., queue.Queue[Any]]]:
    """Have clients ask in threads of their own, since this one pumps."""
    threads: list[threading.Thread] = []

    def ask(client: AppClient, kind: str, data: Any = None) -> queue.Queue[Any]:
        answers = queue.Queue[Any]()

        def run() -> None:
            try:
                answers.put(client.request(kind, data))
            except Exception as exc:
                answers.put(exc)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return answers

    yield ask
    for thread in threads:
        thread.join(10)


def where(req: WebSocketRequest) -> Any:
    return [req.data, threading.get_ident()]


def test_handlers_run_in_the_thread_that_pumps(app: Daebus, requests: Any) -> None:
    app.socket("where", run_in="main")(where)
    me = threading.get_ident()
    with app.test_client() as ada, app.test_client() as bob:
        answers = [requests(ada, "where", 1), requests(bob, "where", 2)]
        ran = 0
        while ran < 2:
            ran += app.pump(5)
        assert [answer.get(timeout=5) for answer in answers] == [[1, me], [2, me]]
        assert app.pump() == 0
        assert ada.request("echo", 3) == 3  # others do not wait for it


def test_order_ids_and_send_are_kept(app: Daebus, connect: Connect) -> None:
    @app.socket("main", run_in="main")
    def main(req: WebSocketRequest) -> Any:
        app.websocket.send({"sent": req.data})
        if req.data == 2:
            raise ClientError("not two", code="two")
        return req.data

    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(2)]
    for peer in peers:
        for number in range(4):
            peer.sock.sendall(envelope("main", number) + envelope("echo", number))
    ran = 0
    while ran < 8:
        ran += app.pump(5)
    for peer in peers:
        for number in range(4):
            assert peer.message()["data"] == {"sent": number}
            answer = peer.message()["data"]
            assert answer == number or (answer["code"], number) == ("two", 2)
            assert peer.message() == {"type": "response", "data": number}
        peer.close()
    assert app.websocket.stats()["handlers"]["main"]["count"] == 8


def test_a_pump_returns_though_clients_flood(app: Daebus, connect: Connect) -> None:
    app.socket("main", run_in="main")(lambda req: None)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.sock.sendall(100 * envelope("main"))
    assert app.pump(5) == 1  # the client's next message waits for the end of this one
    ran = 1
    while ran < 100:
        ran += app.pump(5)
    peer.close()


def test_nobody_pumps_and_the_client_is_told(make_app: Any) -> None:
    app: Daebus = make_app(main_timeout=0.05)
    calls = queue.Queue[Any]()
    app.socket("main", run_in="main")(lambda req: calls.put(req.data))
    app.socket("echo")(lambda req: req.data)
    with app.test_client() as client:
        with pytest.raises(RequestError, match="busy: the program is busy; try again later"):
            client.request("main", 1)
        assert client.request("echo", 2) == 2
        assert app.pump(0) == 0  # it was taken back
    assert calls.empty()


def test_what_has_begun_takes_its_time(make_app: Any, requests: Any) -> None:
    app: Daebus = make_app(main_timeout=0.05)
    app.socket("main", run_in="main")(lambda req: time.monotonic() + threading.Event().wait(0.2))
    with app.test_client() as client:
        answer = requests(client, "main")
        assert app.pump(5) == 1
        assert isinstance(answer.get(timeout=5), float)


def test_a_client_that_left_is_dropped_before_its_turn(app: Daebus, connect: Connect) -> None:
    gone = queue.Queue[str]()
    calls: list[str] = []

    @app.socket("main", run_in="main")
    def main(req: WebSocketRequest) -> None:
        calls.append(req.data)

    app.websocket.on_disconnect(gone.put)
    app.start()
    leaving, staying = (Peer.joined(connect(app.http.port)) for _ in range(2))
    leaving.say("main", "leaving")
    assert eventually(lambda: handed_over(app) == 1)
    leaving.sock.close()
    assert eventually(lambda: app.websocket.get_client_count() == 1)
    staying.say("main", "staying")
    assert eventually(lambda: handed_over(app) == 2)
    assert app.pump(5) == 1  # of two
    assert calls == ["staying"]
    assert gone.get(timeout=5)
    staying.close()


def test_a_client_that_leaves_while_its_handler_runs_cancels_it(
    app: Daebus, connect: Connect
) -> None:
    peers: list[Peer] = []

    @app.socket("main", run_in="main")
    def main(req: WebSocketRequest) -> str:
        peers[0].sock.close()
        assert req.cancelled.wait(5)
        assert not app.websocket.send("nobody")
        return "nobody"

    app.start()
    peers.append(Peer.joined(connect(app.http.port)))
    peers[0].say("main")
    assert app.pump(5) == 1
    assert eventually(lambda: app.websocket.get_client_count() == 0)


def test_a_request_can_be_cancelled_before_its_turn(app: Daebus, connect: Connect) -> None:
    calls: list[Any] = []
    app.socket("main", run_in="main")(lambda req: calls.append(req.data))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.send(TEXT, '{"type": "main", "id": 1, "data": 1}')
    assert eventually(lambda: handed_over(app) == 1)
    peer.send(TEXT, '{"type": "cancel", "id": 1}')
    (connection,) = connections(app)
    activity = activity_of(connection)
    assert isinstance(activity.request, WebSocketRequest)
    assert eventually(activity.request.cancelled.is_set)
    app.pump(5)
    answer = peer.message()
    assert (answer["data"]["code"], answer["id"]) == ("cancelled", 1)
    assert not calls
    peer.close()


def test_a_generator_sends_each_item_from_the_main_thread(app: Daebus, requests: Any) -> None:
    @app.socket("main", run_in="main")
    def main(req: WebSocketRequest) -> Iterator[Any]:
        yield threading.get_ident()

    with app.test_client() as client:
        answer = requests(client, "main")
        assert app.pump(5) == 1
        assert answer.get(timeout=5) == threading.get_ident()


# --- stop ---------------------------------------------------------------------------


def test_a_stop_ends_a_pump_and_drops_what_waits(app: Daebus, connect: Connect) -> None:
    calls: list[Any] = []
    app.socket("main", run_in="main")(lambda req: calls.append(req.data))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    results = queue.Queue[int]()
    pumping = threading.Thread(target=lambda: results.put(app.pump(3600)))
    pumping.start()
    assert eventually(lambda: is_pumped(app))
    stopping = threading.Thread(target=lambda: results.put(len(app.stop(5))))
    stopping.start()
    assert results.get(timeout=5) == 0
    assert peer.part() == 1001
    assert results.get(timeout=5) == 0
    for thread in (pumping, stopping):
        thread.join(5)
    before = time.monotonic()
    assert app.pump(3600) == 0  # a loop that goes on with it waits, but not for long
    assert time.monotonic() - before < 2
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("main", "again")
    assert app.pump(5) == 1
    assert calls == ["again"]
    peer.close()


def test_a_stop_frees_clients_that_wait_for_a_pump(app: Daebus, connect: Connect) -> None:
    calls: list[Any] = []
    app.socket("main", run_in="main")(lambda req: calls.append(req.data))
    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(2)]
    for peer in peers:
        peer.say("main", 1)
    assert eventually(lambda: handed_over(app) == 2)
    stopping = threading.Thread(target=app.stop, args=(5,))
    stopping.start()
    for peer in peers:
        assert peer.part() == 1001
    stopping.join(5)
    assert not app.running
    assert not calls


def test_a_handler_in_the_main_thread_may_stop_the_app(app: Daebus, connect: Connect) -> None:
    left: list[list[str]] = []
    app.socket("main", run_in="main")(lambda req: left.append(app.stop(5)))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("main")
    answering = threading.Thread(target=peer.part)
    answering.start()
    before = time.monotonic()
    assert app.pump(5) == 1
    assert time.monotonic() - before < 1.5  # a stop that waits for it takes 2 s and more
    answering.join(5)
    assert left == [[]]
    assert not app.running


def test_a_stop_elsewhere_does_not_wait_for_the_main_thread_for_ever(
    make_app: Any, connect: Connect
) -> None:
    app: Daebus = make_app(close_timeout=0.1)
    entered, release = threading.Event(), threading.Event()
    hooks = queue.Queue[str]()

    @app.socket("main", run_in="main")
    def main(req: WebSocketRequest) -> None:
        entered.set()
        assert release.wait(10)
        hooks.put("handler ended")

    app.websocket.on_disconnect(lambda client_id: hooks.put("left"))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("main")
    pumping = threading.Thread(target=app.pump, args=(5,))
    pumping.start()
    assert entered.wait(5)
    assert app.stop(5) == []
    assert hooks.get(timeout=5) == "left"
    release.set()
    pumping.join(5)
    assert hooks.get(timeout=5) == "handler ended"


# --- misuse and interrupts ----------------------------------------------------------


def test_pump_in_a_wrong_state_says_so(app: Daebus) -> None:
    with pytest.raises(StateError, match=r"call app\.start\(\) before app\.pump\(\)"):
        app.pump()
    bare = Daebus("bare")
    bare.attach(DaebusHttp(port=0))
    with pytest.raises(AttachError, match="no WebSocket component"):
        bare.pump()
    app.socket("pump")(lambda req: app.pump())
    with app.test_client() as client, pytest.raises(RequestError, match="handler_error"):
        client.request("pump")


def test_one_thread_pumps(app: Daebus, requests: Any) -> None:
    problems: list[str] = []

    def pump_too() -> None:
        try:
            app.pump()
        except StateError as exc:
            problems.append(str(exc))

    @app.socket("main", run_in="main")
    def main(req: WebSocketRequest) -> str:
        pump_too()
        other = threading.Thread(target=pump_too)
        other.start()
        other.join(5)
        return "done"

    with app.test_client() as client:
        answer = requests(client, "main")
        assert app.pump(5) == 1
        assert answer.get(timeout=5) == "done"
        assert app.pump() == 0
    assert problems == [
        f"app.pump() is called by {who} already; call it in one place"
        for who in ("a handler that it runs", "another thread")
    ]


def test_a_failing_handler_does_not_reach_the_host(
    app: Daebus, requests: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app.socket("main", run_in="main")(lambda req: 1 / 0)
    with app.test_client() as client:
        answer = requests(client, "main")
        assert app.pump(5) == 1
        assert "handler_error" in str(answer.get(timeout=5))
    assert "handler for 'main' failed" in caplog.text


@pytest.fixture
def late_alarm() -> Iterator[None]:
    """Have SIGALRM raise, as programs do that end what takes long."""

    def end(number: int, frame: Any) -> None:
        raise TimeoutError("took too long")

    before = signal.signal(signal.SIGALRM, end)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("late_alarm")
@pytest.mark.parametrize("where", ["handler", "hook", "generator", "async generator"])
def test_what_is_meant_for_the_host_reaches_it(app: Daebus, requests: Any, where: str) -> None:
    hooked: list[BaseException] = []
    raising: Callable[[], object] = list

    class Item:
        def tolist(self) -> object:  # called in the thread that sends
            return raising()

    def handle(req: WebSocketRequest) -> Any:
        if where == "hook":
            raise ValueError
        return raising()

    def generate(req: WebSocketRequest) -> Iterator[Any]:
        yield Item()

    async def later() -> AsyncIterator[Any]:
        yield Item()

    @app.on_error
    def look(req: WebSocketRequest, exc: BaseException) -> None:
        if where == "hook":
            raising()

    app.on_error(lambda req, exc: hooked.append(exc))
    handlers: dict[str, Any] = {"generator": generate, "async generator": lambda req: later()}
    app.socket("main", run_in="main")(handlers.get(where, handle))
    ways: dict[type[BaseException], Callable[[], object]] = {
        KeyboardInterrupt: lambda: signal.raise_signal(signal.SIGINT),
        TimeoutError: lambda: signal.raise_signal(signal.SIGALRM),
        SystemExit: lambda: sys.exit(3),
    }
    with app.test_client() as client:
        for kind, way in ways.items():
            raising = way
            answer = requests(client, "main")
            with pytest.raises(kind):
                app.pump(5)
            assert "handler_error" in str(answer.get(timeout=5))
        assert app.pump() == 0
    assert len(hooked) == len(ways)  # each hook was asked


def test_where_it_cannot_run_is_refused(app: Daebus) -> None:
    async def run(req: WebSocketRequest) -> None: ...

    with pytest.raises(
        ValueError, match="run_in is 'thread'; write 'connection', 'pool' or 'main'"
    ):
        app.socket("x", run_in="thread")(where)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"run is async, so it runs on the loop; write it with def"):
        app.socket("x", run_in="main")(run)
    app.socket("x", run_in="main")(where)


def test_middleware_and_blueprints_go_along(app: Daebus, requests: Any) -> None:
    part = Blueprint("part")
    part.socket("main", run_in="main")(lambda data, client_id: data)
    app.websocket.middleware(lambda req, next: [next(req), threading.get_ident()])
    app.register(part)
    with app.test_client() as client:
        answer = requests(client, "main", "x")
        assert app.pump(5) == 1
        assert answer.get(timeout=5) == ["x", threading.get_ident()]


def test_a_forked_child_does_not_pump(app: Daebus) -> None:
    app.start()
    child = os.fork()
    if child == 0:
        try:
            app.pump()
        except StateError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
