"""A client whose id is in use: ``on_duplicate``."""

from __future__ import annotations

import queue
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daebus import Daebus, DaebusWebSocket, DisconnectInfo
from daebus.websocket.connection.link import Link
from tests.support.fixture_types import Connect, MakeApp
from tests.support.handlers import waiting_handler
from tests.support.peer import Answer, Peer, upgrade_request
from tests.support.waiting import eventually


class Site:
    """An app whose clients choose their ids by their path, and what its hooks saw."""

    def __init__(self, app: Daebus) -> None:
        self.app = app
        self.events: queue.Queue[tuple[str, str]] = queue.Queue()
        app.websocket.set_client_id_generator(lambda connection, path: path.strip("/") or "any")
        app.websocket.on_connect(lambda client_id: self.events.put(("in", client_id)))
        app.websocket.on_disconnect(self.left)
        app.socket("echo")(lambda req: req.data)

    def left(self, client_id: str, info: DisconnectInfo) -> None:
        self.events.put((info.reason, client_id))

    def next(self) -> tuple[str, str]:
        return self.events.get(timeout=5)


def alive(peer: Peer) -> bool:
    peer.say("echo", "here")
    return bool(peer.message()["data"] == "here")


def test_a_device_takes_over_from_its_dead_socket(make_app: MakeApp, connect: Connect) -> None:
    site = Site(make_app(on_duplicate="replace"))
    websocket = site.app.websocket
    site.app.start()
    dead = Peer.joined(connect(site.app.http.port), "/pump")
    assert site.next() == ("in", "pump")
    websocket.join("pump", "hall")
    websocket.set_client_metadata("pump", version=1)
    websocket.identify("pump", "ada")
    # It answers no close frame, and is not waited for: close_timeout is 5 s.
    new = Peer.joined(connect(site.app.http.port), "/pump")
    assert [site.next(), site.next()] == [("replaced", "pump"), ("in", "pump")]
    assert alive(new)
    assert dead.close_frame() == (4409, "replaced by a newer connection")
    assert dead.ended()
    known = websocket.get_client_metadata("pump")
    assert known is not None
    assert (known["user"], "version" in known) == (None, False)
    assert websocket.get_rooms() == []
    new.sock.close()
    assert site.next() == ("lost", "pump")
    assert site.events.empty()


def test_by_default_it_gets_another_id(make_app: MakeApp, connect: Connect) -> None:
    site = Site(make_app())
    site.app.start()
    first = Peer.joined(connect(site.app.http.port), "/pump")
    assert site.next() == ("in", "pump")  # each hook runs in its client's thread
    second = Peer.joined(connect(site.app.http.port), "/pump")
    assert site.next()[1] != "pump"
    assert alive(first)
    assert alive(second)


def test_it_may_be_refused(make_app: MakeApp, connect: Connect) -> None:
    site = Site(make_app(on_duplicate="refuse", max_clients=2))
    site.app.start()
    first = Peer.joined(connect(site.app.http.port), "/pump")
    for _ in range(3):  # no place is lost
        peer = Peer(connect(site.app.http.port))
        answer = peer.ask(upgrade_request("/pump"))
        assert (answer.status, answer.json["code"]) == (409, "duplicate_client")
        assert answer.headers["retry-after"] == "5"
        assert peer.ended()
    assert alive(first)
    Peer.joined(connect(site.app.http.port), "/other")
    first.sock.close()
    # Each in a thread of its own, so in any order.
    assert ("lost", "pump") in [site.next() for _ in range(3)]
    assert eventually(
        lambda: Peer(connect(site.app.http.port)).ask(upgrade_request("/pump")).status == 101
    )


def test_many_newcomers_at_once_leave_one(make_app: MakeApp, connect: Connect) -> None:
    site = Site(make_app(on_duplicate="replace"))
    site.app.start()
    port, count = site.app.http.port, 8
    barrier = threading.Barrier(count)
    socks = [connect(port) for _ in range(count)]

    def come(sock: socket.socket) -> Answer:
        barrier.wait(5)
        return Peer(sock).ask(upgrade_request("/pump"))

    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(come, socks))
    refused = [answer for answer in answers if answer.status != 101]
    assert {answer.json["code"] for answer in refused} <= {"replaced"}
    admitted = count - len(refused)
    assert admitted >= 1
    seen = [site.next() for _ in range(2 * admitted - 1)]
    assert seen == [("in", "pump"), ("replaced", "pump")] * (admitted - 1) + [("in", "pump")]
    assert site.app.websocket.get_clients() == ["pump"]
    assert site.events.empty()


def test_one_replaced_before_it_is_open_is_told(
    make_app: MakeApp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(make_app(on_duplicate="replace"))
    site.app.start()
    begins, evicted = threading.Event(), threading.Event()
    begin, evict = Link.begin, Link.evict

    def waits(link: Link, *args: Any) -> bool:
        if not begins.is_set():
            begins.set()
            assert evicted.wait(5)
        return begin(link, *args)

    def tells(link: Link) -> None:
        evict(link)
        evicted.set()

    monkeypatch.setattr(Link, "begin", waits)
    monkeypatch.setattr(Link, "evict", tells)
    first, second = (connect(site.app.http.port) for _ in range(2))
    first.sendall(upgrade_request("/pump"))
    assert begins.wait(5)
    new = Peer.joined(second, "/pump")
    old = Peer(first)
    assert old.ask(b"").status == 101
    assert old.close_frame() == (4409, "replaced by a newer connection")
    expected = [("in", "pump"), ("replaced", "pump"), ("in", "pump")]
    assert [site.next() for _ in expected] == expected
    assert alive(new)


def test_a_handler_that_goes_on_keeps_the_place(make_app: MakeApp, connect: Connect) -> None:
    site = Site(make_app(on_duplicate="replace", close_timeout=0.2))
    entered, release = waiting_handler(site.app)
    site.app.start()
    old = Peer.joined(connect(site.app.http.port), "/pump")
    old.say("wait")
    assert entered.wait(5)
    answer = Peer(connect(site.app.http.port)).ask(upgrade_request("/pump"))
    assert (answer.status, answer.json["code"]) == (503, "client_busy")
    assert answer.headers["retry-after"] == "5"
    release.set()
    assert [site.next(), site.next()] == [("in", "pump"), ("replaced", "pump")]
    Peer.joined(connect(site.app.http.port), "/pump")
    assert site.next() == ("in", "pump")


def test_the_newest_gets_the_place_and_a_stop_ends_the_wait(
    make_app: MakeApp, connect: Connect
) -> None:
    site = Site(make_app(on_duplicate="replace"))
    entered, release = waiting_handler(site.app)
    site.app.start()
    old = Peer.joined(connect(site.app.http.port), "/pump")
    old.say("wait")
    assert entered.wait(5)
    with ThreadPoolExecutor(2) as pool:

        def ask(sock: socket.socket) -> Any:
            return Peer(sock).ask(upgrade_request("/pump")).json["code"]

        first = pool.submit(ask, connect(site.app.http.port))
        assert old.close_frame()[0] == 4409  # so the first one waits
        second = pool.submit(ask, connect(site.app.http.port))
        assert first.result(5) == "replaced"
        stop = threading.Thread(target=site.app.stop)
        stop.start()
        assert second.result(5) == "stopping"
        release.set()
        stop.join(10)
    assert not stop.is_alive()


def test_another_value_is_refused() -> None:
    with pytest.raises(ValueError, match="on_duplicate must be one of"):
        DaebusWebSocket(on_duplicate="keep")  # type: ignore[arg-type]  # the mistake itself
