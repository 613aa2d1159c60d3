"""Questions of the server to a client, and waiting for the answer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import math
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from websockets.sync.client import connect as websockets_connect

from daebus import (
    CallError,
    CallTimeout,
    ClientError,
    ClientGone,
    Daebus,
    StateError,
    WebSocketRequest,
)
from daebus.testing import AppClient
from daebus.websocket.connection.reader import MAX_WAITING
from daebus.websocket.messages.pending import MAX_CALLS
from tests.support.fixture_types import Connect, MakeApp
from tests.support.inside import activity_of, connections, kept_by
from tests.support.peer import TEXT, Peer, envelope, frame
from tests.support.slow_clients import reset
from tests.support.waiting import eventually


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as pool:
        yield pool


def only_client(app: Daebus) -> str:
    (client_id,) = eventually(app.websocket.get_clients)
    return str(client_id)


def asking(app: Daebus, threads: ThreadPoolExecutor, **options: Any) -> Future[Any]:
    """Ask the only client in a thread of its own."""
    return threads.submit(app.websocket.call, only_client(app), "confirm", "sure?", **options)


def answer(peer: Peer, question: Any, data: Any = None, kind: str = "response") -> None:
    peer.send(TEXT, json.dumps({"type": kind, "id": question["id"], "data": data}))


# --- from where ---------------------------------------------------------------------


@pytest.fixture(params=["thread", "own handler", "own async handler", "own job", "hook"])
def asker(app: Daebus, request: pytest.FixtureRequest) -> Callable[[AppClient], queue.Queue[Any]]:
    """Have the server ask a client, from somewhere; the queue gets what came of it."""
    outcomes = queue.Queue[Any]()

    def ask(client_id: str) -> None:
        try:
            outcomes.put(app.websocket.call(client_id, "confirm", {"file": "a"}, timeout=5))
        except Exception as exc:
            outcomes.put(exc)

    @app.socket("ask")
    def own(req: WebSocketRequest) -> None:
        ask(req.client_id)

    app.socket("job", run_in="pool")(own)

    @app.socket("ask async")
    async def own_async(req: WebSocketRequest) -> None:
        try:
            outcomes.put(await app.websocket.call_async(req.client_id, "confirm", {"file": "a"}))
        except asyncio.CancelledError:  # the handler's end, which may come before that of the call
            outcomes.put(ClientGone(req.client_id))
            raise
        except Exception as exc:
            outcomes.put(exc)

    if request.param == "hook":
        app.websocket.on_connect(ask)
    kinds = {"own handler": "ask", "own async handler": "ask async", "own job": "job"}

    def start(client: AppClient) -> queue.Queue[Any]:
        if request.param == "thread":
            thread = threading.Thread(target=ask, args=(only_client(app),), daemon=True)
            thread.start()
        elif request.param != "hook":
            client.send(kinds[request.param])
        return outcomes

    return start


Asker = Callable[[AppClient], "queue.Queue[Any]"]


def test_the_answer_comes_back(app: Daebus, asker: Asker) -> None:
    with app.test_client() as client:
        outcomes = asker(client)
        question = client.receive("confirm")
        assert question["data"] == {"file": "a"}
        assert isinstance(question["id"], str)
        assert len(question["id"]) > 16
        client.answer(question, {"yes": [1, None]})
        assert outcomes.get(timeout=5) == {"yes": [1, None]}
        assert client.request("echo", "on") == "on"


def test_an_error_comes_back(app: Daebus, asker: Asker) -> None:
    with app.test_client() as client:
        outcomes = asker(client)
        error = ClientError("the disk is full", "full", {"bytes": 7})
        client.answer(client.receive("confirm"), error=error)
        exc = outcomes.get(timeout=5)
    assert isinstance(exc, CallError)
    assert (str(exc), exc.code) == ("the disk is full", "full")
    assert exc.data == {"error": "the disk is full", "code": "full", "bytes": 7}


def test_a_client_that_leaves_ends_the_wait_at_once(
    app: Daebus, asker: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    with app.test_client() as client:
        outcomes = asker(client)
        client.receive("confirm")
        client.close()
        exc = outcomes.get(timeout=4)
    assert isinstance(exc, ClientGone)
    assert exc.client_id in str(exc)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_stop_ends_the_wait_at_once(
    app: Daebus, asker: Asker, threads: ThreadPoolExecutor
) -> None:
    with app.test_client() as client:
        outcomes = asker(client)
        client.receive("confirm")
        stop = threads.submit(app.stop, 5)
        assert isinstance(outcomes.get(timeout=4), ClientGone)
        assert stop.result() == []


def test_messages_that_come_meanwhile_are_handled_afterwards_in_order(app: Daebus) -> None:
    @app.socket("delete")
    def delete(req: WebSocketRequest) -> str:
        first = app.websocket.call(req.client_id, "confirm", "sure?")
        return f"{first} {app.websocket.call(req.client_id, 'confirm', 'really?')}"

    with app.test_client() as client:
        client.send("delete")
        for number, reply in enumerate(["yes", "really"]):
            question = client.receive("confirm")
            for n in range(100):  # more than are read ahead for a busy handler
                client.send("echo", number * 100 + n)
            client.answer(question, reply)
        assert client.receive("response")["data"] == "yes really"
        assert [client.receive("response")["data"] for _ in range(200)] == list(range(200))


def test_what_has_been_handled_leaves_room_for_the_next_question(make_app: MakeApp) -> None:
    """What is read ahead is bounded, so what has had its turn must not count for ever."""
    app = make_app(max_message_size=2000)
    app.socket("echo")(lambda req: req.data)

    @app.socket("ask")
    def ask(req: WebSocketRequest) -> Any:
        return app.websocket.call(req.client_id, "confirm", timeout=5)

    with app.test_client() as client:
        client.send("ask")
        for _ in range(5):
            question = client.receive("confirm")
            client.send("echo", "x" * 1000)
            client.send("ask")
            client.send("echo", "behind")  # the inbox is never empty
            client.answer(question, "yes")


def test_the_answer_may_come_in_one_read_with_others(app: Daebus, connect: Connect) -> None:
    @app.socket("ask")
    def ask(req: WebSocketRequest) -> Any:
        return app.websocket.call(req.client_id, "confirm", timeout=5)

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("ask")
    question = peer.message()
    reply = json.dumps({"type": "response", "id": question["id"], "data": "yes"})
    around = [envelope("echo", n) for n in range(3)]
    peer.sock.sendall(around[0] + frame(TEXT, reply) + around[1] + around[2])
    assert [peer.message()["data"] for _ in range(4)] == ["yes", 0, 1, 2]
    peer.close()


def test_questions_within_one_another(app: Daebus) -> None:
    """The handler of one client asks another, whose handler asks the first."""

    @app.socket("ask")
    def ask(req: WebSocketRequest) -> Any:
        (other,) = set(app.websocket.get_clients()) - {req.client_id}
        return app.websocket.call(other, "question", req.data, timeout=5)

    with app.test_client() as a, app.test_client() as b:
        a.request("echo", 1)
        b.request("echo", 1)
        a.send("ask", "from a")
        b.send("ask", "from b")
        for client, expected in ((a, "from b"), (b, "from a")):
            question = client.receive("question")
            assert question["data"] == expected
            client.answer(question, expected.upper())
        assert a.receive("response")["data"] == "FROM A"
        assert b.receive("response")["data"] == "FROM B"


def test_a_client_whose_handler_is_busy_can_answer_another_thread(
    app: Daebus, threads: ThreadPoolExecutor
) -> None:
    begun, release = threading.Event(), threading.Event()

    @app.socket("work")
    def work(req: WebSocketRequest) -> str:
        begun.set()
        assert release.wait(10)
        return "worked"

    with app.test_client() as client:
        # Asked while the handler runs, and asked before it begins.
        client.send("work")
        assert begun.wait(5)
        during = asking(app, threads, timeout=5)
        client.answer(client.receive("confirm"), 1)
        assert during.result() == 1
        release.set()
        assert client.receive()["data"] == "worked"
        begun.clear()
        release.clear()
        before = asking(app, threads, timeout=5)
        question = client.receive("confirm")
        client.send("work")
        assert begun.wait(5)
        client.answer(question, 2)
        assert before.result() == 2
        release.set()
        assert client.receive()["data"] == "worked"


def test_the_loop_is_not_blocked(app: Daebus) -> None:
    @app.socket("ask")
    async def ask(req: WebSocketRequest) -> list[str]:
        texts = []
        for function in (app.websocket.call, app.websocket.call_clients):
            with pytest.raises(StateError) as info:
                function([req.client_id], "confirm")  # type: ignore[arg-type]
            texts.append(str(info.value))
        return texts

    with app.test_client() as client:
        first, second = client.request("ask")
    assert "await app.websocket.call_async(" in first
    assert "await app.websocket.call_clients_async(" in second


def test_a_loop_of_the_hosts_own_may_ask(app: Daebus, threads: ThreadPoolExecutor) -> None:
    async def ask() -> Any:
        (client_id,) = app.websocket.get_clients()
        asked = asyncio.create_task(app.websocket.call_async(client_id, "confirm", timeout=5))
        question = await asyncio.to_thread(client.receive, "confirm")
        client.answer(question, "yes")
        return await asked

    with app.test_client() as client:
        client.request("echo", 1)
        assert threads.submit(asyncio.run, ask()).result() == "yes"


# --- no answer ----------------------------------------------------------------------


def test_a_late_answer_and_an_unknown_one_are_dropped(
    app: Daebus, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="daebus.websocket")
    with app.test_client() as client:
        with pytest.raises(CallTimeout, match=r"did not answer 'confirm' within 0\.01 s"):
            asking(app, threads, timeout=0.01).result()
        question = client.receive("confirm")
        client.answer(question, "late")
        idents: list[Any] = ["no such", 7, [], {}, True, "x" * 1000]
        for ident in idents:
            for kind in ("response", "error", "cancel"):
                client.send_raw(json.dumps({"type": kind, "id": ident, "data": {}}))
        assert client.request("echo", "sentinel") == "sentinel"
        assert not kept_by(client), "something was answered"
    dropped = [r for r in caplog.records if "dropped a 'response'" in r.getMessage()]
    assert len(dropped) == 7
    assert {record.levelno for record in dropped} == {logging.DEBUG}


def test_an_async_wait_ends_in_time(app: Daebus) -> None:
    @app.socket("ask")
    async def ask(req: WebSocketRequest) -> str:
        try:
            await app.websocket.call_async(req.client_id, "confirm", timeout=0.01)
        except CallTimeout as exc:
            return str(exc)
        return "answered"

    with app.test_client() as client:
        assert "within 0.01 s" in client.request("ask")


def test_a_client_that_is_not_there(app: Daebus) -> None:
    with pytest.raises(ClientGone, match="client nobody is not connected"):
        app.websocket.call("nobody", "confirm")
    with app, pytest.raises(ClientGone):
        app.websocket.call("nobody", "confirm")


def test_a_timeout_must_be_one(app: Daebus) -> None:
    for timeout in (0, -1):
        with pytest.raises(ValueError, match="timeout must be greater than 0"):
            app.websocket.call("nobody", "confirm", timeout=timeout)


def test_a_wait_may_have_no_end(app: Daebus, threads: ThreadPoolExecutor) -> None:
    with app.test_client() as client:
        asked = asking(app, threads, timeout=math.inf)
        client.answer(client.receive("confirm"), "yes")
        assert asked.result(5) == "yes"


def test_a_client_on_a_raw_path_cannot_be_asked(app: Daebus) -> None:
    @app.websocket.raw("/raw")
    def raw(connection: Any) -> None:
        for _ in connection:
            pass

    with app.test_client("/raw"), pytest.raises(CallError, match="raw path") as info:
        app.websocket.call(only_client(app), "confirm")
    assert info.value.code == "raw_path"


def test_open_calls_to_a_client_are_bounded(app: Daebus, threads: ThreadPoolExecutor) -> None:
    async def ask(client: AppClient) -> None:
        client_id = only_client(app)
        calls = [
            asyncio.create_task(app.websocket.call_async(client_id, "confirm", n))
            for n in range(MAX_CALLS)
        ]
        questions = await asyncio.to_thread(lambda: [client.receive() for _ in calls])
        with pytest.raises(CallError, match=f"{MAX_CALLS} calls to client") as info:
            app.websocket.call(client_id, "confirm")
        assert info.value.code == "too_many_calls"
        calls.pop().cancel()  # gives its place back
        for question in reversed(questions):
            client.answer(question, question["data"] * 2)
        assert await asyncio.gather(*calls) == [n * 2 for n in range(MAX_CALLS - 1)]
        last = asyncio.create_task(app.websocket.call_async(client_id, "confirm"))
        client.answer(await asyncio.to_thread(client.receive, "confirm"), "again")
        assert await last == "again"

    with app.test_client() as client:
        threads.submit(asyncio.run, ask(client)).result()


def test_a_client_cut_in_the_middle_of_its_answer(
    app: Daebus, connect: Connect, threads: ThreadPoolExecutor
) -> None:
    app.start()
    peer = Peer.joined(connect(app.http.port))
    asked = asking(app, threads, timeout=5)
    question = peer.message()
    whole = frame(TEXT, json.dumps({"type": "response", "id": question["id"], "data": "x" * 999}))
    peer.sock.sendall(whole[:500])
    reset(peer)
    with pytest.raises(ClientGone):
        asked.result()


# --- what is an answer --------------------------------------------------------------


@pytest.mark.parametrize("busy", [True, False])
def test_an_answer_of_the_largest_size_in_small_pieces(
    make_app: MakeApp, connect: Connect, threads: ThreadPoolExecutor, busy: bool
) -> None:
    app = make_app(max_message_size=200_000)

    @app.socket("ask")
    def ask(req: WebSocketRequest) -> int:
        return len(app.websocket.call(req.client_id, "confirm", timeout=5))

    app.start()
    peer = Peer.joined(connect(app.http.port))
    asked = None if busy else asking(app, threads, timeout=5)
    if busy:
        peer.say("ask")
    ident = peer.message()["id"]
    head = f'{{"type":"response","id":"{ident}","data":"'
    size = 200_000 - len(head) - 2
    whole = frame(TEXT, head + "x" * size + '"}')
    for start in range(0, len(whole), 16384):
        peer.sock.sendall(whole[start : start + 16384])
    assert (peer.message()["data"] if asked is None else len(asked.result())) == size


@pytest.mark.parametrize("data", ["null", "0", "false", '""', "[]", "{}", '"\\ud800"'], ids=ascii)
def test_any_json_is_an_answer(app: Daebus, threads: ThreadPoolExecutor, data: str) -> None:
    with app.test_client() as client:
        asked = asking(app, threads)
        ident = client.receive("confirm")["id"]
        client.send_raw(f' {{"data": {data}, "id": "{ident}", "type": "\\u0072esponse"}}')
        assert asked.result(5) == json.loads(data)


@pytest.mark.parametrize("data", ["null", "7", '"no"', "[]", "{}", '{"error": 5, "code": []}'])
def test_any_json_is_an_error(app: Daebus, threads: ThreadPoolExecutor, data: str) -> None:
    with app.test_client() as client:
        asked = asking(app, threads)
        ident = client.receive("confirm")["id"]
        client.send_raw(f'{{"data": {data}, "id": "{ident}", "type": "error"}}')
        with pytest.raises(CallError) as info:
            asked.result(5)
    assert info.value.data == json.loads(data)
    assert info.value.text


def test_only_the_client_that_was_asked_can_answer(
    app: Daebus, threads: ThreadPoolExecutor
) -> None:
    with app.test_client() as client:
        asked = asking(app, threads)
        question = client.receive("confirm")
        with app.test_client() as other:
            other.answer(question, "forged")
            other.request("echo", 1)
            assert not asked.done()
        client.answer(question, "real")
        client.answer(question, "twice")
        assert asked.result(5) == "real"
        assert client.request("echo", "on") == "on"


def test_a_message_that_only_mentions_the_id_is_handled(app: Daebus) -> None:
    @app.socket("ask")
    def ask(req: WebSocketRequest) -> Any:
        return app.websocket.call(req.client_id, "confirm", timeout=5)

    with app.test_client() as client:
        client.send("ask")
        question = client.receive("confirm")
        client.send("echo", question["id"])
        client.send_raw(f'{{"type": "response", "id": "{question["id"]}", broken')
        client.answer(question, "yes")
        assert client.receive()["data"] == "yes"
        assert client.receive()["data"] == question["id"]
        assert client.receive()["data"]["code"] == "bad_json"


@pytest.mark.parametrize("kind", ["response", "error", "cancel"])
def test_a_handler_of_ones_own_gets_what_nobody_waits_for(
    app: Daebus, threads: ThreadPoolExecutor, kind: str
) -> None:
    app.socket(kind)(lambda req: ["mine", req.data])
    with app.test_client() as client:
        assert client.request(kind, 5) == ["mine", 5]
        asked = asking(app, threads)
        client.answer(client.receive("confirm"), "yes")
        if kind == "response":
            assert asked.result(5) == "yes"
            assert client.request("echo", "on") == "on"
            assert not kept_by(client)


def test_an_error_of_which_no_text_can_be_made(app: Daebus, threads: ThreadPoolExecutor) -> None:
    """It can be read, but it is nested so deep that it cannot be written."""
    with app.test_client() as client:
        for depth in range(sys.getrecursionlimit() - 100, sys.getrecursionlimit()):
            asked = asking(app, threads)
            ident = client.receive("confirm")["id"]
            data = f'{{"error": {depth * "["}{depth * "]"}}}'
            client.send_raw(f'{{"data": {data}, "id": "{ident}", "type": "error"}}')
            if client.request("echo", depth) != depth or not asked.done():
                break
            with pytest.raises(CallError, match="answered with an error"):
                asked.result(5)


# --- several ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_many_are_asked_at_once(app: Daebus, mode: str, threads: ThreadPoolExecutor) -> None:
    with (
        app.test_client() as yes,
        app.test_client() as no,
        app.test_client() as silent,
        app.test_client() as leaves,
        websockets_connect(f"ws://127.0.0.1:{app.http.port}/") as other,
    ):
        clients = (yes, no, silent, leaves)
        app.socket("who")(lambda req: req.client_id)
        ids = [client.request("who") for client in clients]
        other.send('{"type": "who"}')
        other_id = json.loads(other.recv(timeout=5))["data"]
        whom = [*ids, other_id, "nobody", ids[0]]
        if mode == "sync":
            asked = threads.submit(app.websocket.call_clients, whom, "vote", 1, timeout=0.5)
        else:
            coroutine = app.websocket.call_clients_async(whom, "vote", 1, timeout=0.5)
            asked = threads.submit(asyncio.run, coroutine)
        yes.answer(yes.receive("vote"), "yes")
        no.answer(no.receive("vote"), error=ClientError("no"))
        leaves.receive("vote")
        leaves.close()
        question = json.loads(other.recv(timeout=5))
        other.send(json.dumps({"type": "response", "id": question["id"], "data": "other"}))
        answers = asked.result(5)
    assert list(answers) == [*ids, other_id, "nobody"]
    assert (answers[ids[0]], answers[other_id]) == ("yes", "other")
    kinds = [type(answers[client_id]) for client_id in (*ids[1:], "nobody")]
    assert kinds == [CallError, CallTimeout, ClientGone, ClientGone]


def test_nothing_waits_for_answers_once_who_asks_is_cancelled(app: Daebus) -> None:
    @app.socket("ask")
    async def ask(req: WebSocketRequest) -> bool:
        asking = asyncio.ensure_future(app.websocket.call_clients_async([req.client_id], "vote"))
        await asyncio.sleep(0)  # it has asked, and its waits have not begun
        asking.cancel()
        await asyncio.wait([asking])
        (link,) = connections(app)
        activity = activity_of(link)
        return activity.pending.waiting

    with app.test_client() as client:
        assert client.request("ask") is False
        client.receive("vote")  # it had been asked


def test_a_room_is_asked(app: Daebus, threads: ThreadPoolExecutor) -> None:
    app.socket("enter")(lambda req: app.websocket.join(req.client_id, "jury") and req.client_id)
    with app.test_client() as a, app.test_client() as b, app.test_client() as outside:
        ids = [client.request("enter") for client in (a, b)]
        outside.request("echo", 1)
        asked = threads.submit(app.websocket.call_room, "jury", "vote", timeout=5)
        for client in (a, b):
            client.answer(client.receive("vote"), "yes")
        assert asked.result() == dict.fromkeys(ids, "yes")
        assert outside.request("echo", 2) == 2
        assert not kept_by(outside)
        assert app.websocket.call_room("nobody's", "vote") == {}


def test_many_threads_ask_one_client(app: Daebus, threads: ThreadPoolExecutor) -> None:
    with app.test_client() as client:
        client_id = only_client(app)
        asked = {
            threads.submit(app.websocket.call, client_id, "double", n, timeout=5): n
            for n in range(20)
        }
        for _ in asked:
            question = client.receive("double")
            client.answer(question, question["data"] * 2)
        for future in concurrent.futures.as_completed(asked, timeout=5):
            assert future.result() == asked[future] * 2


def test_messages_that_wait_for_an_answer_are_bounded(app: Daebus, connect: Connect) -> None:
    """Beyond that the client is slowed, and its answer comes too late; nothing is lost."""

    @app.socket("ask")
    def ask(req: WebSocketRequest) -> str:
        with pytest.raises(CallTimeout):
            app.websocket.call(req.client_id, "confirm", timeout=0.3)
        return "timeout"

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("ask")
    question = peer.message()
    # One read brings some thousands of these; what comes behind stays with the kernel.
    flood = frame(TEXT, '{"type":"x"}') * 50_000
    peer.sock.sendall(flood[: len(flood) // 2])
    (connection,) = connections(app)
    assert eventually(lambda: len(connection.reader.inbox) >= MAX_WAITING)
    assert len(connection.reader.inbox) < MAX_WAITING + 65536 // len('{"type":"x"}')
    answer(peer, question, "too late")
    assert peer.message()["data"] == "timeout"
    peer.sock.close()
