"""Arguments that say where to listen: checked early, and opened together or not at all."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daebus import AddressInUseError
from daebus.server.sockets import addresses as module
from daebus.server.sockets.addresses import Addresses
from daebus.server.sockets.listener import Listener, listen


def places(hosts: Any = "127.0.0.1", port: int | None = None, **options: Any) -> Addresses:
    defaults: dict[str, Any] = {
        "unix": None,
        "unix_mode": 0o660,
        "socks": (),
        "fd": None,
        "reuse_port": False,
    }
    return Addresses(hosts, port, **{**defaults, **options})


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.mark.parametrize(
    ("options", "port"),
    [
        ({}, 8080),
        ({"port": 0}, 0),
        ({"unix": "x.sock"}, None),
        ({"fd": 7}, None),
        ({"fd": "systemd"}, None),
        ({"unix": Path("x.sock"), "port": 8081}, 8081),
    ],
)
def test_the_port_that_is_asked_for(options: dict[str, Any], port: int | None) -> None:
    assert places(**options).port == port


def test_a_socket_is_enough(bound: socket.socket) -> None:
    assert places(socks=bound).port is None


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"hosts": ""}, ValueError, "write host='0.0.0.0'"),
        ({"hosts": []}, ValueError, "write host='0.0.0.0'"),
        ({"hosts": [None]}, ValueError, "write host='0.0.0.0'"),
        ({"port": 65536}, ValueError, "port must be between 0 and 65535, not 65536"),
        ({"unix": ""}, ValueError, "unix must be a path"),
        ({"unix_mode": 660}, ValueError, "write it in octal: 0o660"),
        ({"socks": ["x"]}, TypeError, "sock must be a socket or a list of them, not 'x'"),
        (
            {"fd": "systmd"},
            ValueError,
            "fd must be the number of a socket or 'systemd', not 'systmd'",
        ),
        ({"fd": -1}, ValueError, "not -1"),
    ],
)
def test_arguments_that_make_no_sense(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=re.escape(text)):
        places(**options)


def test_a_system_that_cannot_share_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(ValueError, match="leave reuse_port out"):
        places(reuse_port=True)


def test_all_places_at_once(tmp_path: Path, bound: socket.socket) -> None:
    with listen("127.0.0.1", 0) as theirs:
        opened = places(port=0, unix=tmp_path / "x.sock", socks=[bound], fd=theirs.fileno()).open()
        assert [listener.address for listener in opened[1:]] == [
            f"unix:{tmp_path}/x.sock",
            f"127.0.0.1:{bound.getsockname()[1]}",
            theirs.address,
        ]
        for listener in opened:
            listener.close()


def test_one_that_cannot_be_had_releases_all(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as probe:
        port = probe.port
    with listen("127.0.0.1", 0) as theirs, socket.socket() as unbound:
        wanted = places(port=port, unix=tmp_path / "x.sock", socks=unbound, fd=theirs.fileno())
        with pytest.raises(OSError, match="sock has no address"):
            wanted.open()
        assert not (tmp_path / "x.sock").exists()
        listen("127.0.0.1", port).close()


@pytest.mark.parametrize("name", ["sock", "fd"])
def test_what_is_closed_already(bound: socket.socket, name: str) -> None:
    fd = bound.fileno()
    bound.close()
    wanted = places(socks=bound) if name == "sock" else places(fd=fd)
    with pytest.raises(OSError, match="is not an open socket: Bad file descriptor") as caught:
        wanted.open()
    assert caught.value.errno == errno.EBADF


def test_a_descriptor_that_is_no_socket() -> None:
    read, write = os.pipe()
    try:
        with pytest.raises(OSError, match=f"fd {read} is not an open socket"):
            places(fd=read).open()
    finally:
        os.close(read)
        os.close(write)


def test_what_was_given_stays_open_and_serves_again(bound: socket.socket) -> None:
    wanted = places(socks=bound)
    for _ in range(2):
        (listener,) = wanted.open()
        listener.close()
        socket.create_connection(bound.getsockname(), timeout=5).close()


def test_several_hosts_get_one_free_port(ipv6: None) -> None:
    first, second = places(["127.0.0.1", "::1"], 0).open()
    with first, second:
        assert first.port == second.port
        assert (first.host, second.host) == ("127.0.0.1", "::1")


def test_a_free_port_that_is_taken_on_the_next_host(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def one_taken(host: str, port: int, *, reuse_port: bool) -> Listener:
        asked.append((host, port))
        if len(asked) == 2:
            raise AddressInUseError(errno.EADDRINUSE, "taken")
        return listen(host, port)

    monkeypatch.setattr(module, "listen", one_taken)
    opened = places(["127.0.0.1", "127.0.0.2"], 0).open()
    for listener in opened:
        listener.close()
    assert [port == 0 for _, port in asked] == [True, False, True, False]
    assert len({listener.port for listener in opened}) == 1


@pytest.mark.parametrize("port", [0, "taken"])
def test_hosts_that_exclude_each_other(port: int | str) -> None:
    with listen("127.0.0.1", 0) as probe:
        number = probe.port
    with pytest.raises(AddressInUseError):
        places(["127.0.0.1", "127.0.0.1"], 0 if port == 0 else number).open()


def test_processes_that_share_a_port() -> None:
    (first,) = places(port=0, reuse_port=True).open()
    with first:
        (second,) = places(port=first.port, reuse_port=True).open()
        second.close()
