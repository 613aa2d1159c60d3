"""Many clients that one thread reads, and what came to each of them."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from typing import Any

__all__ = ["Watcher", "Watchers"]

HEAD = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
NO_MASK = bytes(4)  # a mask that changes nothing


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a frame of a client."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + NO_MASK + payload


class Watcher:
    """A client.

    Attributes:
        node: the name of the node that serves it.
        ticks: by sender, the numbers in ``tick`` messages.
        others: all other messages.
        prompt: its messages are taken as they come; otherwise when they are asked for.
        latest: the longest that a tick of its own node was underway, if it is prompt.
        is_open: it was not cut.
    """

    def __init__(self, node: str, port: int) -> None:
        self.node = node
        self.ticks: dict[str, list[int]] = {}
        self.others: list[dict[str, Any]] = []
        self.latest = 0.0
        self.prompt = True
        self.is_open = True
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.sock.sendall(HEAD)
        self._buffer = bytearray()
        while b"\r\n\r\n" not in self._buffer:
            data = self.sock.recv(4096)
            assert data, self._buffer
            self._buffer += data
        assert self._buffer.startswith(b"HTTP/1.1 101"), self._buffer
        del self._buffer[: self._buffer.index(b"\r\n\r\n") + 4]
        self.sock.setblocking(False)

    def say(self, message_type: str, data: Any, ident: int | None = None) -> None:
        """Send a message."""
        message = {"type": message_type, "data": data, "id": ident}
        self.sock.send(frame(1, json.dumps(message).encode()))

    def got(self, sender: str) -> list[int]:
        """Return the numbers that came from a node."""
        return list(self.ticks.get(sender, ()))

    def read(self) -> None:
        """Take what has come."""
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.is_open = False
        self._buffer += data
        # The rest is read when it is asked for: what came in time is not to look late because
        # hundreds of clients are read by one thread. Pings and closes are the only bytes that
        # have these values, as all text is ASCII.
        if self.prompt or b"\x89" in data or b"\x88" in data:
            self.parse()

    def parse(self) -> None:
        """Take the messages that have come whole; under the lock of all."""
        buffer, at = self._buffer, 0
        while len(buffer) - at >= 2:
            size, start = buffer[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if len(buffer) < start + size or start > len(buffer):
                break
            self._take(buffer[at] & 15, bytes(buffer[start : start + size]))
            at = start + size
        del buffer[:at]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == 9:
            self.sock.send(frame(10, payload))
        if opcode == 8:
            self.is_open = False
        if opcode != 1:
            return
        message = json.loads(payload)
        if message["type"] != "tick":
            self.others.append(message)
            return
        sender, number, moment = message["data"]
        self.ticks.setdefault(sender, []).append(number)
        if self.prompt and sender == self.node:
            self.latest = max(self.latest, time.perf_counter() - moment)


class Watchers:
    """Reads all of them; a context manager.

    Args:
        ports: of the nodes, by name.
        count: how many clients each has.
        prompt: of how many of them messages are taken as they come.
    """

    def __init__(self, ports: dict[str, int], count: int, prompt: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._alarm = os.eventfd(0)
        self._selector.register(self._alarm, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self.all: list[Watcher] = []
        self._thread = threading.Thread(target=self._run)
        for name, port in ports.items():
            for _ in range(count):
                self.add(name, port)
            for watcher in self.of(name)[prompt:]:
                watcher.prompt = False

    def __enter__(self) -> Watchers:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.eventfd_write(self._alarm, 1)
        self._thread.join()
        for watcher in self.all:
            watcher.sock.close()
        self._selector.close()
        os.close(self._alarm)

    def add(self, name: str, port: int) -> Watcher:
        """Have one client more of a node."""
        watcher = Watcher(name, port)
        with self._lock:
            self.all.append(watcher)
            watcher.parse()
            self._selector.register(watcher.sock, selectors.EVENT_READ, watcher)
        return watcher

    def parse(self) -> None:
        """Take all that has come."""
        with self._lock:
            for watcher in self.all:
                watcher.parse()

    def of(self, name: str) -> list[Watcher]:
        """Return the clients of a node."""
        return [watcher for watcher in self.all if watcher.node == name]

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                with self._lock:
                    key.data.read()
                    if not key.data.is_open:
                        with contextlib.suppress(KeyError):
                            self._selector.unregister(key.fileobj)
