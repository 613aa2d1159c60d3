"""Attacks: what one broadcast of the host, one GET and the server's memory cost beside each.

An attack is a function in a process of its own, which does what it does until it is killed; add one
to ``ATTACKS``. ``python -m benchmarks --attacks`` runs them all and prints a table.
"""

import argparse
import contextlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from benchmarks import wire
from benchmarks.client import TIMEOUT, LoadError
from benchmarks.procs import HOST, ServerProcess
from benchmarks.stats import quantile
from benchmarks.tlskeys import Keys

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent

LISTENERS = 20  # ordinary WebSockets that get the broadcasts
_ROOMY = 64 << 20  # bytes of an outbox that is full of messages

WARMUP = 0.3  # seconds of an attack before anything is measured

Figures = dict[str, float]


@dataclass(frozen=True)
class Attack:
    """What is done to a server, and what that may cost at most.

    Attributes:
        run: does it to the server at that port until the process is killed; calls its second
            argument once it is under way.
        http: arguments of ``DaebusHttp``.
        websocket: arguments of ``DaebusWebSocket``.
        most: the highest figure allowed, by name (see ``measure``), on a slow machine.
        tls: all of it is over TLS.
    """

    run: Callable[[int, Callable[[], None]], None]
    http: dict[str, Any] = field(default_factory=dict)
    websocket: dict[str, Any] = field(default_factory=dict)
    most: Figures = field(default_factory=dict)
    tls: bool = False


# --- the attacks --------------------------------------------------------------------


def nothing(port: int, ready: Callable[[], None]) -> None:
    """Nothing: what the figures are without an attack."""
    ready()
    threading.Event().wait()


