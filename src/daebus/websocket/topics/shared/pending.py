"""Changes of this node that are on their way to the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ....backplane.store import Done, Known

__all__ = ["Change", "Pending"]


class Change:
    """A publication, or a change of a state, that nobody has confirmed yet.

    Args:
        content: what it says; ``Copy.alone`` does it to the log if it cannot be shared.
        size: bytes of it.
        send: hands it to the store.
        moment: when it was made.

    Attributes:
        number: of the change, for its topic.
        before: the number of the one that must have been made before; 0 for none.
    """

    __slots__ = ("before", "content", "moment", "number", "send", "size")

    def __init__(
        self, content: Any, size: int, send: Callable[[Change, Known, Done], object], moment: float
    ) -> None:
        self.content = content
        self.size = size
        self.send = send
        self.moment = moment
        self.number = self.before = 0


class Pending:
    """Those of one topic, in their order; the topic's lock guards it.

    Attributes:
        number: of the newest.
        confirmed: the newest that is known to have been made; set by the backplane's thread too.
        size: bytes that wait.
    """

    __slots__ = ("_changes", "confirmed", "number", "size")

    def __init__(self) -> None:
        self._changes: deque[Change] = deque()
        self.number = 0
        self.confirmed = 0
        self.size = 0

    def __bool__(self) -> bool:
        """True if one is not confirmed; one look, without the lock."""
        return bool(self._changes) and self.confirmed < self.number

    @property
    def oldest(self) -> float | None:
        """The moment of the oldest; None if there is none. One look, without the lock."""
        if not self:
            return None
        try:
            return self._changes[0].moment
        except IndexError:
            return None

    def add(self, change: Change) -> None:
        """Add one behind the others."""
        self._settle()
        self.number += 1
        change.number = self.number
        change.before = self._changes[-1].number if self._changes else 0
        self._changes.append(change)
        self.size += change.size

    def _settle(self) -> None:
        while self._changes and self._changes[0].number <= self.confirmed:
            self.size -= self._changes.popleft().size

    def all(self) -> list[Change]:
        """Return them."""
        self._settle()
        return list(self._changes)

    def take(self) -> list[Change]:
        """Return them, and forget them."""
        changes = self.all()
        self._changes.clear()
        self.size = 0
        return changes
