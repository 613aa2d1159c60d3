"""The connection over which one server is sent to, and what is underway on it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...server.threads.safelog import get_logger
from ...waits import monotonic
from .address import Address
from .line import Ended, Line, Lost
from .queue import Entry

__all__ = ["RETRY_FIRST", "RETRY_MOST", "Ask", "Lane"]

logger = get_logger("daebus.backplane")

# Seconds until the next attempt to connect, the first and the longest.
RETRY_FIRST = 0.05
RETRY_MOST = 0.5

# Seconds for which a connection must have held to be worth trying at once when it is lost.
_STEADY = 5.0

Ask = Callable[..., Any]


class Lane:
    """One server as the thread that sends sees it; only that thread changes it.

    Args:
        address: of the server.

    Attributes:
        line: the connection; None while there is none.
        was_up: there was one before.
        held: what is kept waits for a flush.
        retry_at: when to connect.
        flying: what was sent and is not answered yet.
        problem: why there is no connection; empty if there is one.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.line: Line | None = None
        self.was_up = False
        self.held = True
        self.retry_at = 0.0
        self.flying: list[Entry] = []
        self.problem = ""
        self._delay = RETRY_FIRST
        self._since = 0.0  # when it was connected
        self._complained = False
        self._scripts: set[str] = set()  # those that the server has

    def open(
        self, title: str, gives_up: Callable[[], bool], first: Iterable[Callable[[Ask], None]]
    ) -> bool:
        """Connect; return whether that was done.

        Args:
            title: of the connection.
            gives_up: whether to wait no longer.
            first: called with what sends a command and returns the answer.
        """
        line = Line(self.address, title, gives_up)
        try:
            line.open()
            line.ask("PING")
            for call in first:
                call(line.ask)
        except Exception as exc:  # Lost, or what the server has against a command
            line.close()
            self._put_off(exc, steady=False)
            return False
        if self._complained:
            logger.info("Redis at %s is back", self.address)
        self._complained = False
        self._scripts.clear()
        self._since = monotonic()
        self.line, self.problem = line, ""
        return True

    def close(self) -> list[Entry]:
        """Close the connection; return what was underway."""
        line, self.line = self.line, None
        if line is not None:
            line.close()
        self.held = True
        flying, self.flying = self.flying, []
        return flying

    def lost(self, exc: Exception) -> None:
        """Note that the connection, which is closed by now, was of no use any more."""
        self._put_off(exc, steady=monotonic() - self._since > _STEADY)

    def _put_off(self, exc: Exception, *, steady: bool) -> None:
        self._delay = RETRY_FIRST if steady else min(RETRY_MOST, 2 * self._delay)
        self.retry_at = monotonic() + self._delay * random.uniform(0.5, 1.0)
        self.problem = f"{exc}"
        if not self._complained and not isinstance(exc, Ended):
            self._complained = True
            logger.warning(
                "Redis at %s is away: %s; it is tried again, and what is sent waits",
                self.address,
                exc,
                kind=str(self.address),
            )

    def send(self, entries: list[Entry]) -> None:
        """Send, all at once.

        Raises:
            Lost: the connection is of no use any more.
        """
        assert self.line is not None
        self.flying = entries
        self.line.send([self._form(entry) for entry in entries])

    def _form(self, entry: Entry) -> Sequence[Any]:
        """Return what is sent: a script in whole if the server was not sent it yet."""
        if entry.script is None or entry.script in self._scripts:
            return entry.command
        self._scripts.add(entry.script)
        return ("EVAL", entry.script, *entry.command[2:])

    def send_whole(self, script: str) -> None:
        """Send a script in whole the next time: the server has lost it."""
        self._scripts.discard(script)

    def answer(self, title: str, gives_up: Callable[[], bool]) -> Any:
        """Return the answer to what was sent first; an error as the exception.

        Raises:
            Lost: none came.
        """
        assert self.line is not None
        answer = self.line.answer()
        if type(answer).__name__ != "AskError":
            return answer
        # The slot is on its way to another server, which has the key already.
        line = Line(self.address.at(*answer.node_addr), title, gives_up)
        try:
            line.open()
            line.ask("ASKING")
            return line.ask(*self.flying[0].command)
        except Lost:
            return answer
        except Exception as exc:  # what that server answered
            return exc
        finally:
            line.close()
