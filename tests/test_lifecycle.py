"""``Daebus`` from start to stop, as a program that embeds it meets it."""

from __future__ import annotations

import asyncio
import errno
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daebus import (
    AddressInUseError,
    AttachError,
    Daebus,
    DaebusError,
    DaebusHttp,
    DaebusWebSocket,
    StateError,
    WebSocketRequest,
)
from tests.support.child import Child
from tests.support.fixture_types import Connect, MakeApp
from tests.support.peer import Peer, envelope, upgrade_request
from tests.support.waiting import eventually


def daebus_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("daebus-")}


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """An event that handlers hang on; set when the test ends, and their threads with it."""
    event = threading.Event()
    yield event
    event.set()
    assert eventually(lambda: not daebus_threads())


# --- start --------------------------------------------------------------------------


def test_start_returns_when_the_app_listens_on_the_real_port(app: Daebus) -> None:
    assert (app.running, app.http.port) == (False, 0)
    app.start()
    assert app.running
    assert 0 < app.http.port == app.websocket.port
    with socket.create_connection(("127.0.0.1", app.http.port), timeout=5) as sock:
        assert Peer(sock).ask(upgrade_request()).status == 101


def test_a_start_may_name_another_port(taken: int) -> None:
    busy = Daebus("busy")
    busy.attach(DaebusHttp(port=taken))
    with pytest.raises(AddressInUseError):
        busy.start()
    busy.start(port=0)
    assert busy.http.port not in (0, taken)
    busy.stop()
    assert busy.http.port == taken


def test_all_threads_are_daemons_with_names(app: Daebus) -> None:
    @app.socket("async")
    async def handler(req: WebSocketRequest) -> str:
        return "done"

    before = set(threading.enumerate())
    with app.test_client() as client:
        assert client.request("async") == "done"
        made = {thread for thread in threading.enumerate() if thread not in before}
        ours = {thread for thread in made if thread.name.startswith("daebus-")}
        names = {thread.name for thread in ours}
        (client_id,) = app.websocket.get_clients()
        # No worker: an upgrade needs none.
        assert names == {
            "daebus-accept",
            "daebus-minder",
            "daebus-loop",
            f"daebus-ws-{client_id}",
        }
        assert all(thread.daemon for thread in ours)
    assert daebus_threads() == set()


def test_nothing_attached_is_nothing_to_start() -> None:
    with pytest.raises(AttachError, match=r"write app\.attach\(DaebusHttp\(port=8080\)\) first"):
        Daebus("test").start()


def test_a_second_start_is_refused(app: Daebus) -> None:
    with app:
        with pytest.raises(StateError, match=r"running; call app\.stop\(\) before another start"):
            app.start()
        with app.test_client() as client:
            assert client.request("echo", 1) == 1


def test_a_taken_port_is_an_os_error_that_says_what_to_type(taken: int) -> None:
    app = Daebus("test")
    app.attach(DaebusHttp(port=taken))
    app.attach(DaebusWebSocket())
    app.socket("echo")(lambda req: req.data)
    with pytest.raises(AddressInUseError, match=r"port=0 takes a free one") as caught:
        app.start()
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, DaebusError)
    assert caught.value.errno == errno.EADDRINUSE
    assert str(taken) in str(caught.value)
    assert not app.running
    assert daebus_threads() == set()
    assert app.stop() == []


def test_after_a_failed_start_another_one_works() -> None:
    app = Daebus("test")
    with socket.create_server(("127.0.0.1", 0)) as other:
        app.attach(DaebusHttp(port=other.getsockname()[1]))
        app.attach(DaebusWebSocket())
        app.socket("echo")(lambda req: req.data)
        with pytest.raises(AddressInUseError):
            app.start()
    with app, app.test_client() as client:
        assert client.request("echo", 1) == 1


