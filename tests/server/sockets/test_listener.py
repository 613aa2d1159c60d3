"""Opening a port or a socket file, or saying why not."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daebus import AddressInUseError, DaebusError
from daebus.server.sockets.listener import adopt, listen, listen_unix


def test_a_free_port() -> None:
    with listen("127.0.0.1", 0) as sock:
        assert sock.host == "127.0.0.1"
        assert sock.port > 0
        assert sock.address == f"127.0.0.1:{sock.port}"
        assert not sock.sock.getblocking()
        with socket.create_connection((sock.host, sock.port), timeout=5):
            pass


def test_a_name() -> None:
    with listen("localhost", 0) as sock:
        assert sock.host == "127.0.0.1"


def test_a_port_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.port
        with pytest.raises(AddressInUseError) as caught:
            listen("127.0.0.1", port)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, DaebusError)
    assert caught.value.errno == errno.EADDRINUSE
    assert f"port {port} on 127.0.0.1 is in use" in str(caught.value)
    assert "port=0" in str(caught.value)


def test_a_port_can_be_taken_again_at_once() -> None:
    first = listen("127.0.0.1", 0)
    port = first.port
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        first.sock.setblocking(True)
        served, _ = first.accept()
        served.close()  # our side closes first, so the port lingers in TIME_WAIT
    first.close()
    listen("127.0.0.1", port).close()


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(OSError, match="8080") as caught:  # of TEST-NET-1, RFC 5737
        listen("192.0.2.1", 8080)
    assert not isinstance(caught.value, AddressInUseError)
    assert (caught.value.errno, caught.value.strerror) == (
        errno.EADDRNOTAVAIL,
        "port 8080 on 192.0.2.1 cannot be opened, as 192.0.2.1 is not an address of this machine; "
        "write host='127.0.0.1' for itself alone or host='0.0.0.0' for everybody",
    )


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(
        socket.gaierror,
        match=r"the host 'no\.such\.host\.invalid' is unknown \(.+\); host= is an address of this "
        r"machine, '127\.0\.0\.1' for itself alone or '0\.0\.0\.0' for everybody",
    ):
        listen("no.such.host.invalid", 0)


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (
            errno.EACCES,
            PermissionError,
            "port 80 on 0.0.0.0 is not for this user, as most systems keep ports below 1024 for "
            "root; choose a higher one, such as port=8080, or have systemd open it: fd='systemd'",
        ),
        (
            errno.EAFNOSUPPORT,
            OSError,
            "port 80 on 0.0.0.0 cannot be opened, as this machine has no IPv6; leave it out",
        ),
        (errno.EMFILE, OSError, "port 80 on 0.0.0.0 cannot be opened: Too many open files"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[OSError], text: str
) -> None:
    def refuse(sock: socket.socket, address: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(OSError, match="80") as caught:
        listen("0.0.0.0", 80)
    assert (type(caught.value), caught.value.strerror) == (kind, text)


def test_ipv6(ipv6: None) -> None:
    with listen("::1", 0) as sock:
        assert sock.sock.family == socket.AF_INET6
        assert sock.address == f"[::1]:{sock.port}"
        with socket.create_connection(("::1", sock.port), timeout=5):
            pass


def test_ipv6_leaves_ipv4_to_another_socket(ipv6: None) -> None:
    with listen("::", 0) as six, listen("0.0.0.0", six.port) as four:
        assert four.port == six.port


def test_a_shared_port() -> None:
    with listen("127.0.0.1", 0, reuse_port=True) as first:
        listen("127.0.0.1", first.port, reuse_port=True).close()
        with pytest.raises(AddressInUseError):
            listen("127.0.0.1", first.port)


# --- socket files -------------------------------------------------------------------


def reach(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))


def test_a_socket_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with listen_unix(str(path), 0o620) as listener:
        assert (listener.host, listener.port) == ("", 0)
        assert listener.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o620
        reach(path)
    assert not path.exists()


def test_a_stale_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with listen_unix(str(path), 0o660):
        reach(path)


def test_a_file_that_somebody_listens_on_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with listen_unix(str(path), 0o660):
        with pytest.raises(AddressInUseError, match=re.escape(f"listens on {path}")) as caught:
            listen_unix(str(path), 0o660)
        assert caught.value.errno == errno.EADDRINUSE
        reach(path)


def test_a_full_backlog_is_no_stale_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with contextlib.ExitStack() as sockets:
        busy = sockets.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(str(path))
        busy.listen(0)
        while True:
            client = sockets.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)) != 0:
                break
        with pytest.raises(AddressInUseError):
            listen_unix(str(path), 0o660)
        assert path.is_socket()


def test_a_datagram_socket_in_use_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(AddressInUseError):
            listen_unix(str(path), 0o660)
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dead link"])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "target")
        if kind == "link":
            (tmp_path / "target").write_text("precious")
    with pytest.raises(FileExistsError, match="is not a socket") as caught:
        listen_unix(str(path), 0o660)
    assert caught.value.filename == str(path)
    assert os.path.lexists(path)


def test_a_file_that_took_our_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with listen_unix(str(path), 0o660):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


def test_a_file_that_is_gone_already(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with listen_unix(str(path), 0o660):
        path.unlink()


def test_a_file_that_cannot_be_removed_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "no", path)

    listener = listen_unix(str(tmp_path / "x.sock"), 0o660)
    monkeypatch.setattr(os, "unlink", refuse)
    listener.close()
    assert listener.fileno() == -1
    assert "cannot remove" in caplog.text


def test_a_relative_path_is_removed_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listener = listen_unix("x.sock", 0o660)
    assert listener.address == f"unix:{tmp_path}/x.sock"
    monkeypatch.chdir("/")
    listener.close()
    assert not (tmp_path / "x.sock").exists()


def test_a_forked_copy_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with listen_unix(str(path), 0o660) as listener:
        listener.abandon()
        assert path.is_socket()


@pytest.mark.parametrize(
    ("name", "advice"), [("none/x.sock", "make its folder first"), ("x" * 200, "a shorter path")]
)
def test_a_path_that_cannot_be(tmp_path: Path, name: str, advice: str) -> None:
    with pytest.raises(OSError, match=f"socket file .*{name}: .+; .*{advice}") as caught:
        listen_unix(str(tmp_path / name), 0o660)
    assert caught.value.errno in (errno.ENOENT, errno.ENAMETOOLONG)


def test_a_mode_that_cannot_be_set_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(errno.EPERM, "no", path)

    monkeypatch.setattr(os, "chmod", refuse)
    with pytest.raises(PermissionError):
        listen_unix(str(tmp_path / "x.sock"), 0o660)
    assert not list(tmp_path.iterdir())


# --- sockets of others --------------------------------------------------------------


def test_an_adopted_socket_listens() -> None:
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        with adopt(given.dup(), "sock") as listener:
            port = given.getsockname()[1]
            assert listener.address == f"127.0.0.1:{port}"
            socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_an_adopted_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        with adopt(given.dup(), "sock") as listener:
            assert listener.address == f"unix:{path}"
        reach(path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has sockets without a file")
def test_an_adopted_socket_without_a_file() -> None:
    name = f"daebus-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind("\0" + name)
        with adopt(given.dup(), "sock") as listener:
            assert listener.address == f"unix:@{name}"


def datagram() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def connected() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname(), timeout=5)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (datagram, "is not a TCP or Unix stream socket"),
        (socket.socket, "has no address; bind it first"),
        (lambda: socket.socket(socket.AF_UNIX), "has no address; bind it first"),
        (connected, "cannot listen"),
    ],
    ids=["datagram", "unbound", "unbound file", "connected"],
)
def test_a_socket_that_cannot_accept(make: Callable[[], socket.socket], reason: str) -> None:
    sock = make()
    with pytest.raises(OSError, match=f"sock {reason}"):
        adopt(sock, "sock")
    assert sock.fileno() == -1
