"""A host whose main thread is interrupted all the time; run as a program of its own.

It prints its port, waits for the clients, works until it was interrupted often enough, and
prints what it found as JSON. What interrupts is the first argument: ``signal`` (a handler
calls public methods), ``raise`` (it raises), or ``destructor`` (the collector calls
destructors and callbacks of weak references, and the log a handler, which call them). The
others are how often, the number of clients, and ``plain`` or ``tls``.
"""

from __future__ import annotations

import faulthandler
import gc
import itertools
import json
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from typing import Any

from daebus import Daebus, DaebusHttp, DaebusWebSocket
from daebus.errors import StateError
from daebus.scaffold import Scaffold
from daebus.testing import quiet
from daebus.websocket.stats import WebSocketStats
from tests.support.inside import activity_of, connections
from tests.support.public import ENDS, REFUSALS, PublicCall, app_calls
from tests.support.tls import server_context

MODE, TIMES, CLIENTS, WIRE = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

# The longest that a method may take here, in seconds; a deadlock is for ever.
PROMISE = 3.0

app = Daebus("interrupted")
app.attach(DaebusHttp(port=0, ssl_context=server_context() if WIRE == "tls" else None))
ws = DaebusWebSocket(max_outbox=1 << 26, max_outbox_messages=1 << 20)
app.attach(ws)
alarms = ws.topic("alarms", auto=True)
boiler = ws.state("boiler", auto=True)
chance = random.Random(7)
names: list[str] = []
others: list[PublicCall] = []
references: list[weakref.ref[Any]] = []
numbers = {"main": itertools.count(1), "inner": itertools.count(1)}
found: dict[str, Any] = {"interrupts": 0, "slowest": 0.0, "refused": 0, "errors": []}
inner = threading.local()


@app.socket("echo")
def echo(req: Any) -> Any:
    litter()
    return req.data


class Alarm(Exception):
    """What a handler that ends long calls raises."""