def test_a_taken_second_port_releases_the_first(make_app: MakeApp, taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        first = probe.getsockname()[1]
    app = Daebus("test")
    app.attach(DaebusHttp(port=first))
    app.attach(DaebusWebSocket(port=taken))
    with pytest.raises(AddressInUseError, match=str(taken)):
        app.start()
    socket.create_server(("127.0.0.1", first)).close()


def test_the_default_host_is_this_machine_alone(app: Daebus) -> None:
    app.start()
    assert app.http.host == "127.0.0.1"
    if sys.platform == "linux":  # all of 127.0.0.0/8 leads here
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", app.http.port), timeout=5)


def test_another_host_can_be_chosen(make_app: MakeApp) -> None:
    app = make_app(http={"host": "0.0.0.0"})
    app.start()
    with socket.create_connection(("127.0.0.2", app.http.port), timeout=5) as sock:
        assert Peer(sock).ask(upgrade_request()).status == 101


def test_it_starts_again_after_a_stop(app: Daebus, connect: Connect) -> None:
    came = queue.Queue[str]()
    app.websocket.on_connect(came.put)

    @app.socket("async")
    async def handler(req: WebSocketRequest) -> str:
        await asyncio.sleep(0)
        return "async"

    ids = set()
    for _ in range(3):
        app.start()
        peer = Peer.joined(connect(app.http.port))
        peer.say("echo", 1)
        assert peer.message()["data"] == 1
        peer.say("async")
        assert peer.message()["data"] == "async"
        ids.add(came.get(timeout=5))
        assert app.websocket.get_client_count() == 1
        peer.close()
        assert app.stop() == []
        assert app.websocket.get_client_count() == 0
    assert len(ids) == 3


def test_a_fixed_port_can_be_reused_at_once(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    app = Daebus("test")
    app.attach(DaebusHttp(port=port))
    app.attach(DaebusWebSocket())
    for _ in range(3):
        with app:
            assert app.http.port == port
            Peer.joined(connect(port)).close()


# --- stop ---------------------------------------------------------------------------


def test_stop_does_nothing_to_an_app_that_does_not_run(app: Daebus) -> None:
    assert app.stop() == []
    app.start()
    assert app.stop() == []
    assert app.stop() == []
    assert not app.running


def test_every_client_is_told_1001(app: Daebus, connect: Connect) -> None:
    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(10)]
    for peer in peers:
        peer.say("echo", 1)
        peer.message()
    outcome = queue.Queue[list[str]]()
    stopper = threading.Thread(target=lambda: outcome.put(app.stop()))
    stopper.start()
    assert [peer.part() for peer in peers] == [1001] * 10
    stopper.join()
    assert outcome.get_nowait() == []


def test_a_mute_client_delays_neither_the_goodbye_of_others_nor_the_stop(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app(close_timeout=0.3)
    app.start()
    mute = [Peer.joined(connect(app.http.port)) for _ in range(20)]
    last = Peer.joined(connect(app.http.port))
    assert eventually(lambda: app.websocket.get_client_count() == 21)
    begun = time.monotonic()
    stopper = threading.Thread(target=app.stop)
    stopper.start()
    assert last.part() == 1001
    stopper.join()
    assert time.monotonic() - begun < 5
    assert all(peer.close_frame()[0] == 1001 for peer in mute)


def test_a_busy_client_is_told_1001_too(app: Daebus, connect: Connect) -> None:
    begun = threading.Event()

    @app.socket("work")
    def work(req: WebSocketRequest) -> str:
        begun.set()
        return str(req.cancelled.wait(5))

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("work")
    assert begun.wait(5)
    stopper = threading.Thread(target=app.stop)
    stopper.start()
    assert peer.part() == 1001
    stopper.join()


def test_two_stops_at_once_both_return_when_it_is_over(app: Daebus, connect: Connect) -> None:
    app.start()
    port = app.http.port
    together = threading.Barrier(8)
    outcome = queue.Queue[tuple[list[str], bool, set[str]]]()

    def stop() -> None:
        together.wait(5)
        outcome.put((app.stop(), app.running, daebus_threads()))

    stoppers = [threading.Thread(target=stop) for _ in range(8)]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join()
    for _ in range(8):
        left, running, threads = outcome.get_nowait()
        assert (left, running) == ([], False)
        assert threads == set()
    with pytest.raises(ConnectionRefusedError):
        connect(port)


@pytest.mark.parametrize("attempt", range(10))
def test_a_stop_during_the_start_waits_for_it(
    app: Daebus, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    resolving, go_on = threading.Event(), threading.Event()
    resolve = socket.getaddrinfo

    def slow(*args: Any, **options: Any) -> Any:
        resolving.set()
        assert go_on.wait(5)
        return resolve(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    starter = threading.Thread(target=app.start)
    starter.start()
    assert resolving.wait(5)
    assert app.stop(timeout=0.001) == []
    stopper = threading.Thread(target=app.stop)
    stopper.start()
    stopper.join(0.02)
    assert stopper.is_alive(), "it must wait for the start"
    go_on.set()
    starter.join()
    stopper.join()
    assert not app.running
    assert daebus_threads() == set()


def test_start_and_stop_of_two_threads_at_once(app: Daebus) -> None:
    """Whoever comes first: afterwards the app either runs or is gone altogether."""
    for _ in range(30):
        together = threading.Barrier(2)

        def start(together: threading.Barrier = together) -> None:
            together.wait(5)
            app.start()

        starter = threading.Thread(target=start)
        starter.start()
        together.wait(5)
        app.stop()
        starter.join()
        assert app.running == bool(daebus_threads())
        assert app.stop() == []
        assert daebus_threads() == set()


def test_stop_in_a_handler(app: Daebus, connect: Connect) -> None:
    outcome = queue.Queue[list[str]]()
    app.socket("stop")(lambda req: outcome.put(app.stop()))
    app.start()
    others = [Peer.joined(connect(app.http.port)) for _ in range(3)]
    assert eventually(lambda: app.websocket.get_client_count() == 3)
    peer = Peer.joined(connect(app.http.port))
    peer.say("stop")
    assert [one.part() for one in (*others, peer)] == [1001] * 4
    assert outcome.get(timeout=5) == []
    assert app.wait(5)


def test_stop_in_a_handler_ends_even_if_its_client_is_mute(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app(close_timeout=0.2)
    app.socket("stop")(lambda req: app.stop() and None)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("stop")
    assert peer.close_frame()[0] == 1001
    assert app.wait(5)
    assert peer.ended()


def test_stop_in_an_async_handler(app: Daebus, connect: Connect) -> None:
    outcome = queue.Queue[list[str]]()

    @app.socket("stop")
    async def stop(req: WebSocketRequest) -> None:
        outcome.put(app.stop())
        outcome.put(app.stop())

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("stop")
    assert [outcome.get(timeout=5) for _ in range(2)] == [[], []]
    assert peer.part() == 1001
    assert app.wait(5)
    assert not app.running


@pytest.mark.parametrize("hook", ["on_connect", "on_disconnect"])
def test_stop_in_a_hook(app: Daebus, connect: Connect, hook: str) -> None:
    getattr(app.websocket, hook)(lambda client_id: app.stop() and None)
    app.start()
    Peer.joined(connect(app.http.port)).sock.close()
    assert app.wait(5)


def test_stop_in_a_view_still_answers(app: Daebus, connect: Connect) -> None:
    app.route("/stop")(lambda req: {"left": app.stop()})
    app.start()
    answer = Peer(connect(app.http.port)).ask(b"GET /stop HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert (answer.status, answer.json) == (200, {"left": []})
    assert app.wait(5)


def test_stop_in_the_very_first_hook_is_not_missed(app: Daebus, connect: Connect) -> None:
    """A client that waits for the port may be served before ``start`` has returned."""
    app.websocket.on_connect(lambda client_id: app.stop() and None)
    for _ in range(10):
        started = threading.Thread(target=app.start)
        started.start()
        assert eventually(lambda: app.http.port != 0)
        Peer.joined(connect(app.http.port)).sock.close()
        started.join()
        assert app.wait(5)
        assert eventually(lambda: not daebus_threads())


@pytest.mark.leaves_thread
def test_a_stuck_handler_cannot_hold_up_the_stop(
    app: Daebus, connect: Connect, release: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    begun = queue.Queue[str]()
    went = queue.Queue[str]()
    app.websocket.on_disconnect(went.put)

    @app.socket("hang")
    def hang(req: WebSocketRequest) -> str:
        begun.put(req.client_id)
        release.wait()
        return "too late"

    app.start()
    port = app.http.port
    peer = Peer.joined(connect(port))
    peer.say("hang")
    client_id = begun.get(timeout=5)
    before = time.monotonic()
    left = app.stop(timeout=1)
    assert time.monotonic() - before < 2
    assert left == [f"daebus-ws-{client_id}"]
    assert daebus_threads() == set(left)
    assert f"daebus-ws-{client_id}" in caplog.text
    assert peer.close_frame()[0] == 1001
    assert peer.ended()
    assert not app.running
    assert app.wait(0)
    with pytest.raises(ConnectionRefusedError):
        connect(port)
    assert went.empty()
    release.set()
    assert went.get(timeout=5) == client_id
    assert eventually(lambda: not daebus_threads())
    assert went.empty()


@pytest.mark.leaves_thread
def test_after_a_stop_that_left_a_thread_the_app_starts_again(
    app: Daebus, connect: Connect, release: threading.Event
) -> None:
    begun = threading.Event()

    @app.socket("hang")
    def hang(req: WebSocketRequest) -> str:
        begun.set()
        release.wait()
        return "too late"

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("hang")
    assert begun.wait(5)
    # A busy machine may not give the acceptor its tenth of a second either.
    assert len([name for name in app.stop(timeout=1.0) if "-ws-" in name]) == 1
    app.start()
    other = Peer.joined(connect(app.http.port))
    other.say("echo", "second life")
    assert other.message()["data"] == "second life"
    release.set()
    assert eventually(lambda: len([n for n in daebus_threads() if "-ws-" in n]) == 1)
    assert app.websocket.get_client_count() == 1
    other.close()
    assert app.stop() == []


@pytest.mark.leaves_thread
def test_a_blocked_loop_cannot_hold_up_the_stop(
    app: Daebus, connect: Connect, release: threading.Event
) -> None:
    begun = threading.Event()

    @app.socket("hang")
    async def hang(req: WebSocketRequest) -> None:
        begun.set()
        release.wait()

    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("hang")
    assert begun.wait(5)
    before = time.monotonic()
    left = app.stop(timeout=1)
    assert time.monotonic() - before < 2
    assert "daebus-loop" in left
    assert len(left) == 2


@pytest.mark.leaves_thread
def test_a_stuck_view_and_a_stuck_hook_are_named_too(
    app: Daebus, connect: Connect, release: threading.Event
) -> None:
    begun = threading.Barrier(3)

    def hang(_: object) -> str:
        begun.wait(5)
        release.wait()
        return "too late"

    app.websocket.on_connect(hang)
    app.route("/hang")(hang)
    app.start()
    connect(app.http.port).sendall(upgrade_request())
    connect(app.http.port).sendall(b"GET /hang HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    begun.wait(5)
    before = time.monotonic()
    left = app.stop(timeout=1.5)  # our own threads need a moment on a busy machine
    assert time.monotonic() - before < 2.5
    assert sorted(name.split("-")[1] for name in left) == ["http", "ws"]


def test_with_starts_and_stops_also_when_it_raises(app: Daebus) -> None:
    def host() -> None:
        with app as entered:
            assert entered is app
            assert app.running
            raise RuntimeError("of the host")

    with pytest.raises(RuntimeError, match="of the host"):
        host()
    assert not app.running
    assert daebus_threads() == set()


def test_wait_is_the_sleep_of_a_host(app: Daebus) -> None:
    with app:
        assert app.wait(0) is False
        assert app.wait(0.01) is False
        outcome = queue.Queue[bool]()
        waiters = [
            threading.Thread(target=lambda timeout=timeout: outcome.put(app.wait(timeout)))
            for timeout in (None, 30)
        ]
        for waiter in waiters:
            waiter.start()
        app.stop()
        assert [outcome.get(timeout=5) for _ in waiters] == [True, True]
        for waiter in waiters:
            waiter.join()


def test_a_client_that_comes_while_the_app_stops_is_refused(
    app: Daebus, connect: Connect, release: threading.Event
) -> None:
    begun = threading.Event()

    @app.socket("hold")
    def hold(req: WebSocketRequest) -> None:
        begun.set()
        release.wait(5)

    app.start()
    port = app.http.port
    peer = Peer.joined(connect(port))
    waiting = Peer(connect(port))  # connected, but says nothing yet
    peer.say("hold")
    assert begun.wait(5)
    stopper = threading.Thread(target=app.stop)
    stopper.start()
    assert peer.close_frame()[0] == 1001
    answer = waiting.ask(upgrade_request())
    assert (answer.status, answer.json["code"]) == (503, "stopping")
    assert waiting.ended()

    def refused() -> bool:  # the port may not be closed yet
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED

    assert eventually(refused)
    release.set()
    peer.sock.close()
    stopper.join()


def test_frames_behind_the_request_reach_an_app_that_just_started(
    app: Daebus, connect: Connect
) -> None:
    app.start()
    peer = Peer.joined(connect(app.http.port), behind=envelope("echo", "early"))
    assert peer.message()["data"] == "early"


# --- import ---------------------------------------------------------------------------


def test_import_and_attach_start_nothing_and_configure_nothing(
    child: Callable[..., Child],
) -> None:
    program = child(
        """
        import logging, os, signal, sys, threading

        def state():
            names = sorted(logging.root.manager.loggerDict)
            return [
                threading.active_count(),
                logging.root.handlers,
                [n for n in names if getattr(logging.getLogger(n), "handlers", None)],
                [n for n in names if logging.getLogger(n).level],
                [signal.getsignal(n) for n in signal.valid_signals()],
                len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
                sys.excepthook, threading.excepthook,
            ]

        before = state()
        import daebus
        from daebus import Daebus, DaebusHttp, DaebusWebSocket
        assert state() == before, state()
        app = Daebus("child")
        app.attach(DaebusHttp(port=0))
        app.attach(DaebusWebSocket())
        app.socket("echo")(lambda req: req.data)
        app.route("/")(lambda req: "page")
        assert state() == before, state()
        import urllib.request
        before = state()
        with app, app.test_client() as client:
            client.request("echo", 1)
            urllib.request.urlopen(f"http://127.0.0.1:{app.http.port}/").close()
        assert state() == before, (before, state())
        print("nothing")
        """,
        preamble="",
    )
    assert program.exit_code() == 0, program.stderr()
    assert program.line() == "nothing"
