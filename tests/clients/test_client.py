"""``daebus.Client`` alone: what no other client has, and the real server at the other end."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidState

from daebus import (
    CallError,
    Client,
    ClientStatus,
    Daebus,
    DaebusHttp,
    DaebusWebSocket,
    Disconnected,
    DuplicateHandlerError,
    EncodeError,
    ForkedError,
    Message,
    Refused,
    Reject,
    RequestError,
    StateError,
    UpgradeRequest,
    WebSocketRequest,
)
from daebus.client import rules
from daebus.client.wire import Lost, _writable
from tests.clients.scripted import Conn, Refusal, ScriptedServer
from tests.support.child import Child
from tests.support.fixture_types import MakeApp
from tests.support.held import holding, owners_of_locks
from tests.support.logs import records
from tests.support.public import REFUSALS, public_calls
from tests.support.tls import client_context, server_context
from tests.support.waiting import eventually


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pause before the next attempt is short."""
    monkeypatch.setattr(rules, "MIN_DELAY", 0.02)


@pytest.fixture
def running(app: Daebus) -> Iterator[Daebus]:
    """An app with an echo."""
    with app:
        yield app


def url_of(app: Daebus) -> str:
    return f"http://127.0.0.1:{app.http.port}/"


def status_of(client: Client) -> str:
    return client.status


def threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return sorted(name for name in names if name.startswith("daebus-client"))


class Pair:
    """A client that is open, and the scripted end of it."""

    def __init__(self, server: ScriptedServer, **options: Any) -> None:
        made: list[Conn] = []
        thread = threading.Thread(target=lambda: made.append(server.accept()))
        thread.start()
        self.client = Client(server.url, name="test", **options).connect()
        thread.join()
        self.conn = made[0]

    def __enter__(self) -> tuple[Client, Conn]:
        return self.client, self.conn

    def __exit__(self, *exc_info: object) -> None:
        self.client.close()


# --- with the real server -------------------------------------------------------------


def test_it_talks_to_an_app(running: Daebus) -> None:
    app = running

    @app.socket("count")
    def count(req: WebSocketRequest) -> int:
        for number in range(1, 4):
            req.progress(number, 3)
        return 3

    @app.socket("fail")
    def fail(req: WebSocketRequest) -> None:
        raise KeyError("secret")

    @app.socket("what")
    def what(req: WebSocketRequest) -> list[object]:
        return [req.payload.get("data", "none"), req.data]

    @app.socket("ask")
    def ask(req: WebSocketRequest) -> object:
        try:
            return app.websocket.call(req.client_id, req.data, "sure?")
        except CallError as exc:
            return [exc.code, exc.text]

    app.socket("gen")(lambda req: iter([1, 2]))
    with Client(url_of(app)) as client:
        assert status_of(client) == "open"
        assert client.request("echo", {"a": 1}) == {"a": 1}
        told: list[Any] = []
        assert client.request("count", on_progress=told.append) == 3
        assert [data["done"] for data in told] == [1, 2, 3]
        with pytest.raises(RequestError, match="handler_error") as caught:
            client.request("fail")
        assert caught.value.data["message_type"] == "fail"
        assert client.request("what") == ["none", {}]
        assert client.request("what", None) == [None, None]
        with pytest.raises(EncodeError):
            client.request("echo", object())
        client.send("echo", "not asked for")
        assert client.receive("response") == Message("response", "not asked for")
        app.websocket.broadcast_to_all({"x": 1}, "news")
        assert client.receive(timeout=5) == Message("news", {"x": 1})

        @client.handle("confirm")
        def confirm(data: Any, message: Message) -> Any:
            return [data, message.type]

        @client.handle("break")
        def broken(data: Any) -> None:
            raise RuntimeError("of the client")

        assert client.request("ask", "confirm") == ["sure?", "confirm"]
        with records() as logged:
            assert client.request("ask", "break") == ["handler_error", "the handler failed"]
            assert "broken raised for a question" in logged.wait_for("raised")
        with pytest.raises(DuplicateHandlerError, match="answered already"):
            client.handle("confirm")(confirm)
    assert status_of(client) == "closed"
    assert threads() == []


def test_a_token_and_its_refusal(make_app: MakeApp) -> None:
    app = make_app()
    tokens = ["old", "new"]

    @app.authenticate
    def judge(req: UpgradeRequest) -> str:
        if req.headers.get("Authorization") != "Bearer new":
            raise Reject(401, "who is it?", code="unknown")
        return "ada"

    app.socket("who")(lambda req: req.identity)
    with app:
        with Client(url_of(app), token=lambda: tokens.pop(0)) as client:
            assert client.request("who") == "ada"
        with pytest.raises(Refused) as caught:
            Client(url_of(app), token="wrong").connect()
        refusal = caught.value
        assert (refusal.status, refusal.code, refusal.text) == (401, "unknown", "who is it?")
    assert threads() == []


