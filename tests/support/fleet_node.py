"""A node in a process of its own: ``fleet_node.py URL NAME OPTIONS``.

Reads orders from its standard input, one JSON list in a line, and answers each with one line:
``begin``, ``end``, ``stats`` and others, see ``Program``. It ends with its input. The option
``ahead`` sets the clock of this process ahead by so many seconds.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

ROOM = "floor 3"


def set_clock(ahead: float) -> None:
    """Have everything that reads the time of day in this process read another one."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + ahead
    time.time_ns = lambda: real_ns() + int(ahead * 1e9)


class Program:
    """The app, and a thread that sends.

    Args:
        url: of the server.
        name: of the node.
        options: for ``DaebusRedis``.
    """

    def __init__(self, url: str, name: str, **options: Any) -> None:
        from daebus import Daebus, DaebusHttp, DaebusRedis, DaebusWebSocket  # sees the clock

        self.name = name
        self.app = Daebus("fleet")
        self.app.attach(DaebusHttp(port=0))
        self.websocket = self.app.attach(DaebusWebSocket())
        self.app.attach(DaebusRedis(url, node=name, **options))
        self.log = self.websocket.topic("log", max_age=600.0)
        self.now = self.websocket.state("now")
        self.websocket.presence(ROOM, grace=0)
        self.gaps: dict[str, int] = {}
        self.downs: list[float] = []
        self.outcomes: list[Any] = []
        self.sent = self.published = 0
        self.slowest = 0.0
        self._flow: threading.Thread | None = None
        self._halt = threading.Event()
        self.websocket.on_connect(self._enter)
        self.websocket.on_backplane(self._note)

    def _enter(self, client: str) -> None:
        self.websocket.join(client, ROOM)

    def _note(self, event: str, info: Any) -> None:
        if event == "gap":
            self.gaps[info.node] = self.gaps.get(info.node, 0) + info.missed
        elif event == "up":
            self.downs.append(round(info.seconds, 3))

    # --- orders -----------------------------------------------------------------------

    def begin(self, pause: float) -> None:
        """Send a message to everybody or to the room after each pause, and publish some."""
        self.slowest = 0.0
        self._halt.clear()
        self._flow = threading.Thread(target=self._run, args=(pause,))
        self._flow.start()

    def _run(self, pause: float) -> None:
        while not self._halt.wait(pause):
            began = time.perf_counter()
            self.sent += 1
            data = [self.name, self.sent, began]
            if self.sent % 2:
                self.websocket.broadcast_to_all(data, "tick")
            else:
                self.websocket.broadcast_to_room(ROOM, data, "tick")
            if not self.sent % 4:
                self.say()
            self.slowest = max(self.slowest, time.perf_counter() - began)

    def say(self) -> int:
        """Publish once, and note it in the state."""
        self.published += 1
        self.log.publish([self.name, self.published], "said")
        self.now[self.name] = self.published
        return self.published

    def end(self) -> dict[str, Any]:
        """Send no more."""
        self._halt.set()
        if self._flow is not None:
            self._flow.join()
        return self.stats()

    def stats(self) -> dict[str, Any]:
        """Tell everything."""
        stats = self.app.stats()
        return {
            **stats["backplane"],
            "sent": self.sent,
            "published": self.published,
            "slowest": self.slowest,
            "clients": len(self.websocket.get_clients()),
            "gaps": self.gaps,
            "downs": self.downs,
            "epoch": self.log.epoch,
            "offset": self.log.offset,
            "present": len(self.websocket.get_presence(ROOM)),
            "state": dict(self.now),
            "threads": threading.active_count(),
            "descriptors": len(os.listdir("/proc/self/fd")),
        }

    def everybody(self) -> list[str]:
        """Tell the ids of the clients, in the order in which they came."""
        return self.websocket.get_clients()

    def call(self, client: str, timeout: float) -> None:
        """Ask a client in a thread; ``outcomes`` tells what came of it, and after how long."""

        def ask() -> None:
            began = time.perf_counter()
            try:
                outcome: Any = self.websocket.call(client, "question", timeout=timeout)
            except Exception as exc:
                outcome = type(exc).__name__
            self.outcomes.append([outcome, time.perf_counter() - began])

        threading.Thread(target=ask).start()

    def keep(self, key: str, ttl: float) -> None:
        """Note something in the state that does not last."""
        self.now.set(key, "short", ttl=ttl)

    def run(self) -> None:
        """Carry out orders until there are no more."""
        with self.app:
            print(json.dumps(self.app.http.port), flush=True)
            for line in sys.stdin:
                order, *arguments = json.loads(line)
                found = getattr(self, order)
                answer = found(*arguments) if callable(found) else found
                print(json.dumps(answer), flush=True)
            self.end()


if __name__ == "__main__":
    given = json.loads(sys.argv[3])
    set_clock(given.pop("ahead", 0.0))
    Program(sys.argv[1], sys.argv[2], **given).run()
