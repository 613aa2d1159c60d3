"""The load generator: many clients in one thread on one core, with epoll and raw sockets.

Three rules keep it faster than what it measures:

1. Requests are built before the clock runs, and sent again and again.
2. The first answer of each client is parsed and checked; from then on an answer is right when its
   bytes are the same, which one comparison tells. Only other bytes go through the parser.
3. Every client waits for its answer before it asks again, so nothing piles up here.
"""

import select
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks import wire
from benchmarks.client import TIMEOUT, Client, LoadError
from benchmarks.procs import HOST

_clock = time.perf_counter


@dataclass
class Window:
    """What the generator saw in one measured window.

    Attributes:
        messages: answers or deliveries.
        seconds: how long the window was.
        latencies: seconds, one for each answer; for a fan-out one for each whole round.
        counts: messages of each client.
        stalled: a fan-out round was not complete in time.
        rounds: for a fan-out, when each round was complete, in seconds from the start.
    """

    messages: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    stalled: bool = False
    rounds: list[float] = field(default_factory=list)


class Echo:
    """Every client sends its request, waits for the answer and sends again.

    Args:
        clients: connected and idle.
    """

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = {client.sock.fileno(): client for client in clients}
        for client in clients:
            client.sock.setblocking(False)
        # A little more than one answer: a read asks for no more memory than it needs.
        self._room = max(len(client.answer) for client in clients) + 512
        for client in clients:
            client.sent = _clock()
            client.send_whole(client.request)

    def run(self, seconds: float) -> Window:
        """Go on for so long; requests under way at the end belong to the next window."""
        clients, clock, room = self._clients, _clock, self._room
        latencies: list[float] = []
        note = latencies.append
        for client in clients.values():
            client.count = 0
        with _poller(clients) as epoll:
            poll = epoll.poll
            started = now = clock()
            end = started + seconds
            while now < end:
                for descriptor, _ in poll(0.1):
                    client = clients[descriptor]
                    data = client.recv(room)
                    if data != client.answer and client.take(data) != 1:
                        continue
                    now = clock()
                    note(now - client.sent)
                    client.sent = now
                    client.count += 1
                    client.send_whole(client.request)
                now = clock()
        counts = [client.count for client in clients.values()]
        return Window(len(latencies), now - started, latencies, counts)


class Fanout:
    """The first client shouts; when everybody has heard it, it shouts again.

    Args:
        clients: connected and idle, the one who shouts first.
        size: bytes of data in each shout.
    """

    def __init__(self, clients: Sequence[Client], size: int) -> None:
        data = "y" * size
        self._shouter = clients[0]
        self._request = clients[0].dialect.request("shout", data)
        self._clients = {client.sock.fileno(): client for client in clients}
        clients[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(self._request))
        clients[0].sock.sendall(self._request)
        for client in clients:
            client.learn("broadcast", data)
            client.sock.setblocking(False)
        self._room = max(65536, len(clients[0].answer)) if size > 4096 else size + 512

    def run(self, seconds: float, stall_timeout: float = 5.0) -> Window:
        """Go on for so long, or until a round is not complete within ``stall_timeout``."""
        clients, clock, room = self._clients, _clock, self._room
        window = Window()
        with _poller(clients) as epoll:
            poll = epoll.poll
            started = now = clock()
            while now - started < seconds and not window.stalled:
                shouted = now
                self._shouter.send_whole(self._request)
                missing = len(clients)
                while missing:
                    for descriptor, _ in poll(0.1):
                        client = clients[descriptor]
                        data = client.recv(room)
                        if data == client.answer:
                            missing -= 1
                        else:
                            missing -= client.take(data)
                    now = clock()
                    if now - shouted > stall_timeout:
                        window.stalled = True
                        break
                else:
                    window.messages += len(clients)
                    window.latencies.append(now - shouted)
                    window.rounds.append(now - started)
        window.seconds = now - started
        return window


class Connects:
    """Connect, upgrade, echo, close: over and over, a number of them at a time.

    A cycle is done when the server's close frame has come (with ``lines``: the answer).

    Args:
        port: the server's.
        dialect: how it talks.
        parallel: how many at a time.
    """

    def __init__(self, port: int, dialect: wire.Dialect, parallel: int) -> None:
        self._address = (HOST, port)
        self._dialect = dialect
        self._parallel = parallel
        self._upgrade, self._accept = wire.upgrade_request(HOST, port)
        self._echo = dialect.request("echo", "x" * 64)
        self._goodbye = wire.frame((1000).to_bytes(2), wire.CLOSE)

    def run(self, seconds: float) -> Window:
        """Begin new cycles for so long; the window ends with the last one begun."""
        window = Window()
        started = now = _clock()
        end = started + seconds
        cycles: dict[int, _Cycle] = {}
        with select.epoll() as epoll, ExitStack() as leftovers:
            leftovers.callback(_close_all, cycles)
            while now < end or cycles:
                while now < end and len(cycles) < self._parallel:
                    cycle = self._begin(now)
                    cycles[cycle.sock.fileno()] = cycle
                    epoll.register(cycle.sock.fileno(), select.EPOLLIN)
                for descriptor, _ in epoll.poll(0.1):
                    cycle = cycles[descriptor]
                    if self._advance(cycle):
                        del cycles[descriptor]
                        cycle.sock.close()
                        window.messages += 1
                        window.latencies.append(_clock() - cycle.started)
                now = _clock()
                if now > end + TIMEOUT:
                    raise LoadError(f"{len(cycles)} connections hang after {TIMEOUT} s")
        window.seconds = now - started
        return window

    def _begin(self, now: float) -> "_Cycle":
        # On the loopback a connect is done at once unless the backlog is full.
        sock = socket.create_connection(self._address, timeout=TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(self._upgrade if self._dialect.has_handshake else self._echo)
        sock.setblocking(False)
        return _Cycle(sock, now, self._dialect.reader(), not self._dialect.has_handshake)

    def _advance(self, cycle: "_Cycle") -> bool:
        data = cycle.sock.recv(4096)
        if not data:
            raise LoadError("the server closed the connection before its time")
        if not cycle.upgraded:
            cycle.head += data
            head, found, data = cycle.head.partition(b"\r\n\r\n")
            if not found:
                return False
            wire.check_upgrade(head, self._accept)
            cycle.upgraded = True
            cycle.sock.sendall(self._echo)
        for opcode, _ in cycle.reader.feed(data):
            if opcode == wire.CLOSE:
                return True
            if opcode in (wire.TEXT, wire.BINARY):
                if not self._dialect.has_handshake:
                    return True
                cycle.sock.sendall(self._goodbye)
        return False


def _close_all(cycles: Mapping[int, "_Cycle"]) -> None:
    for cycle in cycles.values():
        cycle.sock.close()


def _poller(descriptors: Iterable[int]) -> select.epoll:
    epoll = select.epoll()
    for descriptor in descriptors:
        epoll.register(descriptor, select.EPOLLIN)
    return epoll


@dataclass(slots=True)
class _Cycle:
    sock: socket.socket
    started: float
    reader: wire.Reader
    upgraded: bool
    head: bytes = b""
