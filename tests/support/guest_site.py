"""An app that is a guest of other servers, in a process of its own.

``application`` is for gunicorn; ``python -m tests.support.guest_site waitress`` serves it with
waitress and prints the port.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

from daebus import Daebus, DaebusHttp, DaebusRedis, DaebusWebSocket, NoClientError


def make_app(**options: Any) -> Daebus:
    """Make an app that tells what it sees."""
    app = Daebus("guest")
    app.attach(DaebusHttp())
    app.attach(DaebusWebSocket(**options))
    if "DAEBUS_REDIS" in os.environ:
        app.attach(DaebusRedis(os.environ["DAEBUS_REDIS"], node="guest"))
    events: list[str] = []

    @app.route("/hello")
    def hello(req: Any) -> Any:
        return {"hello": req.args.get("name", "world"), "remote": req.remote_addr}

    @app.route("/post", methods=["POST"])
    def post(req: Any) -> Any:
        return {"size": len(req.get_data())}

    @app.route("/async")
    async def coroutine(req: Any) -> Any:
        await asyncio.sleep(0)
        return {"thread": threading.current_thread().name}

    @app.route("/lines")
    def lines(req: Any) -> Iterable[bytes]:
        return (b"line\n" for _ in range(3))

    @app.route("/look")
    def look(req: Any) -> Any:
        try:
            app.websocket.send("nobody")
            client = True
        except NoClientError:
            client = False
        return {
            "thread": threading.current_thread().name,
            "client": client,
            "events": events,
            "pid": os.getpid(),
            "stats": app.stats(),
        }

    @app.route("/shout")
    def shout(req: Any) -> Any:
        return {"reached": app.websocket.broadcast_to_all("to all")}

    @app.socket("echo")
    def echo(req: Any) -> Any:
        return req.data

    @app.socket("shout to all")
    def shout_to_all(req: Any) -> Any:
        sent = app.websocket.broadcast_to_all(f"{req.data} from {os.getpid()}")
        return [sent, sent.nodes]

    @app.socket("pid")
    def pid(req: Any) -> Any:
        return os.getpid()

    @app.socket("thread")
    def thread(req: Any) -> Any:
        return threading.current_thread().name

    @app.socket("async")
    async def async_handler(req: Any) -> Any:
        return threading.current_thread().name

    @app.websocket.raw("/raw")
    def raw(connection: Any) -> None:
        connection.send(f"{connection.path} from {connection.remote_address}")

    @app.websocket.on_connect
    def came(client_id: str) -> None:
        events.append("came")

    @app.websocket.on_disconnect
    def left(client_id: str, info: Any) -> None:
        events.append(info.reason)

    return app


application = make_app().wsgi

if __name__ == "__main__" and sys.argv[1] == "waitress":
    from waitress.server import create_server  # type: ignore[import-untyped]

    server = create_server(application, host="127.0.0.1", port=0, threads=4)
    print(server.effective_port, flush=True)
    server.run()
