"""Token buckets with a clock of our own, and rates as clients meet them."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect as websockets_connect

from daebus import ClientError, Daebus, DisconnectInfo, WebSocketRequest
from daebus.testing import AppClient, RequestError
from daebus.websocket.messages.options import RunIn
from daebus.websocket.messages.ratelimit import Bucket, Rate, RateLimiter, parse_rate
from tests.support.fixture_types import Connect, MakeApp
from tests.support.inside import activity_of, connections
from tests.support.peer import BINARY, CLOSE, TEXT, Peer, envelope, frame
from tests.support.waiting import eventually

quick = settings(max_examples=60, derandomize=True, deadline=None, database=None)

RATES = st.builds(
    Rate,
    st.one_of(st.integers(1, 3), st.integers(1, 1000)),
    st.floats(0.1, 1e5),
)
STARTS = st.floats(0, 1e8)  # of time.monotonic(): a machine that has run for three years
PAUSES = st.lists(st.one_of(st.just(0.0), st.floats(0, 100)), max_size=60)


# --- the bucket ---------------------------------------------------------------------


@quick
@given(RATES, STARTS, PAUSES)
def test_a_bucket_gives_no_more_than_its_rate(
    rate: Rate, start: float, pauses: list[float]
) -> None:
    now, taken = start, 0
    bucket = Bucket(rate, now)
    for pause in pauses:
        now += pause
        taken += bucket.take(now) == 0
    earned = (now - start) * rate.count / rate.seconds
    assert taken <= rate.count + earned + 0.01


@quick
@given(RATES, STARTS, PAUSES)
@example(Rate(3, 1.0), 0.0, [0.0] * 4)  # a third of a second, rounded up
def test_who_waits_as_told_is_let_through(rate: Rate, start: float, pauses: list[float]) -> None:
    now = start
    meter = RateLimiter(None, now)
    for pause in pauses:
        now += pause
        wait = meter.wait(rate, rate, now)
        assert 0 <= wait <= rate.seconds / rate.count + 0.001
        if wait:
            now += wait
            assert meter.wait(rate, rate, now) == 0


@quick
@given(RATES, STARTS, PAUSES)
def test_who_keeps_to_the_rate_is_never_refused(
    rate: Rate, start: float, pauses: list[float]
) -> None:
    now = start
    bucket = Bucket(rate, now)
    for pause in pauses:
        now += rate.seconds / rate.count + pause
        assert bucket.take(now) == 0


def test_a_bucket_at_its_edge() -> None:
    bucket = Bucket(Rate(3, 6), 100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [0, 0, 0, 2.0]
    assert bucket.take(101.0) == pytest.approx(1.0)
    assert bucket.take(101.99) > 0
    assert bucket.take(102.0) == 0
    assert bucket.take(102.0) == pytest.approx(2.0)
    assert [bucket.take(1000.0) for _ in range(4)] == [0, 0, 0, 2.0]  # no more than it holds


def test_keys_have_buckets_of_their_own_and_a_new_rate_a_new_one() -> None:
    one, other = Rate(1, 10), Rate(1, 10)
    meter = RateLimiter(None, 0.0)
    assert [meter.wait(one, one, 0.0), meter.wait(other, other, 0.0)] == [0, 0]
    assert meter.wait(None, one, 0.0) == 0
    assert meter.wait(one, one, 1.0) == meter.wait(None, one, 1.0) == 9.0
    assert meter.wait(None, other, 1.0) == 0


def test_strikes_add_up_within_a_minute_and_are_forgotten() -> None:
    rate = Rate(1, 1e6)
    meter = RateLimiter(2, 0.0)
    for now in (0.0, 0.0, 40.0, 80.0, 120.0):  # one message, then a strike every 40 s
        meter.wait(rate, rate, now)
        assert not meter.beyond
    for now in (121.0, 122.0):
        meter.wait(rate, rate, now)
    assert meter.beyond


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10/s", Rate(10, 1.0)), ("100/m", Rate(100, 60.0)), ("5/h", Rate(5, 3600.0))],
)
def test_rates_are_read(text: str, rate: Rate) -> None:
    read = parse_rate(text)
    assert (read.count, read.seconds) == (rate.count, rate.seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "0/s", "-1/s", "1.5/s", "10/d", "10/sec", " 10/s", "10/s\n", "1_0/s", "٣/s"]
)
def test_what_is_no_rate_is_told_what_to_type(app: Daebus, text: str) -> None:
    with pytest.raises(ValueError, match="write rate='10/s'"):
        app.socket("x", rate=text)(lambda req: None)
    with pytest.raises(TypeError, match="write rate='10/s'"):
        app.socket("x", rate=10)(lambda req: None)  # type: ignore[arg-type]  # the mistake
    app.socket("x")(lambda req: None)  # nothing was registered


# --- all messages together ----------------------------------------------------------


def refusal(client: AppClient, message_type: str, data: Any = None) -> dict[str, Any]:
    with pytest.raises(RequestError) as error:
        client.request(message_type, data)
    return error.value.data


def test_the_last_message_of_a_rate_passes_and_the_next_does_not(app: Daebus) -> None:
    app.websocket.enable_rate_limiting(max_messages=3, window_seconds=3600)
    with app.test_client() as one, app.test_client() as two:
        assert [one.request("echo", n) for n in range(3)] == [0, 1, 2]
        data = refusal(one, "echo")
        assert data["code"] == "rate_limited"
        assert data["message_type"] == "echo"
        assert 1199 < data["retry_after"] <= 1200
        assert two.request("echo", 1) == 1  # each client has its own
    assert app.websocket.stats()["connections_total"] == 0


def test_who_waits_as_told_may_go_on(app: Daebus) -> None:
    app.websocket.enable_rate_limiting(max_messages=1, window_seconds=0.05)
    with app.test_client() as client:
        for _ in range(3):
            client.request("echo", 1)
            before = time.monotonic()
            try:
                client.request("echo", 2)
            except RequestError as error:
                wait = error.data["retry_after"]
                assert 0 < wait <= 0.05
                app.wait(max(0.0, before + wait - time.monotonic()) + 0.05)
            else:  # the machine took its time
                app.wait(0.05)


@pytest.mark.parametrize(
    "message",
    [
        frame(TEXT, "no json"),
        frame(TEXT, "[]"),
        frame(TEXT, '{"no": "type"}'),
        envelope("unknown"),
        frame(BINARY, b"\x00"),
        frame(TEXT, '{"type": "echo", "id": [1]}'),
    ],
    ids=["no JSON", "no object", "no type", "unknown type", "binary", "bad id"],
)
def test_what_cannot_be_handled_counts_too(app: Daebus, connect: Connect, message: bytes) -> None:
    app.websocket.enable_rate_limiting(max_messages=2, window_seconds=3600)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    codes = []
    for _ in range(3):
        peer.sock.sendall(message)
        codes.append(peer.message()["data"]["code"])
    assert codes[0] == codes[1] != "rate_limited"
    assert codes[2] == "rate_limited"
    peer.say("echo", 1)
    assert peer.message()["data"]["code"] == "rate_limited"


def test_the_refusal_has_the_id_of_its_message(app: Daebus, connect: Connect) -> None:
    app.websocket.enable_rate_limiting(max_messages=1, window_seconds=3600)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    for ident in ("a", 7):
        peer.sock.sendall(frame(TEXT, f'{{"type": "echo", "data": 1, "id": "{ident}"}}'))
        assert peer.message()["id"] == str(ident)


def test_who_does_not_heed_it_is_cut(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_strikes=4)
    app.socket("echo")(lambda req: req.data)
    app.websocket.enable_rate_limiting(max_messages=2, window_seconds=3600)
    infos: list[DisconnectInfo] = []
    app.websocket.on_disconnect(lambda client_id, info: infos.append(info))
    app.start()
    peer = Peer.joined(connect(app.http.port), behind=envelope("echo", 1) * 50)
    other = Peer.joined(connect(app.http.port))
    kinds = [peer.message()["type"] for _ in range(6)]
    assert kinds == ["response"] * 2 + ["error"] * 4
    assert peer.part() == 1008
    other.say("echo", 1)
    assert other.message()["data"] == 1
    other.close()
    app.stop()
    assert ("rate_limited", 1008) in [(info.reason, info.code) for info in infos]


def test_nobody_is_cut_if_strikes_are_off(make_app: MakeApp) -> None:
    app = make_app(max_strikes=None)
    app.socket("echo")(lambda req: req.data)
    app.websocket.enable_rate_limiting(max_messages=1, window_seconds=3600)
    with app.test_client() as client:
        client.request("echo", 1)
        codes = {refusal(client, "echo")["code"] for _ in range(50)}
    assert codes == {"rate_limited"}


def test_an_answer_or_a_cancel_beyond_the_rate_is_counted_and_taken(
    app: Daebus, connect: Connect
) -> None:
    """A rate must not cost a call its answer, nor keep a job that its client gave up."""
    app.websocket.enable_rate_limiting(max_messages=1, window_seconds=3600)
    begun = threading.Event()

    @app.socket("work", run_in="pool")
    def work(req: WebSocketRequest) -> str:
        begun.set()
        return "stopped" if req.cancelled.wait(5) else "ran on"

    app.start()
    peer = Peer.joined(connect(app.http.port))
    (client_id,) = eventually(app.websocket.get_clients)
    peer.sock.sendall(frame(TEXT, '{"type": "work", "id": "1"}'))
    assert begun.wait(5)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(app.websocket.call, client_id, "confirm", timeout=5)
        question = peer.message()
        reply = {"type": "response", "id": question["id"], "data": 1}
        peer.send(TEXT, json.dumps(reply))
        assert answer.result(5) == 1
    peer.sock.sendall(frame(TEXT, '{"type": "cancel", "id": "1"}'))
    assert peer.message() == {"type": "response", "data": "stopped", "id": "1"}
    peer.say("response", "nobody asked")
    assert peer.message()["data"]["code"] == "rate_limited"


def test_it_can_be_turned_on_and_off_while_clients_are_there(app: Daebus) -> None:
    with app.test_client() as client:
        assert [client.request("echo", n) for n in range(100)] == list(range(100))
        app.websocket.enable_rate_limiting(max_messages=1, window_seconds=3600)
        assert client.request("echo", 1) == 1
        assert refusal(client, "echo")["code"] == "rate_limited"
        app.websocket.disable_rate_limiting()
        assert client.request("echo", 2) == 2
        app.websocket.enable_rate_limiting(max_messages=1, window_seconds=3600)
        assert client.request("echo", 3) == 3  # it begins anew


def test_a_client_without_rates_has_no_limiter(app: Daebus) -> None:
    with app.test_client() as client:
        client.request("echo", 1)
        (connection,) = connections(app)
        activity = activity_of(connection)
        assert activity._limiter is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_messages": 0},
        {"max_messages": -1},
        {"window_seconds": 0},
        {"window_seconds": float("inf")},
        {"window_seconds": float("nan")},
    ],
    ids=repr,
)
def test_arguments_that_make_no_sense(app: Daebus, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        app.websocket.enable_rate_limiting(**arguments)


# --- one type -----------------------------------------------------------------------


@pytest.mark.parametrize("run_in", ["connection", "pool"])
def test_a_type_has_a_rate_of_its_own(app: Daebus, run_in: RunIn) -> None:
    calls: list[str] = []

    @app.socket("search", rate="2/h", run_in=run_in)
    def search(req: Any) -> str:
        calls.append(req.client_id)
        return "found"

    with app.test_client() as one, app.test_client() as two:
        assert [one.request("search") for _ in range(2)] == ["found"] * 2
        data = refusal(one, "search")
        assert data["error"] == "too many 'search' messages"
        assert (data["code"], data["message_type"]) == ("rate_limited", "search")
        assert 1799 < data["retry_after"] <= 1800
        assert one.request("echo", 1) == 1
        assert two.request("search") == "found"
    assert len(calls) == 3


def test_a_type_with_the_same_rate_is_counted_by_itself(app: Daebus) -> None:
    for message_type in ("one", "two"):
        app.socket(message_type, rate="1/h")(lambda req: "done")
    with app.test_client() as client:
        assert [client.request(message_type) for message_type in ("one", "two")] == ["done"] * 2
        assert refusal(client, "one")["code"] == "rate_limited"


def test_types_that_a_client_invents_have_one_rate_together(app: Daebus) -> None:
    app.socket("*", rate="3/h")(lambda req: req.message_type)
    with app.test_client() as client:
        assert [client.request(f"t{n}") for n in range(3)] == ["t0", "t1", "t2"]
        data = refusal(client, "x" * 10_000)
        assert data["code"] == "rate_limited"
        assert len(str(data)) < 500
        (connection,) = connections(app)
        activity = activity_of(connection)
        assert activity._limiter is not None
        assert len(activity._limiter._buckets) == 1


def test_an_async_handler_has_one_too(app: Daebus) -> None:
    @app.socket("search", rate="1/h")
    async def search(req: Any) -> str:
        return "found"

    with app.test_client() as client:
        assert client.request("search") == "found"
        assert refusal(client, "search")["code"] == "rate_limited"


def test_strikes_of_types_cut_a_client_too(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_strikes=3)
    app.socket("ping")(lambda req: None)
    app.socket("search", rate="1/h")(lambda req: "found")
    app.start()
    # What passes in between does not help.
    flood = (envelope("search") + envelope("ping")) * 20
    peer = Peer.joined(connect(app.http.port), behind=flood)
    opcodes: list[int] = []
    while not opcodes or opcodes[-1] != CLOSE:
        opcodes.append(peer.frame()[0])
    assert opcodes == [TEXT] * 4 + [CLOSE]


# --- who may send a type ------------------------------------------------------------


@pytest.fixture
def roles(app: Daebus) -> Daebus:
    """An app whose clients say what they are; bosses may do more."""
    app.websocket.authenticate(lambda req: req.args["role"])

    async def is_boss(req: Any) -> bool:
        return bool(req.identity == "boss")

    def named(req: Any) -> bool:
        if "name" not in req.data:
            raise ClientError("a name is needed", code="no_name")
        return bool(req.data["name"] == req.identity)

    app.socket("fire", allow=lambda req: req.identity == "boss")(lambda req: "fired")
    app.socket("hire", allow=is_boss)(lambda req: "hired")
    app.socket("rename", allow=named)(lambda req: "renamed")
    return app


def test_a_type_is_for_those_who_are_allowed(roles: Daebus) -> None:
    with roles.test_client("/?role=clerk") as clerk, roles.test_client("/?role=boss") as boss:
        for message_type, answer in (("fire", "fired"), ("hire", "hired")):
            assert boss.request(message_type) == answer
            assert refusal(clerk, message_type) == {
                "error": f"you may not send '{message_type}'",
                "code": "forbidden",
                "message_type": message_type,
            }
        assert clerk.request("rename", {"name": "clerk"}) == "renamed"
        assert refusal(clerk, "rename", {"name": "boss"})["code"] == "forbidden"
        assert refusal(clerk, "rename", {})["code"] == "no_name"
        assert clerk.request("echo", 1) == 1


@pytest.mark.parametrize("options", [{"run_in": "main"}, {"run_in": "pool"}], ids=repr)
def test_wherever_the_handler_runs_the_others_are_kept_out(
    roles: Daebus, options: dict[str, Any]
) -> None:
    called: list[int] = []

    @roles.socket("x", allow=lambda req: req.identity == "boss", rate="1/h", **options)
    def handler(req: Any) -> None:
        called.append(1)

    with roles.test_client("/?role=clerk") as clerk:
        assert refusal(clerk, "x")["code"] == "forbidden"
        assert refusal(clerk, "x")["code"] == "rate_limited"
    assert called == []


def test_a_renewed_identity_counts_at_once(roles: Daebus) -> None:
    with roles.test_client("/?role=clerk") as client:
        assert refusal(client, "fire")["code"] == "forbidden"
        (client_id,) = roles.websocket.get_clients()
        roles.websocket.renew(client_id, "boss")
        assert client.request("fire") == "fired"


@pytest.mark.parametrize("answer", [None, 0, "", []], ids=repr)
def test_only_a_true_answer_allows(app: Daebus, answer: object) -> None:
    app.socket("x", allow=lambda req: answer)(lambda req: "done")
    with app.test_client() as client:
        assert refusal(client, "x")["code"] == "forbidden"


def test_an_allow_that_raises_allows_nothing(app: Daebus, caplog: pytest.LogCaptureFixture) -> None:
    called: list[int] = []
    app.socket("x", allow=lambda req: 1 / 0)(lambda req: called.append(1))
    with app.test_client() as client:
        assert refusal(client, "x")["error"] == "the handler failed"
    assert called == []
    assert "ZeroDivisionError" in caplog.text


def test_an_allow_that_is_no_function(app: Daebus) -> None:
    with pytest.raises(TypeError, match="allow must be a function"):
        app.socket("x", allow=True)(lambda req: None)  # type: ignore[arg-type]  # the mistake


def test_beyond_the_rate_nobody_is_asked(app: Daebus) -> None:
    asked: list[int] = []
    app.socket("x", allow=lambda req: asked.append(1), rate="1/h")(lambda req: None)
    app.start()
    with websockets_connect(f"ws://127.0.0.1:{app.http.port}/") as client:
        for code in ("forbidden", "rate_limited"):
            client.send('{"type": "x"}')
            assert code in str(client.recv(timeout=5))
    assert asked == [1]
