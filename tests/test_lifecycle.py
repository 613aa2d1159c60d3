"""``Daebus`` from attach to stop, as a program that embeds it meets it."""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

import daebus
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
from tests.support.peer import Peer, envelope, upgrade_request
from tests.support.waiting import eventually

Connect = Callable[[int], socket.socket]

PATIENCE = 20.0  # seconds until a test gives up on another process


def daebus_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("daebus-")}


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """An event that handlers hang on; set when the test ends, and their threads with it."""
    event = threading.Event()
    yield event
    event.set()
    assert eventually(lambda: not daebus_threads())


# --- attach -------------------------------------------------------------------------


def test_attach_in_the_wrong_order_or_twice_is_refused() -> None:
    app = Daebus("test")
    with pytest.raises(AttachError, match=r"app\.attach\(DaebusHttp\(port=8080\)\)"):
        app.attach(DaebusWebSocket())
    with pytest.raises(AttachError, match=r"write app\.attach\(DaebusHttp\(port=8080\)\) first"):
        _ = app.http
    app.attach(DaebusHttp(port=0))
    with pytest.raises(AttachError, match="a DaebusHttp is attached already"):
        app.attach(DaebusHttp(port=0))
    with pytest.raises(AttachError, match=r"write app\.attach\(DaebusWebSocket\(\)\) first"):
        app.socket("too early")
    app.attach(DaebusWebSocket())
    with pytest.raises(AttachError, match="a DaebusWebSocket is attached already"):
        app.attach(DaebusWebSocket())
    assert issubclass(AttachError, DaebusError)


def test_attach_takes_components_only() -> None:
    with pytest.raises(TypeError, match=r"attach DaebusHttp\(\) or DaebusWebSocket\(\)"):
        Daebus("test").attach(DaebusHttp)  # type: ignore[call-overload]


