"""When a connection ends: its identity expires, its client is idle, or it is old."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websockets_connect

from daebus import CallTimeout, Daebus, DaebusWebSocket, DisconnectInfo, WebSocketRequest
from daebus.server.threads.minder import Timer
from daebus.websocket.admission.authentication import expiry
from daebus.websocket.connection.lifetime import Lifetime
from daebus.websocket.connection.limits import Limits
from daebus.websocket.messages.options import RunIn
from tests.support.fixture_types import Connect, MakeApp
from tests.support.inside import hub_of
from tests.support.peer import PING, Peer, upgrade_request
from tests.support.waiting import eventually

SOON = 0.3  # seconds


@dataclass
class Identity:
    name: str
    expires_at: Any = None


# --- the time of an identity --------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ("ada", None),
        ({"name": "ada"}, None),
        ({"expires_at": None}, None),
        ({"expires_at": 1e9}, 1e9),
        ({"expires_at": 1_000_000_000}, 1e9),
        (Identity("ada", 1e9), 1e9),
        (Identity("ada"), None),
        (Identity("ada", float("inf")), float("inf")),
        (Identity("ada", datetime.datetime(2001, 9, 9, 1, 46, 40, tzinfo=datetime.UTC)), 1e9),
        (SimpleNamespace(expires_at=0), 0.0),
    ],
    ids=repr,
)
def test_expiry_is_unix_seconds(identity: object, expected: float | None) -> None:
    assert expiry(identity) == expected


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (datetime.datetime(2030, 1, 1), ValueError, "timezone.utc"),
        (float("nan"), ValueError, "NaN"),
        ("2030-01-01", TypeError, "time.time"),
        (True, TypeError, "time.time"),
        (datetime.timedelta(1), TypeError, "time.time"),
    ],
    ids=repr,
)
def test_what_is_no_time_is_refused_with_what_to_type(
    value: object, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        expiry({"expires_at": value})


# --- expiry -------------------------------------------------------------------------


@pytest.fixture
def passes(make_app: MakeApp) -> Daebus:
    """An app whose clients say for how many seconds they are known; they can ask for more."""
    app = make_app()

    @app.websocket.authenticate
    def authenticate(req: Any) -> Identity:
        seconds = req.args.get("seconds", type=float)
        return Identity(req.args["name"], None if seconds is None else time.time() + seconds)

    @app.socket("more")
    def more(req: Any) -> bool:
        identity = Identity(req.identity.name + "+", time.time() + req.data)
        return bool(app.websocket.renew(req.client_id, identity))

    app.socket("who")(lambda req: req.identity.name)
    return app


def ended(client: Any) -> tuple[int, str]:
    """Wait until the server closes; return its code and reason."""
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=5)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def test_an_expired_identity_ends_its_connection_and_no_other(passes: Daebus) -> None:
    infos: list[DisconnectInfo] = []
    gone = threading.Event()

    @passes.websocket.on_disconnect
    def left(client_id: str, info: DisconnectInfo) -> None:
        infos.append(info)
        gone.set()

    with passes.test_client("/?name=ada") as ada, passes.test_client("/?name=bob&seconds=60"):
        url = f"ws://127.0.0.1:{passes.http.port}/?name=eve&seconds={SOON}"
        before = time.time()
        with websockets_connect(url) as eve:
            assert ended(eve) == (4401, "the identity has expired")
        assert time.time() - before >= SOON - 0.01
        assert gone.wait(5)
        assert [(info.reason, info.code) for info in infos] == [("expired", 4401)]
        assert ada.request("who") == "ada"
        assert passes.websocket.get_client_count() == 2


def test_an_identity_that_has_expired_lets_nobody_in(passes: Daebus, connect: Connect) -> None:
    passes.start()
    answer = Peer(connect(passes.http.port)).ask(upgrade_request("/?name=ada&seconds=-1"))
    assert (answer.status, answer.json["code"]) == (401, "expired")


def test_an_expiry_that_is_no_time_is_an_error_of_the_server(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app()
    app.websocket.authenticate(lambda req: {"expires_at": "tomorrow"})
    app.start()
    answer = Peer(connect(app.http.port)).ask(upgrade_request())
    assert (answer.status, answer.json["code"]) == (500, "internal_server_error")


def test_a_renewed_client_stays(passes: Daebus) -> None:
    with passes.test_client(f"/?name=ada&seconds={SOON}") as client:
        assert client.request("more", 60) is True
        other = websockets_connect(f"ws://127.0.0.1:{passes.http.port}/?name=b&seconds={SOON}")
        with other:
            assert ended(other)[0] == 4401  # by then ada's first pass has expired too
        assert client.request("who") == "ada+"


def test_a_renewal_may_shorten_and_may_begin_late(passes: Daebus) -> None:
    """From another thread, and for a client that had no time at all."""
    passes.start()
    for query in ("", "&seconds=60"):
        with websockets_connect(f"ws://127.0.0.1:{passes.http.port}/?name=ada{query}") as client:
            client.send('{"type": "who"}')
            client.recv(timeout=5)
            (client_id,) = passes.websocket.get_clients()
            assert passes.websocket.renew(client_id, {"expires_at": time.time() + SOON})
            assert passes.websocket.get_identity(client_id).keys() == {"expires_at"}
            assert ended(client)[0] == 4401
            assert passes.websocket.renew(client_id, "ada") is False


def test_a_renewal_without_a_time_lasts(passes: Daebus) -> None:
    with passes.test_client(f"/?name=ada&seconds={SOON}") as client:
        assert client.request("who") == "ada"
        (client_id,) = passes.websocket.get_clients()
        assert passes.websocket.renew(client_id, Identity("root"))
        url = f"ws://127.0.0.1:{passes.http.port}/?name=eve&seconds={SOON}"
        with websockets_connect(url) as eve:
            assert ended(eve)[0] == 4401
        assert client.request("who") == "root"


@pytest.mark.parametrize("nobody", [None, False])
def test_nobody_is_no_renewal(passes: Daebus, nobody: object) -> None:
    with pytest.raises(TypeError, match="close"):
        passes.websocket.renew("x", nobody)


def test_renewing_a_stranger_is_false(passes: Daebus) -> None:
    assert passes.websocket.renew("nobody", "ada") is False
    with passes.test_client("/?name=ada"):
        assert passes.websocket.renew("nobody", "ada") is False


def test_a_running_handler_is_told(passes: Daebus) -> None:
    told = threading.Event()

    @passes.socket("wait")
    def wait(req: Any) -> None:
        if req.cancelled.wait(5):
            told.set()

    passes.start()
    url = f"ws://127.0.0.1:{passes.http.port}/?name=ada&seconds={SOON}"
    with websockets_connect(url) as client:
        client.send('{"type": "wait"}')
        assert ended(client)[0] == 4401
    assert told.wait(5)


class FakeConnection:
    """Notes how it is shut."""

    def __init__(self) -> None:
        self.identity: Any = "first"
        self.connected_at = self.last_message = time.monotonic()
        self.busy = False
        self.shuts: list[tuple[int, str]] = []

    def has_work(self) -> bool:
        return False

    def shut(self, code: int, reason: str, why: str) -> bool:
        self.shuts.append((code, why))
        return True


class FakeMinder:
    """Keeps timers until they are fired."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Timer]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        self.timers.append((seconds, timer))
        return timer

    def due(self) -> list[tuple[float, Callable[[], None]]]:
        """Return the timers that are not cancelled."""
        return [(s, timer.callback) for s, timer in self.timers if timer.callback is not None]