class Litter:
    """Garbage that only the collector finds, and that calls public methods as it goes."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        interrupt()


class Watched:
    """The same, by a weak reference to it."""

    def __init__(self) -> None:
        self.itself = self
        references.append(weakref.ref(self, lambda reference: interrupt()))
        del references[:-50]


def litter() -> None:
    if MODE == "destructor":
        Litter()
        Watched()


def count(who: str) -> dict[str, Any]:
    return {"who": who, "n": next(numbers[who]), "text": "x" * chance.choice((1, 200, 5000))}


# What would leave something behind each time, or begins and ends more than a call. Those are
# tried within each lock, in ``tests/races/test_reentrancy.py``.
LEFT_OUT = {
    *(name for name in dir(Scaffold) if not name.startswith("_")),
    *("attach", "enable_rate_limiting", "register", "set_client_id_generator"),
    *("identify", "join", "leave", "set_client_metadata", "send"),  # with other arguments below
    *("pipe", "topic", "state", "subscribe", "unsubscribe"),
    *("dump", "serve", "start", "test_client", "wsgi"),
    *ENDS,
}


def all_others() -> list[PublicCall]:
    """Return a call of every other public method."""
    return [
        call
        for link in connections(app)
        for call in app_calls(app, activity_of(link).connection, link.client_id)
        if call.name.rpartition(".")[2] not in LEFT_OUT
        if "send" not in call.name and "broadcast" not in call.name
    ]


def any_other() -> None:
    try:
        chance.choice(others).run()
    except REFUSALS:
        found["refused"] += 1
    except TimeoutError:  # recv() of a thread that may call it, and to which nobody speaks
        if MODE == "raise":
            raise
        found["refused"] += 1


def methods(who: str) -> list[Callable[[], Any]]:
    name, room = chance.choice(names), chance.choice("abc")
    send: list[Callable[[], Any]] = [lambda: ws.broadcast_to_all(count(who), "number")] * 6
    return [
        *send,
        lambda: ws.broadcast_to_room(room, "to a room"),
        *[lambda: alarms.publish("to subscribers", "alarm")] * 3,
        lambda: boiler.update({room: chance.randrange(100)}),
        lambda: boiler.pop(room, None),
        lambda: ws.send_to_client(name, "to one"),
        lambda: ws.broadcast_to_clients(names, "to some"),
        lambda: ws.join(name, room),
        lambda: ws.leave(name, room),
        lambda: ws.identify(name, chance.choice(("ada", "bob", None))),
        lambda: ws.set_client_metadata(name, note=Note() if MODE != "raise" else 1),
        lambda: ws.get_client_metadata(name),
        lambda: ws.get_clients_by_filter(lambda *_: True),
        lambda: (ws.get_clients(), ws.get_rooms(), ws.get_room_clients(room)),
        lambda: (ws.get_client_rooms(name), ws.get_user_clients("ada")),
        lambda: ws.is_client_connected(name),
        lambda: ws.disconnect_client("nobody"),
        lambda: found_stats(ws.stats()),
        lambda: app.stats(),
        lambda: app.pump(0.0),
        lambda: app.heartbeat(),
        *[any_other] * 8,
    ]


class Note:
    """A value that is freed when the next one takes its place."""

    def __del__(self) -> None:
        if not getattr(inner, "busy", False):
            ws.broadcast_to_all("freed")


def found_stats(stats: WebSocketStats) -> None:
    if min(stats["queued_bytes"], stats["queued_messages"]) < 0:
        found["errors"].append("the outbox counts below zero")


def do(who: str) -> None:
    method = chance.choice(methods(who))
    began = time.monotonic()
    try:
        method()
    except StateError:
        found["refused"] += 1
    found["slowest"] = max(found["slowest"], time.monotonic() - began)


def interrupt() -> None:
    if getattr(inner, "busy", False) or not names:
        return
    inner.busy = True
    found["interrupts"] += 1
    try:
        do("inner")
    except BaseException:
        found["errors"].append(traceback.format_exc())
    finally:
        inner.busy = False


class Telling(logging.Handler):
    """A handler of the log that tells the clients."""

    def emit(self, record: logging.LogRecord) -> None:
        interrupt()


def again() -> None:
    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.0008))


def on_alarm(number: int, frame: Any) -> None:
    if MODE == "raise":
        if not armed:
            return
        found["interrupts"] += 1
        raise chance.choice((Alarm, KeyboardInterrupt, TimeoutError))("interrupted")
    interrupt()
    again()


armed = False  # an exception may come


def work() -> None:
    global armed
    if MODE == "raise":
        names[:] = ws.get_clients() or names  # those that were cut come again
        try:
            armed = True
            again()
            do("main")
        finally:
            armed = False
    else:
        do("main")
        litter()


def main() -> None:
    faulthandler.dump_traceback_later(30 + TIMES / 50)  # before the test gives up
    app.start()
    print("port", app.http.port, flush=True)
    while ws.get_client_count() < CLIENTS:
        time.sleep(0.01)
    names.extend(ws.get_clients())
    others.extend(all_others())
    signal.signal(signal.SIGALRM, on_alarm)
    if MODE == "signal":
        again()
    elif MODE == "destructor":
        gc.set_threshold(50, 2, 2)
        logging.getLogger("daebus").addHandler(Telling())
        logging.getLogger("daebus").setLevel(logging.DEBUG)
    while found["interrupts"] < TIMES:
        try:
            work()
        except (Alarm, KeyboardInterrupt, TimeoutError):
            pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.set_threshold(0)
    names.clear()  # nothing interrupts any more
    while ws.get_client_count() < CLIENTS:
        time.sleep(0.01)
    quiet(app, 20)
    found["numbers"] = {who: next(counter) - 1 for who, counter in numbers.items()}
    # Counted at the end of each connection: a client may have asked for more just now.
    sent: dict[str, int] = {}
    found["sent"] = sent
    ws.on_disconnect(lambda client_id, info: sent.update({client_id: info.messages_out}))
    found["reached"] = ws.broadcast_to_all("the end", "end")
    found["left"] = app.stop(5)
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # the threads of the app would keep the test waiting
