"""daebus with topics: a state of 1,000 keys, a history of 1,000 messages, and a room beside them.

``--plain`` leaves them out, for an echo of an app without topics.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--plain", action="store_true")
options = parser.parse_args()
# As in daebus_server.py: all servers here use the JSON of the standard library.
sys.modules["orjson"] = None  # type: ignore[assignment]

from daebus import Daebus, DaebusHttp, DaebusWebSocket, State, Topic  # noqa: E402

KEYS = 1000
TICK = 0.01  # seconds between two bursts of updates

app = Daebus("bench-topics")
app.attach(DaebusHttp(port=options.port))
websocket = app.attach(
    DaebusWebSocket(max_clients=20_000, max_clients_per_ip=20_000, ping_interval=None)
)
updating = threading.Event()
topics: dict[str, Topic] = {}
plant: State | None = None
if not options.plain:
    plant = websocket.state("plant", min_interval=0.25)
    plant.update({f"sensor {key:03}": 0.0 for key in range(KEYS)})
    topics["news"] = websocket.topic("news", history_bytes=16 << 20, max_age=None)
    topics["bounded"] = websocket.topic("bounded")
    for number in range(50):
        websocket.topic(f"many {number}")


@app.socket("echo")
def echo(req: Any) -> Any:
    return req.data


@app.socket("join")
def join(req: Any) -> None:
    websocket.join(req.client_id, "all")
    websocket.send(None, "response")


@app.socket("shout")
def shout(req: Any) -> None:
    """Send a text to the room, or to the topic named."""
    if req.data["to"] in topics:
        topics[req.data["to"]].publish(req.data["text"])
    else:
        websocket.broadcast_to_room("all", req.data["text"])


@app.socket("fill")
def fill(req: Any) -> str:
    """Publish texts to the history; return its epoch."""
    for text in req.data:
        topics["news"].publish(text)
    return topics["news"].epoch


@app.socket("update")
def update(req: Any) -> None:
    """Change 1,000 values a second from now on, each for itself."""
    updating.set()
    websocket.send(None, "response")


@app.socket("crowd")
def crowd(req: Any) -> int:
    """Subscribe every client to 50 topics; return how many subscriptions that made."""
    done = 0
    for number in range(50):
        for client in websocket.get_clients():
            done += websocket.subscribe(client, f"many {number}")
    return done


@app.thread("plant")
def change(running: Callable[[], bool]) -> None:
    turn, due = 0, time.monotonic()
    while plant is not None and running():
        if not updating.wait(0.5):
            continue
        for _ in range(10):
            turn += 1
            plant[f"sensor {turn % KEYS:03}"] = turn / 10
        due = max(due + TICK, time.monotonic() - 1)
        time.sleep(max(0.0, due - time.monotonic()))


app.run()
