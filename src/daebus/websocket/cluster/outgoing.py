"""What this node sends: each frame gets its number as it is queued, in one step.

Rules of this module:

1. A number is used once, whatever becomes of the frame: whoever misses it counts it.
2. What tells the last numbers is queued behind the frames that have them.
"""

from __future__ import annotations

import threading
from typing import Any

from ...backplane.frames import Template
from ...backplane.protocol import Backplane
from ...interrupts.stack import held, inside, within
from ...server.threads.minder import Minder

__all__ = ["Outgoing"]


class Outgoing:
    """Numbers frames and queues them.

    Args:
        backplane: takes them.
        minder: queues what comes at a moment when the calling thread cannot.
        secret: signs them.

    Threads:
        Any; never waits.
    """

    def __init__(self, backplane: Backplane, minder: Minder, secret: bytes | None) -> None:
        self._backplane = backplane
        self._minder = minder
        self._secret = secret
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}  # guarded by: _lock; the last one by channel
        self._news: set[str] = set()  # guarded by: _lock; channels whose number was not told

    def send(self, channel: str, template: Template) -> bool:
        """Queue a frame with the next number of its channel; False if it was dropped at once."""
        if self._must_wait():
            self._minder.call_later(0.0, lambda: self.send(channel, template))
            return True
        with self._lock:
            number = self._numbers[channel] = self._numbers.get(channel, 0) + 1
            self._news.add(channel)
            return self._publish_locked(channel, template.number(number, channel, self._secret))

    def tell(self, channel: str, template: Template, *, keep: bool = False) -> None:
        """Queue a frame without a number."""
        with self._lock:
            self._publish_locked(channel, template.number(0, channel, self._secret), keep=keep)

    def tell_numbers(
        self,
        node: str,
        incarnation: str,
        kind: str,
        channel: str,
        more: dict[str, Any],
        *,
        every: bool,
    ) -> None:
        """Queue a frame without a number that tells those of other channels.

        Where channels may overtake each other, each gets a frame of its own for that. ``q`` has the
        numbers, ``all`` the channels if it is all of them: nothing was sent on others.

        Args:
            node: our name.
            incarnation: our own.
            kind: of the frame.
            channel: for the frame.
            more: its other fields.
            every: tell the numbers of all channels, not only of those that are news.
        """
        with self._lock:
            told = self._numbers.copy() if every else {c: self._numbers[c] for c in self._news}
            self._news.clear()
            if every:
                more = more | {"all": list(told)}
            if self._backplane.ordered:
                more = more | {"q": told}
            elif told:
                tail = Template(node, incarnation, "tail")
                for each, number in told.items():
                    self._publish_locked(each, tail.number(number, each, self._secret))
            frame = Template(node, incarnation, kind, more=more).number(0, channel, self._secret)
            self._publish_locked(channel, frame)

    def _must_wait(self) -> bool:
        """Tell whether this thread was interrupted where others wait for it, with our lock."""
        return bool(held.count and inside()) or (self._lock.locked() and within(self._lock))

    def _publish_locked(self, channel: str, frame: bytes, *, keep: bool = True) -> bool:
        assert self._lock.locked()
        return self._backplane.publish(channel, frame, keep=keep)
