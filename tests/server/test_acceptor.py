"""Holding connections that need no worker: nobody waits for them, and nothing ends the thread."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import daebus
from daebus.server import acceptor as module
from daebus.server.acceptor import Acceptor
from daebus.server.conn import Conn
from daebus.server.sockets.listener import listen
from daebus.server.sockets.poller import Poller, SelectorPoller, make_poller
from daebus.server.sockets.transport import RECV_SIZE, SMALL_READ
from tests.support.fixture_types import Connect, MakeApp
from tests.support.waiting import eventually

LATE = b"too late\n"


class Talk:
    """What has come on one connection."""

    def __init__(self) -> None:
        self.data = b""
        self.sizes: list[int] = []
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Lines:
    """A protocol whose requests are lines; clients that sent one wait in a queue."""

    def __init__(self, timeout: float) -> None:
        self.acceptor: Acceptor
        self.timeout = timeout
        self.clients: queue.Queue[Conn] = queue.Queue()
        self.done: queue.Queue[Conn] = queue.Queue()
        self.fails: set[str] = set()
        self.threads: set[str] = set()

    def _called(self, name: str) -> None:
        self.threads.add(threading.current_thread().name)
        if name in self.fails:
            self.fails.remove(name)
            raise RuntimeError("on purpose")

    def opened(self, client: Conn) -> bool:
        client.state = Talk()
        self._called("opened")
        return True

    def handshake(self, client: Conn, deadline: float) -> None:
        raise AssertionError("nobody speaks TLS")

    def expected(self, clients: Iterable[Conn]) -> Iterable[Conn]:
        return [one for one in clients if one.state is not None and not one.state.data]

    def received(self, client: Conn, data: bytes) -> None:
        client.state.data += data
        client.state.sizes.append(len(data))
        self._called("received")
        if b"\n" in client.state.data:
            self.clients.put(client)
        else:
            self.acceptor.park(client, time.monotonic() + self.timeout)

    def flushed(self, client: Conn) -> None:
        self._called("flushed")
        self.done.put(client)

    def late(self, client: Conn) -> None:
        self._called("late")
        client.sock.send(LATE)
        self.acceptor.linger(client)

    def refused(self, text: str) -> bytes:
        return f"refused: {text}\n".encode()


class Served:
    """An acceptor that runs, and its protocol."""

    def __init__(self, timeout: float, max_connections: int, linger_timeout: float) -> None:
        self.lines = Lines(timeout)
        listener = listen("127.0.0.1", 0)
        self.port = listener.port
        self.acceptor = self.lines.acceptor = Acceptor(
            [listener], self.lines, max_connections=max_connections, linger_timeout=linger_timeout
        )
        self.acceptor.start()
        self._mine: list[Conn] = []

    def take(self) -> Conn:
        """Take over a client that has sent a line."""
        client = self.lines.clients.get(timeout=5)
        self._mine.append(client)
        client.state.data = client.state.data.partition(b"\n")[2]
        return client

    def park(self, client: Conn, seconds: float = 30.0) -> None:
        self.acceptor.park(client, time.monotonic() + seconds)

    def stop(self) -> None:
        self.acceptor.stop()
        self.acceptor.end()
        self.acceptor.thread.join(5)
        assert not self.acceptor.thread.is_alive()
        while not self.lines.clients.empty():
            self.take()
        while not self.lines.done.empty():
            self._mine.append(self.lines.done.get())
        for client in self._mine:
            self.acceptor.close(client)


Serve = Callable[..., Served]


@pytest.fixture(params=["epoll", "selector"])
def serve(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start acceptors; as on Linux, and as on other systems."""
    if request.param == "selector":
        monkeypatch.setattr(module, "make_poller", SelectorPoller)
    made: list[Served] = []

    def start(
        *, timeout: float = 30.0, max_connections: int = 1000, linger_timeout: float = 30.0
    ) -> Served:
        made.append(Served(timeout, max_connections, linger_timeout))
        return made[-1]

    yield start
    for served in made:
        served.stop()


def ended(sock: socket.socket) -> bytes:
    """Read until the other side has closed; a reset fails the test."""
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


def closed(client: Conn) -> bool:
    """Wait until a client's socket is closed."""
    return bool(eventually(lambda: client.sock.fileno() == -1))


# --- requests -----------------------------------------------------------------------


