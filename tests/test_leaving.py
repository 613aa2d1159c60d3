"""``Daebus.drain`` and the goodbye of ``stop``: clients leave little by little, newcomers wait."""

from __future__ import annotations

import io
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from daebus import Daebus, DaebusHttp, DaebusWebSocket, WebSocketRequest, engine
from daebus.http.component import serving_of
from daebus.http.serving import keepalive
from daebus.http.serving.upgrade import UpgradeRequest
from daebus.server.acceptor import Acceptor
from daebus.server.conn import Conn
from daebus.websocket.hub import Hub
from tests.support.fixture_types import Connect, MakeApp
from tests.support.inside import connections
from tests.support.peer import CLOSE, TEXT, Answer, Peer, upgrade_request
from tests.support.waiting import eventually


def get(path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def goodbye(peer: Peer) -> tuple[int, dict[str, Any]]:
    """Read the goodbye and the close frame; answer that; return its code and the data."""
    message = peer.message()
    assert message["type"] == "goodbye"
    opcode, payload = peer.frame()
    assert opcode == CLOSE
    peer.send(CLOSE, payload)
    return int.from_bytes(payload, "big"), message["data"]


def has_let_go(app: Daebus) -> bool:
    """Wait until the app accepts nobody any more on a socket that was passed to it."""
    foreign = [one for one in serving_of(app.http).listeners if one.foreign]
    return bool(eventually(lambda: [one.fileno() for one in foreign] == [-1]))


@pytest.fixture
def passed() -> Iterator[socket.socket]:
    """A socket that listens and belongs to somebody else, such as systemd."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def service(passed: socket.socket) -> Iterator[Daebus]:
    """An app on that socket, which says how many starts it has had."""
    app = Daebus("service")
    app.attach(DaebusHttp(sock=passed))
    app.attach(DaebusWebSocket())
    app.route("/")(lambda req: "here")
    app.socket("echo")(lambda req: req.data)
    yield app
    app.stop(5)


# --- goodbye ------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
def test_a_stop_says_goodbye_and_closes(app: Daebus, connect: Connect, restart: bool) -> None:
    app.websocket.raw("/raw")(lambda ws: list(ws) and None)
    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(3)]
    raw = Peer.joined(connect(app.http.port), "/raw")
    assert eventually(lambda: len(connections(app)) == 4)
    stopper = threading.Thread(target=app.stop, kwargs={"restart": restart})
    stopper.start()
    for peer in peers:
        code, data = goodbye(peer)
        assert code == (1012 if restart else 1001)
        assert data.keys() == {"retry_after", "reason"}
        assert 0.2 <= data["retry_after"] <= 2.0
        assert data["reason"] == ("restart" if restart else "shutdown")
    opcode, payload = raw.frame()
    assert (opcode, int.from_bytes(payload, "big")) == (CLOSE, 1012 if restart else 1001)
    raw.send(CLOSE, payload)
    stopper.join()


def test_handlers_of_the_apps_own_called_goodbye_are_left_alone(app: Daebus) -> None:
    app.socket("goodbye")(lambda req: f"bye {req.data}")
    with app.test_client() as client:
        assert client.request("goodbye", "ada") == "bye ada"


def test_hooks_hear_of_a_restart_by_its_code(app: Daebus, connect: Connect) -> None:
    went = queue.Queue[tuple[str, int, int]]()
    app.websocket.on_disconnect(
        lambda client_id, info: went.put((info.reason, info.code, info.messages_out))
    )
    app.start()
    peer = Peer.joined(connect(app.http.port))
    assert eventually(lambda: connections(app))
    app.drain(0.0)
    assert goodbye(peer)[0] == 1012
    assert went.get(timeout=5) == ("shutdown", 1012, 1)


# --- drain --------------------------------------------------------------------------


def test_a_drain_lets_nobody_in_and_serves_who_is_there(app: Daebus, connect: Connect) -> None:
    app.route("/")(lambda req: "here")
    app.start()
    port = app.http.port
    page = Peer.joined(connect(port))
    kept, opener, asker = (Peer(connect(port)) for _ in range(3))
    assert [peer.ask(get()).status for peer in (kept, opener, asker)] == [200] * 3
    app.drain(3600.0)
    app.drain(3600.0)
    assert app.running
    assert app.stats()["state"] == "draining"
    for request in (get(), upgrade_request(), get("/_daebus/check"), get("/_daebus/health")):
        late = Peer(connect(port)).ask(request)
        assert (late.status, late.json["code"]) == (503, "draining")
        assert late.headers["retry-after"] == "5"
        assert late.headers["connection"] == "close"
    for peer, request in ((opener, upgrade_request()), (asker, get("/_daebus/check"))):
        assert peer.ask(request).json["code"] == "draining"
    answer = kept.ask(get())
    assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"here", "close")
    assert kept.ended()
    page.say("echo", 1)
    assert page.message()["data"] == 1
    stopper = threading.Thread(target=app.stop)
    stopper.start()
    assert goodbye(page) == (1012, {"reason": "restart", "retry_after": pytest.approx(1.1, 1)})
    stopper.join()
    app.start()  # nothing of the drain is left
    assert Peer(connect(app.http.port)).ask(get("/_daebus/health")).status == 200
    peer = Peer.joined(connect(app.http.port))
    assert eventually(lambda: connections(app))
    stopper = threading.Thread(target=app.stop)
    stopper.start()
    assert goodbye(peer)[0] == 1001
    stopper.join()


def test_a_drain_of_an_app_that_does_not_run_does_nothing(app: Daebus) -> None:
    app.drain()
    app.start()
    assert app.stats()["state"] == "running"
    app.stop()
    app.drain()
    assert app.stats()["state"] == "stopped"


def test_a_drain_within_the_start_follows_it(app: Daebus, connect: Connect) -> None:
    """A client that waits for the port may be served before ``start`` has returned."""
    app.websocket.on_connect(lambda client_id: app.drain(0.0))
    for _ in range(5):
        starter = threading.Thread(target=app.start)
        starter.start()
        assert eventually(lambda: app.http.port != 0)
        assert goodbye(Peer.joined(connect(app.http.port)))[0] == 1012
        starter.join()
        assert app.stats()["state"] == "draining"
        app.stop()


def test_a_drain_in_a_handler_lets_the_handler_answer(app: Daebus, connect: Connect) -> None:
    @app.socket("leave")
    def leave(req: WebSocketRequest) -> str:
        app.drain(0.3)
        assert not req.cancelled.wait(0.1)
        return "left"

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("leave")
    assert peer.message()["data"] == "left"
    assert goodbye(peer)[0] == 1012


def test_drains_and_stops_of_many_threads_at_once(app: Daebus, connect: Connect) -> None:
    """Whoever comes first: the app ends, starts again, and nobody is left without a goodbye."""
    for turn in range(4):
        app.start()
        peers = [Peer.joined(connect(app.http.port)) for _ in range(3)]
        assert eventually(lambda: len(connections(app)) == 3)
        together = threading.Barrier(6)

        def leave(number: int, together: threading.Barrier = together) -> None:
            together.wait(5)
            if number % 2:
                app.drain(0.02 * number, restart=False)
            else:
                app.stop(5, spread=0.02 * number)

        threads = [threading.Thread(target=leave, args=(n + turn % 2,)) for n in range(6)]
        for thread in threads:
            thread.start()
        assert {goodbye(peer)[0] for peer in peers} == {1001}
        for thread in threads:
            thread.join()
        assert app.stats()["state"] == "stopped"


# --- the spread of a stop -----------------------------------------------------------


def test_a_stop_spreads_its_goodbyes_and_the_app_works_meanwhile(
    app: Daebus, connect: Connect
) -> None:
    hold = threading.Event()
    app.socket("hold")(lambda req: hold.wait(5))
    app.start()
    busy, *peers = [Peer.joined(connect(app.http.port)) for _ in range(30)]
    busy.say("hold")
    assert eventually(lambda: sum(link.busy for link in connections(app)) == 1)
    assert eventually(lambda: len(connections(app)) == 30)
    began = time.monotonic()
    stopper = threading.Thread(target=app.stop, args=(5.0, 0.8, True))
    stopper.start()
    assert eventually(lambda: app.stats()["state"] == "stopping")
    hold.set()
    assert busy.message()["data"] is True  # and the goodbye comes behind it
    moments = queue.Queue[float]()

    def listen(peer: Peer) -> None:
        code, _ = goodbye(peer)
        assert code == 1012
        moments.put(time.monotonic() - began)

    listeners = [threading.Thread(target=listen, args=(peer,)) for peer in (busy, *peers)]
    for thread in listeners:
        thread.start()
    for thread in (*listeners, stopper):
        thread.join()
    told = sorted(moments.queue)
    assert len(told) == 30
    assert told[-1] - told[0] > 0.4


@pytest.mark.parametrize("second", [None, 1.0])
def test_the_spread_ends_a_second_before_the_time_does(
    app: Daebus, connect: Connect, second: float | None
) -> None:
    hold = threading.Event()
    app.socket("hold")(lambda req: hold.wait(5))
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("hold")  # so that it is told last of all
    assert eventually(lambda: connections(app) and connections(app)[0].busy)
    began = time.monotonic()
    stopper = threading.Thread(target=app.stop, args=(1.3 if second is None else 60.0, 50.0))
    stopper.start()
    if second is not None:  # whoever waits for the same stop has less time
        assert eventually(lambda: app.stats()["state"] == "stopping")
        threading.Thread(target=app.stop, args=(second,)).start()
    assert goodbye(peer)[0] == 1001
    assert (0.2 if second is None else 0.0) < time.monotonic() - began < 1.2
    hold.set()
    stopper.join()


def test_a_stop_without_clients_does_not_wait_for_its_spread(app: Daebus) -> None:
    app.start()
    began = time.monotonic()
    assert app.stop(60.0, spread=50.0) == []
    assert time.monotonic() - began < 5


# --- sockets of somebody else -------------------------------------------------------


def test_who_comes_during_a_drain_waits_for_the_next_start(
    service: Daebus, connect: Connect
) -> None:
    service.start()
    port = service.http.port
    page, kept = Peer.joined(connect(port)), Peer(connect(port))
    assert kept.ask(get()).status == 200
    service.drain(3600.0)
    assert has_let_go(service)
    waiting = [connect(port) for _ in range(3)]
    for sock in waiting:
        sock.sendall(get())
    health = kept.ask(get("/_daebus/health"))
    assert (health.status, health.json["code"]) == (503, "draining")
    page.say("echo", 2)
    assert page.message()["data"] == 2
    stopper = threading.Thread(target=service.stop)
    stopper.start()
    assert goodbye(page)[0] == 1012
    stopper.join()
    for sock in waiting:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.settimeout(5)
    service.start()
    assert [Peer(sock).ask(b"").body for sock in waiting] == [b"here"] * 3


def test_an_upgrade_that_is_under_way_as_the_app_stops_is_admitted(
    service: Daebus, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go, ended = threading.Event(), threading.Event(), threading.Event()
    begin_stop = Hub.begin_stop

    def end(hub: Hub, *, restart: bool = False) -> None:
        ended.set()
        begin_stop(hub, restart=restart)

    @service.websocket.authenticate
    def who(req: UpgradeRequest) -> str:
        asked.set()
        assert go.wait(5)
        return "ada"

    monkeypatch.setattr(Hub, "begin_stop", end)
    service.start()
    page = Peer(connect(service.http.port))
    page.sock.sendall(upgrade_request())
    assert asked.wait(5)
    stopper = threading.Thread(target=service.stop)
    stopper.start()
    assert eventually(lambda: service.stats()["state"] == "stopping")
    assert not ended.wait(0.2)
    go.set()
    assert page.ask(b"").status == 101
    code, _ = goodbye(page)
    assert code == 1001
    stopper.join()


def test_who_was_accepted_before_the_stop_is_still_answered(
    service: Daebus, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = queue.Queue[Conn]()
    admit = Acceptor._admit

    def note(acceptor: Acceptor, client: Conn) -> None:
        admit(acceptor, client)
        accepted.put(client)

    monkeypatch.setattr(Acceptor, "_admit", note)
    # Who comes here may be slower than a second, on a busy machine.
    monkeypatch.setattr(keepalive, "_HURRY", 10.0)
    monkeypatch.setattr(engine, "SETTLE", 10.0)
    service.start()
    fresh, page, kept = (Peer(connect(service.http.port)) for _ in range(3))
    for _ in range(3):
        accepted.get(timeout=5)
    assert kept.ask(get()).status == 200
    stopper = threading.Thread(target=service.stop)
    stopper.start()
    assert eventually(lambda: service.stats()["state"] == "stopping")
    assert kept.ask(get()).headers["connection"] == "close"
    answer: Answer = fresh.ask(get())
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert page.ask(upgrade_request()).status == 101
    code, data = goodbye(page)
    assert (code, data["reason"]) == (1001, "shutdown")
    stopper.join()


def test_silent_clients_hold_up_no_stop(service: Daebus, connect: Connect) -> None:
    service.start()
    silent = [Peer(connect(service.http.port)) for _ in range(5)]
    silent[0].sock.sendall(b"GET / HTTP/1.1\r\nHost: ")
    assert eventually(lambda: service.stats()["threads"])
    began = time.monotonic()
    assert service.stop(10) == []
    assert time.monotonic() - began < 4
    assert all(peer.ended() for peer in silent)


def test_an_own_port_refuses_and_a_passed_one_does_not(
    passed: socket.socket, connect: Connect
) -> None:
    app = Daebus("both")
    http = app.attach(DaebusHttp(port=0, sock=passed))
    app.route("/")(lambda req: "here")
    app.start()
    own, theirs = http.port, passed.getsockname()[1]
    app.drain(0.0)
    assert has_let_go(app)
    waits = connect(theirs)
    assert Peer(connect(own)).ask(get()).status == 503
    app.stop()
    with pytest.raises(ConnectionRefusedError):
        connect(own)
    waits.sendall(get())
    app.start()
    assert Peer(waits).ask(b"").body == b"here"
    app.stop()


def test_limits_of_a_drain_are_checked(make_app: MakeApp) -> None:
    app = make_app()
    with pytest.raises(TypeError, match="spread"):
        app.drain("soon")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(TypeError, match="seconds"):
        app.stop(5, spread="soon")  # type: ignore[arg-type]  # that is the test


def test_a_message_of_goodbye_is_one_frame_of_json(app: Daebus, connect: Connect) -> None:
    app.start()
    peer = Peer.joined(connect(app.http.port))
    assert eventually(lambda: connections(app))
    app.drain(0.0, restart=False)
    opcode, payload = peer.frame()
    assert opcode == TEXT
    assert json.loads(payload).keys() == {"type", "data"}


def test_a_guest_refuses_what_its_server_passes_on(app: Daebus) -> None:
    app.route("/")(lambda req: "here")

    def ask() -> tuple[str, bytes]:
        said: list[str] = []
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
            "HTTP_HOST": "x",
            "SERVER_NAME": "x",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
        }
        body = b"".join(app.wsgi(environ, lambda status, headers: said.append(status)))
        return said[0][:3], body

    assert ask() == ("200", b"here")
    app.drain(0.0)
    status, body = ask()
    assert (status, json.loads(body)["code"]) == ("503", "draining")
    app.stop()
    assert json.loads(ask()[1])["code"] == "stopping"
