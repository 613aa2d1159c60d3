"""daebus under attack: the host broadcasts all the time, and tells how long that takes.

``--http JSON`` and ``--websocket JSON`` are arguments of the components, as objects.
"""

import argparse
import json
import signal
import threading
import time
from typing import Any

from daebus import Daebus, DaebusHttp, DaebusWebSocket

TICK = 0.02  # seconds between two broadcasts

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--http", type=json.loads, default={})
parser.add_argument("--websocket", type=json.loads, default={})
options = parser.parse_args()

app = Daebus("bench-attacked")
app.attach(DaebusHttp(port=options.port, **options.http))
app.attach(DaebusWebSocket(**options.websocket))
durations: list[float] = []


@app.route("/small")
def small(req: Any) -> str:
    return "small"


@app.socket("echo")
def echo(req: Any) -> Any:
    return req.data


@app.socket("sink")
def sink(req: Any) -> None:
    """Take a message and say nothing."""


@app.socket("busy")
def busy(req: Any) -> None:
    """Keep the client's thread until the client has gone."""
    req.cancelled.wait()


@app.route("/durations")
def tell_durations(req: Any) -> list[float]:
    taken = durations[:]
    del durations[: len(taken)]
    return taken


stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
with app:
    while not stopping.wait(TICK):
        started = time.perf_counter()
        app.websocket.broadcast_to_all("tick")
        durations.append(time.perf_counter() - started)
