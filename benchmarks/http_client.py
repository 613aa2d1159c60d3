"""The client that asks where there is no wrk: one thread, many connections."""

import contextlib
import re
import selectors
import socket
import time

from benchmarks import stats
from benchmarks.client import TIMEOUT, LoadError
from benchmarks.modes import Result
from benchmarks.procs import HOST

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


class _Connection:
    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection((HOST, port), timeout=TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.sent = 0.0


def ends(answer: bytes) -> bool | None:
    """Tell whether the connection ends after this answer; None if it is not whole.

    Raises:
        LoadError: it is no 200 with a length, or there is more than one.
    """
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return None
    head += b"\r\n"
    length = _LENGTH.search(head)
    if head.split(b" ", 2)[1:2] != [b"200"] or length is None or len(body) > int(length[1]):
        raise LoadError(f"wrong answer: {answer!r:.200}")
    if len(body) < int(length[1]):
        return None
    return head.startswith(b"HTTP/1.0") or _CLOSE.search(head) is not None


def run(port: int, path: str, connections: int, seconds: float, *, fresh: bool) -> Result:
    """Ask on that many connections, each again once it has its answer; see ``wrk``.

    Args:
        port: of the server.
        path: of a GET.
        connections: at once.
        seconds: of the measured window.
        fresh: a new connection for each request.
    """
    extra = "Connection: close\r\n" if fresh else ""
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{extra}\r\n".encode()
    latencies: list[float] = []
    failures = 0
    selector = selectors.DefaultSelector()

    def ask(connection: _Connection) -> None:
        connection.buffer = b""
        connection.sent = time.perf_counter()
        connection.sock.sendall(request)

    def begin() -> None:
        connection = _Connection(port)
        selector.register(connection.sock, selectors.EVENT_READ, connection)
        ask(connection)

    def end(connection: _Connection) -> None:
        selector.unregister(connection.sock)
        connection.sock.close()

    started = time.perf_counter()
    try:
        for _ in range(connections):
            begin()
        while (left := started + seconds - time.perf_counter()) > 0:
            for key, _ in selector.select(left):
                connection: _Connection = key.data
                data = b""
                with contextlib.suppress(ConnectionError):
                    data = connection.sock.recv(1 << 18)
                connection.buffer += data
                if not data:  # it was kept, and the server has closed it meanwhile
                    failures += 1
                    end(connection)
                    begin()
                    continue
                last = ends(connection.buffer)
                if last is None:
                    continue
                latencies.append(time.perf_counter() - connection.sent)
                if last:
                    end(connection)
                    begin()
                else:
                    ask(connection)
        took = time.perf_counter() - started
    finally:
        for key in list(selector.get_map().values()):
            end(key.data)
        selector.close()
    result: Result = {"messages": len(latencies), "rate": len(latencies) / took}
    if latencies:
        result["p50_ms"] = 1e3 * stats.quantile(latencies, 0.5)
        result["p99_ms"] = 1e3 * stats.quantile(latencies, 0.99)
    result["failures"] = failures
    return result