def make_lifetime(
    limits: Limits, expires: float | None = None
) -> tuple[Lifetime, FakeConnection, FakeMinder]:
    connection, minder = FakeConnection(), FakeMinder()
    lifetime = Lifetime(connection, minder, limits, expires)  # type: ignore[arg-type]  # fakes
    return lifetime, connection, minder


def test_renewals_and_the_expiry_at_once_agree() -> None:
    """Either the client was renewed and stays, or it was not and goes: never both."""
    outcomes = set()
    with ThreadPoolExecutor(3) as pool:
        for _ in range(200):
            lifetime, connection, minder = make_lifetime(Limits(), time.time())
            ((_, look),) = minder.due()
            together = threading.Barrier(3)

            def renew(name: str, lifetime: Lifetime = lifetime, wait: Any = together.wait) -> bool:
                wait(5)
                return lifetime.renew(name, time.time() + 60)

            def fire(look: Any = look, wait: Any = together.wait) -> None:
                wait(5)
                look()

            jobs = [pool.submit(renew, "one"), pool.submit(renew, "two")]
            pool.submit(fire).result(5)
            renewed = [job.result(5) for job in jobs]
            outcomes.add(tuple(renewed))
            if connection.shuts:
                assert connection.shuts == [(4401, "expired")]
                assert renewed == [False, False]
                assert connection.identity == "first"
            else:
                assert True in renewed
                assert connection.identity in ("one", "two")
                lifetime.stop()
            assert len(minder.due()) <= 1  # one timer, however often it was renewed
    assert outcomes <= {(True, True), (False, False)}


def test_no_timer_is_left_when_a_connection_has_ended() -> None:
    lifetime, connection, minder = make_lifetime(Limits(max_lifetime=60), time.time() + 60)
    for _ in range(10):
        assert lifetime.renew("again", time.time() + 60)
    assert len(minder.due()) == 1
    lifetime.stop()
    assert minder.due() == []
    assert lifetime.renew("late", None) is False
    assert connection.identity == "again"


