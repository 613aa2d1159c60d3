"""A kiosk beside a tank: the last values of a device at a serial line, and what the program logs.

The device is simulated, and so are its moods: now and then a line is damaged, and now and then the
cable is loose. ``SPEED=10`` makes all of it ten times as quick.

Values and log are kept in ``KIOSK_FILE``, so that they outlive the program: a page shows what was
last measured, and how long ago, while the device is still silent. Pages that were open come back
by themselves; after a clean stop they go on where they were.
"""

import logging
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from daebus import Daebus, DaebusHttp, DaebusWebSocket

SPEED = float(os.environ.get("SPEED") or 1)
FILE = os.environ.get("KIOSK_FILE") or Path(__file__).with_name("kiosk.sqlite")

logger = logging.getLogger("kiosk")


class SerialError(Exception):
    """What the driver of a serial line raises when the cable is loose."""


class Device:
    """Simulate a meter that writes a line with a checksum each second."""

    def __init__(self) -> None:
        self.level, self.celsius = 62.0, 21.4
        self._lines = 0

    def readline(self) -> bytes:
        """Wait for a line, and return it."""
        app.wait(1 / SPEED)
        self._lines += 1
        if self._lines % 40 == 0:
            raise SerialError("the device does not answer")
        self.level = min(99.0, max(5.0, self.level + random.uniform(-0.8, 0.7)))
        self.celsius += random.uniform(-0.1, 0.1)
        text = f"level={self.level:.1f} celsius={self.celsius:.1f}"
        damaged = self._lines % 15 == 0
        return f"{text}*{(sum(text.encode()) + damaged) % 256:02x}\r\n".encode()


def parse(line: bytes) -> dict[str, float]:
    """Return the values of a line.

    Raises:
        ValueError: the line is damaged.
    """
    text, _, checksum = line.decode("ascii").strip().partition("*")
    if sum(text.encode()) % 256 != int(checksum, 16):
        raise ValueError(f"damaged line: {text}")
    return {name: float(value) for name, _, value in (part.partition("=") for part in text.split())}


# A page that was open while this file changed loads itself again.
app = Daebus("kiosk", version=str(Path(__file__).stat().st_mtime_ns))
port, page = int(os.environ.get("PORT") or 8082), Path(__file__).parent / "kiosk"
app.attach(DaebusHttp(port=port, static=page))
websocket = app.attach(DaebusWebSocket())
tank = websocket.state("tank", persist=FILE)
websocket.topic("log", history=100, max_age=None, persist=FILE)
logger.addHandler(websocket.log_handler("log"))
logger.setLevel(logging.INFO)


def read(device: Device) -> Iterator[dict[str, float]]:
    """Yield what the device measures, whatever happens to its cable."""
    connected = True
    while app.running:
        try:
            values = parse(device.readline())
        except ValueError as error:
            logger.warning("%s", error)
        except SerialError as error:
            logger.error("%s", error)
            connected = False
            tank["device"] = "lost"
            app.wait(5 / SPEED)
        else:
            if not connected:
                logger.info("the device is back")
            connected = True
            yield values


def main() -> None:
    started = time.time()
    before = tank.get("time")
    tank.update(device="silent", started=started)
    known = "" if before is None else f"; the last values are {started - before:.0f} s old"
    logger.info("started%s", known)
    for values in read(Device()):
        tank.update(values, device="here", time=time.time())
    logger.info("stopped")


if __name__ == "__main__":
    with app.serve():
        main()
