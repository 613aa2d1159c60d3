"""What has come and was not taken yet: one bound for all of it.

Rules of this module:

1. The reader asks for room before it reads on, so beyond the bound the server is slowed by TCP.
   What has come with one read may go beyond it by one message.
2. While somebody waits for a certain message, such as the answer to a request or a heartbeat, the
   reader goes on to ``EAGER`` times the bound: that message may stand behind others which nobody
   takes meanwhile.
3. Messages that nobody has ever asked for must not hold up what the program does use: then the
   oldest of them goes (``drop``). What was asked for stays, and slows the server.
4. Waits are cut into slices, so that the main thread sees signals.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ..interrupts.flag import Flag
from ..interrupts.stack import check_outside
from ..waits import monotonic, until

__all__ = ["Ended", "Inbox", "Queue"]

# Messages that wait at most, and bytes of them.
MAX_MESSAGES = 1000
MAX_BYTES = 1 << 20

# How many times that while somebody waits for one of them.
EAGER = 16

# Seconds of one wait at a flag at most.
SLICE = 1.0

# Seconds between two looks at an event of the program's, which wakes nobody.
LOOK = 0.05

Item = TypeVar("Item")


class Ended(Exception):
    """Nothing more will come, and nothing is left."""


class Inbox:
    """The bound that several queues share.

    Attributes:
        drop: makes room for the reader, and tells whether it could.
    """

    def __init__(self) -> None:
        self.drop: Callable[[], bool] = lambda: False
        self._lock = threading.Lock()
        self._messages = 0  # guarded by: _lock
        self._bytes = 0  # guarded by: _lock
        self._eager = 0  # guarded by: _lock; who waits for a certain message
        self._room = Flag()

    def begin_wait(self) -> None:
        """Read on beyond the bound, for somebody who waits for a certain message.

        No context manager: what is called in a ``with`` of ours is taken for something that
        interrupts it, if the lock of another variable is taken (``interrupts.stack``).
        """
        check_outside("a request of the client", self._lock)
        with self._lock:
            self._eager += 1
        self._room.set()

    def end_wait(self) -> None:
        """Do so no more."""
        with self._lock:
            self._eager -= 1

    @property
    def waited_for(self) -> bool:
        """True while somebody waits for a certain message."""
        return self._eager > 0  # unguarded: one look

    def is_full(self) -> bool:
        """Tell whether the bound is reached."""
        times = EAGER if self.waited_for else 1
        return (
            self._messages >= MAX_MESSAGES * times  # unguarded: one look
            or self._bytes >= MAX_BYTES * times  # unguarded: one look
        )

    def has_room(self) -> bool:
        """Tell whether the reader may read on, after making room if that can be."""
        while self.is_full():
            if not self.drop():
                return False
        return True

    def wait_for_room(self, timeout: float) -> bool:
        """Wait until the reader may read on; False if the time passed first."""
        self._room.clear()
        return self.has_room() or (self._room.wait(timeout) and self.has_room())

    def wake(self) -> None:
        """Wake the reader out of its wait."""
        self._room.set()

    def count_locked(self, messages: int, size: int) -> None:
        """Count what came, or was taken."""
        assert self._lock.locked()
        self._messages += messages
        self._bytes += size
        if messages < 0:
            self._room.set()


class Queue(Generic[Item]):
    """A part of what has come, for those who take it in its order.

    Args:
        inbox: the bound.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._lock = inbox._lock
        self._items: deque[tuple[Item, int]] = deque()  # guarded by: _lock
        self._takers: list[Flag] = []  # guarded by: _lock
        self._ended = False  # guarded by: _lock

    def put(self, item: Item, size: int) -> None:
        """Add an item; the reader has seen that there is room.

        Args:
            item: what came.
            size: of its text.
        """
        with self._lock:
            if self._ended:
                return
            self._items.append((item, size))
            self._inbox.count_locked(1, size)
            takers, self._takers = self._takers, []
        for taker in takers:
            taker.set()

    def drop(self, unwanted: Callable[[Item], bool]) -> bool:
        """Drop the oldest item that nobody wants; False if there is none."""
        with self._lock:
            index = self._find_locked(unwanted)
            if index is None:
                return False
            size = self._items[index][1]
            del self._items[index]
            self._inbox.count_locked(-1, -size)
            return True

    def take(self, timeout: float = math.inf, wanted: Callable[[Item], bool] | None = None) -> Item:
        """Take the oldest item, or the oldest that is wanted; others keep their places.

        Raises:
            TimeoutError: none came in time.
            Ended: nothing more will come.

        Threads:
            Any.
        """
        deadline = monotonic() + timeout
        while True:
            check_outside("taking a message of the client", self._lock)
            taker = Flag()
            with self._lock:
                index = self._find_locked(wanted)
                if index is not None:
                    item, size = self._items[index]
                    del self._items[index]
                    self._inbox.count_locked(-1, -size)
                    return item
                if self._ended:
                    raise Ended
                self._takers.append(taker)
            if not taker.wait(min(until(deadline), SLICE)):
                with self._lock:
                    if taker in self._takers:
                        self._takers.remove(taker)
                if monotonic() >= deadline and not taker.is_set():
                    raise TimeoutError

    def _find_locked(self, wanted: Callable[[Item], bool] | None) -> int | None:
        assert self._lock.locked()
        if wanted is None:
            return 0 if self._items else None
        return next((n for n, (item, _) in enumerate(self._items) if wanted(item)), None)

    def snapshot(self, count: int) -> list[Item]:
        """Return the oldest items, which stay."""
        with self._lock:
            return [item for item, _ in list(self._items)[:count]]

    def end(self, *, drop: bool = False) -> None:
        """Let nothing more come.

        Args:
            drop: what is there as well.
        """
        with self._lock:
            self._ended = True
            if drop:
                for _, size in self._items:
                    self._inbox.count_locked(-1, -size)
                self._items.clear()
            takers, self._takers = self._takers, []
        for taker in takers:
            taker.set()
