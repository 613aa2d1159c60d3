"""Addresses as a person can open them."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from daebus.server.sockets.listener import Listener, listen, listen_unix
from daebus.server.sockets.urls import of_websockets, urls


def test_an_address_is_a_url(tmp_path: Path) -> None:
    with (
        listen("127.0.0.1", 0) as one,
        listen("127.0.0.2", 0) as two,
        listen_unix(str(tmp_path / "x.sock"), 0o600) as file,
    ):
        expected = [f"127.0.0.1:{one.port}/", f"127.0.0.2:{two.port}/"]
        assert urls([one, file, two], secure=False) == [f"http://{url}" for url in expected]
        assert urls([one, two], secure=True) == [f"https://{url}" for url in expected]
        assert urls([file], secure=False) == []


def test_an_ipv6_address_has_brackets(ipv6: None) -> None:
    with listen("::1", 0) as listener:
        assert urls([listener], secure=False) == [f"http://[::1]:{listener.port}/"]


def test_all_addresses_are_those_to_open_here_and_elsewhere(ipv6: None) -> None:
    with listen("0.0.0.0", 0) as four, listen("::", 0) as six:
        found = urls([four, six], secure=False)
        assert f"http://127.0.0.1:{four.port}/" in found
        assert f"http://[::1]:{six.port}/" in found
        for url in found:
            match = re.fullmatch(r"http://\[?([0-9a-f.:]+?)\]?:(\d+)/", url)
            assert match is not None, url
            socket.create_connection((match[1], int(match[2])), timeout=5).close()


@pytest.mark.parametrize("port", [80, 443])
def test_the_usual_port_is_left_out(port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = Listener(sock)
        listener.port = port
        secure = port == 443
        assert urls([listener], secure=secure) == [f"http{'s' * secure}://127.0.0.1/"]
        assert urls([listener], secure=not secure)[0].endswith(f":{port}/")


def test_without_a_network_there_is_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sock: socket.socket, address: object) -> None:
        raise OSError("no network")

    with listen("0.0.0.0", 0) as listener:
        monkeypatch.setattr(socket.socket, "connect", refuse)
        assert urls([listener], secure=False) == [f"http://127.0.0.1:{listener.port}/"]


def test_a_port_for_websockets_alone_is_beside_them() -> None:
    found = ["http://127.0.0.1:8080/", "http://127.0.0.1:8081/", "https://[::1]/"]
    assert of_websockets(found, 9) == ["ws://127.0.0.1:9/", "wss://[::1]:9/"]
