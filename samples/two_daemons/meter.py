"""A daemon that measures: a reading each quarter of a second, for whoever wants them.

It keeps the last thousand in ``METER_FILE``, so that whoever was away, or comes back after this
daemon was restarted, gets what it has missed.
"""

import math
import os
import time
from pathlib import Path

from daebus import Daebus, DaebusHttp, DaebusWebSocket, WebSocketRequest

FILE = os.environ.get("METER_FILE") or Path(__file__).with_name("meter.sqlite")

app = Daebus("meter")
app.attach(DaebusHttp(port=int(os.environ.get("PORT") or 8085)))
websocket = app.attach(DaebusWebSocket())
readings = websocket.topic("readings", history=1000, max_age=None, persist=FILE)


@app.socket("describe")
def describe(req: WebSocketRequest) -> dict[str, str]:
    return {"what": "flow", "unit": "l/min"}


def main() -> None:
    newest = readings.history(1)
    number = newest[0].data["number"] if newest else 0
    while not app.wait(0.25):
        number += 1
        now = time.time()
        flow = round(12 + 3 * math.sin(now / 5), 2)
        readings.publish({"number": number, "time": now, "flow": flow}, "reading")


if __name__ == "__main__":
    with app.serve():
        main()
