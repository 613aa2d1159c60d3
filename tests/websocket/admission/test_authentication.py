"""Who may connect: the ``authenticate`` function, and what a refused client is told."""

from __future__ import annotations

import asyncio
import logging
import queue
import socket
import threading
import time
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as websockets_connect

from daebus import (
    Daebus,
    DuplicateHandlerError,
    NoClientError,
    Refused,
    Reject,
    UpgradeRequest,
)
from daebus.server.handoff import STOPPING, Upgrade
from daebus.server.threads.loop import LoopThread
from daebus.websocket.admission.authentication import Authenticator
from daebus.websocket.clients.broadcast import SendResult
from tests.support.fixture_types import Connect, MakeApp
from tests.support.peer import Answer, Peer, upgrade_request
from tests.support.waiting import eventually

TOKENS = {"t-ada": "ada", "t-bob": "bob"}


def ask(app: Daebus, connect: Connect, path: str = "/", **headers: str | None) -> Answer:
    """Ask for a WebSocket and return the answer."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Peer(connect(app.websocket.port)).ask(upgrade_request(path, fields))


def refused(app: Daebus, connect: Connect) -> tuple[int, dict[str, Any]]:
    answer = ask(app, connect)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["connection"] == "close"
    return answer.status, answer.json


@pytest.fixture
def guarded(app: Daebus) -> Daebus:
    """An app that knows the clients of two tokens, in the query, a cookie or a header."""

    @app.websocket.authenticate
    def authenticate(req: UpgradeRequest) -> str | None:
        token = req.args.get("token") or req.cookies.get("token")
        return TOKENS.get(token or req.headers.get("X-Token", ""))

    app.socket("who")(lambda req: req.identity)
    return app


# --- who comes in -------------------------------------------------------------------


def test_the_identity_is_the_user_of_every_message(guarded: Daebus) -> None:
    seen = queue.Queue[Any]()
    guarded.websocket.on_connect(lambda id: seen.put(guarded.websocket.get_identity(id)))
    with guarded.test_client("/?token=t-ada") as ada:
        assert seen.get(timeout=5) == "ada"
        url = f"ws://127.0.0.1:{guarded.http.port}/"
        with websockets_connect(url, additional_headers={"Cookie": "a=b; token=t-bob"}) as bob:
            assert seen.get(timeout=5) == "bob"
            bob.send('{"type": "who"}')
            assert bob.recv(timeout=5) == '{"type":"response","data":"bob"}'
        with guarded.test_client(headers={"X-Token": "t-bob"}) as other:
            assert other.request("who") == "bob"
        assert ada.request("who") == "ada"


def test_nobody_is_asked_without_the_function(app: Daebus) -> None:
    app.socket("who")(lambda req: {"user": req.identity})
    with app.test_client() as client:
        assert client.request("who") == {"user": None}
        (client_id,) = app.websocket.get_clients()
        assert app.websocket.get_identity(client_id) is None
    assert app.websocket.get_identity("nobody") is None


def test_the_function_sees_the_whole_request(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(http={"allowed_hosts": ["kitchen.example"]})
    seen = queue.Queue[dict[str, Any]]()

    @app.websocket.authenticate
    def authenticate(req: UpgradeRequest) -> str:
        seen.put(
            {
                "path": req.path,
                "q": req.args["q"],
                "cookie": req.cookies["c"],
                "agent": req.headers["User-Agent"],
                "address": req.remote_addr,
                "host": req.host,
                "method": req.method,
                "body": req.get_data(),
                "subprotocols": req.subprotocols,
            }
        )
        return "somebody"

    app.start()
    headers = {
        "Cookie": "c=biscuit",
        "User-Agent": "tea/1",
        "Host": "kitchen.example:8080",
        "Sec-WebSocket-Protocol": "one,two , three",
    }
    peer = Peer(connect(app.http.port))
    assert peer.ask(upgrade_request("/k%C3%BCche?q=%26", headers)).status == 101
    assert seen.get(timeout=5) == {
        "path": "/küche",
        "q": "&",
        "cookie": "biscuit",
        "agent": "tea/1",
        "address": "127.0.0.1",
        "host": "kitchen.example:8080",
        "method": "GET",
        "body": b"",
        "subprotocols": ["one", "two", "three"],
    }


def test_an_async_function_is_waited_for(app: Daebus) -> None:
    @app.websocket.authenticate
    async def authenticate(req: UpgradeRequest) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"name": req.args["name"]}

    app.socket("who")(lambda req: req.identity)
    with app.test_client("/?name=ada") as client:
        assert client.request("who") == {"name": "ada"}


def test_raw_connections_are_asked_too(guarded: Daebus, connect: Connect) -> None:
    users = queue.Queue[Any]()
    guarded.websocket.raw("/raw")(lambda connection: users.put(connection.identity))
    guarded.start()
    assert ask(guarded, connect, "/raw").status == 401
    assert ask(guarded, connect, "/raw?token=t-ada").status == 101
    assert users.get(timeout=5) == "ada"


def test_many_at_once_are_not_mixed_up(guarded: Daebus) -> None:
    guarded.start()
    url = f"ws://127.0.0.1:{guarded.http.port}/?token="

    def who(token: str) -> str:
        with websockets_connect(url + token) as client:
            client.send('{"type": "who"}')
            return str(client.recv(timeout=5))

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(who, list(TOKENS) * 10))
    assert answers == [f'{{"type":"response","data":"{TOKENS[t]}"}}' for t in list(TOKENS) * 10]


# --- who does not -------------------------------------------------------------------


@pytest.mark.parametrize("nobody", [None, False])
def test_no_identity_is_401(app: Daebus, connect: Connect, nobody: object) -> None:
    app.websocket.authenticate(lambda req: nobody)
    app.start()
    assert refused(app, connect) == (
        401,
        {"error": "the client is not known here", "code": "unauthorized"},
    )
    assert app.websocket.stats()["refused"] == {"unauthorized": 1}


@pytest.mark.parametrize("empty", ["", 0, {}, []], ids=repr)
def test_an_empty_identity_is_one(app: Daebus, connect: Connect, empty: object) -> None:
    app.websocket.authenticate(lambda req: empty)
    app.start()
    assert ask(app, connect).status == 101


def test_both_kinds_of_client_see_the_refusal(guarded: Daebus) -> None:
    guarded.start()
    url = f"ws://127.0.0.1:{guarded.http.port}/?token=stolen"
    with pytest.raises(InvalidStatus) as error, websockets_connect(url):
        pass
    assert error.value.response.status_code == 401
    with pytest.raises(Refused) as other:
        guarded.test_client("/?token=stolen").__enter__()
    assert (other.value.status, other.value.code) == (401, "unauthorized")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_reject_is_told_in_its_own_words(app: Daebus, connect: Connect, is_async: bool) -> None:
    refusal = Reject(403, "no \N{SNOWMAN}", code="banned", headers={"X-Until": "monday"})

    def sync(req: UpgradeRequest) -> object:
        raise refusal

    async def later(req: UpgradeRequest) -> object:
        raise refusal

    app.websocket.authenticate(later if is_async else sync)
    app.start()
    answer = ask(app, connect)
    assert answer.status == 403
    assert answer.json == {"error": "no \N{SNOWMAN}", "code": "banned"}
    assert answer.headers["x-until"] == "monday"


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "unauthorized"), (403, "forbidden"), (429, "too_many_requests"), (499, "rejected")],
)
def test_the_code_of_a_reject_is_that_of_its_status(status: int, code: str) -> None:
    assert Reject(status, "no").code == code


@pytest.mark.parametrize(
    "header",
    [
        {"X": "a\r\nSet-Cookie: admin=1"},
        {"X": "a\n"},
        {"X": "\N{SNOWMAN}"},
        {"X\r\nY": "a"},
        {"X Y": "a"},
        {"": "a"},
        {"Content-Length": "0"},
        {"transfer-encoding": "chunked"},
        {"Connection": "keep-alive"},
    ],
    ids=repr,
)
def test_a_reject_carries_no_header_that_breaks_the_answer(header: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"header|value"):
        Reject(401, "no", headers=header)


@pytest.mark.parametrize("status", [0, 200, 302, 399, 600])
def test_a_reject_is_an_error(status: int) -> None:
    with pytest.raises(ValueError, match="400 to 599"):
        Reject(status, "no")


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "kind", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError]
)
def test_an_exception_is_500_and_its_text_stays_here(
    make_app: MakeApp,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    kind: type[BaseException],
    debug: bool,
) -> None:
    app = make_app(debug=debug)

    @app.websocket.authenticate
    def authenticate(req: UpgradeRequest) -> object:
        raise kind("the password is swordfish")

    app.start()
    status, data = refused(app, connect)
    assert (status, data["code"]) == (500, "internal_server_error")
    assert data["error"] == "the authentication failed"
    assert ("swordfish" in data.get("traceback", "")) == debug
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.getMessage() == "authenticate failed for a client from 127.0.0.1"
    assert "swordfish" in str(record.exc_info)
    assert refused(app, connect)[0] == 500  # the thread goes on


def test_an_exception_of_an_async_function_is_500_too(app: Daebus, connect: Connect) -> None:
    @app.websocket.authenticate
    async def authenticate(req: UpgradeRequest) -> object:
        raise TimeoutError("the database")

    app.start()
    assert refused(app, connect) == (
        500,
        {"error": "the authentication failed", "code": "internal_server_error"},
    )


def test_a_refused_client_takes_no_place(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_clients=1)
    app.websocket.authenticate(lambda req: req.args.get("name"))
    gone = threading.Event()
    app.websocket.on_disconnect(lambda client_id: gone.set())
    app.start()
    for _ in range(3):
        assert ask(app, connect).status == 401
    assert ask(app, connect, "/?name=ada").status == 101
    assert ask(app, connect, "/?name=bob").status == 503


def test_what_is_wrong_already_is_not_asked_about(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(path="/ws", max_clients=1)
    asked = queue.Queue[str]()

    @app.websocket.authenticate
    def authenticate(req: UpgradeRequest) -> str:
        asked.put(req.path)
        return "somebody"

    app.start()
    assert ask(app, connect, "/other").status == 404
    assert ask(app, connect, "/ws", Origin="http://elsewhere.example").status == 403
    assert ask(app, connect, "/ws", Sec_WebSocket_Key="short").status == 400
    assert ask(app, connect, "/ws").status == 101
    assert ask(app, connect, "/ws").status == 503
    assert list(asked.queue) == ["/ws"]


def test_a_reject_is_told_in_a_string() -> None:
    with pytest.raises(TypeError, match="text of a Reject is a string"):
        Reject(401, b"no")  # type: ignore[arg-type]  # the mistake


def test_a_second_function_is_refused(app: Daebus) -> None:
    app.websocket.authenticate(lambda req: True)
    with pytest.raises(DuplicateHandlerError, match="authenticate function already"):
        app.websocket.authenticate(lambda req: False)


def test_send_reaches_nobody_in_it(app: Daebus, connect: Connect) -> None:
    """The thread may have served another client before, who must get nothing."""
    outcomes = queue.Queue[type[BaseException] | SendResult]()

    @app.websocket.authenticate
    def authenticate(req: UpgradeRequest) -> str:
        try:
            outcomes.put(app.websocket.send("psst"))
        except NoClientError as exc:
            outcomes.put(type(exc))
        return "somebody"

    app.start()
    for _ in range(3):
        peer = Peer.joined(connect(app.http.port))
        peer.close()
        assert eventually(lambda: app.stats()["threads"].get("parked"))
        assert outcomes.get(timeout=5) is NoClientError


# --- slow ones ----------------------------------------------------------------------


class Slow:
    """An ``authenticate`` function that waits until it is let go, for those who ask it to."""

    def __init__(self) -> None:
        self.asked = queue.Queue[str]()
        self.go = threading.Event()

    def __call__(self, req: UpgradeRequest) -> str:
        if "slow" in req.args:
            self.asked.put("sync")
            assert self.go.wait(20)
        return "somebody"

    async def later(self, req: UpgradeRequest) -> str:
        self.asked.put("async")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.asked.put("cancelled")
            raise
        return "nobody"


def test_a_slow_one_holds_up_neither_requests_nor_other_clients(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app(max_clients=4, http={"workers": 1})
    slow = Slow()
    app.websocket.authenticate(slow)
    app.route("/page")(lambda req: "a page")
    app.start()
    waiting = [Peer(connect(app.http.port)) for _ in range(3)]
    for peer in waiting:
        peer.sock.sendall(upgrade_request("/?slow"))
        slow.asked.get(timeout=5)
    page = Peer(connect(app.http.port)).ask(b"GET /page HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert page.body == b"a page"
    Peer.joined(connect(app.http.port)).close()
    assert app.websocket.get_client_count() == 0
    # Each that waits has a place: the function is never in more than max_clients threads.
    Peer.joined(connect(app.http.port))
    assert ask(app, connect).status == 503
    slow.go.set()
    assert all(peer.ask(b"").status == 101 for peer in waiting)


def test_an_async_one_has_a_deadline(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_clients=1, authenticate_timeout=0.05)
    slow = Slow()
    app.websocket.authenticate(slow.later)
    app.start()
    for _ in range(2):  # the first one's place is free again
        status, data = refused(app, connect)
        assert (status, data["code"]) == (503, "authentication_timeout")
        assert [slow.asked.get(timeout=5) for _ in range(2)] == ["async", "cancelled"]


def test_a_sync_one_that_takes_long_is_logged(
    make_app: MakeApp, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(authenticate_timeout=0.001)
    app.websocket.authenticate(lambda req: threading.Event().wait(0.002) or "somebody")
    app.start()
    assert ask(app, connect).status == 101
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "authenticate took 0.0 s"
    ]


def test_a_client_that_leaves_meanwhile_leaves_nothing_behind(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app(max_clients=1)
    slow = Slow()
    app.websocket.authenticate(slow)
    app.start()
    sock = connect(app.http.port)
    sock.sendall(upgrade_request("/?slow"))
    slow.asked.get(timeout=5)
    sock.close()
    slow.go.set()
    assert eventually(lambda: ask(app, connect).status == 101)


def test_a_stop_does_not_wait_for_an_async_one(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(close_timeout=60, authenticate_timeout=60)
    slow = Slow()
    app.websocket.authenticate(slow.later)
    app.start()
    peer = Peer(connect(app.http.port))
    peer.sock.sendall(upgrade_request())
    slow.asked.get(timeout=5)
    with ThreadPoolExecutor(1) as pool:
        stop = pool.submit(app.stop, 60)
        answer = peer.ask(b"")
        assert (answer.status, answer.json["code"]) == (503, "stopping")
        assert peer.ended()
        assert stop.result(timeout=5) == []


def test_a_stop_during_a_sync_one_refuses_the_client(app: Daebus, connect: Connect) -> None:
    slow = Slow()
    app.websocket.authenticate(slow)
    hooks = queue.Queue[str]()
    app.websocket.on_connect(hooks.put)
    app.start()
    other = Peer.joined(connect(app.http.port))
    hooks.get(timeout=5)
    peer = Peer(connect(app.http.port))
    peer.sock.sendall(upgrade_request("/?slow"))
    slow.asked.get(timeout=5)
    with ThreadPoolExecutor(1) as pool:
        stop = pool.submit(app.stop, 20)
        assert other.part() == 1001  # so the stop has begun
        slow.go.set()
        answer = peer.ask(b"")
        assert (answer.status, answer.json["code"]) == (503, "stopping")
        assert peer.ended()
        assert stop.result(timeout=10) == []
    assert hooks.empty()


@pytest.mark.leaves_thread
def test_a_stop_ends_by_its_deadline_though_a_sync_one_does_not(
    app: Daebus, connect: Connect
) -> None:
    slow = Slow()
    app.websocket.authenticate(slow)
    app.start()
    connect(app.http.port).sendall(upgrade_request("/?slow"))
    slow.asked.get(timeout=5)
    try:
        assert app.stop(timeout=1.0) == ["daebus-ws-handshake"]
    finally:
        slow.go.set()


# --- tokens as subprotocols ---------------------------------------------------------


def token_subprotocol(token: str) -> str:
    """Return a token as the browser client offers it."""
    return "daebus.token." + urlsafe_b64encode(token.encode()).decode().rstrip("=")


@pytest.fixture
def tokens(make_app: MakeApp) -> Daebus:
    """An app whose clients send tokens; it tells which, and the subprotocol."""
    app = make_app()
    app.websocket.authenticate(lambda req: None if req.token == "t-no" else {"token": req.token})
    app.socket("who")(lambda req: [req.identity["token"], req.websocket.subprotocol])
    return app


ADA = token_subprotocol("t-ada")


@pytest.mark.parametrize(
    ("headers", "token", "selected"),
    [
        ({"Sec-WebSocket-Protocol": f"daebus, {ADA}"}, "t-ada", "daebus"),
        ({"Sec-WebSocket-Protocol": f"{ADA},daebus"}, "t-ada", "daebus"),
        ({"Sec-WebSocket-Protocol": ADA}, "t-ada", None),
        (
            {"Sec-WebSocket-Protocol": f"daebus, {token_subprotocol('Ünï 🐋, = ?>?')}"},
            "Ünï 🐋, = ?>?",
            "daebus",
        ),
        (
            {"Sec-WebSocket-Protocol": f"daebus, {ADA}", "Authorization": "Bearer t-bob"},
            "t-bob",
            "daebus",
        ),
        ({"Authorization": "bearer   t-ada "}, "t-ada", None),
        ({"Authorization": "Basic dC1hZGE6"}, None, None),
        ({"Authorization": "Bearer "}, None, None),
        ({}, None, None),
        # Not Base64, not UTF-8, nothing, and a length that Base64 never has.
        ({"Sec-WebSocket-Protocol": "daebus, daebus.token.!!!!"}, None, "daebus"),
        ({"Sec-WebSocket-Protocol": "daebus, daebus.token._w"}, None, "daebus"),
        ({"Sec-WebSocket-Protocol": "daebus, daebus.token."}, None, "daebus"),
        ({"Sec-WebSocket-Protocol": "daebus, daebus.token.abcde"}, None, "daebus"),
    ],
)
def test_a_token_is_read_in_either_form_and_daebus_is_answered(
    tokens: Daebus,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    headers: dict[str, str],
    token: str | None,
    selected: str | None,
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens.start()
    peer = Peer(connect(tokens.http.port))
    answer = peer.ask(upgrade_request(headers=headers))
    assert answer.status == 101
    assert answer.headers.get("sec-websocket-protocol") == selected
    peer.say("who")
    assert peer.message()["data"] == [token, selected]
    peer.close()
    tokens.stop()
    for secret in (ADA.rpartition(".")[2], "t-ada"):
        assert secret not in str(answer)
        assert secret not in caplog.text


NO = token_subprotocol("t-no").rpartition(".")[2]


@pytest.mark.parametrize(
    "offered",
    [
        f"daebus, daebus.token.{NO}",
        f"daebus, daebus.token.{NO}==",
        f"daebus; daebus.token.{NO}",
        f'"{NO}',
    ],
)
def test_a_refused_token_is_neither_answered_nor_logged(
    tokens: Daebus, connect: Connect, caplog: pytest.LogCaptureFixture, offered: str
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens.start()
    answer = ask(tokens, connect, Sec_WebSocket_Protocol=offered)
    assert answer.status in (400, 401)
    tokens.stop()
    assert NO not in str(answer)
    assert NO not in caplog.text


def test_an_async_function_that_begins_as_the_app_stops_is_cancelled() -> None:
    """The stop gives up who waits; this one comes just after it has looked."""
    ran = threading.Event()

    class StopsMeanwhile(LoopThread):
        def submit(self, awaitable: Any) -> Any:
            authenticator.stop()
            return super().submit(awaitable)

    loop = StopsMeanwhile()
    authenticator = Authenticator(loop, 3600, debug=False)

    async def check(req: object) -> str:
        await asyncio.Event().wait()
        ran.set()
        return "ada"

    ours, theirs = socket.socketpair()
    with ours, theirs:
        upgrade = Upgrade(
            "GET", "/", "/", "1.1", (), "127.0.0.1", 1, lambda: None, sock=ours, early=b""
        )
        assert authenticator.ask(check, upgrade) is STOPPING
    assert loop.stop(time.monotonic() + 5) == []
    assert not ran.is_set()
