"""Tells the hooks what happens to the backplane, in that order."""

from __future__ import annotations

import threading
from collections import deque

from ..hub import Hub
from ..runner import call_hooks
from ..settings import HookCall
from .info import BackplaneEvent, BackplaneInfo

__all__ = ["Announcer"]

# Events that may wait for hooks that are slow; of more the oldest are dropped.
MAX_EVENTS = 1000


class Announcer:
    """Calls hooks, for one event after the other, in a thread for such notices.

    Args:
        hooks: all there are, also those that are still to be added.
        hub: has the thread.
    """

    def __init__(self, hooks: list[HookCall], hub: Hub) -> None:
        self._hooks = hooks
        self._hub = hub
        self._lock = threading.Lock()
        self._events: deque[tuple[BackplaneEvent, BackplaneInfo]] = deque(
            maxlen=MAX_EVENTS
        )  # guarded by: _lock
        self._running = False  # guarded by: _lock

    def tell(self, event: BackplaneEvent, info: BackplaneInfo) -> None:
        """Have the hooks called soon.

        Threads:
            Any; never waits.
        """
        if not self._hooks:
            return
        with self._lock:
            self._events.append((event, info))
            begin, self._running = not self._running, True
        if begin and not self._hub.announce(self._run):
            with self._lock:  # the next event tries again
                self._running = False

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._events:
                    self._running = False
                    return
                event, info = self._events.popleft()
            call_hooks(self._hub.runtime.loop, "on_backplane", self._hooks, event, info)
