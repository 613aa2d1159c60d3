"""A request that can be stopped while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any, Final, Literal

from ...errors import Cancelled
from ...interrupts.flag import Flag
from ...server.threads.minder import Minder, Timer

__all__ = ["Reason", "CancelToken", "cancel_task"]

Reason = Literal["cancelled", "timeout", "gone"]

_TEXTS: Final = {
    "cancelled": "the request was cancelled",
    "timeout": "the request took too long",
    "gone": "the client has left",
}


class CancelToken(Flag):
    """``req.cancelled``: set when the request should end, and why.

    The connection keeps a weak reference to this event, so the event is set for as long as
    anything else holds it.

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
        """Return the error that the client gets."""
        reason = self.reason or "cancelled"  # unguarded: it is set once
        return Cancelled(_TEXTS[reason], "timeout" if reason == "timeout" else "cancelled")

    def expire_after(self, seconds: float, minder: Minder) -> None:
        """Stop the request after so many seconds, unless it has ended."""
        self._timer = minder.call_later(seconds, self._expire)

    def attach(self, task: asyncio.Task[Any]) -> None:
        """Have a stop cancel that task, which is the current one."""
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
        """Set the event, and cancel an async handler."""
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
    """Cancel a task of the loop, from any thread, unless it is the current one.

    So a handler that closes its own connection can finish.
    """
    try:
        if asyncio.current_task() is task:
            return
    except RuntimeError:  # no loop runs in this thread
        pass
    with contextlib.suppress(RuntimeError):  # the loop is closed already
        task.get_loop().call_soon_threadsafe(task.cancel)
