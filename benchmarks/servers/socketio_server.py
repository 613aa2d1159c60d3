"""python-socketio on aiohttp, with what its users write by hand for last values and history."""

import asyncio
import sys
import time
from collections import deque
from typing import Any

import socketio
from aiohttp import web

KEYS = 1000
TICK = 0.25  # seconds between two messages of what has changed

sio = socketio.AsyncServer(async_mode="aiohttp", ping_interval=3600, max_http_buffer_size=1 << 20)
values = {f"sensor {key:03}": 0.0 for key in range(KEYS)}
news: deque[tuple[int, str]] = deque(maxlen=1000)
tasks: list[asyncio.Task[None]] = []


@sio.on("echo")
async def echo(sid: str, data: Any) -> None:
    await sio.emit("response", data, to=sid)


@sio.on("join")
async def join(sid: str, data: Any) -> None:
    await sio.enter_room(sid, "all")
    await sio.emit("response", None, to=sid)


@sio.on("subscribe")
async def subscribe(sid: str, data: Any) -> None:
    await sio.enter_room(sid, data["topic"])
    if data["topic"] == "plant":
        await sio.emit("state", {"set": values, "synced": True}, to=sid)
    else:
        missed = [m for m in news if m[0] > data["since"]["offset"]]
        await sio.emit("missed", missed, to=sid)


@sio.on("shout")
async def shout(sid: str, data: Any) -> None:
    await sio.emit("broadcast", data["text"], room="all")


@sio.on("fill")
async def fill(sid: str, data: Any) -> None:
    for text in data:
        news.append((len(news) + 1, text))
    await sio.emit("response", "", to=sid)


@sio.on("update")
async def update(sid: str, data: Any) -> None:
    tasks.append(asyncio.create_task(change()))
    await sio.emit("response", None, to=sid)


async def change() -> None:
    turn, due = 0, time.monotonic()
    while True:
        changed = {}
        for _ in range(int(1000 * TICK)):
            turn += 1
            changed[f"sensor {turn % KEYS:03}"] = turn / 10
        values.update(changed)
        await sio.emit("state", {"set": changed}, room="plant")
        due = max(due + TICK, time.monotonic() - 1)
        await asyncio.sleep(max(0.0, due - time.monotonic()))


app = web.Application()
sio.attach(app)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
