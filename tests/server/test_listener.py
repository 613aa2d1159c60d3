"""Opening a port, or saying why not."""

from __future__ import annotations

import errno
import socket

import pytest

from daebus import AddressInUseError, DaebusError
from daebus.server.listener import listen


def test_a_free_port() -> None:
    with listen("127.0.0.1", 0) as sock:
        host, port = sock.getsockname()
        assert host == "127.0.0.1"
        assert port > 0
        assert not sock.getblocking()
        with socket.create_connection((host, port), timeout=5):
            pass


def test_a_name() -> None:
    with listen("localhost", 0) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(AddressInUseError) as caught:
            listen("127.0.0.1", port)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, DaebusError)
    assert caught.value.errno == errno.EADDRINUSE
    assert f"port {port} on 127.0.0.1 is in use" in str(caught.value)
    assert "port=0" in str(caught.value)


def test_a_port_can_be_taken_again_at_once() -> None:
    first = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        first.setblocking(True)
        served, _ = first.accept()
        served.close()  # our side closes first, so the port lingers in TIME_WAIT
    first.close()
    listen("127.0.0.1", port).close()


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(OSError, match="assign") as caught:  # of TEST-NET-1, RFC 5737
        listen("192.0.2.1", 0)
    assert not isinstance(caught.value, AddressInUseError)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(OSError, match=r"."):
        listen("no.such.host.invalid", 0)


def test_ipv6() -> None:
    try:
        sock = listen("::1", 0)
    except OSError as exc:
        pytest.skip(f"this machine has no IPv6: {exc}")
    with sock:
        assert sock.family == socket.AF_INET6
        with socket.create_connection(("::1", sock.getsockname()[1]), timeout=5):
            pass
