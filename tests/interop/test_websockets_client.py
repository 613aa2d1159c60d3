"""The client of websockets, which compresses by default and cuts messages into fragments."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.interop.conftest import LIMIT, Server
from tests.support.fixture_types import MakeApp
from tests.support.inside import connections
from tests.support.waiting import eventually

Join = Callable[..., ClientConnection]


@pytest.fixture
def join(server: Server) -> Iterator[Join]:
    """Open connections to the server; they are closed at the end."""
    with contextlib.ExitStack() as opened:

        def make(path: str = "/", **options: Any) -> ClientConnection:
            options = {"max_size": None, "ping_interval": None, "proxy": None, **options}
            client: ClientConnection = opened.enter_context(connect(server.url(path), **options))
            return client

        yield make


def compressed(client: ClientConnection) -> bool:
    return bool(client.protocol.extensions)


def received(client: ClientConnection) -> str | bytes:
    return client.recv(timeout=5)


def request(client: ClientConnection, kind: str, data: Any) -> Any:
    client.send(json.dumps({"type": kind, "data": data}))
    return json.loads(received(client))


MESSAGES: list[str | bytes] = [
    "hello",
    "",
    "κόσμε 𝄞" * 500,
    b"\x00\xff",
    b"",
    "x" * 70_000,
    bytes(range(256)) * 300,
]


@pytest.mark.parametrize("offer", ["deflate", None])
def test_echo(join: Join, offer: Literal["deflate"] | None) -> None:
    client = join("/echo", compression=offer)
    for message in MESSAGES:
        client.send(message)
        got = received(client)
        assert got == message
        assert type(got) is type(message)


def test_compression_is_spoken_where_both_want_it(join: Join, server: Server) -> None:
    assert compressed(join("/echo", compression="deflate")) is server.compresses
    assert not compressed(join("/echo", compression=None))


@pytest.mark.parametrize(
    "offer",
    [
        ClientPerMessageDeflateFactory(),
        ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9),
        ClientPerMessageDeflateFactory(
            server_no_context_takeover=True, client_no_context_takeover=True
        ),
        ClientPerMessageDeflateFactory(client_max_window_bits=None),
    ],
    ids=["default", "small windows", "no context", "no client window"],
)
def test_compression_as_negotiated(join: Join, offer: ClientPerMessageDeflateFactory) -> None:
    client = join("/echo", compression=None, extensions=[offer])
    for message in [*MESSAGES, *MESSAGES]:
        client.send(message)
        assert received(client) == message


@pytest.mark.parametrize("parts", [["one"], ["one ", "", "κό", "σμε"], ["x"] * 300, ["", "", ""]])
def test_fragments(join: Join, parts: list[str]) -> None:
    client = join("/echo")
    client.send(iter(parts))
    assert received(client) == "".join(parts)
    client.send(iter([part.encode() for part in parts]))
    assert received(client) == "".join(parts).encode()


def test_more_fragments_than_allowed(join: Join, server: Server) -> None:
    client = join("/echo", compression=None)
    with pytest.raises(ConnectionClosed) as caught:  # noqa: PT012
        client.send(["x"] * 5000)
        received(client)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == CloseCode.POLICY_VIOLATION
    assert server.ended() == ("protocol", 1008)


def test_json(join: Join) -> None:
    client = join()
    values: list[Any] = [{"a": [1, None]}, "text", 0, [], "half \ud800 pair", "x" * 200_000]
    for data in values:
        assert request(client, "echo", data) == {"type": "response", "data": data}
    client.send(b"{}")
    assert json.loads(received(client))["data"]["code"] == "binary_not_supported"


def test_broadcast_to_clients_with_and_without_compression(join: Join) -> None:
    clients = [join(compression=offer) for offer in ("deflate", None, "deflate", None)]
    clients.append(
        join(compression=None, extensions=[ClientPerMessageDeflateFactory(True, True, 10, 10)])
    )
    for client in clients:  # all of them are registered
        request(client, "echo", 1)
    for data in ("short", "x" * 5000):
        clients[0].send(json.dumps({"type": "shout", "data": data}))
        for client in clients:
            assert json.loads(received(client)) == {"type": "broadcast", "data": data}


def test_several_threads_send_on_one_connection(join: Join) -> None:
    client = join("/echo")

    def send(name: int) -> None:
        for turn in range(50):
            client.send(f"{name}:{turn}:" + "x" * (turn * 10))

    threads = [threading.Thread(target=send, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    got = [str(received(client)).rsplit(":", 1)[0] for _ in range(200)]
    for thread in threads:
        thread.join(5)
    for name in range(4):
        mine = [text for text in got if text.startswith(f"{name}:")]
        assert mine == [f"{name}:{turn}" for turn in range(50)]


@pytest.mark.parametrize("offer", ["deflate", None])
def test_a_message_of_exactly_the_limit(join: Join, offer: Literal["deflate"] | None) -> None:
    client = join("/echo", compression=offer)
    client.send("x" * LIMIT)
    assert received(client) == "x" * LIMIT


@pytest.mark.parametrize("offer", ["deflate", None])
@pytest.mark.parametrize("size", [LIMIT + 1, 16 * LIMIT])
def test_a_larger_message_ends_in_1009(
    join: Join, server: Server, offer: Literal["deflate"] | None, size: int
) -> None:
    client = join("/echo", compression=offer)
    with pytest.raises(ConnectionClosed) as caught:  # noqa: PT012
        client.send("x" * size)
        received(client)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == CloseCode.MESSAGE_TOO_BIG
    assert server.ended() == ("protocol", 1009)


def test_a_limit_of_the_app(make_app: MakeApp) -> None:
    server = Server(make_app(max_message_size=8 << 20, max_outbox=8 << 20, compression="deflate"))
    with connect(server.url("/echo"), max_size=None, proxy=None) as client:
        message = "0123456789abcdef" * (512 * 1024)
        client.send(message)
        assert received(client) == message


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "going"), (3000, "x" * 123), (4999, "κόσμε")]
)
def test_the_client_closes(join: Join, server: Server, code: int, reason: str) -> None:
    client = join("/echo")
    client.close(code, reason)
    assert server.ended() == ("client", code)
    assert (client.close_code, client.close_reason) == (code, reason)  # the answer is an echo


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "x" * 123), (1011, "oh"), (4000, "κόσμε")]
)
def test_the_server_closes(join: Join, server: Server, code: int, reason: str) -> None:
    client = join("/close")
    client.send(f"{code} {reason}")
    with pytest.raises(ConnectionClosed) as caught:
        received(client)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, reason)
    assert caught.value.rcvd_then_sent
    assert server.ended() == ("server", code)


def test_the_server_stops(join: Join, server: Server) -> None:
    client = join("/echo")
    client.send("x")
    received(client)
    server.app.stop(timeout=5)
    with pytest.raises(ConnectionClosed) as caught:
        received(client)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == CloseCode.GOING_AWAY
    assert server.ended() == ("shutdown", 1001)


def test_pings_of_the_client_are_answered(join: Join) -> None:
    client = join("/echo")
    for data in (None, b"", b"x" * 125):
        assert client.ping(data).wait(5)
    client.send("still here")
    assert received(client) == "still here"


def test_pings_of_the_client_are_answered_amid_a_message(join: Join) -> None:
    client = join("/echo")
    pongs: list[bool] = []

    def parts() -> Iterator[str]:
        yield "one "
        pongs.append(client.ping().wait(5))
        yield "two"

    client.send(parts())
    assert pongs == [True]
    assert received(client) == "one two"


def test_pings_of_the_server_are_answered(make_app: MakeApp) -> None:
    server = Server(make_app(ping_interval=0.02, ping_timeout=5))
    with connect(server.url("/echo"), proxy=None, ping_interval=None) as client:
        client.send("x")
        assert received(client) == "x"
        (connection,) = connections(server.app)
        before = connection.reader.bytes_in
        assert eventually(lambda: connection.reader.bytes_in >= before + 3 * 6)  # three pongs
        assert connection.open
    assert server.ended() == ("client", 1000)


def test_a_client_that_vanishes(join: Join, server: Server) -> None:
    client = join()
    request(client, "echo", 1)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.shutdown(socket.SHUT_RD)  # wakes its own thread, which closes: a reset
    assert server.ended() == ("lost", 1006)
    assert server.app.websocket.get_client_count() == 0


@pytest.mark.parametrize(("offered", "chosen"), [(["a"], "a"), (["a", "b"], "b"), (["c"], None)])
def test_subprotocols(join: Join, offered: list[str], chosen: str | None) -> None:
    client = join("/echo", subprotocols=[Subprotocol(name) for name in offered])
    assert client.subprotocol == chosen


@pytest.mark.parametrize("path", ["/", "/any/where?a=b", "/%7Euser"])
def test_any_path(join: Join, path: str) -> None:
    assert request(join(path), "echo", path)["data"] == path


def test_origins(join: Join, server: Server) -> None:
    own = Origin(f"http://127.0.0.1:{server.port}")
    assert request(join(origin=own), "echo", 1)["data"] == 1
    with pytest.raises(InvalidStatus) as caught:
        join(origin=Origin("http://evil.example"))
    assert caught.value.response.status_code == 403
    assert json.loads(caught.value.response.body or b"")["code"] == "origin_not_allowed"


def test_too_many_clients(make_app: MakeApp) -> None:
    server = Server(make_app(max_clients=1))
    with connect(server.url(), proxy=None) as client:
        request(client, "echo", 1)
        with pytest.raises(InvalidStatus) as caught, connect(server.url(), proxy=None):
            pass
        assert caught.value.response.status_code == 503
        assert "Retry-After" in caught.value.response.headers
