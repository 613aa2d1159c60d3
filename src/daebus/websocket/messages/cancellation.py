"""A request that can be stopped while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any, Final, Literal

from ...errors import Cancelled
from ...server.threads.minder import Minder, Timer

__all__ = ["Reason", "CancelToken", "cancel_task"]

Reason = Literal["cancelled", "timeout", "gone"]

_TEXTS: Final = {
    "cancelled": "the request was cancelled",
    "timeout": "the request took too long",
    "gone": "the client has left",
}


class CancelToken(threading.Event):
    """``req.cancelled``: set when the request should end, and why.

    It is the event itself that the connection keeps, weakly: whoever holds it hears of
    the end.

    Args:
        lock: of the connection.
        ident: the request's id.
    """

    def __init__(self, lock: threading.Lock, ident: str | float | None) -> None:
        super().__init__()
        self.ident = ident
        self.reason: Reason | None = None  # guarded by: _connection_lock
        self.ended = False  # guarded by: _connection_lock
        self._connection_lock = lock
        self._task: asyncio.Task[Any] | None = None  # guarded by: _connection_lock
        self._timer: Timer | None = None

    def check(self) -> None:
        """Raise ``Cancelled`` if the request should end."""
        if self.reason is not None:  # unguarded: it is set once
            raise self.error()

    def error(self) -> Cancelled:
        """Return what the client is told."""
        reason = self.reason or "cancelled"  # unguarded: it is set once
        return Cancelled(_TEXTS[reason], "timeout" if reason == "timeout" else "cancelled")

    def expire_after(self, seconds: float, minder: Minder) -> None:
        """Stop it then, unless it has ended."""
        self._timer = minder.call_later(seconds, self._expire)

    def attach(self, task: asyncio.Task[Any]) -> None:
        """Have a stop cancel that task, which is the running one."""
        with self._connection_lock:
            self._task = task
            stopped = self.reason is not None
        if stopped:
            task.cancel()

    def end(self) -> None:
        """Note that the handler has returned."""
        if self._timer is not None:
            self._timer.cancel()
        with self._connection_lock:
            self._task = None
            self.ended = True

    def stop_locked(self, reason: Reason) -> None:
        """Set the event, and cancel an async handler; the connection's lock is held."""
        assert self._connection_lock.locked()
        if self.reason is None:
            self.reason = reason
        self.set()
        if self._task is not None:
            cancel_task(self._task)

    def _expire(self) -> None:
        with self._connection_lock:
            self.stop_locked("timeout")


def cancel_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task of the loop's thread, from any; one that cancels itself goes on.

    A handler that closes its own connection is let finish what it does.
    """
    try:
        if asyncio.current_task() is task:
            return
    except RuntimeError:  # no loop runs in this thread
        pass
    with contextlib.suppress(RuntimeError):  # the loop is closed already
        task.get_loop().call_soon_threadsafe(task.cancel)
