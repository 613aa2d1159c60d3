"""Servers told apart by the environment that they make."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from daebus.http.hosted import Borrowed, borrow, find_greenlets, refuse, wants_websocket
from daebus.server.handoff import Refusal


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


def environ(**changes: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/prefix",
        "PATH_INFO": "/gr\xc3\xbc\xc3\x9fe",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_PORT": "80",
        "HTTP_HOST": "x",
        "HTTP_SEC_WEBSOCKET_KEY": "k",
        "wsgi.multithread": True,
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"HTTP_UPGRADE": "websocket"}, True),
        ({"HTTP_UPGRADE": "h2c, WebSocket"}, True),
        ({"HTTP_UPGRADE": "h2c"}, False),
        ({}, False),
        ({"HTTP_UPGRADE": "websocket", "SERVER_PROTOCOL": "HTTP/1.0"}, False),
    ],
)
def test_what_asks_for_a_websocket(changes: dict[str, str], expected: bool) -> None:
    assert wants_websocket(environ(**changes)) is expected


@pytest.mark.parametrize("package", ["gevent", "eventlet"])
def test_greenlets_are_told_by_their_sockets(package: str) -> None:
    kind = type("socket", (), {"__module__": f"{package}._socket3"})
    problem = find_greenlets(environ(**{"gunicorn.socket": kind()}))
    assert problem is not None
    assert package in problem
    assert "--worker-class gthread" in problem


@pytest.mark.parametrize(
    "changes", [{"SERVER_SOFTWARE": "gevent/24.2 Python/3.11"}, {"eventlet.input": None}]
)
def test_greenlets_are_told_by_their_servers(changes: dict[str, Any]) -> None:
    assert find_greenlets(environ(**changes)) is not None


def test_threads_are_no_greenlets(sock: socket.socket) -> None:
    assert find_greenlets(environ(**{"gunicorn.socket": sock})) is None
    assert find_greenlets(environ()) is None


def test_why_a_server_cannot_spare_its_socket(sock: socket.socket) -> None:
    assert "does not share its sockets" in str(borrow(environ()))
    single = environ(**{"gunicorn.socket": sock, "wsgi.multithread": False})
    assert "has one thread" in str(borrow(single))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with context.wrap_socket(socket.socket(), server_hostname="x") as encrypted:
        assert "proxy" in str(borrow(environ(**{"werkzeug.socket": encrypted})))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("werkzeug.socket", ConnectionAbortedError), ("gunicorn.socket", StopIteration)],
)
def test_each_server_has_its_farewell(
    sock: socket.socket, name: str, expected: type[Exception]
) -> None:
    borrowed = borrow(environ(**{name: sock}))
    assert isinstance(borrowed, Borrowed)
    assert isinstance(borrowed.part(), expected)
    with pytest.raises(BrokenPipeError):
        sock.send(b"x")  # it is shut, but the server's to close
    assert sock.fileno() >= 0


def test_upgrade_is_what_the_environment_says(sock: socket.socket) -> None:
    borrowed = borrow(
        environ(**{"gunicorn.socket": sock, "SERVER_PORT": "", "QUERY_STRING": "a=1"})
    )
    assert isinstance(borrowed, Borrowed)
    upgrade = borrowed.upgrade()
    with contextlib.closing(upgrade.sock):
        assert upgrade.sock.fileno() != sock.fileno()
        assert upgrade.path == "/grüße"
        assert upgrade.target == "/prefix/gr%C3%BC%C3%9Fe?a=1"
        assert upgrade.headers == (("host", "x"), ("sec-websocket-key", "k"))
        assert (upgrade.port, upgrade.remote_address, upgrade.early) == (0, "", b"")
        assert not upgrade.secure


def test_https_in_front_of_the_server_is_wss(sock: socket.socket) -> None:
    borrowed = borrow(environ(**{"gunicorn.socket": sock, "wsgi.url_scheme": "https"}))
    assert isinstance(borrowed, Borrowed)
    upgrade = borrowed.upgrade()
    with contextlib.closing(upgrade.sock):
        assert upgrade.secure


def test_refusal_leaves_out_what_belongs_to_the_server() -> None:
    seen: list[Any] = []
    refusal = Refusal(426, "c", "t", (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")))
    body = b"".join(refuse(refusal, lambda *said: seen.extend(said)))
    assert body == b'{"error": "t", "code": "c"}'
    assert seen == [
        "426 Upgrade Required",
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Sec-WebSocket-Version", "13"),
        ],
    ]
