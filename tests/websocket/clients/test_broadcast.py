"""A broadcast reaches every reader in order, waits for none, and is encoded once."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections import Counter
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websockets_connect

from daebus import Daebus, DisconnectInfo
from daebus.websocket.protocol import codec, envelope
from tests.support.fixture_types import MakeApp
from tests.support.inside import connections
from tests.support.peer import TEXT, Peer
from tests.support.slow_clients import KILOBYTES_16, narrow, reset, stuff
from tests.support.waiting import eventually


class Reader(threading.Thread):
    """Reads numbered broadcasts as fast as it can and says when it has the last one."""

    def __init__(self, peer: Peer, last: int) -> None:
        super().__init__()
        self.peer = peer
        self.last = last
        self.numbers: list[int] = []
        self.finished = threading.Event()

    def run(self) -> None:
        while not self.numbers or self.numbers[-1] != self.last:
            opcode, payload = self.peer.frame()
            if opcode == TEXT:
                self.numbers.append(json.loads(payload)["data"][0])
        self.finished.set()


def test_five_of_twenty_that_do_not_read_cost_the_others_nothing(make_app: MakeApp) -> None:
    app = make_app()
    left = queue.Queue[DisconnectInfo]()
    app.websocket.on_disconnect(lambda client_id, info: left.put(info))
    app.start()
    rounds, readers, mute = 400, 15, 5
    longest = 0.0
    with contextlib.ExitStack() as stack:
        for _ in range(mute):
            stack.enter_context(narrow(app))
        threads = [Reader(stack.enter_context(narrow(app)), rounds - 1) for _ in range(readers)]
        for thread in threads:
            thread.start()
        for number in range(rounds):
            started = time.monotonic()
            app.websocket.broadcast_to_all([number, KILOBYTES_16], "number")
            longest = max(longest, time.monotonic() - started)
            # Readers set the pace, so that none of them is a slow client itself.
            if number % 20 == 19:
                assert eventually(
                    lambda number=number: all(  # type: ignore[misc]  # a default that binds
                        len(thread.numbers) > number - 20 for thread in threads
                    )
                )
        for thread in threads:
            assert thread.finished.wait(10)
            thread.join()
            assert thread.numbers == list(range(rounds))
        assert [left.get(timeout=5).reason for _ in range(mute)] == ["slow_consumer"] * mute
        assert app.websocket.get_client_count() == readers
        # Generous, for a busy machine; waiting for a mute client would last for ever.
        assert longest < 2
        assert app.stats()["websocket"]["queued_bytes"] == 0


@pytest.mark.parametrize("sender", ["host", "handler", "async handler"])
def test_a_broadcast_does_not_wait_for_any_client_whoever_sends_it(
    make_app: MakeApp, sender: str
) -> None:
    app = make_app(on_full="block", max_outbox=50_000, send_timeout=600)
    done = threading.Event()

    def send() -> None:
        for number in range(500):
            app.websocket.broadcast_to_all([number, "x" * 4096])
        done.set()

    @app.socket("handler")
    def handler(req: Any) -> None:
        send()

    @app.socket("async handler")
    async def async_handler(req: Any) -> None:
        send()

    app.start()
    with narrow(app) as peer, narrow(app):
        if sender == "host":
            send()
        else:
            peer.say(sender)  # its own client does not read either
        assert done.wait(10)


def test_a_broadcast_is_encoded_once(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    calls: list[str] = []
    encode = envelope.encode

    def counting(kind: str, *rest: Any) -> bytes:
        calls.append(kind)
        return encode(kind, *rest)

    monkeypatch.setattr(envelope, "encode", counting)
    app.start()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(narrow(app)) for _ in range(10)]
        assert app.websocket.broadcast_to_all({"n": 1}, "news") == 10
        for peer in peers:
            assert peer.message() == {"type": "news", "data": {"n": 1}}
    assert calls == ["news"]


def deflate_client(app: Daebus, stack: contextlib.ExitStack, **options: Any) -> ClientConnection:
    return stack.enter_context(
        websockets_connect(
            f"ws://127.0.0.1:{app.http.port}/",
            extensions=[ClientPerMessageDeflateFactory(**options)] if options else None,
            compression=None,
            close_timeout=5,
        )
    )


def test_a_broadcast_is_compressed_once_for_each_set_of_parameters(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(compression="deflate")
    app.start()
    calls = Counter[int]()
    original = codec._compressed

    def counting(extensions: Any, opcode: int, payload: bytes) -> bytes:
        calls[len(payload)] += 1
        return original(extensions, opcode, payload)

    monkeypatch.setattr(codec, "_compressed", counting)
    with contextlib.ExitStack() as stack:
        clients = [deflate_client(app, stack) for _ in range(3)]  # no compression
        for _ in range(3):
            clients.append(deflate_client(app, stack, client_max_window_bits=12))
            clients.append(deflate_client(app, stack, server_max_window_bits=10))
        assert eventually(lambda: app.websocket.get_client_count() == 9)
        parameters = {connection.writer.compression for connection in connections(app)}
        assert None in parameters
        assert app.websocket.broadcast_to_all("x" * 5000) == 9
        for client in clients:
            assert json.loads(client.recv(timeout=5)) == {"type": "broadcast", "data": "x" * 5000}
        assert calls.total() == len(parameters) - 1


def test_threads_that_compress_for_one_client_at_once_do_not_mix(make_app: MakeApp) -> None:
    """A broadcast compresses with one client's parameters while its handler answers."""
    app = make_app(compression="deflate", max_outbox=1 << 26, max_outbox_messages=100_000)
    app.socket("echo")(lambda req: req.data)
    app.start()
    rounds = 300
    failures: list[BaseException] = []

    def broadcast(letter: str) -> None:
        try:
            for _ in range(rounds):
                app.websocket.broadcast_to_all(letter * 20_000)
        except BaseException as exc:
            failures.append(exc)

    with contextlib.ExitStack() as stack:
        client = deflate_client(app, stack, client_max_window_bits=12)
        assert eventually(lambda: app.websocket.get_client_count() == 1)
        threads = [threading.Thread(target=broadcast, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        seen = Counter[str]()
        while seen.total() < 4 * rounds and not failures:
            data = json.loads(client.recv(timeout=10))["data"]
            assert data == data[0] * 20_000
            seen[data[0]] += 1
        for thread in threads:
            thread.join(10)
        assert not failures
        assert seen == dict.fromkeys("abcd", rounds)


def test_a_client_that_vanished_is_left_out_and_the_others_are_counted(make_app: MakeApp) -> None:
    app = make_app()
    left = threading.Event()
    app.websocket.on_disconnect(lambda client_id: left.set())
    app.start()
    with narrow(app) as gone, narrow(app) as stays:
        assert app.websocket.broadcast_to_all(1) == 2
        reset(gone)
        assert left.wait(5)
        assert app.websocket.broadcast_to_all(2) == 1
        assert [stays.message()["data"] for _ in range(2)] == [1, 2]


def test_a_message_larger_than_the_outbox_reaches_a_client_that_reads(make_app: MakeApp) -> None:
    app = make_app(max_outbox=10_000)
    app.start()
    with narrow(app) as peer:
        assert app.websocket.broadcast_to_all("x" * 5_000_000) == 1
        assert peer.message()["data"] == "x" * 5_000_000


def test_after_a_jam_messages_are_written_inline_again(make_app: MakeApp) -> None:
    app = make_app()
    app.start()
    with narrow(app) as peer:
        connection = stuff(app)
        app.websocket.broadcast_to_all("last", "last")
        while b'"last"' not in peer.frame()[1][:20]:
            pass
        assert eventually(lambda: connection.writer.outlet.queued() == (0, 0))
        for number in range(10):
            app.websocket.broadcast_to_all(number)
            assert peer.message()["data"] == number
            assert connection.writer.outlet.queued() == (0, 0)
