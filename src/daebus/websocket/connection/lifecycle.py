"""The state of a connection, and how it ends.

::

    CONNECTING -> OPEN -> CLOSING -> CLOSED

The lock that guards it is made here; the halves of the connection share it.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Protocol

from ...server.sockets.transport import Transport
from ...server.threads.minder import Minder
from ..messages.cancellation import cancel_task
from ..messages.pending import Pending
from .limits import Limits
from .outbox import Outbox

if TYPE_CHECKING:
    from ...server.threads.loop import LoopThread
    from ...server.threads.pool import WorkerPool
    from ...server.threads.pump import Pump
    from ..stats import Stats
    from ..watchdog import Watchdog
    from .connection import Connection

__all__ = ["CLOSED", "CLOSING", "CONNECTING", "OPEN", "Hub", "Lifecycle"]

CONNECTING, OPEN, CLOSING, CLOSED = range(4)


class Hub(Protocol):
    """What a connection needs of the one that admitted it."""

    minder: Minder
    watch: Watchdog
    loop: LoopThread
    jobs: WorkerPool
    pump: Pump
    tally: Stats

    def left(self, connection: Connection) -> None:
        """Take the connection out of the registry; any number of calls."""

    def slow_consumer(
        self, connection: Connection, queued_bytes: int, queued: int, *, cut: bool
    ) -> None:
        """Note a client whose outbox is full; called under its lock, must not wait."""


class Lifecycle:
    """Base of ``SendingHalf``: states, reasons, and the lock."""

    __slots__ = (
        "__weakref__",
        "_aside",
        "_cancelled",
        "_code",
        "_ended",
        "_hub",
        "_limits",
        "_lock",
        "_outbox",
        "_released",
        "_room",
        "_state",
        "_text",
        "_thread_id",
        "_transport",
        "_why",
        "client_id",
        "lone_task",
    )

    def __init__(self, client_id: str, transport: Transport, limits: Limits, hub: Hub) -> None:
        self.client_id = client_id
        self._transport = transport
        self._limits = limits
        self._hub = hub
        self._thread_id = 0
        self._lock = threading.Lock()
        self._room: threading.Condition | None = None  # over _lock; made when needed
        self._state = CONNECTING  # guarded by: _lock
        self._outbox: Outbox | None = None  # guarded by: _lock; None: nothing is queued
        self._released = False  # guarded by: _lock; the descriptor is about to close
        self._ended = False  # guarded by: _lock; nothing more will be read
        self._why: str | None = None  # guarded by: _lock, as the next two
        self._code = 1006
        self._text = ""
        self._cancelled: threading.Event | None = None  # guarded by: _lock
        self._aside: Pending | None = None  # guarded by: _lock; made when needed
        # Of an async handler that nothing but our end can cancel; the others have a Work.
        self.lone_task: asyncio.Task[Any] | None = None

    @property
    def hub(self) -> Hub:
        """The one that admitted it."""
        return self._hub

    @property
    def open(self) -> bool:
        """True until either side began to close."""
        return self._state == OPEN

    @property
    def close_code(self) -> int:
        """The close code received or sent first; 1006 if there was none."""
        return self._code

    @property
    def close_reason(self) -> str:
        """The text that came with the close code."""
        return self._text

    @property
    def why(self) -> str:
        """Who or what ended it: one of the reasons of ``DisconnectInfo``."""
        return self._why or "lost"

    @property
    def cancelled(self) -> threading.Event:
        """Set as soon as the connection is no longer open, even while its handler runs."""
        with self._lock:
            if self._cancelled is None:
                self._cancelled = threading.Event()
                if self._state > OPEN:
                    self._cancelled.set()
            return self._cancelled

    @property
    def aside(self) -> Pending:
        """Its open calls and stoppable requests."""
        with self._lock:
            if self._aside is None:
                self._aside = Pending(self._lock, self.client_id, over=self._state > OPEN)
            return self._aside

    def take_aside(self, kind: str, payload: dict[str, Any]) -> bool:
        """Act on an answer or a cancel; False if nobody waits for it."""
        with self._lock:
            return self._aside is not None and self._aside.take_locked(kind, payload)

    def has_work(self) -> bool:
        """Tell whether a job runs for its client, or a call waits for the client's answer."""
        with self._lock:
            return self._aside is not None and self._aside.has_work_locked()

    def is_owner(self) -> bool:
        """Tell whether this is the connection's own thread."""
        return threading.get_ident() == self._thread_id

    def abort(self) -> None:
        """Cut the connection now; the owner wakes and cleans up.

        Threads:
            Any; never waits.
        """
        with self._lock:
            if not self._released:
                self._transport.abort()

    def _lose_locked(self) -> None:
        """The peer vanished: nothing can be sent or received any more."""
        self._note_locked("lost", 1006, "")
        self._ended = True
        self._state = CLOSED
        self._outbox = None
        self._set_cancelled_locked()
        if not self._released:  # after an error of another kind the owner may still read
            self._transport.abort()

    def _note_locked(self, why: str, code: int, text: str) -> None:
        """Remember who ended the connection: the first to do so."""
        if self._why is None:
            self._why, self._code, self._text = why, code, text

    def _set_cancelled_locked(self) -> None:
        if self._cancelled is not None:
            self._cancelled.set()
        if self._aside is not None:
            self._aside.end_locked()
        if self.lone_task is not None:
            cancel_task(self.lone_task)
        if self._room is not None:  # nobody waits for room in an outbox that takes nothing
            self._room.notify_all()

    def _room_locked(self) -> threading.Condition:
        if self._room is None:
            self._room = threading.Condition(self._lock)
        return self._room
