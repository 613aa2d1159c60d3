"""A state of the server: a mapping that is kept current.

The reader replaces the values, it never changes them; so whoever reads sees them as they were at
one moment, and takes no lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..checks.functions import check_function
from ..errors import Disconnected, ForkedError, StateError
from ..interrupts.flag import Flag
from ..interrupts.stack import check_outside
from ..waits import lock_timeout, monotonic, until
from .callbacks import Callbacks
from .message import Message
from .queues import SLICE
from .subscriptions import Position, integer, position_in

__all__ = ["ClientState", "StateFeed"]

Change = Callable[[Mapping[str, Any], set[str]], object]


class StateFeed:
    """A state inside.

    Args:
        name: of the state.
        callbacks: call the function for changes.
        timeout: of the client.
    """

    def __init__(self, name: str, callbacks: Callbacks, *, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self.values: dict[str, Any] = {}  # replaced, never changed
        self.synced = False
        self._callbacks = callbacks
        self._coming: dict[str, Any] | None = None  # a snapshot of which more will come
        self._position: Position | None = None  # up to which all is known
        self._epoch: str | None = None  # of what comes
        self._on_change: Change | None = None
        self._lock = threading.Lock()
        self._waiting: list[Flag] = []  # guarded by: _lock
        self._ended = False  # guarded by: _lock
        self._problem: Exception | None = None

    def set_on_change(self, function: Change) -> None:
        """Have a function called for changes."""
        self._on_change = function
        self._callbacks.need()

    def wait(self, key: str, seconds: float) -> Any:
        """Wait for the value of a key; see ``ClientState.wait``."""
        deadline = monotonic() + lock_timeout(seconds)
        while True:
            check_outside("waiting for a state", self._lock)
            flag = Flag()
            with self._lock:
                ended = self._ended
                self._waiting.append(flag)
            try:
                values = self.values
                if key in values:
                    return values[key]
                if ended:
                    raise self._problem or Disconnected(f"state {self.name!r} was closed")
                if monotonic() >= deadline:
                    raise TimeoutError(f"state {self.name!r} had no {key!r} within {seconds:g} s")
                flag.wait(min(until(deadline), SLICE))
            finally:
                with self._lock:
                    if flag in self._waiting:
                        self._waiting.remove(flag)

    # --- what the table calls

    def wanted(self) -> dict[str, Any]:
        """Return the data of a subscribe."""
        data: dict[str, Any] = {"topic": self.name}
        if self._position is not None:
            data["since"] = self._position
        return data

    def answered(self, fields: Mapping[str, Any]) -> None:
        """Take the answer to a subscribe."""
        if fields.get("kind") == "history":
            self.end(
                StateError(
                    f"{self.name!r} is a topic with a history, and no state; "
                    f"write client.topic({self.name!r})"
                )
            )
            return
        position = position_in(fields)
        if position is not None:
            self._epoch = position["epoch"]

    def take(self, message: Message, size: int) -> None:
        """Take a frame: values that were set, and keys that were removed."""
        data = message.data
        if not isinstance(data, dict):
            return
        old = self.values
        snapshot = bool(data.get("snapshot"))
        into = {} if snapshot else dict(old if self._coming is None else self._coming)
        given, removed = data.get("set"), data.get("removed")
        changed: set[str] = set()
        if isinstance(given, dict):
            into.update(given)
            changed.update(given)
        if isinstance(removed, list):
            for key in removed:
                into.pop(key, None)
                changed.add(key)
        if snapshot or self._coming is not None:
            # The old values are seen until the new ones are complete.
            if not data.get("synced"):
                self._coming = into
                return
            changed = {key for key in {**old, **into} if old.get(key, ...) != into.get(key, ...)}
        self._coming = None
        self.values = into
        if data.get("synced"):
            self.synced = True
        offset = integer(message.offset)
        if self.synced and offset is not None and self._epoch is not None:
            self._position = {"epoch": self._epoch, "offset": offset}
        self._wake()
        if changed and self._on_change is not None:
            self._callbacks.later(self._on_change, dict(into), changed)

    def skip(self, fields: Mapping[str, Any]) -> None:
        """Take a gap: what follows is a snapshot, of another epoch."""
        position = position_in(fields)
        if position is not None:
            self._epoch = position["epoch"]
            self._position, self.synced = None, False

    def lose(self) -> None:
        """Note that the values may be old."""
        self.synced, self._coming = False, None

    def end(self, problem: Exception | None) -> None:
        """Let nothing more come."""
        self._problem, self.synced = problem, False
        with self._lock:
            self._ended = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for flag in waiting:
            flag.set()


class ClientState(Mapping[str, Any]):
    """A state of the server, as ``client.state(name)`` returns it.

    Read it as a dict. While there is no connection it holds what it held before: see ``synced``.
    """

    def __init__(
        self, feed: StateFeed, leave: Callable[[StateFeed], None], check_fork: Callable[[], None]
    ) -> None:
        self._feed = feed
        self._leave = leave
        self._check_fork = check_fork

    @property
    def name(self) -> str:
        """Its name."""
        return self._feed.name

    @property
    def synced(self) -> bool:
        """True while its values are those of the server; False without a connection."""
        self._check_fork()
        return self._feed.synced

    def on_change(self, function: Change) -> Change:
        """Have a function called with the values and the keys that changed; a decorator.

        Raises:
            TypeError: it is no function of two arguments.
        """
        self._check_fork()
        check_function("an on_change function", function, ("values", "keys"), kinds=("plain",))
        self._feed.set_on_change(function)
        return function

    def wait(self, key: str, timeout: float | None = None) -> Any:
        """Wait until there is a value for a key, and return it.

        Args:
            key: its name; a value that is there is returned at once.
            timeout: seconds; None for the client's own timeout.

        Raises:
            TimeoutError: there was none in time.
            RequestError: the server does not let us have this state, or has taken it back.
            Disconnected, Refused: the client has ended.
        """
        self._check_fork()
        return self._feed.wait(key, self._feed.timeout if timeout is None else timeout)

    def close(self) -> None:
        """Unsubscribe; the values stay as they are.

        In a child that was forked from the client's process nothing happens; all other methods
        raise ``ForkedError`` there.
        """
        try:
            self._check_fork()
        except ForkedError:
            return
        self._leave(self._feed)
        self._feed.end(None)

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key."""
        return self._feed.values[key]

    def __iter__(self) -> Iterator[str]:
        """Yield the keys as they are now."""
        return iter(self._feed.values)

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._feed.values)

    def __repr__(self) -> str:
        """Show the values."""
        return f"<state {self.name!r}: {self._feed.values!r}>"
