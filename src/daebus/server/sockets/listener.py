"""Open a listening socket: on a port, on a file, or on a socket that was passed in."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from types import TracebackType
from typing import Any

from ...errors import AddressInUseError
from ..threads.safelog import get_logger

__all__ = ["AF_UNIX", "BACKLOG", "Listener", "adopt", "listen", "listen_unix"]

logger = get_logger("daebus.server")

# The kernel caps it at net.core.somaxconn; a burst of browsers after a restart
# must not see refused connections.
BACKLOG = 1024

# What to do where a socket file cannot be made.
_ADVICE = {
    errno.ENOENT: "make its folder first",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EACCES: "choose a folder that this user may write to",
}

AF_UNIX: int | None = getattr(socket, "AF_UNIX", None)  # Windows has none


class Listener:
    """A listening socket with its address and, for a Unix socket, its file.

    Args:
        sock: listening; the listener takes it over and makes it non-blocking.
        file: path, device and inode of the file that ``close`` removes.

    Attributes:
        sock: the socket.
        host: an empty string on a Unix socket.
        port: 0 on a Unix socket.
        address: for people: ``127.0.0.1:8080``, ``[::1]:8080`` or ``unix:/run/x.sock``.
        foreign: it is a duplicate of somebody else's socket, which goes on listening.
    """

    __slots__ = ("_file", "address", "foreign", "host", "port", "sock")

    def __init__(
        self,
        sock: socket.socket,
        file: tuple[str, int, int] | None = None,
        *,
        foreign: bool = False,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.foreign = foreign
        self._file = file
        name: Any = sock.getsockname() if file is None else file[0]
        if sock.family == AF_UNIX:
            # One without a file comes as bytes that begin with NUL (Linux).
            text = "@" + name[1:].decode(errors="replace") if isinstance(name, bytes) else name
            self.host, self.port, self.address = "", 0, f"unix:{text}"
        else:
            self.host, self.port = str(name[0]), int(name[1])
            host = f"[{self.host}]" if ":" in self.host else self.host
            self.address = f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Listener {self.address}>"

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.sock.fileno()

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a new connection and the address of its peer."""
        return self.sock.accept()

    def close(self) -> None:
        """Remove the file, if it is still the one that was made here, and stop listening."""
        file, self._file = self._file, None
        if file is not None:
            # While the socket still listens no program takes the file for stale, and its
            # inode is not used again.
            try:
                _remove(*file)
            except OSError as exc:
                logger.warning("cannot remove %s: %s", file[0], exc)
        self.sock.close()

    def abandon(self) -> None:
        """Close a forked child's copy: the file is the parent's."""
        self.sock.close()


def listen(host: str, port: int, *, reuse_port: bool = False) -> Listener:
    """Bind and listen.

    Args:
        host: name or address; an IPv6 address is recognised by its colon, and takes
            IPv6 alone.
        port: 0 lets the system choose.
        reuse_port: let other sockets that say so share the port.

    Raises:
        AddressInUseError: the port is taken.
        PermissionError: the user may not open it.
        OSError: the address cannot be bound for another reason.
    """
    try:
        return _listen(host, port, reuse_port=reuse_port)
    except OSError as exc:
        raise _explained(exc, host, port) from None


def _listen(host: str, port: int, *, reuse_port: bool) -> Listener:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows the option lets two programs share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # So that "0.0.0.0" and "::" may both be asked for, and mean the same on all systems.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        return Listener(sock)
    except BaseException:
        sock.close()
        raise


