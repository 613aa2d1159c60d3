"""Topics: what a delivery, a snapshot, a resume and a subscriber cost, beside Socket.IO.

A measure is a function of ``Site``; add one to ``MEASURES``. ``python -m benchmarks --topics``
runs them all and prints their figures. The server has one core; the clients have the other,
together with a process that asks for an echo again and again where a measure says so.
"""

import argparse
import contextlib
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from benchmarks import stats, wire
from benchmarks.client import TIMEOUT, LoadError
from benchmarks.procs import HOST, ServerError, ServerProcess

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
SERVERS = {
    "daebus": [sys.executable, str(FOLDER / "servers" / "topic_server.py"), "{port}"],
    "socketio": [sys.executable, str(FOLDER / "servers" / "socketio_server.py"), "{port}"],
}
STALLED = 5
PATIENCE = 60.0  # seconds for a whole crowd

Figures = dict[str, float]


class Peer:
    """One WebSocket, of plain messages or of Socket.IO's.

    Args:
        port: the server's.
        kind: a name in ``SERVERS``.
        buffer: bytes of SO_RCVBUF; None leaves it to the kernel.
    """

    __slots__ = ("sock", "socketio", "tail")

    def __init__(self, port: int, kind: str, buffer: int | None = None) -> None:
        self.socketio = kind == "socketio"
        self.tail = b""
        self.sock = socket.socket()
        self.sock.settimeout(TIMEOUT)
        if buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect((HOST, port))
        path = "/socket.io/?EIO=4&transport=websocket" if self.socketio else "/"
        request, _ = wire.upgrade_request(HOST, port)
        self.sock.sendall(request.replace(b"GET / ", f"GET {path} ".encode(), 1))
        self.read_until(b"\r\n\r\n")
        if self.socketio:
            self.sock.sendall(wire.frame(b"40"))
            self.read_until(b'40{"sid"')

    def send(self, message_type: str, data: object, ident: int | None = None) -> None:
        """Send one message."""
        if self.socketio:
            text = "42" + json.dumps([message_type, data])
        else:
            more = {} if ident is None else {"id": ident}
            text = json.dumps({"type": message_type, "data": data, **more})
        self.sock.sendall(wire.frame(text.encode()))

    def ask(self, message_type: str, data: object) -> str:
        """Send one message and wait for the answer; return what has come."""
        self.send(message_type, data)
        return self.read_until(b'"response"').decode(errors="replace")

    def read_until(self, mark: bytes) -> bytes:
        """Read until these bytes have come; return all that has."""
        self.sock.settimeout(PATIENCE)
        seen = b""
        while mark not in seen:
            data = self.sock.recv(65536)
            if not data:
                raise LoadError(f"the server closed the connection before {mark!r}: {seen[-80:]!r}")
            seen += data
        return seen

    def close(self) -> None:
        """Cut the connection."""
        self.sock.close()


@dataclass
class Site:
    """A fresh server and the clients connected to it.

    Attributes:
        server: the process.
        kind: its name in ``SERVERS``.
        clients: how many of them a measure is about.
        seconds: of one window.
    """

    server: ServerProcess
    kind: str
    clients: int
    seconds: float
    peers: list[Peer] = field(default_factory=list)

    def crowd(self, count: int, buffer: int | None = None) -> list[Peer]:
        """Connect clients, each with one echo, so that all are registered."""
        found = []
        for _ in range(count):
            found.append(Peer(self.server.port, self.kind, buffer))
            self.peers.append(found[-1])
            found[-1].ask("echo", 1)
        return found

    def wait(self, peers: list[Peer], mark: bytes) -> float:
        """Read until each has got these bytes; return the seconds it took.

        Raises:
            LoadError: the connection of one ended, or it took too long.
        """
        started = time.perf_counter()
        poller, missing, everybody = select.epoll(), {}, {}
        for peer in peers:
            peer.sock.setblocking(False)
            peer.tail = b""
            poller.register(peer.sock, select.EPOLLIN)
            missing[peer.sock.fileno()] = everybody[peer.sock.fileno()] = peer
        keep = len(mark) - 1
        with contextlib.closing(poller):
            while missing:
                ready = poller.poll(1.0, 1024)
                if time.perf_counter() - started > PATIENCE:
                    raise LoadError(f"{len(missing)} of {len(peers)} had no {mark!r} in time")
                for descriptor, _ in ready:
                    peer = everybody[descriptor]
                    data = peer.sock.recv(262144)
                    if not data:
                        raise LoadError("the server closed a connection")
                    if descriptor in missing:
                        data = peer.tail + data
                        peer.tail = data[-keep:]
                        if mark in data:
                            del missing[descriptor]
        return time.perf_counter() - started

    def shouts(
        self, control: Peer, peers: list[Peer], to: str | None, size: int, at_least: int = 1
    ) -> Figures:
        """Send so many texts or more to all, each once everybody has the last."""
        rounds, end = 0, time.perf_counter() + self.seconds
        cpu, started = self.server.cpu_seconds(), time.perf_counter()
        while rounds < at_least or time.perf_counter() < end:
            rounds += 1
            mark = f"#{to} {rounds} {time.perf_counter_ns()}#"
            control.send("shout", {"to": to, "text": mark.ljust(size, "x")})
            self.wait(peers, mark.encode())
        seconds = time.perf_counter() - started
        deliveries = rounds * len(peers)
        return {
            "cpu_us": 1e6 * (self.server.cpu_seconds() - cpu) / deliveries,
            "rate": deliveries / seconds,
        }


