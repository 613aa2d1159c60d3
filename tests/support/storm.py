"""Broadcasts of several threads onto WebSockets whose clients send meanwhile; all is checked."""

from __future__ import annotations

import json
import random
import ssl
import sys
import threading
import time
from dataclasses import dataclass

from daebus import Daebus, DaebusHttp, DaebusWebSocket
from tests.support.peer import TEXT, Peer, envelope
from tests.support.tls import client_context, dial, narrow, secure
from tests.support.waiting import eventually

# Sizes of payloads: one packet, several records, more than the kernel takes at once.
SIZES = (1, 10, 200, 5000, 20_000, 40_000, 100_000)


# Messages that each client sends at least.
LEAST = 20


def filler(name: int, number: int) -> str:
    """Return what message ``number`` of ``name`` carries; both ends can tell."""
    size = SIZES[(name * 7 + number) % len(SIZES)]
    word = f"{name}.{number} "
    return (word * (size // len(word) + 1))[:size]


@dataclass
class Outcome:
    """What was checked: each message by content and order."""

    broadcasts: int = 0
    echoes: int = 0


class StormClient(threading.Thread):
    """One client: sends a burst, reads until it is answered, checks all that comes."""

    def __init__(
        self, number: int, port: int, broadcasters: int, pause: float, context: ssl.SSLContext
    ) -> None:
        super().__init__(name=f"storm-client-{number}")
        self.number = number
        self.outcome = Outcome()
        self.error: BaseException | None = None
        self._port = port
        self._pause = pause
        self._tls = context
        self._next = dict.fromkeys(range(broadcasters), 0)
        self._open = set(range(broadcasters))
        self._answers = 0

    def run(self) -> None:
        try:
            sock = dial(
                self._port,
                self._tls,
                receive_buffer=4096 if self.number % 3 == 0 else None,
            )
            with sock:
                self._talk(Peer.joined(sock))
        except BaseException as exc:
            self.error = exc

    def _talk(self, peer: Peer) -> None:
        peer.sock.settimeout(30)
        rng = random.Random(self.number)
        while self._open or self._answers < LEAST:
            burst = rng.randrange(1, 6)
            first = self._answers
            for number in range(first, first + burst):
                peer.sock.sendall(envelope("echo", filler(1000 + self.number, number)[:30_000]))
            while self._answers < first + burst:
                self._check(*peer.frame())
            if self._pause and self._open:
                threading.Event().wait(self._pause)

    def _check(self, opcode: int, payload: bytes) -> None:
        assert opcode == TEXT, (opcode, payload[:100])
        message = json.loads(payload)
        data = message["data"]
        if message["type"] == "response":
            assert data == filler(1000 + self.number, self._answers)[:30_000]
            self._answers += 1
            self.outcome.echoes += 1
            return
        name, number, text = data
        assert number == self._next[name]  # none is missing, none comes twice
        self._next[name] = number + 1
        if text is None:
            self._open.discard(name)
        else:
            assert text == filler(name, number)
            self.outcome.broadcasts += 1


def storm(
    seconds: float,
    *,
    rounds: int = sys.maxsize,
    clients: int = 6,
    broadcasters: int = 3,
    pause: float = 0.001,
) -> Outcome:
    """Run it for so long; raise if a message is missing, doubled, out of order or changed.

    Args:
        seconds: of broadcasting, at most.
        rounds: messages of each broadcaster, at most.
        clients: each sends as fast as it is answered, but for the pause.
        broadcasters: threads.
        pause: seconds between two sends of a thread.
    """
    app = Daebus("storm")
    app.attach(DaebusHttp(port=0, **secure()))
    # All must arrive, on a machine that does other things as well.
    app.attach(DaebusWebSocket(max_outbox=256 << 20, max_outbox_messages=10**6, ping_timeout=None))
    app.socket("echo")(lambda req: req.data)
    outcome = Outcome()
    with app:
        narrow(app)  # so that writes stop in the middle of records
        context = client_context()
        crowd = [
            StormClient(number, app.http.port, broadcasters, pause, context)
            for number in range(clients)
        ]
        for client in crowd:
            client.start()
        assert eventually(lambda: app.websocket.get_client_count() == clients, 30)
        until = time.monotonic() + seconds
        threads = [
            threading.Thread(target=_broadcast, args=(app, name, until, rounds, pause))
            for name in range(broadcasters)
        ]
        for thread in threads:
            thread.start()
        for thread in [*threads, *crowd]:
            thread.join(seconds + 60)
            assert not thread.is_alive(), thread.name
        for client in crowd:
            if client.error is not None:
                raise client.error
            outcome.broadcasts += client.outcome.broadcasts
            outcome.echoes += client.outcome.echoes
    return outcome


def _broadcast(app: Daebus, name: int, until: float, rounds: int, pause: float) -> None:
    number = 0
    while number < rounds and time.monotonic() < until:
        app.websocket.broadcast_to_all([name, number, filler(name, number)])
        number += 1
        if pause:
            threading.Event().wait(pause)
        _wait_for_room(app, until)
    app.websocket.broadcast_to_all([name, number, None])


def _wait_for_room(app: Daebus, until: float) -> None:
    """Keep what waits bounded: the test is about records, not about slow clients."""
    while app.websocket.stats()["queued_bytes"] > 1 << 20 and time.monotonic() < until:
        threading.Event().wait(0.01)


__all__ = ["Outcome", "storm"]
