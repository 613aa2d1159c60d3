"""The server that the fuzz tests attack, in a process of its own, and what it says of itself."""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import sys
import threading
from typing import Any

from daebus import Daebus, DaebusHttp, DaebusWebSocket

__all__ = ["main"]

# Small, so that a hundred clients at their limits still leave little in memory, and what is
# held beyond a limit shows.
SIZE = 64 << 10

errors: list[str] = []


class _Errors(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        errors.append(self.format(record))


def make(certfile: str | None, deflate: bool) -> Daebus:
    """Return the app: a bit of everything, with short waits and small limits."""
    app = Daebus("fuzzed")
    app.attach(
        DaebusHttp(
            port=0,
            certfile=certfile,
            head_timeout=2,
            idle_timeout=2,
            body_timeout=4,
            max_body=4 * SIZE,
            trusted_proxies=["127.0.0.1"],
            cors={"allowed_origins": ["https://example.com"]},
        )
    )
    app.attach(
        DaebusWebSocket(
            compression="deflate" if deflate else None,
            max_message_size=SIZE,
            max_outbox=4 * SIZE,
            send_timeout=2,
            close_timeout=1,
            ping_interval=1,
            ping_timeout=3,
        )
    )
    app.route("/hello")(lambda req: "hello")
    app.route("/items/<int:number>")(lambda req, number: {"number": number})
    app.route("/stream")(lambda req: (b"x" * 1000 for _ in range(20)))
    app.route("/data", methods=["POST", "PUT"])(lambda req: {"size": len(req.get_data())})

    @app.route("/form", methods=["POST"])
    def form(req: Any) -> Any:
        return {"fields": sorted(req.form), "files": sorted(req.files), "args": sorted(req.args)}

    @app.route("/json", methods=["POST"])
    def as_json(req: Any) -> Any:
        return {"is": type(req.get_json(silent=True)).__name__}

    app.socket("echo")(lambda req: req.data)
    app.socket("pool", run_in="pool")(lambda req: req.data)

    @app.socket("async")
    async def later(req: Any) -> Any:
        return req.data

    return app


def vitals(app: Daebus) -> dict[str, Any]:
    """Return what must not grow."""
    gc.collect()
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    return {
        "running": app.running,
        "clients": app.websocket.get_client_count(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "peak": int(status["VmHWM"].split()[0]) << 10,
        "errors": errors[:5],
    }


def main(certfile: str | None, deflate: bool) -> None:
    """Serve until the standard input ends; answer each line on it with the vitals."""
    faulthandler.enable()
    handler = _Errors(logging.ERROR)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    threading.excepthook = lambda args: errors.append(f"{args.thread}: {args.exc_value!r}")
    sys.unraisablehook = lambda args: errors.append(f"{args.object!r}: {args.exc_value!r}")
    app = make(certfile, deflate)
    app.start()
    print("port", app.http.port, flush=True)
    for _ in sys.stdin:
        print(json.dumps(vitals(app)), flush=True)
    app.stop(timeout=5)
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("daebus")]
    print(json.dumps(names), flush=True)