def _explained(exc: OSError, host: str, port: int) -> OSError:
    """Return an error whose text is a sentence: where, why, and what to type."""
    number, where = exc.errno or 0, f"port {port} on {host}"
    if isinstance(exc, socket.gaierror):
        return socket.gaierror(
            number,
            f"the host {host!r} is unknown ({exc.strerror}); host= is an address of this machine, "
            f"'127.0.0.1' for itself alone or '0.0.0.0' for everybody",
        )
    if number == errno.EADDRINUSE:
        return AddressInUseError(
            number,
            f"{where} is in use; stop the other program or choose another port (port=0 takes a "
            f"free one)",
        )
    if number in (errno.EACCES, errno.EPERM):
        return PermissionError(
            number,
            f"{where} is not for this user, as most systems keep ports below 1024 for root; choose "
            f"a higher one, such as port=8080, or have systemd open it: fd='systemd'",
        )
    if number == errno.EADDRNOTAVAIL:
        return OSError(
            number,
            f"{where} cannot be opened, as {host} is not an address of this machine; write "
            f"host='127.0.0.1' for itself alone or host='0.0.0.0' for everybody",
        )
    if number == errno.EAFNOSUPPORT:
        return OSError(
            number, f"{where} cannot be opened, as this machine has no IPv6; leave it out"
        )
    return OSError(number, f"{where} cannot be opened: {exc.strerror or exc}")


def listen_unix(path: str, mode: int) -> Listener:
    """Make a socket file and listen on it.

    A file that no program listens on any more is replaced.

    Args:
        path: of the file; its folder must exist.
        mode: permissions of the file.

    Raises:
        AddressInUseError: another program listens on it.
        FileExistsError: there is a file of that name which is not a socket.
        OSError: the file cannot be made.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.ExitStack() as on_error:
        on_error.callback(sock.close)
        _bind_file(sock, path)
        made = os.lstat(path)
        listener = Listener(sock, (os.path.abspath(path), made.st_dev, made.st_ino))
        on_error.callback(listener.close)
        os.chmod(path, mode)  # before listen no client can connect
        sock.listen(BACKLOG)
        on_error.pop_all()
    return listener


def _bind_file(sock: socket.socket, path: str) -> None:
    for last in (False, True):
        try:
            sock.bind(path)
            return
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                number = exc.errno or errno.ENAMETOOLONG  # which comes without a number
                why, advice = exc.strerror or str(exc), _ADVICE.get(number, "choose another path")
                raise OSError(
                    number, f"cannot make the socket file {path}: {why}; {advice}", path
                ) from None
        if last or not _remove_stale(path):
            raise AddressInUseError(
                errno.EADDRINUSE,
                f"another program listens on {path}; stop it or choose another path",
            )


def _remove_stale(path: str) -> bool:
    """Remove a socket file that no program listens on; return False if one does.

    Raises:
        FileExistsError: it is not a socket.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return True
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(
            errno.EEXIST,
            "a file that is not a socket is there; move it or choose another path",
            path,
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a backlog that is full would hold us up
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            _remove(path, found.st_dev, found.st_ino)
            return True
        except OSError:  # it listens and its backlog is full, or we may not connect
            pass
    return False


def _remove(path: str, device: int, inode: int) -> None:
    """Remove a file unless another one has taken its place."""
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == (device, inode):
            os.unlink(path)


def adopt(sock: socket.socket, name: str) -> Listener:
    """Listen on a socket that the caller has bound.

    Args:
        sock: a duplicate; the listener takes it over, and an error closes it.
        name: what to call it in errors.

    Raises:
        OSError: it cannot listen.
    """
    with contextlib.ExitStack() as on_error:
        on_error.callback(sock.close)
        families = (socket.AF_INET, socket.AF_INET6, AF_UNIX)
        if sock.family not in families or sock.type != socket.SOCK_STREAM:
            raise OSError(errno.EPROTOTYPE, f"{name} is not a TCP or Unix stream socket")
        bound = sock.getsockname()
        if not (bound[1] if isinstance(bound, tuple) else bound):
            raise OSError(errno.EINVAL, f"{name} has no address; bind it first")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            try:
                sock.listen(BACKLOG)
            except OSError as exc:
                raise OSError(exc.errno, f"{name} cannot listen: {exc.strerror}") from None
        listener = Listener(sock, foreign=True)
        on_error.pop_all()
    return listener
