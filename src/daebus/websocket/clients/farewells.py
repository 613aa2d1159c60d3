"""Send clients away before a stop, each at a moment of its own.

Rules of this module:

1. Clients that were told together would come back together. So each is told at its own moment
   (``Departures``), and when to come back.
2. A client whose request is being worked on is told after its answer, if there is time.
"""

from __future__ import annotations

from ...interrupts.flag import Flag
from ...server.threads.departures import Departures, pause_before_return
from ...server.threads.minder import Minder
from ..connection.link import Link
from ..protocol import envelope
from ..protocol.codec import TEXT, frame
from .registry import Registry

__all__ = ["GOODBYE", "Farewells"]

GOODBYE = "goodbye"


class Farewells:
    """Says goodbye to all clients of one start of the app.

    Args:
        registry: has them.
        minder: runs it.
    """

    def __init__(self, registry: Registry, minder: Minder) -> None:
        self._registry = registry
        self._restart = False  # once True it stays
        self._departures = Departures(
            minder,
            left=registry.snapshot,
            may_go=lambda link: not (link.busy or link.has_work()),
            tell=self._tell,
            finish=self.end,
        )

    @property
    def over(self) -> Flag:
        """Set once all were told; who comes later is told at once."""
        return self._departures.over

    def begin(self, spread: float, *, restart: bool) -> None:
        """Tell each client within so many seconds.

        Args:
            spread: seconds; 0 for now.
            restart: another process takes over, so the close code is 1012 in place of 1001.

        Threads:
            Any, and what interrupted one; never waits.
        """
        self._restart = self._restart or restart
        self._departures.begin(spread)

    def end(self, *, restart: bool = False) -> None:
        """Tell all who are left, at once.

        Threads:
            Any, and the minder may be dead.
        """
        self._restart = self._restart or restart
        self.over.set()
        for link in self._registry.all_now():
            self._tell(link)

    def came(self, link: Link) -> None:
        """Note a client that is in the registry now; one that is late is told at once.

        Threads:
            The connection's own.
        """
        if self.over.is_set():
            self._tell(link)

    def _tell(self, link: Link) -> None:
        reason = "restart" if self._restart else "shutdown"
        last = b""
        if not link.peer.raw:
            data = {"retry_after": pause_before_return(), "reason": reason}
            last = frame(TEXT, envelope.encode(GOODBYE, data))
        link.shut(1012 if self._restart else 1001, "", "shutdown", last)