def test_a_token_function_that_raises(server: ScriptedServer) -> None:
    """The first connection tells the program; a later attempt is made again."""

    def failing() -> str:
        raise OSError("no file")

    with records() as logged, pytest.raises(Disconnected, match="no token: OSError"):
        Client(server.url, token=failing).connect()
    logged.wait_for("the token function of the client")
    tokens = ["one", "a\nb", "three"]
    with records() as logged, Pair(server, token=lambda: tokens.pop(0)) as (client, conn):
        conn.close(4401)
        assert server.accept().token == "three"
        assert eventually(lambda: client.status == "open")
        logged.wait_for("the token function of the client")
    assert server.tokens == ["one", "three"]


def test_a_heartbeat_is_answered_by_the_app(running: Daebus) -> None:
    with Client(url_of(running), heartbeat=0.02, heartbeat_timeout=5.0) as client:
        websocket = running.websocket
        assert eventually(lambda: websocket.stats()["messages_out"] >= 5, 5)
        assert client.status == "open"


def test_a_socket_file_and_tls(tmp_path: Path) -> None:
    path = tmp_path / "a b.sock"
    app = Daebus("several")
    app.attach(DaebusHttp(port=None, unix=path))
    app.attach(DaebusWebSocket())
    app.socket("echo")(lambda req: req.data)
    with app, Client(app.http.addresses[0]) as client:
        assert client.request("echo", 1) == 1
    secure = Daebus("secure")
    secure.attach(DaebusHttp(port=0, ssl_context=server_context()))
    secure.attach(DaebusWebSocket())
    secure.socket("echo")(lambda req: req.data)
    with secure:
        url = f"https://127.0.0.1:{secure.http.port}/"
        with Client(url, ssl_context=client_context()) as client:
            assert client.request("echo", "x" * 100_000) == "x" * 100_000
        with pytest.raises(Disconnected, match="certificate verify failed"):
            Client(url, timeout=30.0).connect()  # at once: it will be the same again


@pytest.mark.slow
def test_tls_is_read_and_written_by_two_threads() -> None:
    """Of connections that read and wrote at once one in sixty was never answered."""
    app = Daebus("secure")
    app.attach(DaebusHttp(port=0, ssl_context=server_context()))
    app.attach(DaebusWebSocket())
    app.socket("echo")(lambda req: req.data)

    def talk() -> None:
        for number in range(100):
            with Client(url, ssl_context=client_context()) as client:
                assert client.request("echo", number) == number

    with app, ThreadPoolExecutor(4) as pool:
        url = f"https://127.0.0.1:{app.http.port}/"
        for done in [pool.submit(talk) for _ in range(4)]:
            done.result()


def test_it_survives_a_restart(running: Daebus) -> None:
    app, port = running, running.http.port
    seen = queue.Queue[ClientStatus]()
    with Client(url_of(app)) as client:
        client.on_status(seen.put)
        assert client.request("echo", 1) == 1
        app.stop()
        assert eventually(lambda: client.status != "open")
        app.start(port=port)
        assert client.request("echo", 2) == 2
    told = [seen.get(timeout=5) for _ in range(seen.qsize())]
    assert told[0].status == "waiting"
    assert told[0].code == 1001
    assert [status.status for status in told][-3:] == ["connecting", "open", "closed"]


# --- the first connection -------------------------------------------------------------


def test_the_first_connection_is_tried_until_the_timeout(server: ScriptedServer) -> None:
    server.refusing = Refusal(503, "stopping")
    began = time.monotonic()
    with pytest.raises(Refused) as caught:
        Client(server.url, timeout=0.3).connect()
    assert caught.value.code == "stopping"
    assert 0.1 < time.monotonic() - began < 3.0
    assert len(server.attempts) > 1
    server.hush()
    with pytest.raises(Disconnected, match=r"no connection to 127\.0\.0\.1:\d+: .*refused"):
        Client(server.url, timeout=0.2).connect()
    assert threads() == []


