"""What systemd passes to its services (sockets), and what these tell it (notices).

Two small protocols of environment variables, ``sd_listen_fds(3)`` and ``sd_notify(3)``.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import socket

from ...waits import monotonic
from ..threads.safelog import get_logger

__all__ = ["Notifier", "passed_descriptors"]

logger = get_logger("daebus.server")

_COUNT = re.compile("[1-9][0-9]{0,3}")

# The first descriptor that is passed, after the three standard ones.
_FIRST = 3

# A heartbeat is passed on when this part of the time that systemd waits has gone by since
# the last one. With half of it a loop that turns a little more often than that would be
# passed on every second time: just too late.
_PART = 0.25

# Seconds to wait when the manager's queue is full and the notice must not be lost.
_PATIENCE = 1.0


def passed_descriptors() -> list[int]:
    """Return the sockets that systemd has opened for this process.

    The variables stay, so that a second start finds them; they name this process, so its
    children do not take them for theirs.

    Raises:
        OSError: it has passed none.
    """
    count, pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    if not _COUNT.fullmatch(count) or not pid.isdecimal():
        raise OSError(
            errno.EBADF,
            "systemd has passed no socket: LISTEN_FDS and LISTEN_PID do not say so; start the "
            "program by a socket unit, or listen on a port instead",
        )
    if pid != str(os.getpid()):
        raise OSError(
            errno.EBADF,
            f"systemd has passed its sockets to process {pid}, and this is {os.getpid()}; "
            f"start the program with exec in the script between them",
        )
    descriptors = list(range(_FIRST, _FIRST + int(count)))
    for fd in descriptors:
        with contextlib.suppress(OSError):  # listening on it will raise
            os.set_inheritable(fd, False)  # programs that we start would keep the port open
    return descriptors


class Notifier:
    """Tells systemd how this service is doing (``sd_notify(3)``).

    Silent where no service manager asks for it. Errors are logged and never raised: the
    program works without its manager.

    Threads:
        Any; no lock. Two that beat at the same moment both reach systemd, which is fine.
    """

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._pause = _watchdog_seconds() * _PART
        self._pid = os.environ.get("WATCHDOG_PID", "")
        self._next = -math.inf  # when the next heartbeat is due
        self._failed = False  # so that a manager that is gone is logged once

    def ready(self, status: str) -> None:
        """Report that the start is done; wait a second at most."""
        self._send({"READY": "1", "STATUS": status}, _PATIENCE)

    def stopping(self) -> None:
        """Report that the program is about to end; wait a second at most."""
        self._send({"STOPPING": "1", "STATUS": "stopping"}, _PATIENCE)

    def heartbeat(self) -> None:
        """Feed the watchdog, if there is one and it is time; never wait."""
        if not self._pause or not self._address:
            return
        now = monotonic()
        if now < self._next:
            return
        if self._pid and self._pid != str(os.getpid()):
            return  # a child: it must not vouch for its parent
        if self._send({"WATCHDOG": "1"}, 0.0):
            self._next = now + self._pause

    def _send(self, fields: dict[str, str], timeout: float) -> bool:
        if not self._address:
            return False
        # A line break would begin another field.
        lines = [f"{name}={value}".replace("\n", " ") for name, value in fields.items()]
        address = self._address
        try:
            if address[0] not in "/@":
                raise OSError(errno.EAFNOSUPPORT, "it is neither a path nor an abstract name")
            if address[0] == "@":
                address = "\0" + address[1:]
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(timeout)
                sock.connect(address)  # so that a wait is for the manager's queue
                sock.send("\n".join(lines).encode(errors="surrogateescape"))
        except OSError as exc:
            if not self._failed:
                logger.warning("cannot notify %s: %s", self._address, exc)
            self._failed = True
            return False
        self._failed = False
        return True


def _watchdog_seconds() -> float:
    """Return how many seconds systemd waits for a sign of life; 0 if it does not."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() and len(text) < 20 else 0.0
