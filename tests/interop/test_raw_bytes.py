"""Bytes on a real socket, as no decent client would send them."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from tests.interop.conftest import LIMIT, Server
from tests.support.fixture_types import Connect, MakeApp
from tests.support.peer import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Peer,
    accept_key,
    envelope,
    frame,
    upgrade_request,
)

CONT = 0

BYE = frame(CLOSE, b"\x03\xe8bye")
CONVERSATION = b"".join(
    (
        envelope("echo", {"n": 1}),
        frame(PING, b"amid"),
        frame(TEXT, '{"type": "echo",', fin=False),
        frame(CONT, "", fin=False),
        frame(PONG, b"unasked"),
        frame(CONT, ' "data": "κόσμε"}'),
        frame(TEXT, "no json"),
        frame(BINARY, b"{}"),
        envelope("echo", None),
        envelope("echo", []),
        BYE,
    )
)


def check_conversation(peer: Peer, server: Server) -> None:
    """Read the answers to ``CONVERSATION``; pongs may overtake what waits for a handler."""
    answers, pongs = [], []
    while True:
        opcode, payload = peer.frame()
        if opcode == TEXT:
            answers.append(json.loads(payload))
        elif opcode == PONG:
            pongs.append(payload)
        else:
            break
    assert (opcode, payload) == (CLOSE, b"\x03\xe8bye")
    assert pongs == [b"amid"]
    assert [answer["data"] for answer in answers if answer["type"] == "response"] == [
        {"n": 1},
        "κόσμε",
        [],
    ]
    assert [answer["data"]["code"] for answer in answers if answer["type"] == "error"] == [
        "bad_json",
        "binary_not_supported",
    ]
    assert [answer["type"] for answer in answers] == [
        "response",
        "response",
        "error",
        "error",
        "response",
    ]
    assert peer.ended()
    assert server.ended() == ("client", 1000)


@pytest.mark.parametrize("step", [1, 2, 7])
def test_a_conversation_in_small_pieces(server: Server, connect: Connect, step: int) -> None:
    sock = connect(server.port)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = upgrade_request() + CONVERSATION
    for place in range(0, len(data), step):
        sock.sendall(data[place : place + step])
    peer = Peer(sock)
    assert peer.ask(b"").status == 101
    check_conversation(peer, server)


def test_a_conversation_in_one_segment(server: Server, connect: Connect) -> None:
    sock = connect(server.port)
    peer = Peer(sock)
    answer = peer.ask(upgrade_request() + CONVERSATION)
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == accept_key()
    check_conversation(peer, server)


@pytest.mark.parametrize("cut", [0, 1, 2, 6, 20])
def test_a_frame_cut_behind_the_handshake(server: Server, connect: Connect, cut: int) -> None:
    sock = connect(server.port)
    first = envelope("echo", 1)
    peer = Peer.joined(sock, behind=first[:cut])
    sock.sendall(first[cut:])
    assert peer.message()["data"] == 1
    peer.close()


@pytest.mark.parametrize("line", range(1, 7))
def test_a_handshake_line_by_line(server: Server, connect: Connect, line: int) -> None:
    sock = connect(server.port)
    lines = upgrade_request().split(b"\r\n")
    head = b"\r\n".join(lines[:line]) + b"\r\n"
    sock.sendall(head)
    # Another client is served meanwhile, so the server has seen those lines.
    Peer.joined(connect(server.port)).close()
    peer = Peer(sock)
    assert peer.ask(upgrade_request()[len(head) :]).status == 101
    peer.close()


def test_the_end_of_the_stream_behind_the_handshake(server: Server, connect: Connect) -> None:
    sock = connect(server.port)
    peer = Peer.joined(sock, behind=envelope("echo", 1))
    sock.shutdown(socket.SHUT_WR)
    assert peer.message()["data"] == 1
    assert peer.ended()
    assert server.ended() == ("lost", 1006)


def test_a_reset_in_the_midst_of_a_frame(server: Server, connect: Connect) -> None:
    sock = connect(server.port)
    peer = Peer.joined(sock)
    peer.say("echo", 1)
    peer.message()
    sock.sendall(frame(TEXT, "x" * 1000)[:500])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    assert server.ended() == ("lost", 1006)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (frame(3), 1002),
        (bytes((0xF1,)) + frame(TEXT)[1:], 1002),  # reserved bits
        (frame(CONT, b"x"), 1002),
        (frame(TEXT, fin=False) + frame(TEXT), 1002),
        (frame(PING, b"", fin=False), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, b"\x03\xed"), 1002),  # 1005 must not be sent
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xf4", fin=False) + frame(CONT, b"\x90", fin=False), 1007),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
        (b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big"), 1009),
        (frame(TEXT, fin=False) + frame(CONT, fin=False) * 4096, 1008),
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
    ],
)
@pytest.mark.parametrize("path", ["/", "/echo"])
def test_broken_frames(server: Server, connect: Connect, path: str, data: bytes, code: int) -> None:
    sock = connect(server.port)
    # What comes behind the failure is not looked at, and does not destroy the answer.
    peer = Peer.joined(sock, path, behind=data + frame(PING, b"later") * 1000)
    opcode, payload = peer.frame()
    assert opcode == CLOSE
    assert int.from_bytes(payload[:2], "big") == code
    assert payload[2:].decode().isprintable()
    sock.shutdown(socket.SHUT_WR)
    assert peer.ended()
    assert server.ended() == ("protocol", code)
    assert server.app.websocket.get_client_count() == 0


def test_a_client_that_never_answers_the_close(make_app: MakeApp, connect: Connect) -> None:
    server = Server(make_app(close_timeout=0.1))
    peer = Peer.joined(connect(server.port), "/close")
    peer.send(TEXT, "1000 bye")
    assert peer.close_frame() == (1000, "bye")
    assert peer.ended()
    assert server.ended() == ("server", 1000)


def test_a_client_that_fails_and_stays(make_app: MakeApp, connect: Connect) -> None:
    server = Server(make_app(close_timeout=0.1))
    peer = Peer.joined(connect(server.port), behind=b"\x81\x05hello")
    assert peer.close_frame()[0] == 1002
    assert server.ended() == ("protocol", 1002)  # at once, though it is still there
    assert peer.ended()


def test_a_silent_client_is_cut(make_app: MakeApp, connect: Connect) -> None:
    server = Server(make_app(ping_interval=0.05, ping_timeout=0.05))
    peer = Peer.joined(connect(server.port))
    assert peer.frame()[0] == PING
    assert peer.ended()
    assert server.ended() == ("ping_timeout", 1006)


def test_any_byte_is_a_sign_of_life(make_app: MakeApp, connect: Connect) -> None:
    server = Server(make_app(ping_interval=0.05, ping_timeout=0.3))
    sock = connect(server.port)
    peer = Peer.joined(sock)
    data = envelope("echo", 1)
    for place in range(8):  # no ping is answered, but something comes
        assert peer.frame()[0] == PING
        sock.sendall(data[place : place + 1])
    sock.sendall(data[8:])
    while (got := peer.frame())[0] == PING:
        pass
    assert json.loads(got[1])["data"] == 1
    peer.close()


def test_the_longest_head_and_a_little_more(server: Server, connect: Connect) -> None:
    peer = Peer(connect(server.port))
    assert peer.ask(upgrade_request(headers={"X-Long": "x" * 8000})).status == 101
    peer.close()
    peer = Peer(connect(server.port))
    assert peer.ask(upgrade_request(headers={"X-Long": "x" * 9000})).status == 431
    assert peer.ended()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Connection": "close"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_frames_behind_a_refused_handshake(
    server: Server, connect: Connect, headers: dict[str, str | None], status: int
) -> None:
    sock = connect(server.port)
    peer = Peer(sock)
    answer = peer.ask(upgrade_request(headers=headers) + envelope("echo", 1) * 100)
    assert answer.status == status
    assert answer.json["error"]
    # Closed, not answered: those frames are no requests.
    assert peer.ended()
    assert server.left.empty()
