"""``daebus.testing`` and its pytest fixture, as users' tests meet them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import simple_websocket

import daebus
from daebus import (
    CallError,
    ClientError,
    Connection,
    Daebus,
    EncodeError,
    Reject,
    StateError,
    UpgradeRequest,
    WebSocketRequest,
)
from daebus.testing import AppClient, Refused, RequestError, quiet, wait_for_clients
from tests.support.fixture_types import MakeApp
from tests.support.raw import Raw
from tests.support.waiting import eventually


def test_request_returns_the_data_of_the_response(app: Daebus) -> None:
    app.socket("add")(lambda req: req.data["a"] + req.data["b"])
    with app.test_client() as client:
        assert client.request("add", {"a": 1, "b": 2}) == 3


def test_request_raises_what_the_server_refused(app: Daebus) -> None:
    @app.socket("pay")
    def pay(req: WebSocketRequest) -> None:
        raise ClientError("declined", code="no_money")

    with app.test_client() as client:
        with pytest.raises(RequestError, match="no_money: declined") as caught:
            client.request("pay")
        assert caught.value.text == "declined"
        assert caught.value.code == "no_money"
        assert caught.value.data == {
            "error": "declined",
            "code": "no_money",
            "message_type": "pay",
        }
        assert client.request("echo", "goes on") == "goes on"


def test_request_keeps_other_messages_for_receive(app: Daebus) -> None:
    @app.socket("tell")
    def tell(req: WebSocketRequest) -> str:
        app.websocket.send("one", "news")
        app.websocket.broadcast_to_all("two", "news")
        return "told"

    with app.test_client() as client:
        assert client.request("tell") == "told"
        assert client.request("tell") == "told"
        assert [client.receive()["data"] for _ in range(4)] == ["one", "two", "one", "two"]


def test_request_returns_the_response_to_its_own_message(app: Daebus) -> None:
    first, go = threading.Event(), threading.Event()

    @app.socket("slow", run_in="pool")
    def slow(req: WebSocketRequest) -> str:
        first.set()
        assert go.wait(5)
        return "slow"

    @app.socket("quick")
    def quick(req: WebSocketRequest) -> None:
        go.set()
        app.websocket.broadcast_to_all("not the answer", "response")

    with app.test_client() as client:
        client.send("slow")
        assert first.wait(5)
        app.socket("last")(lambda req: "last")
        client.send("quick")
        assert client.request("last") == "last"
        assert {client.receive()["data"] for _ in range(2)} == {"slow", "not the answer"}


def test_answer_answers_a_question(app: Daebus) -> None:
    @app.socket("ask")
    def ask(req: WebSocketRequest) -> object:
        try:
            return app.websocket.call(req.client_id, "confirm", "sure?")
        except CallError as exc:
            return [exc.text, exc.code, exc.data]

    with app.test_client() as client:
        client.send("ask")
        client.answer(client.receive("confirm"), {"sure": True})
        assert client.receive("response")["data"] == {"sure": True}
        client.send("ask")
        client.answer(client.receive("confirm"), error=ClientError("no", "mine", {"n": 1}))
        assert client.receive("response")["data"] == [
            "no",
            "mine",
            {"n": 1, "error": "no", "code": "mine"},
        ]


def test_receive_of_a_type_keeps_the_others(app: Daebus) -> None:
    with app.test_client() as client:
        assert client.request("echo", 0) == 0
        for number, kind in enumerate(("a", "b", "a", "c")):
            app.websocket.broadcast_to_all(number, kind)
        assert client.receive("c") == {"type": "c", "data": 3}
        assert client.receive(message_type="b") == {"type": "b", "data": 1}
        assert client.receive("a")["data"] == 0
        assert client.receive()["data"] == 2


def test_a_timeout_names_what_did_come(app: Daebus) -> None:
    with app.test_client() as client:
        assert client.request("echo", 0) == 0
        app.websocket.broadcast_to_all("x", "news")
        came = r'1 other messages came: \{"type": "news", "data": "x"\}'
        with pytest.raises(TimeoutError, match=rf"no weather came within 0\.05 s; {came}$"):
            client.receive("weather", timeout=0.05)
        go = threading.Event()
        app.socket("late", run_in="pool")(lambda req: go.wait(5))
        with pytest.raises(TimeoutError, match=rf"no answer to 'late' came within .* s; {came}$"):
            client.request("late", timeout=0.01)
        assert client.receive() == {"type": "news", "data": "x"}
        go.set()
        assert client.receive("response")["data"] is True
        for number in range(12):
            app.websocket.broadcast_to_all([number, "x" * 100], "news")
        with pytest.raises(TimeoutError, match=r"12 other messages came: .{780,820}$"):
            client.receive("weather", timeout=0.05)
    nothing = pytest.raises(TimeoutError, match=r"no message came within 0\.02 s; nothing came")
    with app.test_client(timeout=0.02) as client, nothing:
        client.receive()


def test_without_data_a_message_has_none(app: Daebus) -> None:
    app.socket("what")(lambda req: [req.payload.get("data", "none"), req.data])
    with app.test_client() as client:
        assert client.request("what") == ["none", {}]
        assert client.request("what", None) == [None, None]
        client.send("what")
        assert client.receive()["data"] == ["none", {}]
        client.send("what", None)
        assert client.receive()["data"] == [None, None]


# --- who is there, and when all is done -----------------------------------------------


@pytest.mark.parametrize("data", [float("nan"), {1, 2}])
def test_what_json_cannot_carry_is_told_at_once(app: Daebus, data: object) -> None:
    with app.test_client() as client, pytest.raises(EncodeError, match="the data of 'echo'"):
        client.request("echo", data)


def test_a_client_has_been_let_in_before_it_is_handed_out(app: Daebus) -> None:
    with app:
        for number in range(1, 31):
            with contextlib.ExitStack() as stack:
                for there in range(1, 3):
                    stack.enter_context(app.test_client())
                    assert app.websocket.get_client_count() == there, number


def test_a_client_that_is_closed_at_once_is_handed_out_too(app: Daebus) -> None:
    app.websocket.raw("/shut")(lambda ws: ws.close(4000, "enough"))
    with app.test_client("/shut") as client, pytest.raises(simple_websocket.ConnectionClosed):
        client.receive()


def test_waiting_for_a_number_of_clients(app: Daebus) -> None:
    with app, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait_for_clients, app, 2)
        with app.test_client(), app.test_client():
            waiting.result(timeout=5)
            with pytest.raises(TimeoutError, match=r"2 clients are connected after 0\.01 s, not 1"):
                wait_for_clients(app, 1, timeout=0.01)
            waiting = pool.submit(wait_for_clients, app, 0)
        waiting.result(timeout=5)
    for function in (quiet, lambda app: wait_for_clients(app, 0)):
        with pytest.raises(StateError, match="the app does not run"):
            function(app)


def test_quiet_waits_for_all_that_was_sent(app: Daebus) -> None:
    done: list[int] = []
    told: list[str] = []

    @app.socket("count")
    def count(req: WebSocketRequest) -> None:
        done.append(req.data)

    @app.socket("count in pool", run_in="pool")
    def count_in_pool(req: WebSocketRequest) -> None:
        done.append(req.data)

    @app.socket("count async")
    async def count_async(req: WebSocketRequest) -> None:
        await asyncio.sleep(0)
        done.append(req.data)

    app.websocket.on_disconnect(told.append)
    app.websocket.raw("/feed")(lambda ws: list(ws))
    kinds = ("count", "count in pool", "count async")
    with app, app.test_client() as one, app.test_client() as two, app.test_client("/feed"):
        for turn in range(1, 8):
            for client in (one, two):
                for kind in kinds:
                    client.send(kind, turn)
            quiet(app)
            assert done.count(turn) == 6, turn
        two.close()
        quiet(app)
        assert len(told) == 1


def test_quiet_tells_what_is_going_on(app: Daebus) -> None:
    begun, go = threading.Event(), threading.Event()

    def hold(req: WebSocketRequest) -> None:
        begun.set()
        go.wait(5)

    app.socket("hold")(hold)
    app.socket("job", run_in="pool")(hold)
    with app.test_client() as client:
        for kind, what in (("hold", "'hold' runs for client"), ("job", "a job or a call runs for")):
            begun.clear()
            go.clear()
            client.send(kind)
            assert begun.wait(5)
            with pytest.raises(TimeoutError, match=rf"not quiet within 0\.01 s: {what}"):
                quiet(app, timeout=0.01)
            go.set()
            quiet(app)


@pytest.mark.parametrize("tick", [False, True])
def test_a_stopped_clock_of_the_program_does_not_stop_ours(app: Daebus, tick: bool) -> None:
    freezegun = pytest.importorskip("freezegun", reason="freezegun is not installed")
    app.socket("day")(lambda req: datetime.date.today())

    @app.socket("nap")
    async def nap(req: WebSocketRequest) -> str:
        await asyncio.sleep(0.01)
        return f"{datetime.date.today()}"

    app.socket("slow", timeout=0.02)(lambda req: req.cancelled.wait(5))
    app.route("/day")(lambda req: {"day": datetime.date.today()})
    with freezegun.freeze_time("2012-01-14", tick=tick) as clock, app.test_client() as client:
        assert client.request("day") == "2012-01-14"
        assert client.request("nap") == "2012-01-14"
        clock.move_to("2030-01-01")
        assert client.request("nap") == "2030-01-01"
        assert client.request("slow") is True
        with Raw(app) as raw:
            assert raw.get("/day").json == {"day": "2030-01-01"}
        clock.move_to("2001-01-01")
        quiet(app)
        with app.test_client() as other:
            assert other.request("day") == "2001-01-01"
        assert app.websocket.stats()["handlers"]["nap"]["seconds"] < 5
        with pytest.raises(TimeoutError):
            client.receive(timeout=0.01)
    assert not app.running


def test_a_message_may_be_sent_as_it_is(app: Daebus) -> None:
    with app.test_client() as client:
        client.send_raw("no envelope")
        assert client.receive("error")["data"]["code"] == "bad_json"
        client.send_raw(b"\x00")
        assert client.receive("error")["data"]["code"] == "binary_not_supported"


def test_what_a_connect_hook_sends_is_received(app: Daebus) -> None:
    """It may come in one read with the handshake."""
    app.websocket.on_connect(lambda client_id: app.websocket.send("hello"))
    with app:
        for _ in range(20):
            with app.test_client() as client:
                assert client.receive()["data"] == "hello"


def test_the_app_starts_with_the_first_client_and_stops_with_the_last(app: Daebus) -> None:
    running = [app.running]
    with app.test_client() as one:
        running.append(app.running)
        port = app.http.port
        with app.test_client() as two:
            assert app.http.port == port
            assert app.websocket.get_client_count() == 2
            assert two.request("echo", 1) == 1
        running.append(app.running)
        assert one.request("echo", 2) == 2
    running.append(app.running)
    assert running == [False, True, True, False]


def test_the_first_client_may_leave_before_the_second(app: Daebus) -> None:
    one, two = app.test_client(), app.test_client()
    one.__enter__()
    with two:
        one.__exit__(None, None, None)
        assert two.request("echo", 1) == 1
    assert not app.running


def test_a_running_app_goes_on_running(app: Daebus) -> None:
    with app:
        for _ in range(2):
            with app.test_client() as client:
                assert client.request("echo", 1) == 1
            assert app.running


def test_the_configured_port_is_left_alone(make_app: MakeApp) -> None:
    app = make_app(port=1)  # nobody but root may have that one
    app.socket("echo")(lambda req: req.data)
    with app.test_client() as client:
        assert client.request("echo", 1) == 1
        assert app.websocket.port != 1


def test_clients_of_several_threads_share_one_server(app: Daebus) -> None:
    together = threading.Barrier(10)

    def talk(number: int) -> int:
        together.wait(5)
        with app.test_client() as client:
            assert client.request("echo", number) == number
            together.wait(5)
            return app.websocket.get_client_count()

    with ThreadPoolExecutor(10) as pool:
        assert max(pool.map(talk, range(10))) == 10
    assert not app.running


def test_path_headers_and_subprotocols_go_along(make_app: MakeApp) -> None:
    app = make_app(subprotocols=["v2"], origins=["https://shop.example"])
    seen = queue.Queue[tuple[str, str | None]]()

    @app.websocket.raw("/feed")
    def feed(ws: Connection) -> None:
        seen.put((ws.path, ws.subprotocol))

    headers = {"Origin": "https://shop.example"}
    with app.test_client("/feed?since=4", headers=headers, subprotocols=["v1", "v2"]) as client:
        assert client.websocket.subprotocol == "v2"
    assert seen.get(timeout=5) == ("/feed", "v2")


def test_a_refused_client_raises_and_lets_the_app_go(make_app: MakeApp) -> None:
    app = make_app()
    headers = {"Origin": "https://elsewhere.example"}
    text = "refused with 403 origin_not_allowed: pages of this origin may not connect"
    with pytest.raises(Refused, match=f"^{text}") as caught:
        app.test_client(headers=headers).__enter__()
    assert (caught.value.status, caught.value.code) == (403, "origin_not_allowed")
    assert caught.value.text.startswith("pages of this origin")
    assert not app.running


def test_a_refusal_of_the_program_has_its_text(make_app: MakeApp) -> None:
    app = make_app()

    @app.websocket.authenticate
    def judge(request: UpgradeRequest) -> None:
        raise Reject(429, "grüße, later" * 1000, code="later")

    with pytest.raises(Refused) as caught:
        app.test_client().__enter__()
    assert (caught.value.status, caught.value.code) == (429, "later")
    assert caught.value.text == "grüße, later" * 1000


def test_close_waits_for_the_server_and_tells_the_code(app: Daebus) -> None:
    codes = queue.Queue[int]()

    @app.websocket.raw("/feed")
    def feed(ws: Connection) -> None:
        list(ws)
        codes.put(ws.close_code)

    with app, app.test_client("/feed") as client:
        client.close(4001, "tea time")
        assert codes.get(timeout=5) == 4001
        assert eventually(lambda: app.websocket.get_client_count() == 0)
        client.close()
        with pytest.raises(StateError, match=r"with app\.test_client\(\) as client"):
            client.send("echo")


def test_the_servers_close_is_seen(app: Daebus) -> None:
    app.socket("leave")(lambda req: req.websocket.close(4000, "enough") and None)
    with app.test_client() as client:
        client.send("leave")
        with pytest.raises(simple_websocket.ConnectionClosed, match="4000 enough"):
            client.receive()


def test_a_client_works_inside_of_its_with_block_only(app: Daebus) -> None:
    client = AppClient(app)
    with pytest.raises(StateError, match=r"write: with app\.test_client\(\) as client"):
        client.send("echo")
    assert not app.running


# --- the pytest plugin --------------------------------------------------------------


def test_the_fixture_makes_connected_clients(
    app: Daebus, daebus_client: Callable[..., AppClient]
) -> None:
    one = daebus_client(app)
    two = daebus_client(app, "/other", timeout=1.0)
    assert one.request("echo", 1) == 1
    assert two.request("echo", 2) == 2  # answered, so it has been let in
    assert app.websocket.broadcast_to_all("x") == 2
    assert two.receive()["data"] == "x"


def test_the_fixture_cleans_up_after_a_test_that_failed(tmp_path: Path) -> None:
    (tmp_path / "test_of_a_user.py").write_text(
        """
import threading

import pytest
from daebus import Daebus, DaebusHttp, DaebusWebSocket

app = Daebus("users")
app.attach(DaebusHttp(port=8080))
app.attach(DaebusWebSocket())
app.socket("twice")(lambda req: req.data * 2)


def test_passes(daebus_client):
    assert daebus_client(app).request("twice", 21) == 42
    assert app.http.port != 8080


def test_fails(daebus_client):
    assert daebus_client(app).request("twice", 1) == 3


def test_is_clean_again():
    assert not app.running
    assert [t.name for t in threading.enumerate() if t.name.startswith("daebus-")] == []
"""
    )
    paths = [str(Path(daebus.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1 failed, 2 passed" in result.stdout, result.stdout + result.stderr
    assert "assert 2 == 3" in result.stdout
