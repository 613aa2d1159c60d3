"""A daemon that writes down what another one measures, and leaves no reading out.

``meter.py`` is the other one. Either may be restarted, and the network may be cut: each line of
``LOG_FILE`` says where in the topic it stood, and the next run goes on behind the last line.
"""

import csv
import os
import signal
import sys
from pathlib import Path
from typing import Any

import daebus

URL = os.environ.get("METER_URL") or "http://127.0.0.1:8085/"
FILE = Path(os.environ.get("LOG_FILE") or Path(__file__).with_name("readings.csv"))
COLUMNS = ["epoch", "offset", "number", "time", "flow"]


def last_line() -> dict[str, str] | None:
    """Return what was written last, None if nothing was."""
    if not FILE.exists():
        return None
    with FILE.open(newline="") as file:
        lines = [line for line in csv.DictReader(file, COLUMNS) if None not in line.values()]
    return lines[-1] if lines else None


def follow(client: daebus.Client) -> None:
    """Write each reading once; ends when the client is closed."""
    last, since = last_line(), None
    number, time = 0, 0.0
    if last is not None:
        since = {"epoch": last["epoch"], "offset": int(last["offset"])}
        number, time = int(last["number"]), float(last["time"])
    # After a power cut of the meter nobody knows what follows the position: then the newest come
    # again, and those that were written already are told by their time.
    topic = client.topic("readings", last=1000, since=since)
    with FILE.open("a", newline="", buffering=1) as file:
        writer = csv.writer(file)
        for message in topic:
            reading: dict[str, Any] = message.data
            if reading["time"] <= time:
                continue
            if number and reading["number"] > number + 1:
                missing = reading["number"] - number - 1
                print(f"{missing} readings are lost", flush=True)
            number, time = reading["number"], reading["time"]
            position = topic.position or {}
            writer.writerow([position["epoch"], position["offset"], *reading.values()])


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    client = daebus.Client(URL, heartbeat=5, heartbeat_timeout=3, timeout=30, name="meter")

    @client.on_status
    def tell(status: daebus.ClientStatus) -> None:
        if status.status in ("open", "waiting"):
            print(f"meter: {status.status} {status.reason}".rstrip(), flush=True)

    try:
        with client:
            print("logging", client.request("describe"), "to", FILE, flush=True)
            follow(client)
    except daebus.Disconnected as error:
        sys.exit(f"there is no meter at {URL}: {error}")


if __name__ == "__main__":
    main()