def test_the_first_connection_is_tried_once_more_right_before_the_timeout(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MIN_DELAY", 60.0)
    monkeypatch.setattr(rules, "draw", lambda: 1.0)
    server.hush()
    client = Client(server.url, timeout=1.0)

    @client.on_status
    def tell(status: ClientStatus) -> None:
        if status.status == "waiting":
            server.listen()

    accepting = threading.Thread(target=server.accept)
    accepting.start()
    with client:
        assert status_of(client) == "open"
    accepting.join()


def test_a_server_that_says_when_it_will_be_there_is_not_tried_before(
    server: ScriptedServer,
) -> None:
    server.refusing = Refusal(503, "stopping", {"Retry-After": "5"})
    began = time.monotonic()
    with pytest.raises(Refused):
        Client(server.url, timeout=4.0).connect()
    assert time.monotonic() - began < 2.0
    assert len(server.attempts) == 1


@pytest.mark.parametrize("told", ["0", "0.0001"])
def test_a_server_that_says_at_once_is_not_asked_without_a_pause(
    server: ScriptedServer, told: str
) -> None:
    server.refusing = Refusal(503, "stopping", {"Retry-After": told})
    with pytest.raises(Refused) as caught:
        Client(server.url, timeout=0.3).connect()
    assert caught.value.retry_after == float(told)
    assert len(server.attempts) < 30


@pytest.mark.parametrize(
    ("ahead", "least", "most"), [(100, 90, 100), (-100, 0, 0), (10**6, 3600, 3600)]
)
def test_a_refusal_may_name_the_time_to_come_back(
    server: ScriptedServer, ahead: int, least: float, most: float
) -> None:
    when = formatdate(time.time() + ahead, usegmt=True)
    server.refusing = Refusal(503, "stopping", {"Retry-After": when})
    with pytest.raises(Refused) as caught:
        Client(server.url, reconnect=False).connect()
    assert caught.value.retry_after is not None
    assert least <= caught.value.retry_after <= most


def test_connect_is_in_time_though_the_token_function_hangs(server: ScriptedServer) -> None:
    go_on = threading.Event()
    began = time.monotonic()
    try:
        with pytest.raises(Disconnected, match=r"within 0\.1 s"):
            Client(server.url, token=lambda: str(go_on.wait(20)), timeout=0.1).connect()
        assert time.monotonic() - began < 4
    finally:
        go_on.set()
    assert eventually(lambda: threads() == [])


@pytest.mark.parametrize("status", [403, 503])
def test_without_reconnect_a_refusal_is_raised_at_once(server: ScriptedServer, status: int) -> None:
    server.refusing = Refusal(status, "no", {"Retry-After": "7"})
    with pytest.raises(Refused) as caught:
        Client(server.url, reconnect=False).connect()
    assert caught.value.retry_after == 7.0
    assert len(server.attempts) == 1


def test_without_reconnect_a_lost_connection_is_the_end(server: ScriptedServer) -> None:
    with Pair(server, reconnect=False) as (client, conn):
        conn.send("last")
        conn.close(1012, "restart")
        loop = iter(client)
        assert next(loop).type == "last"
        with pytest.raises(Disconnected, match="code 1012: restart"):
            next(loop)
        for call in (lambda: client.request("x"), lambda: client.send("x"), client.receive):
            with pytest.raises(Disconnected) as caught:
                call()
            assert not caught.value.sent
        assert client.status == "closed"
    assert server.nobody_comes(0.05)


def test_a_server_that_hangs_does_not_hold_up_the_first_connection(
    server: ScriptedServer,
) -> None:
    began = time.monotonic()
    with pytest.raises(Disconnected):
        Client(server.url, timeout=0.2).connect()
    assert time.monotonic() - began < 2.0


# --- threads --------------------------------------------------------------------------


def test_nothing_is_imported_before_it_is_used(child: Callable[..., Child]) -> None:
    program = child("""
        ours = ("daebus.client", "websockets.sync")
        print([name for name in sys.modules if name.startswith(ours)])
        from daebus import Client
        before = threading.active_count()
        client = Client("http://127.0.0.1:1/")
        client.on("x")(print)
        print(threading.active_count() - before)
        client.close()
    """)
    assert program.line() == "[]"
    assert program.line() == "0"
    assert program.exit_code() == 0


@pytest.mark.slow
def test_a_program_may_end_with_an_open_client(
    running: Daebus, child: Callable[..., Child]
) -> None:
    program = child(f"""
        from daebus import Client
        client = Client({url_of(running)!r}).connect()
        client.on("x")(print)
        print(client.request("echo", "up"))
    """)
    assert program.line() == "up"
    assert program.exit_code() == 0
    assert program.stderr() == []
    assert eventually(lambda: running.websocket.get_client_count() == 0)


def test_threads_have_names_and_begin_when_needed(server: ScriptedServer) -> None:
    with Pair(server) as (client, conn):
        assert threads() == ["daebus-client-test", "daebus-client-test-socket"]
        called = queue.Queue[tuple[Any, str]]()
        client.on("x")(lambda data: called.put((data, threading.current_thread().name)))
        assert len(threads()) == 3
        conn.send("x", 1)
        assert called.get(timeout=5) == (1, "daebus-client-test-callbacks")
        assert all(
            thread.daemon for thread in threading.enumerate() if "daebus-client" in thread.name
        )
    assert threads() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_is_told_and_the_parent_goes_on(
    running: Daebus, child: Callable[..., Child]
) -> None:
    program = child(f"""
        from daebus import Client, ForkedError
        client = Client({url_of(running)!r}).connect()
        topic, state = client.topic("t"), client.state("s")
        unused = Client({url_of(running)!r})
        pid = os.fork()
        if pid == 0:
            for call in (
                lambda: client.request("echo"), lambda: client.send("echo"), client.receive,
                lambda: list(client), lambda: client.topic("t"), lambda: client.on("x"),
                client.connect, topic.receive, lambda: list(topic), lambda: state.wait("x"),
                lambda: state.synced,
            ):
                try:
                    call()
                except ForkedError as exc:
                    print("fork", str(exc)[:22], flush=True)
            topic.close()
            state.close()
            with unused:
                print(unused.request("echo", "own"), client.status, client.close(), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print(client.request("echo", "parent"), flush=True)
        client.close()
    """)
    for _ in range(11):
        assert program.line() == "fork this process is a fork"
    assert program.line() == "own closed True"
    assert program.line() == "parent"
    assert program.exit_code() == 0


# --- functions ------------------------------------------------------------------------


def test_a_function_that_blocks_starves_no_heartbeat(server: ScriptedServer) -> None:
    release = threading.Event()
    with Pair(server, heartbeat=0.03, heartbeat_timeout=1.0) as (client, conn):
        client.on("block")(lambda data: release.wait(10))
        conn.send("block")
        before = conn.heartbeats
        assert eventually(lambda: conn.heartbeats > before + 3)
        assert client.status == "open"
        began = time.monotonic()
        assert client.close(timeout=0.2) is False
        assert time.monotonic() - began < 2.0
        release.set()
    assert eventually(lambda: threads() == [])


def test_what_a_function_raises_is_logged_and_the_next_is_called(
    server: ScriptedServer,
) -> None:
    called = queue.Queue[Any]()

    def bad(data: object) -> None:
        raise SystemExit(3)

    with Pair(server) as (client, conn), records() as logged:
        client.on("x")(bad)
        client.on("x")(called.put)
        client.on("*")(lambda data, message: called.put(message))
        conn.send("x", 1)
        conn.send("y", 2, id=4)
        assert called.get(timeout=5) == 1
        assert called.get(timeout=5) == Message("y", 2, 4)
        assert "bad raised" in logged.wait_for("raised")


def test_a_function_may_close_the_client(server: ScriptedServer) -> None:
    closed = queue.Queue[bool]()
    with Pair(server) as (client, conn):
        client.on("end")(lambda data: closed.put(client.close()))
        conn.send("end")
        assert closed.get(timeout=5) is True
        assert list(client) == []


# --- what waits -----------------------------------------------------------------------


def flood(conn: Conn, count: int, size: int, topic: str | None = None) -> threading.Thread:
    def send() -> None:
        with contextlib.suppress(OSError, InvalidState):  # the client may leave
            for number in range(count):
                place = {} if topic is None else {"topic": topic, "offset": number + 1}
                conn.send("flood", [number, "x" * size], **place)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def test_a_full_inbox_slows_the_server_and_loses_nothing(server: ScriptedServer) -> None:
    with Pair(server, heartbeat=0.1, heartbeat_timeout=0.4) as (client, conn):
        sender = flood(conn, 4000, 10_000)  # twice what the client and two sockets hold
        with pytest.raises(TimeoutError):  # nothing of that type; so much is read meanwhile
            client.receive("other", timeout=0.8)
        assert sender.is_alive()
        assert client.status == "open"
        numbers = [client.receive("flood").data[0] for _ in range(4000)]
        assert numbers == list(range(4000))
        sender.join(5)


def test_a_server_that_is_frozen_is_seen_behind_a_full_inbox(server: ScriptedServer) -> None:
    with Pair(server, heartbeat=0.1, heartbeat_timeout=0.3) as (client, conn):
        flood(conn, 1500, 10).join(5)
        # Its answers stand behind what nobody takes, and show that it is there.
        assert eventually(lambda: conn.heartbeats >= 3)
        assert client.status == "open"
        conn.freeze()
        again = server.accept()  # the client has come back
        again.send("flood", [1500, ""])
        numbers = [client.receive("flood").data[0] for _ in range(1501)]
        assert numbers == list(range(1501))


def test_a_request_is_answered_behind_a_full_inbox(server: ScriptedServer) -> None:
    with Pair(server) as (client, conn):
        loop = iter(client)
        conn.send("flood")
        assert next(loop).type == "flood"
        flood(conn, 3000, 10).join(5)
        answers = threading.Thread(target=lambda: conn.answer(conn.receive("ask"), "yes"))
        answers.start()
        assert client.request("ask") == "yes"
        answers.join()
        assert [next(loop).data[0] for _ in range(3000)] == list(range(3000))


@pytest.mark.parametrize("asked", [None, "hello"])
def test_what_nobody_asked_for_does_not_hold_up_the_rest(
    server: ScriptedServer, asked: str | None
) -> None:
    called = queue.Queue[Any]()
    with Pair(server) as (client, conn), records() as logged:
        if asked is not None:
            for number in range(2):
                conn.send(asked, number)
            assert client.receive(asked).data == 0
        client.on("wanted")(called.put)
        flood(conn, 1500, 10).join(5)
        conn.send("wanted", "here")
        assert called.get(timeout=5) == "here"
        logged.wait_for("messages of the server are dropped")
        if asked is not None:
            assert client.receive(asked).data == 1  # it was asked for, and so kept
        assert 500 <= client.receive().data[0] <= 503  # the newest thousand were kept


@pytest.mark.parametrize("taker", ["function", "topic"])
def test_what_is_asked_for_and_not_taken_slows_the_server(
    server: ScriptedServer, taker: str
) -> None:
    go_on = threading.Event()
    with Pair(server) as (client, conn):
        if taker == "function":
            client.on("flood")(lambda data: go_on.wait(5))
        else:
            client.topic("t")
            told = {"kind": "history", "epoch": "e", "offset": 0, "recovered": False}
            more = {"reason": "new", "replay": 0, "missed": None}
            conn.answer(conn.receive("subscribe"), {"topic": "t", **told, **more})
        sender = flood(conn, 4000, 10_000, topic="t" if taker == "topic" else None)
        assert eventually(client._inbox.is_full)
        sender.join(0.5)
        assert sender.is_alive()  # twice what the client and two sockets hold
        assert client._inbox._bytes < 2 << 20
        go_on.set()


def test_a_slow_function_for_progress_gets_the_newest_and_is_not_waited_for(
    server: ScriptedServer,
) -> None:
    told: list[int] = []
    here = threading.Event()

    def slow(number: int) -> None:
        told.append(number)
        here.wait(5)

    with Pair(server) as (client, conn):

        def serve() -> None:
            ident = conn.receive("work")["id"]
            for number in range(1000):
                conn.send("progress", number, id=ident)
            conn.send("response", "done", id=ident)
            eventually(lambda: not client._requests.waited_for)
            here.set()
            ident = conn.receive("work")["id"]
            for number in range(3):
                conn.send("progress", number, id=ident)

        serving = threading.Thread(target=serve)
        serving.start()
        assert client.request("work", on_progress=slow) == "done"
        assert len(told) <= 101
        assert told[-1] == 999
        told.clear()
        here.clear()
        threading.Timer(0.3, here.set).start()
        with pytest.raises(TimeoutError):
            client.request("work", timeout=0.2, on_progress=slow)
        assert told == [0]
        serving.join()


def test_receive_tells_what_came_instead(server: ScriptedServer) -> None:
    with Pair(server) as (client, conn):
        with pytest.raises(TimeoutError, match=r"no message came within 0\.01 s; nothing came"):
            client.receive(timeout=0.01)
        conn.send("a", 1)
        conn.send("b", 2)
        assert client.receive("b").data == 2
        with pytest.raises(TimeoutError, match=r"no c came within 0\.01 s; these wait: 'a': 1"):
            client.receive("c", timeout=0.01)
        with pytest.raises(TimeoutError, match=r"no answer to 'x' .*; these wait: 'a': 1"):
            client.request("x", timeout=0.01)
        assert client.receive().data == 1


# --- a server that does not read ------------------------------------------------------


def test_a_send_to_a_server_that_does_not_read_ends_with_the_heartbeat(
    server: ScriptedServer,
) -> None:
    with Pair(server, heartbeat=0.2, heartbeat_timeout=0.6) as (client, conn):
        conn.freeze()

        def send_much() -> None:
            for _ in range(100):
                client.send("much", "x" * 1_000_000)

        with pytest.raises(Disconnected) as caught:
            send_much()
        assert caught.value.sent
        server.accept()


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_request_gives_up_in_time_while_the_socket_is_full(
    server: ScriptedServer, size: int
) -> None:
    with Pair(server) as (client, conn):
        conn.freeze()
        ends = queue.Queue[Disconnected]()

        def send_much() -> None:
            try:
                while True:
                    client.send("much", "x" * 1_000_000)
            except Disconnected as exc:
                ends.put(exc)

        thread = threading.Thread(target=send_much)
        thread.start()
        wire: Any = client._session.current()
        assert eventually(lambda: not _writable(wire._socket))
        cancel = threading.Event()
        threading.Timer(0.1, cancel.set).start()
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="no answer to 'late' came within"):
            client.request("late", "x" * size, timeout=0.1)
        with pytest.raises(RequestError, match="given up"):
            client.request("late", "x" * size, cancel=cancel)
        assert time.monotonic() - began < 2.0
        wire.abort(Lost(4900))  # as the heartbeat does
        assert ends.get(timeout=5).code == 4900
        thread.join()


