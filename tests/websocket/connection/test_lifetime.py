"""When a connection ends: its identity expires, its client is idle, or it is old."""

from __future__ import annotations

import datetime
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websockets_connect

from daebus import Daebus, DaebusWebSocket, WebSocketRequest
from daebus.websocket.admission.authentication import expiry
from daebus.websocket.connection import lifetime
from daebus.websocket.connection.lifetime import Lifetime
from daebus.websocket.connection.limits import Limits
from daebus.websocket.messages.options import RunIn
from tests.support.clock import ManualClock, ManualMinder
from tests.support.fixture_types import Connect, MakeApp
from tests.support.handlers import departures
from tests.support.inside import connections
from tests.support.peer import PING, PONG, TEXT, Peer, upgrade_request
from tests.support.waiting import eventually

SOON = 0.2  # seconds
EXPIRED, IDLE, OLD = (4401, "expired"), (4408, "idle"), (1001, "lifetime")


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


# --- by hand ------------------------------------------------------------------------


class Kept:
    """A connection that notes when and how it is shut.

    Attributes:
        works: a job runs for its client.
        shuts: moment, code and reason of each close.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.identity: Any = "first"
        self.opened_at = self.last_message = clock()
        self.busy = self.works = False
        self.shuts: list[tuple[float, tuple[int, str]]] = []

    def has_work(self) -> bool:
        return self.works

    def shut(self, code: int, reason: str, why: str) -> bool:
        self.shuts.append((self.clock(), (code, why)))
        return True


@pytest.fixture
def minder(monkeypatch: pytest.MonkeyPatch) -> Iterator[ManualMinder]:
    """A minder at the moment 0, and a wall clock that goes with it."""
    with ManualMinder(ManualClock(0.0)) as made:
        monkeypatch.setattr(lifetime, "time", SimpleNamespace(time=made.clock))
        yield made


def begin(
    minder: ManualMinder, expires: float | None = None, **limits: Any
) -> tuple[Lifetime, Kept]:
    """Return a connection that has just opened, and what ends it."""
    connection = Kept(minder.clock)
    return Lifetime(connection, minder, Limits(**limits), expires), connection


def test_an_identity_ends_its_connection_when_it_expires(minder: ManualMinder) -> None:
    _, connection = begin(minder, 86400.5)
    minder.advance(86400.25)
    assert connection.shuts == []
    minder.advance(1000)
    assert connection.shuts == [(86400.5, EXPIRED)]


@pytest.mark.parametrize("expires", [None, 10.0, 1000.0])
def test_a_renewal_may_begin_late_and_may_shorten_or_lengthen(
    minder: ManualMinder, expires: float | None
) -> None:
    lifetime, connection = begin(minder, expires)
    minder.advance(9)
    assert lifetime.renew("again", 50.0)
    assert connection.identity == "again"
    minder.advance(40.5)
    assert connection.shuts == []
    minder.advance(1000)
    assert connection.shuts == [(50.0, EXPIRED)]
    assert lifetime.renew("late", None) is False
    assert connection.identity == "again"


def test_a_renewal_without_a_time_lasts(minder: ManualMinder) -> None:
    lifetime, connection = begin(minder, 10.0)
    assert lifetime.renew("again", None)
    minder.advance(1e6)
    assert connection.shuts == []


def test_renewals_and_the_expiry_at_once_agree(minder: ManualMinder) -> None:
    """Either the client was renewed and stays, or it was not and goes: never both."""
    outcomes = set()
    with ThreadPoolExecutor(3) as pool:
        for _ in range(200):
            now = minder.clock()
            lifetime, connection = begin(minder, now)
            together = threading.Barrier(3)

            def renew(
                name: str,
                until: float = now + 60,
                lifetime: Lifetime = lifetime,
                barrier: Any = together,
            ) -> bool:
                barrier.wait(5)
                return lifetime.renew(name, until)

            def fire(barrier: Any = together) -> None:
                barrier.wait(5)
                minder.advance()

            jobs = [pool.submit(renew, "one"), pool.submit(renew, "two")]
            pool.submit(fire).result(5)
            renewed = [job.result(5) for job in jobs]
            outcomes.add(tuple(renewed))
            if connection.shuts:
                assert connection.shuts == [(now, EXPIRED)]
                assert renewed == [False, False]
                assert connection.identity == "first"
            else:
                assert True in renewed
                assert connection.identity in ("one", "two")
                minder.advance(59)
                assert connection.shuts == []
                minder.advance(100)
                assert connection.shuts == [(now + 60, EXPIRED)], "one timer for both"
    assert outcomes <= {(True, True), (False, False)}


def test_nothing_happens_after_a_stop(minder: ManualMinder) -> None:
    lifetime, connection = begin(minder, 10.0, idle_timeout=10, max_lifetime=10)
    for _ in range(10):
        assert lifetime.renew("again", 10.0)
    lifetime.stop()
    minder.advance(1000)
    assert connection.shuts == []
    assert lifetime.renew("late", None) is False
    assert connection.identity == "again"


def test_a_look_that_has_begun_when_it_is_stopped_ends_nothing(minder: ManualMinder) -> None:
    """The connection is asked before the lock is taken; meanwhile it ends."""
    terms = list[Lifetime]()

    class Ending(Kept):
        def has_work(self) -> bool:
            terms[0].stop()
            return False

    connection = Ending(minder.clock)
    terms.append(Lifetime(connection, minder, Limits(idle_timeout=10), None))
    minder.advance(1000)
    assert connection.shuts == []


def test_the_wall_clock_is_looked_at_now_and_then(
    minder: ManualMinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, connection = begin(minder, 86400.0)
    minder.advance(100)
    # Somebody has set the clock.
    monkeypatch.setattr(lifetime, "time", SimpleNamespace(time=lambda: 86401.0))
    minder.advance(60)
    ((moment, how),) = connection.shuts
    assert how == EXPIRED
    assert 100 <= moment <= 160


def test_a_client_without_messages_is_sent_away(minder: ManualMinder) -> None:
    _, connection = begin(minder, idle_timeout=10)
    minder.advance(1000)
    assert connection.shuts == [(10, IDLE)]


def test_messages_keep_a_client(minder: ManualMinder) -> None:
    _, connection = begin(minder, idle_timeout=10)
    for _ in range(20):
        minder.advance(9)
        connection.last_message = minder.clock()
    assert connection.shuts == []
    minder.advance(1000)
    assert connection.shuts == [(190, IDLE)]


@pytest.mark.parametrize("what", ["busy", "works"])
def test_a_client_that_waits_for_its_handler_or_job_is_not_idle(
    minder: ManualMinder, what: str
) -> None:
    _, connection = begin(minder, idle_timeout=10)
    setattr(connection, what, True)
    minder.advance(95)
    setattr(connection, what, False)
    assert connection.shuts == []
    minder.advance(1000)
    assert connection.shuts == [(100, IDLE)], "ten seconds after it was last seen at work"


@pytest.mark.parametrize("what", ["busy", "works"])
def test_work_keeps_neither_an_expired_identity_nor_an_old_connection(
    minder: ManualMinder, what: str
) -> None:
    for number, (limits, how) in enumerate([({}, EXPIRED), ({"max_lifetime": 10}, OLD)]):
        now = minder.clock()
        _, connection = begin(minder, None if number else now + 10, lifetime_jitter=0, **limits)
        setattr(connection, what, True)
        minder.advance(1000)
        assert connection.shuts == [(now + 10, how)]


def test_an_old_connection_is_closed_while_it_talks(minder: ManualMinder) -> None:
    _, connection = begin(minder, max_lifetime=100, lifetime_jitter=0, idle_timeout=10)
    for _ in range(30):
        minder.advance(9)
        connection.last_message = minder.clock()
    assert connection.shuts == [(100, OLD)]


def test_lifetimes_are_spread(minder: ManualMinder) -> None:
    made = [begin(minder, max_lifetime=50, lifetime_jitter=0.2)[1] for _ in range(200)]
    minder.advance(60)
    moments = [moment for connection in made for moment, _ in connection.shuts]
    assert len(moments) == 200
    assert 39.9 < min(moments) < 42
    assert 48 < max(moments) <= 50


# --- with sockets -------------------------------------------------------------------


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
    left = departures(passes)
    with passes.test_client("/?name=ada") as ada, passes.test_client("/?name=bob&seconds=60"):
        url = f"ws://127.0.0.1:{passes.http.port}/?name=eve&seconds={SOON}"
        with websockets_connect(url) as eve:
            assert ended(eve) == (4401, "the identity has expired")
        info = left.get(timeout=5)[1]
        assert (info.reason, info.code) == ("expired", 4401)
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


def test_only_messages_keep_a_client(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(idle_timeout=60)
    app.socket("echo")(lambda req: req.data)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    (link,) = eventually(lambda: connections(app))
    opened = link.last_message
    assert opened == link.opened_at
    peer.send(PING, b"I am here")
    assert peer.frame() == (PONG, b"I am here")
    assert link.last_message == opened
    peer.say("echo", 1)
    assert peer.message()["data"] == 1
    assert link.last_message > opened


def test_an_idle_client_is_told_why(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(idle_timeout=SOON)
    left = departures(app)
    app.start()
    assert Peer.joined(connect(app.http.port)).part() == 4408
    assert left.get(timeout=5)[1].reason == "idle"


def test_an_old_connection_is_told_why(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_lifetime=SOON)
    left = departures(app)
    app.start()
    assert Peer.joined(connect(app.http.port)).part() == 1001
    assert left.get(timeout=5)[1].reason == "lifetime"


@pytest.mark.parametrize("run_in", ["connection", "pool"], ids=["handler", "job"])
def test_a_request_is_work_until_it_has_ended(
    make_app: MakeApp, connect: Connect, run_in: RunIn
) -> None:
    app, begun, release = make_app(), threading.Event(), threading.Event()
    kept = list[WebSocketRequest]()

    @app.socket("work", run_in=run_in)
    def work(req: WebSocketRequest) -> bool:
        kept.append(req)  # as a traceback does that nobody has collected yet
        begun.set()
        return release.wait(5) and req.cancelled.is_set()

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("work")
    assert begun.wait(5)
    (link,) = connections(app)
    assert eventually(lambda: link.busy or link.has_work())
    release.set()
    assert peer.message()["data"] is False
    assert eventually(lambda: not link.busy and not link.has_work())


def test_a_client_that_is_asked_has_work(make_app: MakeApp, connect: Connect) -> None:
    app = make_app()
    app.start()
    peer = Peer.joined(connect(app.http.port))
    (client_id,) = eventually(app.websocket.get_clients)
    (link,) = connections(app)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(app.websocket.call, client_id, "confirm", timeout=5)
        question = peer.message()
        assert question["type"] == "confirm"
        assert link.has_work()
        peer.send(TEXT, json.dumps({"type": "response", "id": question["id"], "data": "yes"}))
        assert answer.result(5) == "yes"
    assert not link.has_work()


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
