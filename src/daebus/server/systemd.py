"""What systemd passes to its services: listening sockets (``sd_listen_fds(3)``)."""

from __future__ import annotations

import errno
import os

__all__ = ["passed_descriptors"]

# The first descriptor that is passed, after the three standard ones.
_FIRST = 3


def passed_descriptors() -> list[int]:
    """Return the sockets that systemd has opened for this process.

    The variables stay, so that a second start finds them; they name this process, so its
    children do not take them for theirs.

    Raises:
        OSError: there are none.
    """
    count, pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    if not count.isdecimal() or not pid.isdecimal() or not int(count):
        raise OSError(
            errno.EBADF,
            "systemd has passed no socket: LISTEN_FDS and LISTEN_PID do not say so; start the "
            "program by a socket unit, or listen on a port instead",
        )
    if int(pid) != os.getpid():
        raise OSError(
            errno.EBADF,
            f"systemd has passed its sockets to process {pid} and this is {os.getpid()}; "
            f"have the script in between use exec",
        )
    descriptors = list(range(_FIRST, _FIRST + int(count)))
    for fd in descriptors:
        os.set_inheritable(fd, False)  # programs that we start would keep the port open
    return descriptors
