"""A topic that is read by iterating over it, or by the client's functions for its types.

It has two positions: what came, from which a new connection goes on, and what the program was
handed, which it may store and come back with after its own restart.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..checks.functions import check_function
from ..errors import Disconnected, ForkedError, StateError
from ..waits import lock_timeout
from .callbacks import Callbacks
from .message import Message
from .queues import Ended, Queue
from .subscriptions import Gap, Position, integer, position_in

__all__ = ["ClientTopic", "TopicFeed"]


class _Step:
    """A position that counts once the program has been handed what is before it."""

    __slots__ = ("done", "position")

    def __init__(self, position: Position | None) -> None:
        self.position = position
        self.done = False


class TopicFeed:
    """A topic inside: what comes of it, and where it stands.

    Args:
        name: of the topic.
        queue: for what no function takes.
        callbacks: the functions.
        last: how many of the latest messages are asked for.
        since: where to go on.
        timeout: of the client.
    """

    def __init__(
        self,
        name: str,
        queue: Queue[tuple[Message, _Step]],
        callbacks: Callbacks,
        *,
        last: int | None,
        since: Position | None,
        timeout: float,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.problem: Exception | None = None
        self.on_gap: Callable[[Gap], object] | None = None
        self._queue = queue
        self._callbacks = callbacks
        self._last = last
        self._came = since  # only the reader changes it
        self._lock = threading.Lock()
        self._handed = since  # guarded by: _lock
        self._steps: deque[_Step] = deque()  # guarded by: _lock

    @property
    def handed(self) -> Position | None:
        """Behind the last message that the program was handed, and all before it."""
        return self._handed  # unguarded: one look

    def next(self, timeout: float) -> Message:
        """Take the next message; raises what ``Queue.take`` raises."""
        message, step = self._queue.take(timeout)
        self._done(step)
        return message

    def drop(self) -> None:
        """Let nothing more come, and forget what waits."""
        self._queue.end(drop=True)

    def set_on_gap(self, function: Callable[[Gap], object]) -> None:
        """Have a function called for gaps."""
        self.on_gap = function
        self._callbacks.need()

    # --- what the table calls

    def wanted(self) -> dict[str, Any]:
        """Return the data of a subscribe."""
        data: dict[str, Any] = {"topic": self.name}
        if self._last is not None:
            data["last"] = self._last
        if self._came is not None:
            data["since"] = self._came
        return data

    def answered(self, fields: Mapping[str, Any]) -> None:
        """Take the answer to a subscribe."""
        if fields.get("kind") == "state":
            self.end(StateError(f"{self.name!r} is a state; write client.state({self.name!r})"))
            return
        position = position_in(fields)
        if position is None:
            return
        position["offset"] -= integer(fields.get("replay")) or 0
        self._move(position)
        if not fields.get("recovered") and fields.get("reason") != "new":
            self._tell(fields, position)

    def take(self, message: Message, size: int) -> None:
        """Take a message."""
        if message.offset is not None and self._came is not None:
            self._came = {**self._came, "offset": message.offset}
        step = _Step(self._came)
        with self._lock:
            self._steps.append(step)
        if not self._callbacks.offer(message, size, lambda: self._done(step)):
            self._queue.put((message, step), size)

    def skip(self, fields: Mapping[str, Any]) -> None:
        """Take a gap."""
        position = position_in(fields)
        if position is not None:
            self._move(position)
            self._tell(fields, position)

    def lose(self) -> None:
        """Do nothing: the next connection goes on from here."""

    def end(self, problem: Exception | None) -> None:
        """Let nothing more come."""
        self.problem = problem
        self._queue.end()

    def _tell(self, fields: Mapping[str, Any], position: Position) -> None:
        if self.on_gap is not None:
            reason, missed = str(fields.get("reason")), integer(fields.get("missed"))
            self._callbacks.later(self.on_gap, Gap(self.name, reason, missed, position))

    def _move(self, position: Position) -> None:
        self._came = position
        step = _Step(position)
        with self._lock:
            self._steps.append(step)
        self._done(step)

    def _done(self, step: _Step) -> None:
        with self._lock:
            step.done = True
            while self._steps and self._steps[0].done:
                self._handed = self._steps.popleft().position


class ClientTopic:
    """A topic of the server, as ``client.topic(name)`` returns it.

    Iterate over it: the messages come in their order, across reconnects. It ends when it or the
    client is closed. Messages whose type has a function (``@client.on``) are given to that one.
    """

    def __init__(
        self, feed: TopicFeed, leave: Callable[[TopicFeed], None], check_fork: Callable[[], None]
    ) -> None:
        self._feed = feed
        self._leave = leave
        self._check_fork = check_fork

    @property
    def name(self) -> str:
        """Its name."""
        return self._feed.name

    @property
    def position(self) -> dict[str, Any] | None:
        """Where the program is: behind the last message that it was handed.

        It is JSON. Store it, and give it to ``client.topic(name, since=...)`` after a restart;
        None as long as the server has not answered.
        """
        return self._feed.handed

    def on_gap(self, function: Callable[[Gap], object]) -> Callable[[Gap], object]:
        """Have a function called with a ``Gap`` when messages were lost; a decorator.

        Raises:
            TypeError: it is no function of one argument.
        """
        self._check_fork()
        check_function("an on_gap function", function, ("gap",), kinds=("plain",))
        self._feed.set_on_gap(function)
        return function

    def receive(self, timeout: float | None = None) -> Message:
        """Wait for the next message.

        Args:
            timeout: seconds; None for the client's own timeout.

        Raises:
            TimeoutError: none came in time.
            RequestError: the server does not let us have this topic, or has taken it back.
            Disconnected, Refused: the client has ended, and nothing is left.
        """
        self._check_fork()
        seconds = self._feed.timeout if timeout is None else timeout
        try:
            return self._feed.next(lock_timeout(seconds))
        except TimeoutError:
            raise TimeoutError(
                f"no message of topic {self.name!r} came within {seconds:g} s"
            ) from None
        except Ended:
            raise self._feed.problem or Disconnected(f"topic {self.name!r} was closed") from None

    def __iter__(self) -> Iterator[Message]:
        """Yield its messages until it is closed."""
        while True:
            self._check_fork()
            try:
                message = self._feed.next(math.inf)
            except Ended:
                if self._feed.problem is not None:
                    raise self._feed.problem from None
                return
            yield message

    def close(self) -> None:
        """Unsubscribe; what came and was not taken is dropped.

        In a child that was forked from the client's process nothing happens; all other methods
        raise ``ForkedError`` there.
        """
        try:
            self._check_fork()
        except ForkedError:
            return
        self._leave(self._feed)
        self._feed.drop()
