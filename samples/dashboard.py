"""An old boiler daemon, and the few lines that give it a live page.

The daemon is ``Boiler`` and the loop in ``main``; both were there before.
Every line that daebus needs stands between the two rulers, or ends in ``# daebus``.
``SPEED=10`` makes the boiler ten times as quick.
"""

import math
import os
import threading
import time
from pathlib import Path
from typing import Any

from daebus import ClientError, Daebus, DaebusHttp, DaebusWebSocket, WebSocketRequest

STEP = 0.25  # the boiler's seconds between two readings
SPEED = float(os.environ.get("SPEED") or 1)  # how many of its seconds one of ours has
Message = dict[str, Any]


class Boiler:
    """Simulate a steam boiler with a lazy burner and a steam draw that comes in waves."""

    lowest, highest = 100, 180  # set-points in degrees Celsius that the plant allows

    def __init__(self) -> None:
        self.seconds, self.temperature, self.set_point = 0.0, 120.0, 140.0
        self.burning, self.alarm, self._heat = False, False, 0.0

    @property
    def pressure(self) -> float:
        """Saturated steam over water, in bar (Antoine's equation)."""
        return float(10 ** (8.14019 - 1810.94 / (244.485 + self.temperature)) / 750.06)

    def step(self, dt: float) -> str | None:
        """Advance by ``dt`` seconds; return the text of an alarm that came or went."""
        self.seconds += dt
        if abs(self.temperature - self.set_point) > 1:
            self.burning = self.temperature < self.set_point
        self._heat += (12 * self.burning - self._heat) * dt / 0.6
        draw = 0.025 + 0.01 * math.sin(self.seconds / 9)
        self.temperature += (self._heat - draw * (self.temperature - 20)) * dt
        limit = 7.5 if self.alarm else 8.0  # bar; the gap keeps it from ringing on and off
        if (self.pressure > limit) == self.alarm:
            return None
        self.alarm = not self.alarm
        return "pressure above 8 bar, lower the set-point" if self.alarm else "pressure is normal"

    def reading(self) -> Message:
        """Return what the daemon has always written to its log."""
        reading = {"time": time.time(), "temperature": self.temperature, "pressure": self.pressure}
        return {**reading, "set_point": self.set_point, "burning": self.burning}


boiler, lock = Boiler(), threading.Lock()  # handlers run in threads of their own

# -------------------------------------------------------------------------- daebus, from here
app = Daebus("dashboard")
port, page = int(os.environ.get("PORT") or 8080), Path(__file__).parent / "dashboard"
app.attach(DaebusHttp(port=port, static=page))
websocket = app.attach(DaebusWebSocket())
latest = websocket.state("boiler")  # a page that comes gets the last values at once
latest.update(boiler.reading(), alarm=False, pages=0, started=time.time())
readings = websocket.topic("readings", history=480)  # and the curve, also if it was away
alarms = websocket.topic("alarms", history=20, max_age=None)


@app.socket("set_point")
def change_set_point(req: WebSocketRequest) -> Message:
    value: Any = req.data.get("value") if isinstance(req.data, dict) else None
    if type(value) not in (int, float) or not boiler.lowest <= value <= boiler.highest:
        wanted = f"a number from {boiler.lowest} to {boiler.highest} °C"
        raise ClientError(f"the set-point must be {wanted}", code="bad_set_point")
    with lock:
        boiler.set_point = float(value)
    return {"set_point": float(value)}


# -------------------------------------------------------------------------- daebus, to here


def main() -> None:
    while not app.wait(STEP / SPEED):  # daebus; it was: while True, and a time.sleep()
        with lock:
            text = boiler.step(STEP)
            reading = boiler.reading()
        readings.publish(reading, "reading")  # daebus
        latest.update(reading, alarm=boiler.alarm, pages=websocket.get_client_count())  # daebus
        if text:
            alarm = {"time": reading["time"], "active": boiler.alarm, "text": text}
            alarms.publish(alarm, "alarm")  # daebus


if __name__ == "__main__":
    with app.serve():  # daebus
        main()