def test_a_client_that_leaves_takes_its_timer_along(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(idle_timeout=60)
    gone = threading.Event()
    app.websocket.on_disconnect(lambda client_id: gone.set())
    app.start()
    peer = Peer.joined(connect(app.http.port))
    (connection,) = eventually(hub_of(app).registry.snapshot)
    lifetime = connection._lifetime
    assert lifetime is not None
    assert lifetime._timer.callback is not None
    peer.close()
    assert gone.wait(5)
    assert lifetime._timer.callback is None


def test_the_wall_clock_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    _, connection, minder = make_lifetime(Limits(), time.time() + 86400)
    ((seconds, look),) = minder.due()
    assert seconds <= 60
    look()
    assert connection.shuts == []
    ((seconds, look),) = [minder.due()[-1]]
    moment = time.time() + 86401
    monkeypatch.setattr(time, "time", lambda: moment)  # somebody has set the clock
    look()
    assert connection.shuts == [(4401, "expired")]


# --- idle ---------------------------------------------------------------------------


def test_a_client_without_messages_is_sent_away(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(idle_timeout=SOON)
    reasons: list[str] = []
    gone = threading.Event()

    @app.websocket.on_disconnect
    def left(client_id: str, info: DisconnectInfo) -> None:
        reasons.append(info.reason)
        gone.set()

    app.start()
    peer = Peer.joined(connect(app.http.port))
    started = time.monotonic()
    peer.send(PING, b"I am here")  # which is no message
    assert peer.part() == 4408
    assert time.monotonic() - started >= SOON - 0.05
    assert gone.wait(5)
    assert reasons == ["idle"]


def test_messages_keep_a_client(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(idle_timeout=SOON)
    app.socket("echo")(lambda req: req.data)
    app.start()
    quiet, busy = Peer.joined(connect(app.http.port)), Peer.joined(connect(app.http.port))
    quiet.sock.settimeout(0.01)
    gone = False
    while not gone:  # the busy one outlives a quiet one, whose time it is
        busy.say("echo", 1)
        assert busy.message()["data"] == 1
        try:
            gone = quiet.close_frame()[0] == 4408
        except TimeoutError:
            pass
    busy.say("echo", 2)
    assert busy.message()["data"] == 2
    assert busy.part() == 4408


@pytest.mark.parametrize("run_in", ["connection", "pool"], ids=["handler", "job"])
def test_a_client_that_waits_for_its_handler_is_not_idle(
    make_app: MakeApp, connect: Connect, run_in: RunIn
) -> None:
    app = make_app(idle_timeout=SOON)
    app.socket("work", run_in=run_in)(lambda req: req.cancelled.wait(3 * SOON))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("work")
    assert peer.message() == {"type": "response", "data": False}
    assert peer.part() == 4408


def test_a_request_that_has_ended_is_no_work(make_app: MakeApp, connect: Connect) -> None:
    app, kept = make_app(idle_timeout=SOON), list[WebSocketRequest]()

    @app.socket("work")
    def work(req: WebSocketRequest) -> bool:
        kept.append(req)  # as a traceback does that nobody has collected yet
        return req.cancelled.is_set()

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("work")
    assert peer.message()["data"] is False
    assert peer.part() == 4408


def test_a_client_that_is_asked_is_not_idle(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(idle_timeout=SOON)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    assert eventually(app.websocket.get_clients)
    (client_id,) = app.websocket.get_clients()
    with pytest.raises(CallTimeout):
        app.websocket.call(client_id, "confirm", timeout=3 * SOON)
    assert peer.message()["type"] == "confirm"
    assert peer.part() == 4408


def test_a_handler_that_was_seen_moves_the_time_on() -> None:
    lifetime, connection, minder = make_lifetime(Limits(idle_timeout=10))
    connection.last_message -= 10
    connection.busy = True
    minder.due()[-1][1]()
    connection.busy = False
    assert connection.shuts == []
    assert minder.due()[-1][0] == pytest.approx(10, abs=1)
    lifetime.stop()


# --- old ----------------------------------------------------------------------------


def test_an_old_connection_is_closed_while_it_talks(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_lifetime=SOON, lifetime_jitter=0)
    app.socket("echo")(lambda req: req.data)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    started = time.monotonic()
    codes: list[int] = []
    while not codes:
        peer.say("echo", 1)
        opcode, payload = peer.frame()
        if opcode == 8:
            codes.append(int.from_bytes(payload[:2], "big"))
    assert codes == [1001]
    assert time.monotonic() - started >= SOON - 0.05


def test_lifetimes_are_spread() -> None:
    seconds = []
    for _ in range(200):
        lifetime, _, minder = make_lifetime(Limits(max_lifetime=50, lifetime_jitter=0.2))
        seconds.append(minder.due()[0][0])
        lifetime.stop()
    assert 39.9 < min(seconds) < 42
    assert 48 < max(seconds) <= 50


def test_who_uses_none_of_it_has_no_timer_for_it(make_app: MakeApp) -> None:
    app = make_app(ping_interval=None)
    app.socket("echo")(lambda req: req.data)
    with app.test_client() as client:
        client.request("echo", 1)
        (connection,) = hub_of(app).registry.snapshot()
        assert connection._lifetime is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"idle_timeout": 0},
        {"max_lifetime": -1},
        {"lifetime_jitter": 1.5},
        {"lifetime_jitter": -0.1},
        {"lifetime_jitter": float("nan")},
    ],
    ids=repr,
)
def test_arguments_that_make_no_sense(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        DaebusWebSocket(**arguments)  # type: ignore[arg-type]  # numbers, all of them
