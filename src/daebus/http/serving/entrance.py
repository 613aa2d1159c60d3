"""Which requests come in, judged by the host that they ask for, before anything else is done."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Any

from ...origins import Hosts, is_address
from ...server.handoff import Refusal
from ...server.threads.safelog import get_logger
from ..protocol.paths import fault_in_decoded_path, fault_in_path

__all__ = ["Entrance"]

logger = get_logger("daebus.http")

MISDIRECTED = Refusal(421, "misdirected_host", "this server does not answer to that host")

# Host headers that are known to be right; a client may invent as many as match a pattern.
MAX_KNOWN = 64


class Entrance:
    """The hosts that a server answers to.

    A page whose name was made to lead to this machine (DNS rebinding) counts as one of ours in
    a browser; the name that its requests ask for is all that tells.

    Args:
        allowed: names of the program, ``"*"`` for all; None for none beside the usual ones.
        listening: addresses and names that the server listens on.

    Raises:
        ValueError: an entry is not the name of a host.
    """

    def __init__(self, allowed: Sequence[str] | str | None, listening: Iterable[str]) -> None:
        if isinstance(allowed, str):
            if allowed != "*":
                raise ValueError(
                    f"allowed_hosts is '*' or a list; write allowed_hosts=[{allowed!r}]"
                )
            allowed = [allowed]
        self._listed = allowed is not None
        self._hosts = Hosts([*(allowed or ()), *_own_names(listening)], "allowed_hosts")
        self._known: dict[str, None] = {}  # entries are only added

    def judge(self, host: str, peer: str) -> Refusal | None:
        """Return why a request may not come in.

        Args:
            host: that it asks for, with or without a port; what a trusted proxy says of it.
            peer: address of the client; empty on a Unix socket, where no page comes from, so
                that only a list of the program counts.
        """
        if host in self._known or (not peer and not self._listed):
            return None
        if self._hosts.allow(host):
            if len(self._known) < MAX_KNOWN:
                self._known[host] = None
            return None
        name = host.rpartition(":")[0] or host
        logger.warning(
            "refused a request of %s for the host %.200r; if that is this server, write "
            "DaebusHttp(allowed_hosts=[%.200r])",
            peer or "a Unix socket",
            host,
            name,
        )
        return MISDIRECTED

    def judge_environ(self, environ: dict[str, Any]) -> Refusal | None:
        """Return why a request of another server (PEP 3333) may not come in.

        Its path is looked at as well; our own server has done that in its parser.
        """
        sent = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "").partition("?")[0]
        fault = fault_in_path(sent) or fault_in_decoded_path(environ["PATH_INFO"])
        if fault is not None:
            return Refusal(400, "bad_request", fault)
        return self.judge(environ.get("HTTP_HOST", ""), environ.get("REMOTE_ADDR", ""))


def _own_names(listening: Iterable[str]) -> list[str]:
    """Return the names that this machine has without anybody saying so."""
    machine = socket.gethostname()
    short = machine.partition(".")[0]
    names = [machine, short, f"{short}.local", *listening]
    fit = [name for name in names if ":" not in name and not is_address(name) and _is_name(name)]
    return ["localhost", ".localhost", *fit]


def _is_name(text: str) -> bool:
    try:
        return bool(Hosts([text], "host"))
    except ValueError:
        return False  # a machine may be called anything
