"""Connections without a socket: a transport that takes as much as a test allows."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from daebus.server.sockets.transport import Transport
from daebus.server.threads.fairpool import FairPool
from daebus.server.threads.loop import LoopThread
from daebus.server.threads.minder import Minder, Timer
from daebus.server.threads.pump import Pump
from daebus.websocket.connection.limits import Limits
from daebus.websocket.connection.link import Link, Peer
from daebus.websocket.connection.writer import Writer
from daebus.websocket.protocol.codec import Codec
from daebus.websocket.runtime import Runtime


class FakeTransport:
    """Takes what there is room for, and gives what was put into ``incoming``.

    Attributes:
        room: bytes that it still takes; None takes everything.
        broken: what a send or read raises; None for nothing.
        sent: all that was taken.
        incoming: one item for each read; empty bytes are the end of the stream.
    """

    def __init__(self) -> None:
        self.room: int | None = None
        self.broken: OSError | None = None
        self.sent = bytearray()
        self.incoming: deque[bytes] = deque()
        self.calls: list[str] = []

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        if self.broken is not None:
            raise self.broken
        if self.room == 0:
            raise BlockingIOError
        taken = bytes(data if self.room is None else data[: self.room])
        if self.room is not None:
            self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def try_send(self, data: bytes | memoryview) -> int:
        try:
            return self.send(data)
        except BlockingIOError:
            return 0

    def recv(self, size: int) -> bytes:
        if self.broken is not None:
            raise self.broken
        return self.incoming.popleft()

    def read(self) -> bytes:
        return self.recv(0)

    def try_recv(self, size: int = 0) -> bytes | None:
        return self.recv(size) if self.incoming or self.broken else None

    def recv_until(self, deadline: float) -> bytes | None:
        return self.try_recv()

    def wait_readable(self, timeout: float | None) -> bool:
        return bool(self.incoming)

    def fileno(self) -> int:
        return 99

    def abort(self) -> None:
        self.calls.append("abort")

    def close(self) -> None:
        self.calls.append("close")

    def shutdown_read(self) -> None:
        self.calls.append("shutdown_read")

    def shutdown_write(self) -> None:
        self.calls.append("shutdown_write")


class FakeMinder:
    """Notes what it is asked for; a test calls what is due."""

    def __init__(self) -> None:
        self.clock = time.monotonic
        self.timers: list[tuple[float, Timer]] = []
        self.attended: list[Any] = []
        self.released: list[Any] = []

    def call_later(self, seconds: float, callback: Any) -> Timer:
        timer = Timer(callback)
        self.timers.append((seconds, timer))
        return timer

    def due(self) -> list[tuple[float, Callable[[], object]]]:
        """Return the calls that are not cancelled, each with its seconds."""
        return [(s, timer.callback) for s, timer in self.timers if timer.callback is not None]

    def attend(self, target: Any) -> None:
        self.attended.append(target)

    def release(self, target: Any) -> None:
        self.released.append(target)


class FakeWatch:
    """Counts how often it was roused."""

    def __init__(self) -> None:
        self.dozing = False
        self.roused = 0

    def rouse(self) -> None:
        self.roused += 1


def make_runtime(minder: FakeMinder | None = None) -> Runtime:
    """Make a runtime none of whose threads is started."""
    fake = cast(Minder, minder or FakeMinder())
    return Runtime(fake, LoopThread(), FairPool("daebus-job", 1, 1), Pump(1.0))


def make_codec(limits: Limits) -> Codec:
    return Codec(max_message_size=limits.max_message_size, max_fragments=limits.max_fragments)


def make_writer(
    transport: FakeTransport, limits: Limits | None = None, minder: FakeMinder | None = None
) -> Writer:
    """Make the sending half of a connection that is open; this thread owns it."""
    limits = limits or Limits()
    writer = Writer(cast(Transport, transport), make_codec(limits), limits, make_runtime(minder))
    assert writer.begin(b"101")
    assert writer.owner == threading.get_ident()
    transport.sent.clear()
    return writer


def make_link(
    client_id: str,
    transport: Any = None,
    limits: Limits | None = None,
    minder: FakeMinder | None = None,
) -> Link:
    """Make a connection that nobody runs."""
    limits = limits or Limits()
    link = Link(
        cast(Transport, transport or FakeTransport()),
        make_codec(limits),
        limits,
        make_runtime(minder),
        Peer(),
        watch=FakeWatch(),
        on_gone=lambda link: None,
        on_overflow=lambda link, info: None,
    )
    link.client_id = client_id
    return link
