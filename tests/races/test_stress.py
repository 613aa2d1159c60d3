"""Threads against each other for a while: nothing is lost, doubled, torn or left behind.

For ``DAEBUS_STRESS_SECONDS`` each, two unless told otherwise: ``make stress SECONDS=60``.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daebus import CallError, ClientGone, Daebus, StateError, WebSocketRequest
from daebus.testing import AppClient
from tests.support.fixture_types import MakeApp
from tests.support.peer import CLOSE, Peer, upgrade_request
from tests.support.slow_clients import narrow
from tests.support.waiting import eventually

pytestmark = [pytest.mark.stress, pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = float(os.environ.get("DAEBUS_STRESS_SECONDS", "2"))
THREADS = 4


@pytest.fixture(autouse=True)
def many_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def stress(*jobs: Callable[[], object], seconds: float = SECONDS) -> None:
    """Call each job again and again, each in a thread; raise what one of them raised."""
    raised: list[BaseException] = []
    end = time.monotonic() + seconds

    def run(job: Callable[[], object]) -> None:
        try:
            while time.monotonic() < end and not raised:
                job()
        except BaseException as exc:
            raised.append(exc)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
        assert not thread.is_alive(), "a thread hangs"
    if raised:
        raise raised[0]


def until_end(client: AppClient) -> list[dict[str, Any]]:
    """Return the messages of a client up to the one of type ``end``."""
    messages: list[dict[str, Any]] = []
    while True:
        message = client.receive(timeout=60)
        if message["type"] == "end":
            return messages
        messages.append(message)


def test_broadcasts_of_several_threads_reach_each_client_once_and_in_order(
    make_app: MakeApp,
) -> None:
    app = make_app(on_full="disconnect", max_outbox_messages=10**6, max_outbox=2**30)
    app.start()
    sent = [itertools.count() for _ in range(THREADS)]
    totals = [-1] * THREADS
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(app.test_client()) for _ in range(5)]
        got: list[list[dict[str, Any]]] = [[] for _ in clients]

        def reads(number: int) -> None:
            got[number] = until_end(clients[number])

        readers = [threading.Thread(target=reads, args=(n,)) for n in range(len(clients))]
        assert eventually(lambda: app.websocket.get_client_count() == len(clients))
        for reader in readers:
            reader.start()

        def speaker(me: int) -> Callable[[], None]:
            def speak() -> None:
                totals[me] = number = next(sent[me])
                app.websocket.broadcast_to_all([me, number])

            return speak

        stress(*[speaker(me) for me in range(THREADS)])
        app.websocket.broadcast_to_all(None, message_type="end")
        for reader in readers:
            reader.join(120)
            assert not reader.is_alive()
    for messages in got:
        for me in range(THREADS):
            numbers = [m["data"][1] for m in messages if m["data"][0] == me]
            assert numbers == list(range(totals[me] + 1))


def test_rooms_keep_no_client_that_left(app: Daebus) -> None:
    app.start()
    ws = app.websocket

    def comes_and_goes() -> None:
        with app.test_client() as client:
            client.request("echo", 1)

    def moves() -> None:
        for client_id in ws.get_clients():
            ws.join(client_id, "room")
            ws.identify(client_id, "ada")
            ws.broadcast_to_room("room", 1)
            ws.leave(client_id, "room")
            ws.join(client_id, "other")

    def looks() -> None:
        for room in ws.get_rooms():
            ws.get_room_clients(room)
        ws.send_to_user("ada", 2)

    stress(comes_and_goes, comes_and_goes, moves, moves, looks)
    assert eventually(lambda: ws.get_client_count() == 0)
    assert ws.get_rooms() == []


def test_calls_get_their_own_answer_and_cancels_stop_one_request(app: Daebus) -> None:
    stopped, served = itertools.count(), itertools.count()

    @app.socket("long")
    def long(req: WebSocketRequest) -> str:
        next(served)
        if req.cancelled.wait(10):
            next(stopped)
        return "stopped"

    @app.socket("async")
    async def also_long(req: WebSocketRequest) -> None:
        next(served)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            next(stopped)
            raise

    app.start()
    numbers = itertools.count()
    with app.test_client() as asked, app.test_client() as busy:
        assert eventually(lambda: app.websocket.get_client_count() == 2)
        first = app.websocket.get_clients()[0]
        done = threading.Event()

        def answers() -> None:
            while not done.is_set():
                try:
                    message = asked.receive("ask", timeout=0.2)
                except TimeoutError:
                    continue
                asked.answer(message, message["data"])

        answerer = threading.Thread(target=answers)
        answerer.start()

        def asks() -> None:
            number = next(numbers)
            assert app.websocket.call(first, "ask", number, timeout=30) == number

        def cancels() -> None:
            number = next(numbers)
            ident, kind = f"c{number}", ("long", "async")[number % 2]
            busy.send_raw(f'{{"type": "{kind}", "id": "{ident}"}}')
            busy.send_raw(f'{{"type": "cancel", "id": "{ident}"}}')
            busy.receive(timeout=30)

        try:
            stress(asks, asks, asks, cancels)
        finally:
            done.set()
            answerer.join(30)
    assert next(stopped) == next(served) > 1


@pytest.mark.parametrize("on_full", ["disconnect", "drop_oldest", "drop_newest", "block"])
def test_a_client_that_does_not_read_holds_up_nobody(make_app: MakeApp, on_full: Any) -> None:
    app = make_app(on_full=on_full, max_outbox=65536)
    app.socket("echo")(lambda req: req.data)
    app.start()
    data = "x" * 4000
    with narrow(app), app.test_client() as talker:
        assert eventually(lambda: app.websocket.get_client_count() == 2)
        silent = app.websocket.get_clients()[:1]  # the first, from which nobody reads

        def echoes() -> None:
            talker.send("echo", 1)
            while talker.receive(timeout=30)["type"] != "response":
                pass

        def broadcasts() -> None:
            app.websocket.broadcast_to_clients(silent, data)

        stress(echoes, broadcasts, broadcasts, app.stats)


def test_a_stop_under_load_ends_everything(app: Daebus) -> None:
    @app.socket("slow")
    async def slow(req: WebSocketRequest) -> int:
        await asyncio.sleep(30)
        return 1

    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        app.start()
        port = app.http.port
        over = threading.Event()

        def load(over: threading.Event = over) -> None:
            while not over.is_set():
                with contextlib.suppress(StateError, OSError, ClientGone, CallError):
                    app.websocket.broadcast_to_all(1)
                    app.stats()

        def comes(over: threading.Event = over, port: int | None = port) -> None:
            while not over.is_set():
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", port or 0), timeout=1) as sock,
                ):
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    sock.recv(100)

        def talks(over: threading.Event = over, port: int | None = port) -> None:
            with (
                contextlib.suppress(OSError, EOFError),
                socket.create_connection(("127.0.0.1", port or 0), timeout=10) as sock,
            ):
                peer = Peer(sock)
                if peer.ask(upgrade_request()).status != 101:
                    return
                while not over.is_set():
                    peer.say("echo", 1)
                    peer.say("slow", 1)
                    while peer.frame()[0] != CLOSE:
                        pass

        jobs = (load, load, comes, comes, talks, talks)
        threads = [threading.Thread(target=job) for job in jobs]
        for thread in threads:
            thread.start()
        over.wait(0.1)
        try:
            assert app.stop(10) == []
        finally:
            over.set()
            for thread in threads:
                thread.join(30)


def test_looks_and_registrations_while_messages_come(app: Daebus) -> None:
    app.start()
    numbers = itertools.count()
    passed = itertools.count()
    pause = threading.Event()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(app.test_client()) for _ in range(3)]

        def talker(client: AppClient) -> Callable[[], None]:
            def talk() -> None:
                number = next(numbers)
                assert client.request("echo", number) == number

            return talk

        def registers() -> None:
            number = next(numbers)
            app.socket(f"n{number}")(lambda req: req.data)
            app.route(f"/{number}/<name>")(lambda req, name: None)
            kinds.append(number)
            pause.wait(SECONDS / 150)

        def adds() -> None:
            @app.middleware
            def counts(req: WebSocketRequest, call_next: Callable[[WebSocketRequest], Any]) -> Any:
                next(passed)
                return call_next(req)

            added.append(1)
            pause.wait(SECONDS / 15)

        def looks() -> None:
            app.dump(io.StringIO())
            app.stats()

        kinds: list[int] = []
        added: list[int] = []
        stress(*map(talker, clients), registers, registers, adds, looks)
        for number in kinds:
            before = next(passed)
            assert clients[0].request(f"n{number}", number) == number
            assert next(passed) - before == len(added) + 1