def test_a_long_request_that_is_stuck_gives_up_and_is_taken_back(server: ScriptedServer) -> None:
    with Pair(server) as (client, conn):
        conn.freeze()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            client.request("big", "x" * 12_000_000, timeout=0.1)
        with pytest.raises(TimeoutError):
            client.request("never", timeout=0.1)
        assert time.monotonic() - began < 2.0
        conn.thaw()
        big = conn.receive("big")
        assert conn.receive("cancel")["id"] == big["id"]
        client.send("next")
        conn.receive("next")


def test_a_request_that_was_given_up_before_is_not_sent(server: ScriptedServer) -> None:
    cancel = threading.Event()
    cancel.set()
    with Pair(server) as (client, conn):
        with pytest.raises(RequestError, match="given up"):
            client.request("x", cancel=cancel)
        client.send("y")
        conn.receive("y")


def test_close_ends_by_its_timeout_with_a_server_that_hangs(server: ScriptedServer) -> None:
    with Pair(server) as (client, conn):
        conn.freeze()
        began = time.monotonic()
        assert client.close(timeout=0.5)
        assert time.monotonic() - began < 2.0


def test_an_interrupted_send_ends_the_connection(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a frame may have left: what is sent behind it would be read as part of it."""
    from websockets.sync.client import ClientConnection

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with Pair(server) as (client, conn):
        with monkeypatch.context() as patched:
            patched.setattr(ClientConnection, "send", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.send("x")
        again = server.accept()
        assert eventually(lambda: client.status == "open")
        client.send("y")
        again.receive("y")
        assert conn.ended.wait(5)


# --- topics ---------------------------------------------------------------------------


ANSWER = {"kind": "history", "epoch": "e", "recovered": False, "reason": "new", "missed": None}


def test_the_position_is_that_of_what_the_program_was_handed(server: ScriptedServer) -> None:
    with Pair(server) as (client, conn):
        topic = client.topic("t")
        assert not topic.position
        conn.answer(conn.receive("subscribe"), {"topic": "t", **ANSWER, "offset": 3, "replay": 0})
        for offset in (4, 5):
            conn.send("m", offset, topic="t", offset=offset)
        conn.send("gap", {"topic": "t", "epoch": "f", "offset": 9, "missed": 4, "reason": "slow"})
        conn.send("done")
        client.receive("done")
        assert topic.position == {"epoch": "e", "offset": 3}
        assert topic.receive().data == 4
        assert topic.position == {"epoch": "e", "offset": 4}
        assert next(iter(topic)).data == 5
        assert topic.position == {"epoch": "f", "offset": 9}  # the gap is behind it
        with pytest.raises(TimeoutError, match="no message of topic 't'"):
            topic.receive(timeout=0.01)
        with pytest.raises(StateError, match="a topic 't' already"):
            client.state("t")
        topic.close()
        assert list(topic) == []


def test_messages_of_a_topic_may_have_a_function(server: ScriptedServer) -> None:
    called = queue.Queue[Any]()
    with Pair(server) as (client, conn):
        client.on("m")(lambda data, message: called.put((data, message.topic)))
        topic = client.topic("t")
        conn.answer(conn.receive("subscribe"), {"topic": "t", **ANSWER, "offset": 3, "replay": 0})
        conn.send("m", 1, topic="t", offset=4)
        assert called.get(timeout=5) == (1, "t")
        assert eventually(lambda: topic.position == {"epoch": "e", "offset": 4})


def test_a_topic_that_the_server_refuses_raises(server: ScriptedServer) -> None:
    with Pair(server) as (client, conn), records() as logged:
        topic, state = client.topic("t"), client.state("s")
        for _ in range(2):
            conn.error(conn.receive("subscribe"), "unknown_topic")
        with pytest.raises(RequestError, match="unknown_topic"):
            topic.receive()
        with pytest.raises(RequestError, match="unknown_topic"):
            list(topic)
        with pytest.raises(RequestError, match="unknown_topic"):
            state.wait("key")
        logged.wait_for("no topic 't': unknown_topic")


def test_a_state_is_a_mapping(server: ScriptedServer) -> None:
    changes = queue.Queue[tuple[Any, Any]]()
    with Pair(server) as (client, conn):
        state = client.state("s")
        state.on_change(lambda values, keys: changes.put((values, keys)))
        assert dict(state) == {}
        assert not dict(state)
        with pytest.raises(TimeoutError, match="state 's' had no 'a' within"):
            state.wait("a", timeout=0.01)
        answer = {"topic": "s", **ANSWER, "kind": "state", "offset": 2, "replay": 2}
        conn.answer(conn.receive("subscribe"), answer)
        conn.send("state", {"snapshot": True, "set": {"a": 1}}, topic="s", offset=1)
        conn.send("state", {"set": {"b": 2}, "synced": True}, topic="s", offset=2)
        assert state.wait("a") == 1
        assert eventually(lambda: state.synced)
        assert (state["b"], len(state), "c" in state, state.get("c")) == (2, 2, False, None)
        assert changes.get(timeout=5) == ({"a": 1, "b": 2}, {"a", "b"})
        conn.send("state", {"set": {"b": 3}, "removed": ["a"]}, topic="s", offset=4)
        assert changes.get(timeout=5) == ({"b": 3}, {"a", "b"})
        conn.cut()
        assert eventually(lambda: not state.synced)
        assert dict(state) == {"b": 3}
        waiting = queue.Queue[Exception]()

        def wait() -> None:
            try:
                state.wait("never")
            except Exception as exc:
                waiting.put(exc)

        thread = threading.Thread(target=wait)
        thread.start()
        client.close()
        assert isinstance(waiting.get(timeout=5), Disconnected)
        thread.join()


# --- mistakes -------------------------------------------------------------------------


make: Any = Client  # what a type checker would refuse


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: make("localhost:8080"), ValueError, "write 'http://127.0.0.1:8080/'"),
        (lambda: make("http://x/#top"), ValueError, "fragment"),
        (lambda: make("http://x:y/"), ValueError, "not the address of a server: Port"),
        (lambda: make("http://x/", token="a\r\nB: c"), ValueError, "the token cannot be sent"),
        (lambda: make("http://x/", headers={"A\r\nB": "c"}), ValueError, "name of a header"),
        (lambda: make("http://x/", headers={"": "c"}), ValueError, "name of a header"),
        (lambda: make("http://x/", headers={7: "c"}), TypeError, "name of a header is a string"),
        (lambda: make("http://x/", headers={"A": 7}), TypeError, "value of A is a string"),
        (lambda: make("http://x/", timeout=0), ValueError, "timeout must be greater than 0"),
        (lambda: make("http://x/", timeout="5"), TypeError, "timeout must be a number"),
        (lambda: make("http://x/", hearbeat=5), TypeError, "did you mean 'heartbeat'"),
        (lambda: make("http://x/").send("x"), StateError, "write: with daebus.Client"),
        (lambda: make("http://x/").request("x"), StateError, "write: with daebus.Client"),
        (lambda: make("http://x/").on(print), TypeError, "write @client.on('my_type')"),
        (lambda: make("http://x/").on("x")(lambda: 0), TypeError, "called with data"),
        (lambda: make("http://x/").on_status(lambda: 0), TypeError, "called with status"),
        (lambda: make("http://x/").topic(7), TypeError, "write client.topic('my_name')"),
        (lambda: make("http://x/").topic("t", since=7), ValueError, "since is a position"),
    ],
)
def test_a_mistake_is_told_in_words(
    call: Callable[[], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_a_client_connects_once(running: Daebus) -> None:
    client = Client(url_of(running))
    with client, pytest.raises(StateError, match="connects once"):
        client.connect()
    with pytest.raises(StateError, match="connects once"):
        client.connect()
    with pytest.raises(Disconnected, match="the client was closed"):
        client.request("echo")
    assert client.close() is True
    assert list(client) == []


# --- what interrupts ------------------------------------------------------------------


def test_no_public_method_waits_for_the_thread_that_it_interrupted(running: Daebus) -> None:
    """Each of them within each lock, as a signal handler or a destructor would call it."""
    with Client(url_of(running)) as client:
        subjects = (client, client.topic("t"), client.state("s"))
        client.on("x")(lambda data: None)
        locks = owners_of_locks(*subjects)
        assert {"Wire", "Inbox", "Requests", "Subscriptions", "Callbacks", "Client"} <= set(locks)
        assert {"TopicFeed", "StateFeed"} <= set(locks)
        wrong: list[str] = []
        for kind, (owner, name) in sorted(locks.items()):
            for subject in subjects:
                for call in public_calls(subject, "x"):
                    if call.name.endswith((".close", ".connect")):
                        continue

                    def one(call: Any = call) -> None:
                        try:
                            call.run()
                        except (*REFUSALS, TimeoutError, Disconnected, RequestError, ForkedError):
                            pass

                    thread = threading.Thread(target=holding(owner, name, one), daemon=True)
                    thread.start()
                    thread.join(3.0)
                    if thread.is_alive():
                        wrong.append(f"{call.name} within {kind}")
                        owner.__dict__[name].release()
        assert wrong == []


def test_no_told_delay_makes_a_storm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "draw", lambda: 1.0)
    monkeypatch.setattr(rules, "MIN_DELAY", 0.5)

    def pauses(asked: float | None) -> list[float]:
        backoff = rules.Backoff()
        found = []
        for _ in range(4):
            backoff.asked = asked
            found.append(backoff.next())
        return found

    assert pauses(None) == pauses(0.0) == pauses(0.05) == [0.5, 1.0, 2.0, 4.0]
    assert pauses(0.3) == [0.3, 1.0, 2.0, 4.0]
    assert pauses(3.0) == [3.0, 3.0, 3.0, 4.0]


def test_4000_is_final() -> None:
    assert rules.is_final_code(4000)
    assert not rules.is_final_code(4001)


def test_what_is_published_may_have_any_type(server: ScriptedServer) -> None:
    with Pair(server) as (client, conn), records():
        answer = {"epoch": "e", "offset": 0, "recovered": False, "reason": "new", "replay": 0}
        topic = client.topic("alarms")
        asked = conn.receive("subscribe")
        conn.answer(asked, {"topic": "alarms", "kind": "history", "missed": None, **answer})
        kinds = ["gap", "subscribed", "unsubscribed", "goodbye", "heartbeat", "response", "error"]
        for offset, kind in enumerate(kinds, 1):
            conn.send(kind, {"topic": "alarms"}, topic="alarms", offset=offset)
        assert [topic.receive().type for _ in kinds] == kinds


def test_a_subscription_that_the_server_takes_back_says_so(server: ScriptedServer) -> None:
    with Pair(server) as (client, conn), records():
        answer = {"epoch": "e", "offset": 1, "recovered": False, "reason": "new", "replay": 0}
        topic = client.topic("alarms")
        asked = conn.receive("subscribe")
        conn.answer(asked, {"topic": "alarms", "kind": "history", "missed": None, **answer})
        state = client.state("boiler")
        asked = conn.receive("subscribe")
        conn.answer(asked, {"topic": "boiler", "kind": "state", "missed": None, **answer})
        values = {"snapshot": True, "set": {"celsius": 21.4}, "synced": True}
        conn.send("state", values, topic="boiler", offset=1)
        assert state.wait("celsius") == 21.4
        assert state.synced
        for name in ("alarms", "boiler"):
            conn.send("unsubscribed", {"topic": name}, topic=name)
        for wait in (topic.receive, lambda: list(topic), lambda: state.wait("other")):
            with pytest.raises(RequestError) as caught:
                wait()
            assert caught.value.code == "unsubscribed"
        assert not state.synced


def test_topics_of_a_client_that_has_ended_end_at_once(server: ScriptedServer) -> None:
    with Pair(server) as (client, _):
        pass
    assert list(client.topic("alarms")) == []
    for wait in (client.topic("log").receive, lambda: client.state("boiler").wait("x")):
        with pytest.raises(Disconnected, match="was closed"):
            wait()
    with Pair(server) as (client, conn):
        conn.close(4400, "go")
        assert eventually(lambda: client.status != "open")
        topic, state = client.topic("alarms"), client.state("boiler")
        for wait in (topic.receive, lambda: next(iter(topic)), lambda: state.wait("x")):
            with pytest.raises(Disconnected) as caught:
                wait()
            assert caught.value.code == 4400


def test_a_token_is_a_text_or_a_function() -> None:
    with pytest.raises(TypeError, match="token"):
        make("http://x/", token=5)