def test_attach_to_a_running_app_is_refused_and_to_a_stopped_one_works() -> None:
    app = Daebus("test")
    app.attach(DaebusHttp(port=0))
    with app, pytest.raises(AttachError, match=r"running; attach components before app\.start"):
        app.attach(DaebusWebSocket())
    app.attach(DaebusWebSocket())
    app.socket("echo")(lambda req: req.data)
    with app.test_client() as client:
        assert client.request("echo", 1) == 1


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: DaebusHttp(port=70_000), "port must be between 0 and 65535, not 70000"),
        (lambda: DaebusHttp(port=-1), "port must be between"),
        (lambda: DaebusHttp(workers=0), "workers must be greater than 0, not 0"),
        (lambda: DaebusHttp(static="/no/such/folder"), "none at '/no/such/folder'"),
        (lambda: DaebusWebSocket(max_clients=0), "max_clients must be greater than 0, not 0"),
        (lambda: DaebusWebSocket(ping_interval=-1), "ping_interval must be greater"),
        (
            lambda: DaebusWebSocket(compression="gzip"),  # type: ignore[arg-type]
            "compression is 'deflate' or None, not 'gzip'",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(
    make: Callable[[], object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        make()


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


def test_a_taken_second_port_releases_the_first(
    make_app: Callable[..., Daebus], taken: int
) -> None:
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


def test_another_host_can_be_chosen(make_app: Callable[..., Daebus]) -> None:
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
    make_app: Callable[..., Daebus], connect: Connect
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
    make_app: Callable[..., Daebus], connect: Connect
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
    assert app.wait(0) is True
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


# --- run, in a process of its own ---------------------------------------------------

PREAMBLE = """
import logging, os, signal, sys, threading
from daebus import Daebus, DaebusHttp, DaebusWebSocket

app = Daebus("child")
app.attach(DaebusHttp(port=0))
app.attach(DaebusWebSocket())
app.socket("echo")(lambda req: req.data)

def tell_port():
    pause = threading.Event()
    while not app.running:
        pause.wait(0.002)
    print("port", app.http.port, flush=True)

"""


class Child:
    """A Python process that prints lines; it is killed when the test ends."""

    def __init__(self, code: str, *, preamble: str = PREAMBLE) -> None:
        paths = [str(Path(daebus.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", preamble + textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines = self._follow(self.process.stdout)
        self.errors = self._follow(self.process.stderr)

    def _follow(self, stream: IO[str] | None) -> queue.Queue[str]:
        lines = queue.Queue[str]()

        def read() -> None:
            assert stream is not None
            for line in stream:
                lines.put(line.rstrip("\n"))

        thread = threading.Thread(target=read, name="child-output")
        thread.start()
        self._readers = [*getattr(self, "_readers", []), thread]
        return lines

    def line(self) -> str:
        """Return the next line it prints."""
        try:
            return self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no line came: {list(self.errors.queue)}") from None

    def port(self) -> int:
        """Return the port, once it runs."""
        word, port = self.line().split()
        assert word == "port"
        return int(port)

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """Wait until it ends; its complaints show up in the failure."""
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    def stderr(self) -> list[str]:
        return list(self.errors.queue)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def start(code: str, **options: Any) -> Child:
        children.append(Child(code, **options))
        return children[-1]

    yield start
    for one in children:
        one.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_run_ends_on_a_signal_with_handlers_restored_and_exit_code_0(
    child: Callable[..., Child], connect: Connect, number: signal.Signals
) -> None:
    program = child("""
        def mine(number, frame): ...

        signal.signal(signal.SIGTERM, mine)
        before = [signal.getsignal(n) for n in signal.valid_signals()]
        threading.Thread(target=tell_port).start()
        app.run()
        print(before == [signal.getsignal(n) for n in signal.valid_signals()])
        print(app.running, threading.active_count())
        """)
    peer = Peer.joined(connect(program.port()))
    peer.say("echo", 1)
    assert peer.message()["data"] == 1
    program.send_signal(number)
    assert peer.part() == 1001
    assert program.line() == "True"
    assert program.line() == "False 1"
    assert program.exit_code() == 0
    assert program.stderr() == []


@pytest.mark.slow
def test_sigterm_is_never_missed(child: Callable[..., Child]) -> None:
    """Another thread of the host is busy, so the kernel may hand the signal to that one."""
    rounds = 30
    program = child(f"""
        def burn():
            while True:
                sum(range(1000))

        threading.Thread(target=burn, daemon=True).start()
        for _ in range({rounds}):
            teller = threading.Thread(target=tell_port)
            teller.start()
            app.run()
            teller.join()
        """)
    for _ in range(rounds):
        program.port()
        program.send_signal(signal.SIGTERM)
    assert program.exit_code() == 0


def test_a_second_ctrl_c_leaves_at_once(child: Callable[..., Child], connect: Connect) -> None:
    program = child("""
        @app.socket("hang")
        def hang(req):
            print("hangs", flush=True)
            threading.Event().wait()

        threading.Thread(target=tell_port).start()
        app.run(timeout=300)
        """)
    peer = Peer.joined(connect(program.port()))
    peer.say("hang")
    assert program.line() == "hangs"
    program.send_signal(signal.SIGINT)
    assert peer.close_frame()[0] == 1001  # so the first one has been seen
    program.send_signal(signal.SIGINT)
    assert program.exit_code() == 128 + signal.SIGINT


def test_a_stuck_handler_does_not_keep_the_program_alive(
    child: Callable[..., Child], connect: Connect
) -> None:
    program = child("""
        @app.socket("hang")
        def hang(req):
            print("hangs", flush=True)
            threading.Event().wait()

        app.start()
        tell_port()
        sys.stdin.readline()
        print(app.stop(timeout=0.5), flush=True)
        """)
    peer = Peer.joined(connect(program.port()))
    peer.say("hang")
    assert program.line() == "hangs"
    assert program.process.stdin is not None
    program.process.stdin.write("\n")
    program.process.stdin.flush()
    assert program.line().startswith("['daebus-ws-")
    assert program.exit_code() == 0


def test_a_program_that_forgets_to_stop_ends_all_the_same(child: Callable[..., Child]) -> None:
    program = child("""
        app.start()
        with app.test_client() as client:
            print(client.request("echo", "the end"))
        """)
    assert program.line() == "the end"
    assert program.exit_code() == 0
    assert program.stderr() == []


def test_run_in_another_thread_leaves_signals_alone(app: Daebus) -> None:
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    runner = threading.Thread(target=app.run)
    runner.start()
    assert eventually(lambda: app.running)
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before
    app.stop()
    runner.join(5)
    assert not runner.is_alive()


def test_run_whose_start_fails_restores_the_handlers(taken: int) -> None:
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    app = Daebus("test")
    app.attach(DaebusHttp(port=taken))
    with pytest.raises(AddressInUseError):
        app.run()
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


def test_run_ends_when_somebody_else_stops_the_app(app: Daebus) -> None:
    def stop() -> None:
        eventually(lambda: app.running)
        app.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    app.run()
    stopper.join()
    assert not app.running


# --- import, attach and fork, in a process of their own -----------------------------


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_is_told_and_the_parent_goes_on(child: Callable[..., Child]) -> None:
    program = child("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork itself, since 3.12
        from daebus import ForkedError

        def attempt(name, call):
            try:
                return f"{name}: {call()}"
            except ForkedError as exc:
                return f"{name}: ForkedError {exc}"

        with app, app.test_client() as client:
            assert client.request("echo", "before") == "before"
            lines, out = os.pipe()
            pid = os.fork()
            if pid == 0:
                report = [
                    attempt("start", app.start),
                    attempt("broadcast", lambda: app.websocket.broadcast_to_all("x")),
                    attempt("send", lambda: app.websocket.send("x")),
                    attempt("to one", lambda: app.websocket.send_to_client("id", "x")),
                    attempt("to some", lambda: app.websocket.broadcast_to_clients(["id"], "x")),
                    attempt("to a room", lambda: app.websocket.broadcast_to_room("hall", "x")),
                    attempt("to a user", lambda: app.websocket.send_to_user("ann", "x")),
                    attempt("join", lambda: app.websocket.join("id", "hall")),
                    attempt("leave", lambda: app.websocket.leave("id", "hall")),
                    attempt("identify", lambda: app.websocket.identify("id", "ann")),
                    attempt("note", lambda: app.websocket.set_client_metadata("id", name="ann")),
                    attempt("away", lambda: app.websocket.disconnect_client("id")),
                    attempt("all away", app.websocket.disconnect_all_clients),
                    attempt("stop", app.stop),
                    attempt("metadata", lambda: app.websocket.get_client_metadata("id")),
                    attempt("count", app.websocket.get_client_count),
                    attempt("running", lambda: app.running),
                ]
                own = Daebus("of the child")
                own.attach(DaebusHttp(port=0))
                own.attach(DaebusWebSocket())
                own.socket("echo")(lambda req: req.data)
                with own.test_client() as other:
                    report.append(attempt("own", lambda: other.request("echo", "works")))
                os.write(out, "\\n".join(report).encode())
                os._exit(0)
            os.close(out)
            assert os.waitpid(pid, 0)[1] == 0
            with open(lines) as report:
                print(report.read())
            assert client.request("echo", "after") == "after"
            assert app.websocket.broadcast_to_all("x") == 1
            assert client.receive("broadcast")["data"] == "x"
        print("parent goes on")
        """)
    assert program.exit_code() == 0, program.stderr()
    report = [program.line() for _ in range(19)]
    told = "ForkedError this process was forked after the app was started"
    assert report[0].startswith(f"start: {told}")
    assert "make a new app in the child" in report[0]
    assert all(f": {told}" in line for line in report[:13])
    assert report[13:] == [
        "stop: []",
        "metadata: None",
        "count: 0",
        "running: False",
        "own: works",
        "parent goes on",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_does_not_keep_the_ports(child: Callable[..., Child]) -> None:
    program = child("""
        import socket, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork itself, since 3.12
        ports = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                ports.append(probe.getsockname()[1])
        app = Daebus("parent")
        app.attach(DaebusHttp(port=ports[0]))
        app.attach(DaebusWebSocket(port=ports[1]))
        app.start()
        end, hold = os.pipe()
        alive, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(hold)
            os.write(tell, b"!")
            os.read(end, 1)  # until the parent is done
            os._exit(0)
        os.read(alive, 1)
        app.stop()
        app.start()  # on the same ports
        app.stop()
        os.close(hold)
        assert os.waitpid(pid, 0)[1] == 0
        print("both ports were free")
        """)
    assert program.exit_code() == 0, program.stderr()
    assert program.line() == "both ports were free"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_an_app_that_was_not_started_survives_a_fork(child: Callable[..., Child]) -> None:
    program = child("""
        pid = os.fork()
        with app.test_client() as client:
            assert client.request("echo", 1) == 1
        if pid == 0:
            os._exit(0)
        print(os.waitpid(pid, 0)[1])
        """)
    assert program.exit_code() == 0, program.stderr()
    assert program.line() == "0"


def test_frames_behind_the_request_reach_an_app_that_just_started(
    app: Daebus, connect: Connect
) -> None:
    app.start()
    peer = Peer.joined(connect(app.http.port), behind=envelope("echo", "early"))
    assert peer.message()["data"] == "early"
