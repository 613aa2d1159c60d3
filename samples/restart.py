"""A daemon that is restarted while people look at it: it refuses nobody and loses nothing.

Two commands: the first opens the port, as a socket unit of systemd would, and starts this program
when somebody comes; the second restarts it, as does the button on its page::

    systemd-socket-activate -l 127.0.0.1:8080 .venv/bin/python samples/restart.py
    curl -X POST http://127.0.0.1:8080/restart

The port is not the program's own, so it stays open in between: who comes then waits for a moment.
The topic is kept in ``RESTART_FILE``, so pages that were there go on where they were. Open
http://127.0.0.1:8080/ and watch. ``SPREAD=5`` takes more time to send the pages away.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from daebus import Daebus, DaebusHttp, DaebusWebSocket, Request, WebSocketRequest

SPREAD = float(os.environ.get("SPREAD") or 1.0)  # seconds in which the pages are told goodbye
FILE = os.environ.get("RESTART_FILE") or Path(__file__).with_name("restart.sqlite")
SOCKET = 3  # the descriptor of the first socket that systemd passes on

started = time.time()
app = Daebus("restart", version=f"{started:.3f}")
app.attach(DaebusHttp(fd="systemd", static=Path(__file__).parent / "restart"))
websocket = app.attach(DaebusWebSocket())
ticks = websocket.topic("ticks", persist=FILE)
again = threading.Event()


@app.route("/who")
def who(req: Request) -> dict[str, Any]:
    return {"started": started, "now": time.time()}


@app.route("/restart", methods=["POST"])
def restart(req: Request) -> dict[str, Any]:
    again.set()
    return {"started": started}


@app.socket("restart")
def restart_from_the_page(req: WebSocketRequest) -> None:
    again.set()


def main() -> None:
    signal.signal(signal.SIGHUP, lambda number, frame: again.set())
    with app.serve():
        while not (app.wait(0.1) or again.is_set()):
            ticks.publish({"started": started}, "tick")
        # Told when to come back, each at another moment; who comes now waits for the next one.
        app.stop(SPREAD + 5.0, spread=SPREAD, restart=True)
    if again.is_set():
        # systemd starts a service anew with the socket that it has kept. Nobody does that
        # here, so the program does: it becomes the next one, and keeps the socket.
        os.set_inheritable(SOCKET, True)
        os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    main()
