"""What the samples do around daebus: choose the port, and name a free one if it is taken."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import NoReturn

from daebus import Daebus


class Sample(Daebus):
    """An app, named as its sample is, that tells a reader of the README what to type next."""

    def start(self, *, port: int | None = None, notify: bool = False) -> None:
        try:
            super().start(port=port, notify=notify)
        except OSError as error:
            exit_without_port(self.name, self.http.port, error)


def port_from_environment(default: int = 8080) -> int:
    """Return the port in ``PORT``; 0 lets the system choose one."""
    text = os.environ.get("PORT") or str(default)
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        sys.exit(f"PORT must be a number from 0 to 65535, not {text!r}")
    return int(text)


def exit_without_port(sample: str, port: int, error: OSError) -> NoReturn:
    """Say why the sample cannot listen and what to type instead; exit with code 1."""
    taken = error.errno == errno.EADDRINUSE
    reason = "is already in use" if taken else f"cannot be used ({error.strerror or error})"
    choice = "" if sample == "dashboard" else f"SAMPLE={sample} "
    sys.exit(f"port {port} {reason}; try: make run-sample {choice}PORT={_free_port(port)}")


def _free_port(taken: int) -> int:
    """Find a free port close above ``taken`` that needs no privilege, or any free one."""
    start = taken + 1 if taken >= 1024 else 8080
    for port in [*range(start, min(start + 20, 65536)), 0]:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return 0