# --- the measures -------------------------------------------------------------------


def publish(site: Site) -> Figures:
    """CPU a delivery of a topic to clients that are current, and of a room to the same ones."""
    control, peers = site.crowd(1)[0], site.crowd(site.clients)
    for peer in peers:
        peer.ask("join", None)
    ways: dict[str, str | None] = {"room": None}
    if site.kind == "daebus":
        ways["topic"] = "news"
        for peer in peers:
            peer.ask("subscribe", {"topic": "news"})
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for way, to in list(ways.items()) * 6:
        taken[way].append(site.shouts(control, peers, to, 64)["cpu_us"])
    figures = {f"{way}_us": statistics.median(each[1:]) for way, each in taken.items()}
    if "topic" in taken:
        pairs = zip(taken["topic"][1:], taken["room"][1:], strict=True)
        figures["of_room"] = statistics.median(mine / other for mine, other in pairs)
    return figures


def stalled(site: Site) -> Figures:
    """Rate of a topic to 95 subscribers without and with 5 more that have stopped reading."""
    control, peers = site.crowd(1)[0], site.crowd(95)
    for peer in peers:
        peer.ask("subscribe", {"topic": "bounded"})

    def window() -> Figures:
        return site.shouts(control, peers, "bounded", 16384, 200)

    window()  # fills the log
    alone = [window()]
    mute = site.crowd(STALLED, buffer=4096)
    for peer in mute:
        peer.ask("subscribe", {"topic": "bounded"})
    memory = site.server.rss_kib()
    site.server.reset_peak()
    beside = [window(), window()]
    growth = site.server.peak_kib() - memory
    told = _gaps(mute)
    alone.append(window())

    def share(what: str) -> float:
        return statistics.mean(w[what] for w in beside) / statistics.mean(w[what] for w in alone)

    return {
        "own_share": share("rate"),
        "own_cpu": share("cpu_us"),
        "growth_mib": growth / 1024,
        "told_of_loss": told,
    }


def _gaps(mute: list[Peer]) -> int:
    """Have those that stalled read on, and end; return how many were told what they missed."""
    told = 0
    for peer in mute:
        peer.read_until(b'"type":"gap"')
        told += 1
        peer.close()
    return told


def snapshot(site: Site) -> Figures:
    """Everybody takes a snapshot of 1,000 keys at once while 1,000 values a second change."""
    control, peers = site.crowd(1)[0], site.crowd(site.clients)
    control.ask("update", None)
    with probing(site) as idle:
        time.sleep(site.seconds)
    with probing(site) as meanwhile:
        started = time.perf_counter()
        for peer in peers:
            peer.send("subscribe", {"topic": "plant"}, 1)
        site.wait(peers, b'"synced":true')
        seconds = time.perf_counter() - started
    return _beside(seconds, idle, meanwhile)


def resume(site: Site) -> Figures:
    """Everybody comes back at once, and each has missed 1,000 messages."""
    control, peers = site.crowd(1)[0], site.crowd(site.clients)
    texts = ["x" * 64] * 999 + ["#full#".ljust(64, "x")]
    answer = control.ask("fill", texts)
    epoch = "" if site.kind != "daebus" else json.loads(answer[answer.index("{") :])["data"]
    since = {"epoch": epoch, "offset": 0}
    with probing(site) as idle:
        time.sleep(site.seconds)
    with probing(site) as meanwhile:
        started = time.perf_counter()
        for peer in peers:
            peer.send("subscribe", {"topic": "news", "since": since}, 1)
        site.wait(peers, b"#full#")
        seconds = time.perf_counter() - started
    return _beside(seconds, idle, meanwhile)


