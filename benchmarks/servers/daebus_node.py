"""daebus as one of two nodes, with a room, a topic and, with ``--redis``, a backplane.

``--redis URL`` joins it with the other node; without it each node is alone.
"""

import argparse
import sys
import time
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--redis")
options = parser.parse_args()
# As in daebus_server.py: all servers here use the JSON of the standard library.
sys.modules["orjson"] = None  # type: ignore[assignment]

from daebus import Daebus, DaebusHttp, DaebusRedis, DaebusWebSocket  # noqa: E402

app = Daebus("bench-nodes")
app.attach(DaebusHttp(port=options.port))
websocket = app.attach(
    DaebusWebSocket(max_clients=20_000, max_clients_per_ip=20_000, ping_interval=None)
)
if options.redis:
    app.attach(DaebusRedis(options.redis))
news = websocket.topic("news")


@app.socket("echo")
def echo(req: Any) -> Any:
    return req.data


@app.socket("join")
def join(req: Any) -> None:
    websocket.join(req.client_id, "all")
    websocket.send(None, "response")


@app.socket("shout")
def shout(req: Any) -> None:
    """Send so many texts to the room, one right after the other."""
    for _ in range(req.data["count"]):
        websocket.broadcast_to_room("all", f"#{req.data['mark']} {time.perf_counter():.7f}#")


@app.socket("publish")
def publish(req: Any) -> None:
    """Publish so many texts to the topic; the last one has the mark."""
    for number in range(req.data["count"]):
        last = number == req.data["count"] - 1
        mark = req.data["mark"] if last else 0
        news.publish(f"#{mark} {time.perf_counter():.7f}#")


app.run()
