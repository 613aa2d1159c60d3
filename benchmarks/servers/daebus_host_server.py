"""daebus inside a program whose main thread only computes.

The message type ``loops`` answers how many loops the main thread has done, so that the cost to
the host is measured as well. ``--switch SECONDS`` sets the interpreter's switch interval.
"""

import argparse
import signal
import sys
import threading
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--switch", type=float)
options = parser.parse_args()
sys.modules["orjson"] = None  # type: ignore[assignment]

from daebus import Daebus, DaebusHttp, DaebusWebSocket  # noqa: E402

app = Daebus("bench-host")
app.attach(DaebusHttp(port=options.port))
app.attach(DaebusWebSocket())
loops = 0


@app.socket("echo")
def echo(req: Any) -> Any:
    return req.data


@app.socket("loops")
def count_loops(req: Any) -> int:
    return loops


stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
if options.switch is not None:
    sys.setswitchinterval(options.switch)
with app:
    while not stopping.is_set():
        sum(n * n for n in range(1000))
        loops += 1
