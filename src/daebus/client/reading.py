"""What is read of a connection, and when its server counts as gone.

Rules of this module:

1. A server that sends nothing for ``heartbeat`` seconds is asked; without any message for another
   ``heartbeat_timeout`` the connection is left, without its consent.
2. While the inbox is full nothing is read, so silence says nothing about the server. It is asked
   all the same, and what comes before its answer is read beyond the bound, up to ``EAGER`` times.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..interrupts.flag import Flag
from ..waits import monotonic, until
from .message import encode
from .queues import SLICE, Inbox
from .wire import Lost, Wire

__all__ = ["Reading"]

# Our own code for a server that does not answer: never sent, as nobody would read it.
_SILENT = 4900


class Reading:
    """Reads the connections of one client, one after the other.

    Args:
        inbox: tells whether there is room for more.
        came: takes a message, and returns its id if it may answer a heartbeat.
        number: returns a new id.
        closing: set once nobody wants anything any more.
        heartbeat: seconds of silence after which the server is asked.
        heartbeat_timeout: seconds for any message then.

    Threads:
        One, that of the session.
    """

    def __init__(
        self,
        inbox: Inbox,
        came: Callable[[str | bytes], object],
        number: Callable[[], int],
        closing: Flag,
        heartbeat: float,
        heartbeat_timeout: float,
    ) -> None:
        self._inbox = inbox
        self._came = came
        self._number = number
        self._closing = closing
        self._heartbeat = heartbeat
        self._heartbeat_timeout = heartbeat_timeout

    def run(self, wire: Wire) -> Lost:
        """Read a connection until its server is silent, and say so.

        Raises:
            Lost: it has ended otherwise.
        """
        asked: int | None = None  # the id of the last heartbeat, until its own answer
        heard, silent = monotonic(), False  # silent: nothing has come since we asked
        try:
            while True:
                if silent and not self._inbox.has_room():
                    self._wait_for_room(math.inf)  # nothing can be known before that
                    heard = monotonic()
                due = heard + (self._heartbeat_timeout if silent else self._heartbeat)
                message = None
                if self._wait_for_room(due):
                    message = wire.receive(max(0.0, due - monotonic()))
                if message is not None:
                    heard, silent = monotonic(), False
                    if self._came(message) == asked is not None:
                        asked = None
                        self._inbox.end_wait()
                    wire.pay()
                elif silent:
                    return Lost(_SILENT, "the server does not answer")
                else:
                    if asked is None:
                        self._inbox.begin_wait()
                    asked = self._number()
                    # Where that does not leave at once, something else waits there already.
                    # An app that handles the type itself answers for certain if there is an id.
                    wire.send_at_once(encode("heartbeat", ident=asked))
                    heard, silent = monotonic(), True
        finally:
            if asked is not None:
                self._inbox.end_wait()

    def _wait_for_room(self, deadline: float) -> bool:
        """Wait until there is room, or nobody wants any; False if it took too long."""
        while not (self._inbox.has_room() or self._closing.is_set()):
            if monotonic() >= deadline:
                return False
            self._inbox.wait_for_room(min(until(deadline), SLICE))
        return True