def inflate(port: int, ready: Callable[[], None]) -> None:
    """25 clients send compressed messages, of which 59 of 1 MiB fit into one read of 64 KB."""
    text = b'{"type":"sink","data":"%b"}' % (b"a" * ((1 << 20) - 100))
    packed = deflated(text)
    burst = packed * (65536 // len(packed))
    clients = [joined(port, deflate=True) for _ in range(25)]
    _flood(clients, burst, ready)


def inflate_behind_a_busy_handler(port: int, ready: Callable[[], None]) -> None:
    """The same from 25 clients whose handlers are busy, so that the server reads ahead."""
    packed = deflated(b'{"type":"sink","data":"%b"}' % (b"a" * ((1 << 20) - 100)))
    busy = wire.frame(b'{"type":"busy","data":null}')
    clients = [joined(port, deflate=True) for _ in range(25)]
    for client in clients:
        client.sendall(busy)
    _flood(clients, packed * (65536 // len(packed)), ready)


def unfinished(port: int, ready: Callable[[], None]) -> None:
    """25 clients send a text of 1 MB in 4,000 fragments with an emoji each, but for its end."""
    part = ("\N{GRINNING FACE}" + "a" * 250).encode()
    first, more = fragment(wire.TEXT, part), fragment(wire.CONTINUATION, part)
    clients = [joined(port) for _ in range(25)]
    for client in clients:
        client.sendall(first + more * 3999)
    ready()
    threading.Event().wait()


def pings(port: int, ready: Callable[[], None]) -> None:
    """Ten clients flood pings, and come again when they are cut."""
    _flood([joined(port) for _ in range(10)], wire.frame(b"", wire.PING) * 1000, ready, port)


def pongs(port: int, ready: Callable[[], None]) -> None:
    """Ten clients flood pongs, and come again when they are cut."""
    _flood([joined(port) for _ in range(10)], wire.frame(b"", wire.PONG) * 1000, ready, port)


def cancels(port: int, ready: Callable[[], None]) -> None:
    """Ten clients flood cancels that nobody waits for, and come again when they are cut."""
    cancel = wire.frame(b'{"type":"cancel","id":1}')
    _flood([joined(port) for _ in range(10)], cancel * 1000, ready, port)


def not_reading(port: int, ready: Callable[[], None]) -> None:
    """100 clients do not read what they asked for, until a thousand messages wait for each."""
    large = wire.frame(b'{"type":"echo","data":"%b"}' % (b"a" * 900_000))
    small = wire.frame(b'{"type":"echo","data":1}')
    clients = [joined(port) for _ in range(100)]
    for client in clients:
        client.sendall(large * 8 + small * 1100)
    ready()
    threading.Event().wait()


def key_updates(port: int, ready: Callable[[], None]) -> None:
    """Four clients send 25,000 TLS KeyUpdates each, and come again when that is done."""
    with tempfile.TemporaryDirectory() as folder:
        floods = [_flood_of_key_updates(port, Path(folder)) for _ in range(4)]
        ready()
        while True:
            senders = [threading.Thread(target=_send, args=flood) for flood in floods]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
            floods = [_flood_of_key_updates(port, Path(folder)) for _ in range(4)]


def _flood_of_key_updates(port: int, folder: Path) -> tuple[socket.socket, bytes]:
    """Return a raw connection that has shaken hands, and what is to be sent on it."""
    log = folder / "keys"
    log.unlink(missing_ok=True)
    context = trusting()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(log)
    sock = connected(port, context)
    keys = Keys(log)
    flood = b"".join(keys.update() for _ in range(25_000))
    return socket.socket(fileno=sock.detach()), flood


def _send(sock: socket.socket, data: bytes) -> None:
    with sock, contextlib.suppress(OSError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):  # else it would be reset, and the rest not be looked at
            pass


def xn_hosts(port: int, ready: Callable[[], None]) -> None:
    """Four clients ask for hosts of 8 KiB in Punycode, another one each time."""

    def ask(number: int) -> None:
        while True:
            number += 4
            host = f"xn--{'a' * 8000}{number:08d}"
            with connected(port) as sock, contextlib.suppress(OSError):
                sock.sendall(f"GET /small HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                while sock.recv(65536):
                    pass
                time.sleep(0.05)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    ready()
    for thread in threads:
        thread.start()
    threading.Event().wait()


ATTACKS = {
    "nothing": Attack(nothing),
    "inflate": Attack(inflate, websocket={"compression": "deflate"}, most={"rss_mib": 300}),
    "inflate_busy": Attack(
        inflate_behind_a_busy_handler,
        websocket={"compression": "deflate"},
        most={"rss_mib": 150},
    ),
    "unfinished": Attack(unfinished, most={"rss_mib": 70}),
    "pings": Attack(pings, most={"broadcast_ms": 100}),
    "pongs": Attack(pongs, most={"broadcast_ms": 100}),
    "cancels": Attack(cancels, most={"broadcast_ms": 100}),
    "key_updates": Attack(key_updates, most={"get_ms": 100}, tls=True),
    "xn_hosts": Attack(xn_hosts, most={"get_ms": 50}),
    "slow_drop_oldest": Attack(
        not_reading,
        websocket={"on_full": "drop_oldest", "max_outbox": _ROOMY},
        most={"broadcast_ms": 20},
    ),
    "slow_drop_newest": Attack(
        not_reading,
        websocket={"on_full": "drop_newest", "max_outbox": _ROOMY},
        most={"broadcast_ms": 20},
    ),
}


# --- what attacks are made of -------------------------------------------------------


def trusting() -> ssl.SSLContext:
    """Return a context for clients who take any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connected(port: int, context: ssl.SSLContext | None = None) -> socket.socket:
    """Return a connection, over TLS if there is a context."""
    sock = socket.create_connection((HOST, port), timeout=TIMEOUT)
    return sock if context is None else context.wrap_socket(sock)


def joined(
    port: int, *, deflate: bool = False, context: ssl.SSLContext | None = None
) -> socket.socket:
    """Return the socket of a WebSocket; with ``deflate`` messages may be compressed."""
    sock = connected(port, context)
    request, accept = wire.upgrade_request(HOST, port)
    if deflate:
        offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n\r\n"
        request = request.removesuffix(b"\r\n") + offer
    sock.sendall(request)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = sock.recv(1)  # what follows is a frame
        if not data:
            raise LoadError("the server closed the connection during the upgrade")
        head += data
    wire.check_upgrade(head.removesuffix(b"\r\n\r\n"), accept)
    return sock


def deflated(payload: bytes) -> bytes:
    """Return the frame of a text, compressed (RFC 7692)."""
    compressor = zlib.compressobj(wbits=-15)
    packed = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    frame = bytearray(wire.frame(packed.removesuffix(b"\x00\x00\xff\xff")))
    frame[0] |= 0x40
    return bytes(frame)


def fragment(opcode: int, payload: bytes) -> bytes:
    """Return the frame of a part of a message that is not its last."""
    frame = bytearray(wire.frame(payload, opcode))
    frame[0] &= 0x7F
    return bytes(frame)


def _flood(
    clients: list[socket.socket],
    burst: bytes,
    ready: Callable[[], None],
    again: int | None = None,
) -> None:
    """Send the same over and over, as fast as each connection takes it.

    Args:
        clients: the connections.
        burst: what each sends.
        ready: called before the first one does.
        again: the port to which one that was cut connects again; None leaves it.
    """
    left = {client: memoryview(b"") for client in clients}
    for client in clients:
        client.setblocking(False)
    ready()
    while left:
        idle = True
        for client in list(left):
            try:
                left[client] = left[client] or memoryview(burst)
                left[client] = left[client][client.send(left[client]) :]
                idle = False
            except BlockingIOError:
                continue
            except OSError:  # it was cut
                del left[client]
                client.close()
                if again is not None:
                    client = joined(again)
                    client.setblocking(False)
                    left[client] = memoryview(b"")
        if idle:
            time.sleep(0.005)
    threading.Event().wait()


# --- the measure --------------------------------------------------------------------


def measure(name: str, seconds: float, logs: Path) -> Figures:
    """Attack a fresh server and measure beside it.

    Returns:
        ``broadcast_ms`` and ``get_ms``, medians, with the worst of each as ``*_worst_ms``, and
        ``rss_mib``, by which the largest memory exceeds that before the attack.
    """
    attack = ATTACKS[name]
    command = [
        sys.executable, str(FOLDER / "servers" / "attacked_server.py"), "{port}",
        "--http", _braces(attack.http | _certified(attack, logs)),
        "--websocket", _braces(attack.websocket),
    ]  # fmt: skip
    context = trusting() if attack.tls else None
    cpus = os.sched_getaffinity(0)
    with ServerProcess(command, cpus=cpus, environment={}, log=logs / f"{name}.log") as server:
        listeners: list[socket.socket] = []
        try:
            listeners += (joined(server.port, context=context) for _ in range(LISTENERS))
            with _reading(listeners), _attacking(name, server.port):
                before = server.rss_kib()
                server.reset_peak()
                time.sleep(WARMUP)
                _get(server.port, "/durations", context)
                gets = list(_gets(server.port, seconds, context))
                durations = _durations(server.port, context)
                peak = server.peak_kib()
        finally:
            for sock in listeners:
                sock.close()
    figures = {"rss_mib": max(0, peak - before) / 1024}
    for what, taken in (("broadcast", durations), ("get", gets)):
        figures[f"{what}_ms"] = 1e3 * statistics.median(taken)
        figures[f"{what}_worst_ms"] = 1e3 * quantile(sorted(taken), 0.99)
    return figures


def _certified(attack: Attack, folder: Path) -> dict[str, Any]:
    """Return the argument that makes the server speak TLS, if it is to."""
    if not attack.tls:
        return {}
    path = folder / "certificate.pem"
    trustme.CA().issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(path)
    return {"certfile": str(path)}


def _durations(port: int, context: ssl.SSLContext | None) -> list[float]:
    """Return how long the host's broadcasts have taken since the last time, at least one."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        durations = json.loads(_get(port, "/durations", context))
        assert isinstance(durations, list)
        if durations:
            return durations
        time.sleep(0.05)
    raise LoadError(f"no broadcast ended within {TIMEOUT} s")


def _braces(arguments: dict[str, Any]) -> str:
    # The process fills in {port} with str.format.
    return json.dumps(arguments).replace("{", "{{").replace("}", "}}")


@contextmanager
def _attacking(name: str, port: int) -> Iterator[None]:
    """Run an attack in a process of its own, which is under way when this begins."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.attacks", name, str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise LoadError(f"the attack {name} ended at its start")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def _reading(socks: list[socket.socket]) -> Iterator[None]:
    """Read and throw away, as ordinary clients read."""

    def read(sock: socket.socket) -> None:
        try:
            while sock.recv(65536):
                pass
        except OSError:
            pass

    threads = [threading.Thread(target=read, args=(sock,), daemon=True) for sock in socks]
    for sock, thread in zip(socks, threads, strict=True):
        sock.settimeout(None)
        thread.start()
    try:
        yield
    finally:
        for sock in socks:
            sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def _get(port: int, path: str, context: ssl.SSLContext | None) -> bytes:
    """Return the body of an answer, on a new connection."""
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n"
    with connected(port, context) as sock:
        sock.sendall(request.encode())
        answer = b""
        while data := sock.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise LoadError(f"a GET was answered {answer!r:.80}")
    return body


def _gets(port: int, seconds: float, context: ssl.SSLContext | None) -> Iterator[float]:
    """Yield how long each GET took, on a new connection."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        _get(port, "/small", context)
        yield time.perf_counter() - started
        time.sleep(0.01)


# --- the table ----------------------------------------------------------------------


def run(names: list[str], seconds: float, say: Callable[[str], None]) -> dict[str, Figures]:
    """Run attacks one after the other; tell each line of the table when it is there."""
    results: dict[str, Figures] = {}
    say(f"{'attack':24}{'broadcast':>12}{'99 %':>10}{'GET':>10}{'99 %':>10}{'memory':>12}")
    with tempfile.TemporaryDirectory(prefix="daebus-attacks-") as logs:
        for name in names:
            found = results[name] = measure(name, seconds, Path(logs))
            say(
                f"{name:24}{found['broadcast_ms']:9.2f} ms{found['broadcast_worst_ms']:7.1f} ms"
                f"{found['get_ms']:7.2f} ms{found['get_worst_ms']:7.1f} ms"
                f"{found['rss_mib']:+8.1f} MiB"
            )
    return results


def exceeded(results: dict[str, Figures]) -> list[str]:
    """Return what fell back behind its bound, in words."""
    return [
        f"{name}: {what} is {results[name][what]:.4g}, {bound:.4g} at most"
        for name in results
        for what, bound in ATTACKS[name].most.items()
        if results[name][what] > bound
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    ATTACKS[options.name].run(options.port, lambda: print("ready", flush=True))
