"""What an emitter publishes on topics, until Redis has confirmed it.

Rules of this module:

1. Each change has a number for its topic and is sent again under that number, so that it is made
   once, whatever became of the connection.
2. It names the number of the one before it that is not confirmed. If that one was lost, nothing is
   done, and both are sent again in their order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..backplane.frames import Template
from ..backplane.store import DISORDER, Done, Known, Write
from ..errors import BackplaneError
from ..waits import monotonic

__all__ = ["Changes", "Send"]

Send = Callable[[Write, Done], None]


class _Change:
    """One of them."""

    __slots__ = ("at", "flying", "frame", "number", "send", "topic")

    def __init__(self, topic: str, number: int, frame: bytes, send: Send) -> None:
        self.topic = topic
        self.number = number
        self.frame = frame
        self.send = send
        self.flying = False  # it was sent, and the answer is to come
        self.at = monotonic()


class Changes:
    """Those of one emitter, in the order of the calls.

    Args:
        lock: the emitter's.
        writer: the incarnation of the emitter.
        max_age: seconds that one may wait.
        up: tells whether there is a connection.
        done: called under the lock with what became of each: an exception if it was not made.

    Attributes:
        bytes: what waits.
    """

    def __init__(
        self,
        lock: threading.Lock,
        writer: str,
        max_age: float,
        up: Callable[[], bool],
        done: Callable[[Exception | None], None],
    ) -> None:
        self._lock = lock
        self._writer = writer
        self._max_age = max_age
        self._up = up
        self._done_locked = done
        self._numbers: dict[str, int] = {}  # guarded by: _lock; the last one of each topic
        self._waiting: list[_Change] = []  # guarded by: _lock
        self._newest: dict[str, int] = {}  # guarded by: _lock; the last of each topic that waits
        self.bytes = 0  # written under _lock

    def add_locked(
        self, topic: str, template: Template, channel: str, secret: bytes | None, send: Send
    ) -> None:
        """Number a change and send it.

        Args:
            topic: its name.
            template: all of the frame but its number.
            channel: of the topic.
            secret: to sign it with.
            send: hands it to the store.
        """
        assert self._lock.locked()
        number = self._numbers[topic] = self._numbers.get(topic, 0) + 1
        change = _Change(topic, number, template.number(number, channel, secret), send)
        before, self._newest[topic] = self._newest.get(topic, 0), number
        self._waiting.append(change)
        self.bytes += len(change.frame)
        if self._up():  # else ``again`` will be called
            self._fly_locked(change, before)

    def again(self) -> None:
        """Send what is not under way, as there is a connection again."""
        with self._lock:
            self._send_locked()

    def _send_locked(self) -> None:
        assert self._lock.locked()
        oldest = monotonic() - self._max_age
        before: dict[str, int] = {}
        for change in list(self._waiting):
            if not change.flying and change.at < oldest:
                self._end_locked(change, BackplaneError("Redis was away for too long"))
                continue
            last, before[change.topic] = before.get(change.topic, 0), change.number
            if not change.flying:
                self._fly_locked(change, last)

    def _fly_locked(self, change: _Change, before: int) -> None:
        assert self._lock.locked()
        change.flying = True
        known = Known("", 0)
        write = Write(change.topic, known, self._writer, change.number, before, change.frame)
        change.send(write, self._answer(change))

    def _answer(self, change: _Change) -> Done:
        def take(result: Any) -> None:
            with self._lock:
                change.flying = False
                if isinstance(result, BackplaneError):  # it was dropped: there was no connection
                    if self._up():  # but it has come meanwhile, else ``again`` will be called
                        self._send_locked()
                elif isinstance(result, Exception):
                    self._end_locked(change, result)
                elif result == DISORDER:
                    self._send_locked()
                else:
                    self._end_locked(change, None)

        return take

    def _end_locked(self, change: _Change, problem: Exception | None) -> None:
        assert self._lock.locked()
        if change in self._waiting:
            self._waiting.remove(change)
            self.bytes -= len(change.frame)
            topic = change.topic
            if self._newest[topic] == change.number:
                del self._newest[topic]
                left = [other.number for other in self._waiting if other.topic == topic]
                if left:  # it was confirmed before those that came before
                    self._newest[topic] = max(left)
            self._done_locked(problem)
