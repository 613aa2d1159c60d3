"""Random bytes from many clients at once, and one well-behaved client beside them.

What must hold: the second client is answered, and soon; memory stays bounded; threads and
descriptors are what they were once the clients have gone; nothing of daebus's own is logged as
an error; the server stops in time.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.child import Child
from tests.support.fuzz import PATIENCE, SHARE, seeds
from tests.support.fuzz_bytes import cuts, frames, mutate, records, requests, upgrade
from tests.support.peer import Peer
from tests.support.tls import Sealer, authority, client_context
from tests.support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE)]

ROOT = Path(__file__).parents[2]

# Clients at once, and connections that each opens one after the other with one seed.
CLIENTS = 12
LIVES = 20

# Seconds that the second client may wait, 99 times in 100: a loaded machine with two cores
# needs a tenth of that.
SLOW = 1.0

# Bytes by which the server may grow. Each client may have a message, an outbox and a body of a
# quarter of a megabyte, in a few copies, and what it has sent ahead.
GROWTH = 128 << 20

# Threads of a server without clients: acceptor, minder, loop and pools.
POOLS = {"daebus-http": 8, "daebus-job": 8, "daebus-hook": 2}

Wire = Any  # socket.socket, or one with TLS
Life = Callable[[random.Random, Callable[[], Wire]], None]


class Server:
    """The server, and what it says of itself."""

    def __init__(self, certfile: str | None, deflate: bool) -> None:
        code = f"""
            import sys
            sys.path.insert(0, {str(ROOT)!r})
            from tests.support.fuzz_server import main
            main({certfile!r}, {deflate!r})
            """
        self.child = Child(code, preamble="")
        self.port = self.child.port()
        self.context = client_context() if certfile else None

    def dial(self) -> Wire:
        """Connect; every wait takes at most 5 s."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        if self.context is None:
            return sock
        try:
            return self.context.wrap_socket(sock, server_hostname="127.0.0.1")
        except BaseException:
            sock.close()
            raise

    def plain(self) -> Wire:
        """Connect without TLS, whatever the server speaks."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def vitals(self) -> dict[str, Any]:
        """Ask, on its standard input."""
        assert self.child.process.stdin is not None
        self.child.process.stdin.write("\n")
        self.child.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.child.line())
        return found

    def healthy(self, peak: int) -> None:
        """Check what must hold while clients are there."""
        assert self.child.process.poll() is None, self.child.stderr()
        now = self.vitals()
        assert now["running"]
        assert not now["errors"], "\n".join(now["errors"])
        grown = now["peak"] - peak
        assert grown < GROWTH, f"it has grown by {grown >> 20} MiB"

    def rested(self, descriptors: int) -> bool:
        """Tell whether nothing of the clients is left."""
        now = self.vitals()
        names = [name.rpartition("-")[0] for name in now["threads"] if name[-1].isdigit()]
        few = all(names.count(name) <= most for name, most in POOLS.items())
        alone = not any(name.startswith("daebus-ws") for name in now["threads"])
        return few and alone and now["clients"] == 0 and now["descriptors"] <= descriptors

    def stop(self) -> None:
        """Have it stop, in time and without a thread left."""
        assert self.child.process.stdin is not None
        before = time.monotonic()
        self.child.process.stdin.close()
        assert json.loads(self.child.line()) == []
        assert time.monotonic() - before < 10
        assert self.child.exit_code() == 0, self.child.stderr()


class Second(threading.Thread):
    """The well-behaved client: an echo, a page, and so on, each timed."""

    def __init__(self, server: Server) -> None:
        super().__init__(name="second-client")
        self.seconds: list[float] = []
        self.error: BaseException | None = None
        self._server = server
        self._over = threading.Event()

    def run(self) -> None:
        try:
            with self._server.dial() as sock, self._server.dial() as other:
                talk, ask = Peer.joined(sock), Peer(other)
                while not self._over.wait(0.02):
                    before = time.monotonic()
                    self._echo(talk)
                    between = time.monotonic()
                    answer = ask.ask(b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    assert (answer.status, answer.body) == (200, b"hello"), answer
                    self.seconds += [between - before, time.monotonic() - between]
                talk.close()
        except BaseException as exc:
            self.error = exc

    def _echo(self, peer: Peer) -> None:
        peer.say("echo", len(self.seconds))
        while True:
            opcode, payload = peer.frame()
            if opcode == 9:
                peer.send(10, payload)
                continue
            assert opcode == 1, (opcode, payload)
            assert json.loads(payload)["data"] == len(self.seconds)
            return

    def stop(self) -> None:
        """Check what it has met with."""
        self._over.set()
        self.join(20)
        if self.error is not None:
            raise AssertionError("the second client failed") from self.error
        waits = sorted(self.seconds)
        slowest, usual = waits[-1], waits[len(waits) * 99 // 100 - 1]
        print(f"{len(waits)} answers, 99 in 100 within {usual:.3f} s, all within {slowest:.3f} s")
        assert usual < SLOW


@contextlib.contextmanager
def serving(tmp_path: Path, *, tls: bool, deflate: bool) -> Iterator[Server]:
    """Have a server that is checked at the end."""
    certfile = tmp_path / "server.pem"
    if tls:
        issued = authority().issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(certfile))
    server = Server(str(certfile) if tls else None, deflate)
    try:
        warm_up(server)
        start = server.vitals()
        second = Second(server)
        second.start()
        try:
            yield server
        finally:
            second.stop()
        server.healthy(start["peak"])
        assert eventually(lambda: server.rested(start["descriptors"]), 30), (
            start,
            server.vitals(),
        )
        server.stop()
    finally:
        server.child.end()


def warm_up(server: Server) -> None:
    """Have it start what it starts when first needed."""
    with server.dial() as sock:
        peer = Peer.joined(sock)
        for kind in ("echo", "pool", "async"):
            peer.say(kind, 1)
            assert peer.message()["data"] == 1
        peer.close()
    assert eventually(lambda: server.rested(1 << 20), 15)


def send(rng: random.Random, sock: Wire, data: bytes) -> None:
    """Send in parts; read now and then, as slowly as it comes."""
    sock.settimeout(1)
    reads = rng.random() < 0.7
    for part in cuts(rng, data):
        sock.sendall(part)
        if reads and rng.random() < 0.05:
            sock.settimeout(0.001)
            with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                sock.recv(65536)
            sock.settimeout(1)


def leave(rng: random.Random, sock: Wire) -> None:
    """Go, in one of the ways there are."""
    kind = rng.randrange(4)
    if kind == 0:  # as a program that crashes
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif kind == 1:
        sock.shutdown(socket.SHUT_WR)
    if kind in (1, 2):
        sock.settimeout(0.2)
        for _ in range(50):
            if not sock.recv(65536):
                break


def speak_http(rng: random.Random, dial: Callable[[], Wire]) -> None:
    """Live the life of an HTTP connection."""
    with dial() as sock:
        send(rng, sock, requests(rng))
        leave(rng, sock)


def speak_websocket(rng: random.Random, dial: Callable[[], Wire]) -> None:
    """Live the life of a WebSocket; frames may come before the answer to the handshake."""
    with dial() as sock:
        request = upgrade(rng)
        ahead = rng.random() < 0.3
        if not ahead:
            sock.sendall(request)
            head = sock.recv(65536)
            send(rng, sock, frames(rng, deflate=b"permessage-deflate" in head))
        else:
            send(rng, sock, request + frames(rng, deflate=rng.random() < 0.5))
        leave(rng, sock)


def speak_tls(rng: random.Random, dial: Callable[[], Wire]) -> None:
    """Live the life of a client whose TLS is broken, at the start or after the handshake."""
    with dial() as sock:
        sealer = Sealer(sock)
        if rng.random() < 0.5:
            send(rng, sock, records(rng, sealer.hello()))
        else:
            sealer.join()
            sealed = b"".join(sealer.seal(part) for part in cuts(rng, requests(rng)[:20_000]))
            send(rng, sock, mutate(rng, sealed))
        leave(rng, sock)


def attack(server: Server, live: Life, dial: Callable[[], Wire], seed: int) -> None:
    """Have all clients live as many lives; return when they have."""
    problems: list[BaseException] = []

    def lives(number: int) -> None:
        rng = random.Random(f"{seed}/{number}")
        try:
            for _ in range(LIVES):
                # That the server cuts or does not read is its right; ssl raises ValueError for
                # sockets that are closed meanwhile.
                with contextlib.suppress(OSError, EOFError, ValueError):
                    live(rng, dial)
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=lives, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


@pytest.mark.parametrize(
    ("live", "tls", "deflate"),
    [
        pytest.param(speak_http, False, False, id="http"),
        pytest.param(speak_http, True, False, id="https"),
        pytest.param(speak_websocket, False, False, id="ws"),
        pytest.param(speak_websocket, False, True, id="ws-deflate"),
        pytest.param(speak_websocket, True, True, id="wss-deflate"),
        pytest.param(speak_tls, True, False, id="tls"),
    ],
)
def test_random_bytes_harm_nobody(tmp_path: Path, live: Life, tls: bool, deflate: bool) -> None:
    """A failure is of the last seed printed, as far as threads repeat themselves."""
    with serving(tmp_path, tls=tls, deflate=deflate) as server:
        peak = server.vitals()["peak"]
        dial = server.plain if live is speak_tls else server.dial
        for seed in seeds(SHARE):
            attack(server, live, dial, seed)
            server.healthy(peak)