def _beside(seconds: float, idle: list[float], meanwhile: list[float]) -> Figures:
    return {
        "seconds": seconds,
        "echo_idle_p99_ms": 1e3 * stats.quantile(idle, 0.99),
        "echo_p50_ms": 1e3 * stats.quantile(meanwhile, 0.5),
        "echo_p99_ms": 1e3 * stats.quantile(meanwhile, 0.99),
    }


def subscriber(site: Site) -> Figures:
    """Memory of a subscriber that is current: 50 subscriptions each."""
    control = site.crowd(1)[0]
    peers = site.crowd(min(site.clients, 1000))
    for peer in peers:
        peer.ask("echo", 2)
    before = site.server.pss_kib()
    control.send("crowd", None)
    site.wait([*peers, control], b'"topic":"many 49"')
    count = 50 * (len(peers) + 1)
    time.sleep(0.5)  # the answer, and what the sending left to do
    return {"bytes": 1024 * (site.server.pss_kib() - before) / count}


def echo(site: Site) -> Figures:
    """CPU of an echo, with topics declared and without: see ``--plain`` of the server."""
    peer = site.crowd(1)[0]
    taken = []
    for _ in range(5):
        end, count, cpu = time.perf_counter() + site.seconds, 0, site.server.cpu_seconds()
        while time.perf_counter() < end:
            peer.ask("echo", "x" * 64)
            count += 1
        taken.append(1e6 * (site.server.cpu_seconds() - cpu) / count)
    return {"cpu_us": statistics.median(taken)}


MEASURES: dict[str, Callable[[Site], Figures]] = {
    "publish": publish,
    "stalled": stalled,
    "snapshot": snapshot,
    "resume": resume,
    "subscriber": subscriber,
    "echo": echo,
}
BESIDE = {"publish", "snapshot", "resume", "echo"}  # those that Socket.IO can do as well
CLIENTS = {"publish": 1000, "snapshot": 5000, "resume": 5000, "subscriber": 1000}


# --- the echo beside ----------------------------------------------------------------


@contextmanager
def probing(site: Site) -> Iterator[list[float]]:
    """Ask for echoes in a process of its own; the list has how long each took, afterwards."""
    found: list[float] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.topics", site.kind, str(site.server.port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise LoadError("the process that asks for echoes ended at its start")
        yield found
        found += json.loads(process.communicate(timeout=PATIENCE)[0])
    finally:
        process.kill()
        process.communicate()


def probe(kind: str, port: int) -> None:
    """Ask for an echo every 5 ms until standard input ends; print how long each took."""
    peer = Peer(port, kind)
    taken: list[float] = []
    peer.ask("echo", 1)
    print("ready", flush=True)
    while not taken or not select.select([sys.stdin], [], [], 0.005)[0]:
        started = time.perf_counter()
        peer.ask("echo", 1)
        taken.append(time.perf_counter() - started)
    print(json.dumps(taken))


# --- all of them --------------------------------------------------------------------


def measure(
    name: str, kind: str, logs: Path, *, clients: int | None = None, seconds: float = 1.0,
    arguments: tuple[str, ...] = (),
) -> Figures:  # fmt: skip
    """Start a server and take the figures of one measure.

    Args:
        name: of the measure.
        kind: of the server.
        logs: a folder for its output.
        clients: how many; None for as many as the measure is for.
        seconds: of one window.
        arguments: more of the server's.
    """
    core, own = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {own})
    command = [*SERVERS[kind], *arguments]
    try:
        with ServerProcess(
            command, cpus={core}, environment={}, log=logs / f"{name}-{kind}.log"
        ) as server:
            site = Site(server, kind, clients or CLIENTS.get(name, 1), seconds)
            try:
                return MEASURES[name](site)
            finally:
                for peer in site.peers:
                    peer.close()
    finally:
        os.sched_setaffinity(0, everywhere)


def run(
    names: list[str],
    logs: Path,
    seconds: float,
    clients: int | None,
    say: Callable[[str], None],
) -> dict[str, Figures]:
    """Take measures of every server that is there, one after the other."""
    results: dict[str, Figures] = {}
    for name in names:
        for kind in SERVERS:
            if kind == "socketio" and (name not in BESIDE or find_spec("socketio") is None):
                continue
            try:
                found = measure(name, kind, logs, clients=clients, seconds=seconds)
            except (LoadError, ServerError, OSError) as error:
                say(f"{name:12}{kind:10}failed: {error}")
                continue
            results[f"{name} {kind}"] = found
            figures = "  ".join(f"{what} {value:.4g}" for what, value in found.items())
            say(f"{name:12}{kind:10}{figures}")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=SERVERS)
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    probe(options.kind, options.port)