def test_a_whole_request_is_handed_out(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\nrest")
    client = served.take()
    assert client.state.data == b"rest"
    assert client.listener.port == served.port
    assert client.address == sock.getsockname()
    assert client.host == "127.0.0.1"
    assert client.raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert served.lines.threads == {"daebus-accept"}


def test_a_request_in_pieces(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    for byte in b"hello":
        sock.sendall(bytes((byte,)))
    assert served.lines.clients.empty()
    sock.sendall(b"\n")
    served.take()


def test_silent_clients_hold_nobody_up(serve: Serve, connect: Connect) -> None:
    served = serve()
    for _ in range(100):
        connect(served.port)
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    assert served.take().address == sock.getsockname()


def test_a_parked_client_sends_its_next_request(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    for number in range(5):
        sock.sendall(b"hello %d\n" % number)
        served.park(served.take())


def test_what_came_before_the_parking_is_noticed(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"one\n")
    client = served.take()
    sock.sendall(b"two\n")
    assert served.lines.clients.empty()  # nobody reads a client that was handed out
    served.park(client)
    assert served.take() is client


@pytest.mark.parametrize(("appetite", "size"), [(None, SMALL_READ), (RECV_SIZE, 30_000)])
def test_others_get_their_turn_after_so_many_bytes(
    serve: Serve, connect: Connect, appetite: int | None, size: int
) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    client = served.take()
    client.appetite = appetite or client.appetite
    client.state.sizes.clear()
    sock.sendall(b"x" * 29_999 + b"\n")
    assert eventually(lambda: len(client.raw.recv(30_000, socket.MSG_PEEK)) == 30_000)
    served.park(client)
    served.take()
    assert client.state.sizes[0] == size
    assert sum(client.state.sizes) == 30_000


def test_many_clients_at_once(serve: Serve, connect: Connect) -> None:
    served = serve()
    socks = [connect(served.port) for _ in range(50)]
    for turn in range(3):
        for sock in socks:
            sock.sendall(b"hello %d\n" % turn)
        clients = [served.take() for _ in socks]
        assert {client.address for client in clients} == {sock.getsockname() for sock in socks}
        for client in clients:
            served.park(client)


def test_a_client_that_leaves_is_forgotten(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"half a requ")
    sock.shutdown(socket.SHUT_WR)
    assert ended(sock) == b""


def test_a_client_that_resets_is_forgotten(serve: Serve, connect: Connect) -> None:
    served = serve()
    for _ in range(20):
        sock = connect(served.port)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    sock = connect(served.port)
    sock.sendall(b"still there?\n")
    served.take()


def test_what_belongs_to_a_connection_is_closed_with_it(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    client = served.take()
    served.park(client)
    sock.close()
    assert closed(client)
    assert eventually(lambda: client.state.closed == 1)


def test_a_released_client_is_let_go(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    client = served.take()
    served.park(client)
    sock.sendall(b"again\n")
    assert served.take() is client
    served.acceptor.release(client)
    sock.sendall(b"for somebody else\n")
    served.stop()
    assert client.state.data == b""


# --- deadlines ----------------------------------------------------------------------


def test_a_silent_client_is_told_and_closed(serve: Serve, connect: Connect) -> None:
    served = serve(timeout=0.05)
    started = time.monotonic()
    assert ended(connect(served.port)) == LATE
    assert time.monotonic() - started >= 0.04


def test_deadlines_of_several_clients(serve: Serve, connect: Connect) -> None:
    served = serve()
    socks = [connect(served.port) for _ in range(3)]
    for sock in socks:
        sock.sendall(b"hello\n")
    clients = {client.address: client for client in (served.take() for _ in socks)}
    first, second, third = (clients[sock.getsockname()] for sock in socks)
    served.park(third)
    served.park(second, 0.1)
    served.park(first, 0.02)
    assert ended(socks[0]) == LATE
    assert not select_readable(socks[2])
    assert ended(socks[1]) == LATE
    socks[2].sendall(b"in time\n")
    assert served.take() is third


def select_readable(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    finally:
        sock.settimeout(5)
    return True


def test_a_request_in_time_is_not_closed_later(serve: Serve, connect: Connect) -> None:
    served = serve(timeout=0.1)
    sock, other = connect(served.port), connect(served.port)
    sock.sendall(b"hello\n")
    client = served.take()
    assert ended(other) == LATE  # by now the deadline of the first has passed as well
    client.raw.sendall(b"answer\n")
    assert sock.recv(100) == b"answer\n"


def test_a_deadline_that_was_moved_away_is_kept(serve: Serve, connect: Connect) -> None:
    served = serve(timeout=0.1)
    sock, other = connect(served.port), connect(served.port)
    sock.sendall(b"hello\n")
    served.park(served.take(), 30)
    assert ended(other) == LATE
    sock.sendall(b"again\n")
    served.take()


def test_a_deadline_in_the_past(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    served.park(served.take(), -1)
    assert ended(sock) == LATE


# --- answers that a client takes slowly ---------------------------------------------


class Rest:
    """The rest of an answer."""

    def __init__(self, client: Conn, size: int, seconds: float = 30.0) -> None:
        self.deadline = time.monotonic() + seconds
        self.closed = 0
        self.calls = 0
        self._sock = client.sock
        self._left = memoryview(bytes(size))

    def proceed(self) -> bool:
        self.calls += 1
        with contextlib.suppress(BlockingIOError):
            while self._left:
                self._left = self._left[self._sock.send(self._left) :]
        return not self._left

    def close(self) -> None:
        self.closed += 1


def test_the_rest_of_an_answer_is_written_as_the_client_reads(
    serve: Serve, connect: Connect
) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    client = served.take()
    rest = Rest(client, 32 << 20)
    served.acceptor.flush(client, rest)
    assert eventually(lambda: rest.calls)
    assert served.lines.done.empty()
    got = 0
    while got < 32 << 20:
        got += len(sock.recv(1 << 20))
    assert served.lines.done.get(timeout=5) is client
    assert rest.closed == 1
    assert client.flush is None
    served.park(client)
    sock.sendall(b"again\n")
    assert served.take() is client


def test_a_client_that_leaves_amid_its_answer(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    client = served.take()
    rest = Rest(client, 32 << 20)
    served.acceptor.flush(client, rest)
    sock.close()
    assert closed(client)
    assert eventually(lambda: rest.closed == 1)
    assert served.lines.done.empty()


def test_a_client_that_does_not_read_its_answer(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    client = served.take()
    rest = Rest(client, 32 << 20, seconds=0.05)
    served.acceptor.flush(client, rest)
    assert closed(client)
    assert eventually(lambda: rest.closed == 1)


# --- lingering ----------------------------------------------------------------------


def test_lingering_keeps_the_answer_alive(serve: Serve, connect: Connect) -> None:
    # Closing with unread input would send a reset, which destroys what was sent before.
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\n" + b"x" * 200_000)
    client = served.take()
    client.raw.sendall(b"answer\n")
    served.acceptor.linger(client)
    assert ended(sock) == b"answer\n"
    sock.sendall(b"more\n")
    sock.shutdown(socket.SHUT_WR)
    assert closed(client)
    assert served.lines.clients.empty()


def test_lingering_ends_in_time(serve: Serve, connect: Connect) -> None:
    served = serve(linger_timeout=0.05)
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    client = served.take()
    served.acceptor.linger(client)
    assert ended(sock) == b""
    assert closed(client)  # though the client never closed


def test_lingering_ends_after_so_many_bytes(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    client = served.take()
    served.acceptor.linger(client)
    with pytest.raises(OSError, match=r"Broken pipe|reset"):  # closed while we go on
        sock.sendall(bytes(64 << 20))
    assert client.sock.fileno() == -1


# --- the poller ---------------------------------------------------------------------


@pytest.fixture(params=[make_poller, SelectorPoller], ids=["epoll", "selector"])
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made: Poller = request.param()
    yield made
    made.close()
    made.wake()  # does nothing any more


def test_a_wake_up_just_before_the_wait_is_not_lost(poller: Poller) -> None:
    started = time.monotonic()
    for _ in range(3):
        poller.wake()
        poller.wake()
        assert poller.wait(5) == []
    assert time.monotonic() - started < 5
    assert poller.wait(0.01) == []


def test_a_descriptor_is_reported_once_each_time_it_is_armed(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        known = False
        for _ in range(3):
            poller.arm(ours.fileno(), known=known)
            known = True
            ready: list[int] = []
            while not ready:  # it may have been woken for the arming first
                ready = poller.wait(5)
            assert ready == [ours.fileno()]
            assert poller.wait(0.01) == []
        poller.arm(ours.fileno(), known=True, write=True)
        ready = []
        while not ready:
            ready = poller.wait(5)
        assert ready == [ours.fileno()]
        poller.forget(ours.fileno())


# --- what it survives ---------------------------------------------------------------


@pytest.mark.parametrize("what", ["opened", "received", "late"])
def test_a_protocol_that_raises(
    serve: Serve, connect: Connect, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(timeout=0.05 if what == "late" else 30)
    served.lines.fails = {what}
    with caplog.at_level(logging.CRITICAL, "daebus.server"):
        assert ended(connect(served.port)) == b""
        sock = connect(served.port)
        sock.sendall(b"hello\n")
        served.take()


def test_a_protocol_that_raises_later(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    with caplog.at_level(logging.ERROR, "daebus.server"):
        for what in ("received", "flushed"):
            sock = connect(served.port)
            sock.sendall(b"hello\n")
            client = served.take()
            served.lines.fails = {what}
            if what == "received":
                served.park(client)
                sock.sendall(b"again\n")
            else:
                served.acceptor.flush(client, Rest(client, 0))
            assert ended(sock) == b""
    assert len(caplog.records) == 2
    assert all(record.exc_info for record in caplog.records)
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    served.take()


def test_more_connections_than_allowed_are_told(serve: Serve, connect: Connect) -> None:
    served = serve(max_connections=3)
    socks = [connect(served.port) for _ in range(3)]
    for sock in socks:
        sock.sendall(b"hello\n")
    clients = [served.take() for _ in socks]
    refused = connect(served.port)
    assert ended(refused) == b"refused: too many connections\n"
    refused.close()
    served.acceptor.close(clients[0])
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    served.take()


OUT_OF_DESCRIPTORS = """
import logging, resource, socket, sys, time
from daebus.server import acceptor as module
from daebus.server.acceptor import Acceptor
from daebus.server.sockets.listener import Listener, listen


class Lines:
    def opened(self, client):
        return True

    def received(self, client, data):
        if not data.endswith(b"\\n"):
            acceptor.park(client, time.monotonic() + 60)
            return
        client.raw.sendall(data)
        acceptor.linger(client)

    def refused(self, text):
        return b"refused"


class Failing(Listener):
    def accept(self):
        try:
            return super().accept()
        except BlockingIOError:
            raise
        except OSError as exc:
            print(f"failed {time.monotonic()}", flush=True)
            raise


class Printing(logging.Handler):
    def emit(self, record):
        print("logged", record.getMessage(), flush=True)


logging.getLogger("daebus.server").addHandler(Printing())
listener = Failing(listen("127.0.0.1", 0).sock)
acceptor = Acceptor([listener], Lines(), max_connections=1000, linger_timeout=60)
if sys.argv[1] == "no spare":
    acceptor._listeners._spare.close()
acceptor.start()
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (30, hard))
print("port", listener.port, flush=True)
sys.stdin.readline()
acceptor.stop()
acceptor.end()
acceptor.thread.join(5)
"""


@contextlib.contextmanager
def small_process(spare: str) -> Iterator[subprocess.Popen[str]]:
    """Run an acceptor where 30 descriptors are all there are."""
    path = str(Path(daebus.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", OUT_OF_DESCRIPTORS, spare],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        process.communicate("\n", timeout=10)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    word, _, rest = process.stdout.readline().strip().partition(" ")
    return word, rest


def serves(connect: Connect, port: int) -> bool:
    with connect(port) as sock:
        sock.sendall(b"still there?\n")
        return ended(sock) == b"still there?\n"


def test_out_of_descriptors_clients_are_told(connect: Connect) -> None:
    with small_process("spare") as process:
        word, port = said(process)
        assert word == "port"
        crowd = [connect(int(port)) for _ in range(40)]
        assert ended(crowd[-1]) == b"refused"
        words = [said(process)]
        while words[-1][0] != "logged":
            words.append(said(process))
        assert "cannot accept" in words[-1][1]
        for sock in crowd:
            sock.close()
        assert eventually(lambda: serves(connect, int(port)))


def test_out_of_descriptors_it_pauses_and_goes_on(connect: Connect) -> None:
    with small_process("no spare") as process:
        word, port = said(process)
        assert word == "port"
        crowd = [connect(int(port)) for _ in range(40)]
        failures: list[float] = []
        warnings: list[str] = []
        while len(failures) < 3:
            word, rest = said(process)
            if word == "failed":
                failures.append(float(rest))
            else:
                warnings.append(rest)
        # It neither ends nor spins, and complains once.
        assert failures[2] - failures[0] > 0.8
        (warning,) = warnings
        assert "cannot accept" in warning
        for sock in crowd:
            sock.close()
        assert eventually(lambda: serves(connect, int(port)))


# --- the end ------------------------------------------------------------------------


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_after_the_stop_only_open_connections_are_served(serve: Serve, connect: Connect) -> None:
    served = serve()
    waiting, idle = connect(served.port), connect(served.port)
    waiting.sendall(b"hel")
    idle.sendall(b"hello\n")
    client = served.take()
    served.acceptor.stop()
    assert eventually(lambda: refused(served.port))
    served.park(client)
    waiting.sendall(b"lo\n")
    served.park(served.take())
    idle.sendall(b"again\n")
    client = served.take()
    served.acceptor.end()
    assert ended(waiting) == b""
    client.raw.sendall(b"answer\n")  # that one was handed out: it is not the acceptor's
    served.park(client)
    assert ended(idle) == b"answer\n"
    assert closed(client)


def test_an_answer_that_is_being_written_goes_on_after_the_stop(
    serve: Serve, connect: Connect
) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    client = served.take()
    served.acceptor.flush(client, Rest(client, 32 << 20))
    served.acceptor.stop()
    served.acceptor.end()
    got = 0
    while got < 32 << 20:
        got += len(sock.recv(1 << 20))
    served.acceptor.thread.join(5)
    assert not served.acceptor.thread.is_alive()


def test_cut_breaks_every_connection(serve: Serve, connect: Connect) -> None:
    served = serve()
    waiting, busy = connect(served.port), connect(served.port)
    busy.sendall(b"hello\n")
    client = served.take()
    rest = Rest(client, 32 << 20)
    served.acceptor.flush(client, rest)
    served.acceptor.cut()
    assert ended(waiting) == b""
    assert closed(client)
    assert eventually(lambda: rest.closed == 1)


def test_what_lingers_after_the_stop_is_closed(serve: Serve, connect: Connect) -> None:
    served = serve()
    sock = connect(served.port)
    sock.sendall(b"hello\n")
    client = served.take()
    served.stop()
    served.acceptor.linger(client)
    assert closed(client)
    assert ended(sock) == b""


def test_an_acceptor_that_never_started_closes_its_port() -> None:
    listener = listen("127.0.0.1", 0)
    acceptor = Acceptor([listener], Lines(1), max_connections=1, linger_timeout=1)
    acceptor.stop()
    acceptor.stop()
    assert listener.fileno() == -1


# --- with the whole server around it ------------------------------------------------

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def get(sock: socket.socket) -> bytes:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return ended(sock)


def test_no_client_holds_a_worker(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(http={"workers": 2, "head_timeout": 30})
    app.route("/")(lambda req: "hello")
    app.start()
    silent = [connect(app.http.port) for _ in range(10)]
    for sock in [connect(app.http.port) for _ in range(10)]:
        sock.sendall(b"GET / HTTP/1.1\r\nHo")
    idle = []
    for _ in range(10):
        sock = connect(app.http.port)
        sock.sendall(REQUEST)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        idle.append(sock)
    assert get(connect(app.http.port)).startswith(b"HTTP/1.1 200 ")
    workers = [t.name for t in threading.enumerate() if t.name.startswith("daebus-http")]
    assert len(workers) <= 2
    # None of them was given up meanwhile.
    assert get(silent[0]).startswith(b"HTTP/1.1 200 ")
    assert get(idle[0]).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("head", [b"", b"G", REQUEST[:-2]])
def test_a_late_request_gets_408(make_app: MakeApp, connect: Connect, head: bytes) -> None:
    app = make_app(http={"head_timeout": 0.05})
    app.start()
    sock = connect(app.http.port)
    sock.sendall(head)
    answer = ended(sock)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code": "request_timeout"' in answer


def test_dripping_does_not_move_the_deadline(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(http={"head_timeout": 0.2})
    app.start()
    sock = connect(app.http.port)
    sock.settimeout(0.02)
    started = time.monotonic()
    answer = b""
    while not answer:
        assert time.monotonic() - started < 5, "a client that drips is never cut"
        sock.sendall(b"x")
        with contextlib.suppress(TimeoutError):
            answer = sock.recv(1000)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_idle_client_is_closed_without_a_word(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(http={"idle_timeout": 0.05})
    app.route("/")(lambda req: ("", 204))
    app.start()
    sock = connect(app.http.port)
    sock.sendall(REQUEST)
    assert ended(sock).startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize("begun", [b"G", REQUEST[:-2]])
def test_the_second_request_has_a_deadline_of_its_own(
    make_app: MakeApp, connect: Connect, begun: bytes
) -> None:
    app = make_app(http={"head_timeout": 0.05, "idle_timeout": 30})
    app.route("/")(lambda req: ("", 204))
    app.start()
    sock = connect(app.http.port)
    sock.sendall(REQUEST + begun)
    answer = ended(sock)
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"HTTP/1.1 408 " in answer
