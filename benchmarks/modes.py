"""The modes: what the generator does to one fresh server process, and what it notes down."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks import load, stats, wire
from benchmarks.cases import Case
from benchmarks.client import Client
from benchmarks.procs import ServerProcess

Result = dict[str, Any]  # JSON: figures by name, None where there is none

WARMUP = 0.3  # seconds; caches fill and the interpreter specialises its bytecode
SLOW_READERS = 5
SLOW_BUFFER = 4096  # bytes of SO_RCVBUF of a client that stops reading
STOP_TIMEOUT = 10.0  # seconds: the default timeout of stop()


@dataclass(frozen=True)
class Setting:
    """A running server, how to treat it, and the clients connected to it so far.

    Attributes:
        server: the process.
        dialect: how it talks.
        stall_timeout: seconds after which an incomplete fan-out round counts as a stall.
    """

    server: ServerProcess
    dialect: wire.Dialect
    stall_timeout: float = 5.0
    _clients: list[Client] = field(default_factory=list)

    def client(self, number: int = 0, size: int = 64, buffer: int | None = None) -> Client:
        """Connect one client; the arguments are those of ``Client``."""
        client = Client(self.server.port, self.dialect, number, size, buffer)
        self._clients.append(client)
        return client

    def connect(self, clients: int, size: int = 64) -> list[Client]:
        """Connect clients one after another, each with one echo, so that all are registered."""
        connected = [self.client(number, size) for number in range(clients)]
        for client in connected:
            client.sock.sendall(client.request)
            client.learn("response", client.data)
        return connected

    def close(self) -> None:
        """Cut every client that is still connected."""
        for client in self._clients:
            client.close()


def echo(setting: Setting, case: Case) -> Result:
    """Rate, CPU a message, latency and fairness of echo."""
    generator = load.Echo(setting.connect(case.clients, case.size))
    return _measure(setting, generator, case.seconds)


def fanout(setting: Setting, case: Case) -> Result:
    """Deliveries a second and CPU a delivery of one shout after another."""
    generator = load.Fanout(setting.connect(case.clients), case.size)
    return _measure(setting, generator, case.seconds, setting.stall_timeout)


def slow(setting: Setting, case: Case) -> Result:
    """Fan-out without and then beside clients that have stopped reading.

    Notes the rate against its own without them, stalls, memory, and who was cut.
    """
    server = setting.server
    generator = load.Fanout(setting.connect(case.clients), case.size)
    generator.run(WARMUP, setting.stall_timeout)
    alone = _rates(generator.run(case.seconds / 2, setting.stall_timeout))
    mute = [setting.client(number, buffer=SLOW_BUFFER) for number in range(SLOW_READERS)]
    for client in mute:
        client.ask("echo", "present")
    before = server.rss_kib()
    server.reset_peak()
    window = generator.run(case.seconds, setting.stall_timeout)
    growth = server.peak_kib() - before
    beside = _rates(window)
    deadline = time.monotonic() + 2.0
    return {
        **beside,
        "own_share": beside["rate"] / alone["rate"],
        "growth_kib": growth,
        "stalled": window.stalled,
        # A server that has not cut them goes on writing to them now, and never ends them.
        "cut": sum(client.ends_by(deadline) for client in mute),
        "timeline": [round(moment, 4) for moment in window.rounds],
    }


def connect(setting: Setting, case: Case) -> Result:
    """Cycles of connect, upgrade, echo and close a second."""
    generator = load.Connects(setting.server.port, setting.dialect, case.clients)
    return _measure(setting, generator, case.seconds)


def idle(setting: Setting, case: Case) -> Result:
    """Memory, threads and descriptors of each idle client, and CPU while nothing happens."""
    server = setting.server
    threads = server.settled_threads()
    memory, descriptors = server.pss_kib(), server.descriptors()
    clients = setting.connect(case.clients)
    time.sleep(1.0)  # what the connecting left to do shall not count as idling
    cpu, started = server.cpu_seconds(), time.perf_counter()
    time.sleep(case.seconds)
    cpu, seconds = server.cpu_seconds() - cpu, time.perf_counter() - started
    count = len(clients)
    return {
        "pss_kib_each": (server.pss_kib() - memory) / count,
        "threads_each": (server.threads() - threads) / count,
        "descriptors_each": (server.descriptors() - descriptors) / count,
        "idle_cpu_percent": 100 * cpu / seconds,
    }


def host(setting: Setting, case: Case) -> Result:
    """Echo while the program that embeds the server computes in its main thread."""
    control = setting.client()
    generator = load.Echo(setting.connect(case.clients, case.size))
    alone = _loops(control, 0.5)  # the clients wait for nothing but their first answer
    generator.run(WARMUP)
    first, started = control.ask("loops", None), time.perf_counter()
    rates = _rates(generator.run(case.seconds))
    last, seconds = control.ask("loops", None), time.perf_counter() - started
    assert isinstance(first, int)
    assert isinstance(last, int)
    return {**rates, "host_share": (last - first) / seconds / alone}


def many(setting: Setting, case: Case) -> Result:
    """Connect very many clients, shout once, then stop the server."""
    started = time.perf_counter()
    clients = setting.connect(case.clients)
    connected = time.perf_counter() - started
    generator = load.Fanout(clients, case.size)
    window = generator.run(0.001, setting.stall_timeout)
    stopping = setting.server.begin_stop()
    deadline = stopping + STOP_TIMEOUT
    codes = [client.close_code(deadline) for client in clients]
    setting.close()
    seconds, exit_code = setting.server.wait(stopping, STOP_TIMEOUT + 5.0)
    return {
        "connected": len(clients),
        "connect_s": connected,
        "broadcast_s": window.latencies[0] if window.latencies else None,
        "goodbyes": codes.count(1001),
        "stop_s": seconds,
        "exit_code": exit_code,
    }


def scale(setting: Setting, case: Case) -> Result:
    """How many times as much several threads do as one, without sockets."""
    client = setting.client()
    figures = client.ask("scale", {"threads": case.clients, "seconds": case.seconds})
    assert isinstance(figures, dict)
    return figures


MODES: dict[str, Callable[[Setting, Case], Result]] = {
    "echo": echo,
    "fanout": fanout,
    "slow": slow,
    "connect": connect,
    "idle": idle,
    "host": host,
    "many": many,
    "scale": scale,
}


def _measure(
    setting: Setting,
    generator: load.Echo | load.Fanout | load.Connects,
    seconds: float,
    *arguments: float,
) -> Result:
    generator.run(WARMUP, *arguments)
    cpu, own = setting.server.cpu_seconds(), time.process_time()
    window = generator.run(seconds, *arguments)
    cpu, own = setting.server.cpu_seconds() - cpu, time.process_time() - own
    result = _rates(window)
    result["generator_percent"] = 100 * own / window.seconds
    result["server_percent"] = 100 * cpu / window.seconds
    result["stalled"] = window.stalled
    if window.messages:
        result["cpu_us"] = 1e6 * cpu / window.messages
    return result


def _rates(window: load.Window) -> Result:
    result: Result = {"messages": window.messages, "rate": window.messages / window.seconds}
    if window.latencies:
        result["p50_ms"] = 1e3 * stats.quantile(window.latencies, 0.5)
        result["p99_ms"] = 1e3 * stats.quantile(window.latencies, 0.99)
    if window.counts:
        result["fairness"] = stats.fairness(window.counts)
    return result


def _loops(control: Client, seconds: float) -> float:
    first, started = control.ask("loops", None), time.perf_counter()
    time.sleep(seconds)
    last = control.ask("loops", None)
    assert isinstance(first, int)
    assert isinstance(last, int)
    return (last - first) / (time.perf_counter() - started)
