"""A meter as a service: the program that the other files in this folder run, or stand before.

What differs from place to place comes from the environment:

* ``METER_LISTEN``: a port, or the path of a socket file; left out under a socket unit of systemd.
* ``METER_HOST``: the address to listen on with a port; this machine alone if it is left out.
* ``METER_NAMES``: the public names of the site, with spaces between them.
* ``METER_PROXIES``: whose headers count, such as ``unix`` or ``10.0.0.0/8``, with spaces.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from daebus import Daebus, DaebusHttp, DaebusWebSocket, Request, WebSocketRequest


def where() -> dict[str, Any]:
    """Return the arguments that say where to listen."""
    listen = os.environ.get("METER_LISTEN", "")
    if not listen:
        return {"fd": "systemd"}
    if listen.isdecimal():
        return {"port": int(listen), "host": os.environ.get("METER_HOST", "127.0.0.1")}
    return {"unix": listen, "unix_mode": 0o660}


app = Daebus("meter")
app.attach(
    DaebusHttp(
        allowed_hosts=os.environ.get("METER_NAMES", "meter.example.com").split(),
        trusted_proxies=os.environ.get("METER_PROXIES", "unix").split(),
        **where(),
    )
)
websocket = app.attach(DaebusWebSocket())
signals: list[int] = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: signals.append(number))


@app.route("/")
def index(req: Request) -> Any:
    """Say who asks, and for what, as proxies tell it."""
    return {"client": req.remote_addr, "url": req.url_root}


@app.socket("who")
def who(req: WebSocketRequest) -> Any:
    """The same for a WebSocket."""
    return {"client": req.websocket.remote_address, "secure": req.websocket.secure}


app.start(notify=True)
try:
    while not signals:
        websocket.broadcast_to_all("still measuring")
        app.heartbeat()
        app.wait(0.2)
finally:
    # The pages leave within two seconds, and are told when to come back.
    app.stop(timeout=10, spread=2, restart=True)
