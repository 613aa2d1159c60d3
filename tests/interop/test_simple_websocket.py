"""The client of simple-websocket, which stands on wsproto: no code is shared with the server."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import simple_websocket
from wsproto.events import AcceptConnection, Event, Ping, Request
from wsproto.extensions import PerMessageDeflate

from tests.interop.conftest import LIMIT, Server
from tests.support.waiting import eventually

Join = Callable[..., simple_websocket.Client]


class CompressingClient(simple_websocket.Client):
    """Offers permessage-deflate, which wsproto knows but the class above never asks for."""

    compresses = False

    def handshake(self) -> None:
        assert self.sock is not None
        offer = PerMessageDeflate()
        self.sock.sendall(
            self.ws.send(Request(host=self.host, target=self.path, extensions=[offer]))
        )
        events: list[Any] = []
        while not events:
            self.ws.receive_data(self.sock.recv(1))
            events = list(self.ws.events())
        (accepted,) = events
        assert isinstance(accepted, AcceptConnection)
        self.compresses = bool(accepted.extensions)
        self.connected = True


@pytest.fixture
def join(server: Server) -> Iterator[Join]:
    """Open connections to the server; they are closed at the end."""
    opened: list[simple_websocket.Client] = []

    def connect(
        path: str = "/",
        kind: type[simple_websocket.Client] = simple_websocket.Client,
        **options: Any,
    ) -> simple_websocket.Client:
        client = kind(server.url(path), **options)
        opened.append(client)
        return client

    yield connect
    for client in opened:
        try:
            client.close()
        except (simple_websocket.ConnectionClosed, OSError):
            pass  # the test did it
        client.thread.join(5)  # type: ignore[attr-defined]  # a Thread
        assert not client.thread.is_alive()  # type: ignore[attr-defined]


def request(client: simple_websocket.Client, kind: str, data: Any) -> Any:
    client.send(json.dumps({"type": kind, "data": data}))
    return json.loads(received(client))


def received(client: simple_websocket.Client) -> str | bytes:
    message = client.receive(timeout=5)
    assert message is not None, "nothing came"
    return message


@pytest.mark.parametrize("kind", [simple_websocket.Client, CompressingClient])
@pytest.mark.parametrize("message", ["hello", "", "κόσμε 𝄞", b"\x00\xff", b"", "x" * 70_000])
def test_echo(join: Join, kind: type[simple_websocket.Client], message: str | bytes) -> None:
    client = join("/echo", kind)
    for _ in range(3):
        client.send(message)
        got = received(client)
        assert got == message
        assert type(got) is type(message)


def test_compression_is_spoken_where_both_want_it(join: Join, server: Server) -> None:
    client = join("/echo", CompressingClient)
    assert isinstance(client, CompressingClient)
    assert client.compresses is server.compresses


def test_broadcast_to_clients_with_and_without_compression(join: Join) -> None:
    clients = [join("/", kind) for kind in (simple_websocket.Client, CompressingClient) * 2]
    for client in clients:  # all of them are registered
        request(client, "echo", 1)
    for data in ("short", "x" * 5000):
        clients[0].send(json.dumps({"type": "shout", "data": data}))
        for client in clients:
            assert json.loads(received(client)) == {"type": "broadcast", "data": data}


def test_json(join: Join) -> None:
    client = join()
    values: list[Any] = [{"a": [1, None]}, "text", 0, [], "half \ud800 pair"]
    for data in values:
        assert request(client, "echo", data) == {"type": "response", "data": data}
    assert request(client, "ecko", 1)["data"]["code"] == "unknown_type"


def test_messages_come_back_in_order(join: Join) -> None:
    client = join("/echo")
    for number in range(500):
        client.send(str(number))
    assert [received(client) for _ in range(500)] == [str(number) for number in range(500)]


def test_clients_at_once_get_their_own_answers(join: Join) -> None:
    def talk(name: int) -> None:
        client = join()
        for turn in range(20):
            answers[name].append(request(client, "echo", [name, turn])["data"])

    answers: dict[int, list[Any]] = {name: [] for name in range(8)}
    threads = [threading.Thread(target=talk, args=(name,)) for name in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for name, got in answers.items():
        assert got == [[name, turn] for turn in range(20)]


def test_a_message_of_exactly_the_limit(join: Join) -> None:
    client = join("/echo")
    client.send("x" * LIMIT)
    assert received(client) == "x" * LIMIT


@pytest.mark.parametrize("message", ["x" * (LIMIT + 1), b"x" * (4 * LIMIT)])
def test_a_larger_message_ends_in_1009(join: Join, server: Server, message: str | bytes) -> None:
    client = join("/echo")
    try:
        client.send(message)
    except OSError:
        pass  # the server need not take it all
    with pytest.raises(simple_websocket.ConnectionClosed) as caught:
        received(client)
    assert caught.value.reason == 1009
    assert server.ended() == ("protocol", 1009)


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_the_client_closes(join: Join, server: Server, code: int) -> None:
    client = join("/echo")
    client.close(code, "bye")  # type: ignore[arg-type]  # any close code works
    assert server.ended() == ("client", code)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1011, "oh"), (4000, "κόσμε")])
def test_the_server_closes(join: Join, server: Server, code: int, reason: str) -> None:
    client = join("/close")
    client.send(f"{code} {reason}")
    with pytest.raises(simple_websocket.ConnectionClosed) as caught:
        received(client)
    assert caught.value.reason == code
    assert (caught.value.message or "") == reason
    assert server.ended() == ("server", code)


def test_the_server_stops(join: Join, server: Server) -> None:
    clients = [join(), join("/echo")]
    request(clients[0], "echo", 1)
    clients[1].send("x")
    received(clients[1])
    server.app.stop(timeout=5)
    assert json.loads(received(clients[0]))["type"] == "goodbye"
    for client in clients:
        with pytest.raises(simple_websocket.ConnectionClosed) as caught:
            received(client)
        assert caught.value.reason == 1001
        assert server.ended() == ("shutdown", 1001)


def test_pings_of_the_client_are_answered(join: Join) -> None:
    client = join("/echo", ping_interval=0.1)
    send, pings = client.ws.send, []

    def count(event: Event) -> bytes:
        if isinstance(event, Ping):
            pings.append(event)
        return bytes(send(event))

    client.ws.send = count  # type: ignore[method-assign]
    # After a ping without an answer it would close by itself, with 1008.
    assert eventually(lambda: len(pings) > 1)
    client.send("still here")
    assert received(client) == "still here"


def test_a_client_that_vanishes(join: Join, server: Server) -> None:
    client = join()
    request(client, "echo", 1)
    assert server.app.websocket.get_client_count() == 1
    # Closing with this option sends a reset, as a peer that crashed would.
    assert client.sock is not None
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.shutdown(socket.SHUT_RD)  # wakes its own thread, which closes
    assert server.ended() == ("lost", 1006)
    assert server.app.websocket.get_client_count() == 0


@pytest.mark.parametrize(("offered", "chosen"), [(["a"], "a"), (["a", "b"], "b"), (["c"], None)])
def test_subprotocols(join: Join, offered: list[str], chosen: str | None) -> None:
    assert join("/echo", subprotocols=offered).subprotocol == chosen
