"""python-socketio as one of two nodes: threads, Werkzeug's server, and ``RedisManager``."""

import argparse
import time
from typing import Any

import socketio
from werkzeug.serving import run_simple

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--redis")
options = parser.parse_args()

sio = socketio.Server(
    async_mode="threading",
    ping_interval=3600,
    max_http_buffer_size=1 << 20,
    client_manager=socketio.RedisManager(options.redis) if options.redis else None,
)


@sio.on("echo")
def echo(sid: str, data: Any) -> None:
    sio.emit("response", data, to=sid)


@sio.on("join")
def join(sid: str, data: Any) -> None:
    sio.enter_room(sid, "all")
    sio.emit("response", None, to=sid)


@sio.on("shout")
def shout(sid: str, data: Any) -> None:
    for _ in range(data["count"]):
        sio.emit("broadcast", f"#{data['mark']} {time.perf_counter():.7f}#", room="all")


run_simple("127.0.0.1", options.port, socketio.WSGIApp(sio), threaded=True)
