"""Requests that wait for their answers, by id; it knows no connection.

What waits is told by the reader's thread: the answer, progress, or that the connection was lost.
A caller who waits runs in its own thread, and so does the function for its progress.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import Any, Protocol

from ..errors import Disconnected, RequestError
from ..interrupts.flag import Flag
from ..interrupts.stack import check_outside
from .message import Message

__all__ = ["KINDS", "Answer", "Requests", "Waiting"]

# Messages of progress that wait for a slow function; of more the newest count.
MAX_PROGRESS = 100

# Types of what belongs to a request.
KINDS = frozenset(("error", "progress", "response"))


class Waiting(Protocol):
    """What waits for an answer; called in the reader's thread, must neither wait nor raise."""

    def take(self, message: Message) -> bool:
        """Take a message of ``KINDS``; return True if it was the last."""

    def lose(self, problem: Exception) -> None:
        """Note that no answer will come."""


class Answer(Flag):
    """What a caller waits for; set whenever there is something new.

    Attributes:
        progress: what came of it, the newest.
        done: it has its answer, or a problem in its place.
        sent: it has left, as far as anybody can know.
    """

    def __init__(self) -> None:
        super().__init__()
        self.progress: deque[Any] = deque(maxlen=MAX_PROGRESS)
        self.done = False
        self.sent = False
        self._data: Any = None
        self._problem: Exception | None = None

    def take(self, message: Message) -> bool:
        """Take a message; return True if it was the answer."""
        if message.type == "progress":
            self.progress.append(message.data)
        else:
            self._data = message.data
            if message.type == "error":
                self._problem = RequestError(message.data if isinstance(message.data, dict) else {})
            self.done = True
        self.set()
        return self.done

    def lose(self, problem: Exception) -> None:
        """Note that no answer will come."""
        if not self.done:
            if isinstance(problem, Disconnected) and self.sent:
                problem = Disconnected(
                    str(problem), code=problem.code, reason=problem.reason, sent=True
                )
            self._problem, self.done = problem, True
        self.set()

    def get(self) -> Any:
        """Return the data, or raise the problem; it is done."""
        problem, self._problem = self._problem, None  # an exception refers to its frames
        if problem is not None:
            raise problem
        return self._data


class Requests:
    """The table of what waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Waiting] = {}  # guarded by: _lock
        self._turn: object = None  # guarded by: _lock; the connection that is open

    @property
    def waited_for(self) -> bool:
        """True while anything waits for an answer."""
        return bool(self._waiting)  # unguarded: one look

    def number(self) -> int:
        """Return a new id; none is used twice, on whichever connection."""
        return next(self._numbers)

    def begin(self, turn: object) -> None:
        """Note that a connection is open."""
        with self._lock:
            self._turn = turn

    def add(self, ident: int, waiting: Waiting, turn: object) -> bool:
        """Wait for an answer; False if that connection is not the open one any more."""
        check_outside("a request of the client", self._lock)
        with self._lock:
            if self._turn is not turn:
                return False
            self._waiting[ident] = waiting
            return True

    def forget(self, ident: int) -> None:
        """Wait no more."""
        self._waiting.pop(ident, None)  # unguarded: in one step

    def take(self, message: Message) -> bool:
        """Hand a message to what waits for it; True if it is of ours, also if nothing waits."""
        ident: object = message.id
        if message.type not in KINDS or not isinstance(ident, int):
            return False
        waiting = self._waiting.get(ident)  # unguarded: in one step
        if waiting is not None and waiting.take(message):
            self.forget(ident)
        return True

    def end(self, problem: Exception) -> None:
        """Note that the connection is lost: nothing that waits will be answered."""
        with self._lock:
            self._turn = None
            lost, self._waiting = list(self._waiting.values()), {}
        for waiting in lost:
            waiting.lose(problem)
