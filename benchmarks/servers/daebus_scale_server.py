"""daebus without sockets: how much faster two threads answer messages than one.

The message type ``scale`` measures it in this process: each thread has a connection whose
socket is made up, and all share one app, as connections do. The rounds alternate, since the
machine may be slower in one second than in the next.
"""

import statistics
import sys
import threading
import time
from typing import Any

sys.modules["orjson"] = None  # type: ignore[assignment]

from daebus import Daebus, DaebusHttp, DaebusWebSocket  # noqa: E402
from daebus.websocket.connection.limits import Limits  # noqa: E402
from daebus.websocket.connection.link import Link, Peer  # noqa: E402
from daebus.websocket.messages.activity import Activity, current  # noqa: E402
from daebus.websocket.messages.dispatcher import Dispatcher  # noqa: E402
from daebus.websocket.protocol.codec import Codec  # noqa: E402
from daebus.websocket.runtime import Runtime  # noqa: E402
from daebus.websocket.stats import Stats  # noqa: E402

MESSAGES = 2000
TEXT = b'{"type":"echo","data":"%b"}' % (b"x" * 64)
MASK = b"\x5a\x0f\xc3\x81"
FRAME = bytes((0x81, 0x80 | len(TEXT))) + MASK + bytes(b ^ MASK[i % 4] for i, b in enumerate(TEXT))

dispatcher, stats, limits = Dispatcher(), Stats(), Limits(ping_interval=None)
dispatcher.table.add("echo", lambda req: req.data)


class MadeUp:
    """A socket that has so many messages, a minder and a watch: whatever a connection needs."""

    dozing = False

    def __init__(self) -> None:
        self.left = MESSAGES

    def read(self) -> bytes:
        self.left -= 1
        return bytes(bytearray(FRAME)) if self.left >= 0 else b""  # new each time, as of recv

    def send(self, data: bytes, flags: int = 0) -> int:
        return len(data)

    try_send = send

    def nothing(self, *_: Any) -> None:
        """Do nothing."""

    abort = close = call_later = attend = nothing


def answer(start: threading.Barrier, spans: list[tuple[float, float]]) -> None:
    made_up: Any = MadeUp()
    link = Link(
        made_up, Codec(max_message_size=1 << 20, max_fragments=100), limits,
        Runtime(made_up, made_up, made_up, made_up), Peer(), watch=made_up,
        on_gone=made_up.nothing, on_overflow=made_up.nothing,
    )  # fmt: skip
    activity = Activity(link, stats)
    current.set(activity)
    link.begin(b"101", b"", None)
    handle = dispatcher.handle
    start.wait()
    began = time.perf_counter()
    for message in link.reader.messages():
        handle(activity, message)
    spans.append((began, time.perf_counter()))


def seconds_of(count: int) -> float:
    start, spans = threading.Barrier(count), list[tuple[float, float]]()
    threads = [threading.Thread(target=answer, args=(start, spans)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(end for _, end in spans) - min(began for began, _ in spans)


app = Daebus("bench-scale")
app.attach(DaebusHttp(port=int(sys.argv[1])))
app.attach(DaebusWebSocket())


@app.socket("scale")
def scale(req: Any) -> dict[str, float]:
    threads, end = req.data["threads"], time.perf_counter() + req.data["seconds"]
    ones, ratios = [], []
    while time.perf_counter() < end:
        one, all_of_them = seconds_of(1), seconds_of(threads)
        ones.append(one)
        ratios.append(threads * one / all_of_them)
    return {
        "speedup": statistics.median(ratios),
        "best_speedup": statistics.quantiles(ratios, n=10)[-1],
        "one_us": 1e6 * min(ones) / MESSAGES,
    }


app.run()
