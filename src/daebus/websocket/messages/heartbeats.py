"""Client messages of type ``heartbeat``, which are answered beside the handlers, as pings are.

A page cannot send pings, and cannot see ours. Rules of this module:

1. A heartbeat is no message of the app: no handler, no rate, no sign that somebody is there
   who would keep ``idle_timeout`` from passing. It is charged as a ping is.
2. It is answered while a handler is busy, by the thread that reads for it, so no user code
   runs here, and a text is decoded only if it looks like a short heartbeat.
3. A handler that the program has registered for that type gets them all.
"""

from __future__ import annotations

from collections.abc import Callable

from ...data.depth import MAX_DEPTH
from ..connection.reader import MAX_HEARTBEAT
from ..protocol import envelope

__all__ = ["HEARTBEAT", "Heartbeats"]

HEARTBEAT = "heartbeat"


class Heartbeats:
    """Answers the heartbeats of all clients.

    Args:
        has_handler: tells whether the program has a handler for a message type.

    Attributes:
        take: returns the answer to a heartbeat; see ``_take``. Kept, as each connection has it.
        version: of the app, which is told in each answer; None for none.
    """

    def __init__(self, has_handler: Callable[[str], bool]) -> None:
        self._has_handler = has_handler
        self._answer = b'{"type":"heartbeat"}'
        self.version: str | None = None
        self.take = self._take

    def announce(self, version: str | None) -> None:
        """Tell a version from now on."""
        self.version = version
        if version is not None:
            self._answer = envelope.encode(HEARTBEAT, {"version": version})

    def answer(self, ident: str | float | None) -> bytes:
        """Return the answer to a heartbeat with that id."""
        return self._answer if ident is None else envelope.stamp(self._answer, ident)

    def _take(self, text: str) -> bytes | None:
        """Return the answer to a text, None if it is no heartbeat or the program's to answer.

        Threads:
            Any; under the lock of a connection.
        """
        # A long one is for its turn, and counts against rates: it costs what a message costs.
        if len(text) > MAX_HEARTBEAT or '"heartbeat"' not in text:
            return None
        if self._has_handler(HEARTBEAT):
            return None
        try:
            kind, payload = envelope.decode(text, MAX_DEPTH)
        except envelope.BadMessage:  # the owner answers it when its turn comes
            return None
        ident = payload.get("id")
        if kind != HEARTBEAT or not (ident is None or envelope.is_id(ident)):
            return None
        return self.answer(ident)
