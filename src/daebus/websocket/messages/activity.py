"""What one connection's thread is doing, and what it has counted."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Protocol

from ...interrupts.stack import check_outside
from ...waits import monotonic
from ..connection.connection import Connection
from ..connection.link import Link
from ..connection.states import OPEN
from ..protocol.envelope import MAX_ECHO
from ..stats import Stats, Times
from .cancellation import cancel_task
from .pending import Pending
from .ratelimit import RateLimiter
from .shared_rate import AnyRate, SharedRate, owner_of

__all__ = ["Activity", "Handled", "current"]


class Handled(Protocol):
    """The request that is being handled."""

    message_type: str

    def _as_response(self, message: bytes) -> bytes:
        """Return an envelope with the request's id; it is an answer to this request."""


class Activity:
    """The messages of one connection. Only the connection's thread changes it.

    Args:
        link: the connection; it refers to this object until it has ended.
        stats: of this start of the app.

    Attributes:
        connection: the public view of the link.
        writer: the link's writer.
        request: the request that the connection's thread handles, or None.
        hook: the name of the hook or raw handler that runs instead, or None.
        task: the task of the async handler that runs, or None.
        lone_task: the same task, if only the end of the connection can cancel it.
        errors: how many errors were sent, by code.
        times: how long handlers took, by message type.
    """

    __slots__ = (
        "__weakref__",
        "_limiter",
        "_pending",
        "connection",
        "errors",
        "hook",
        "link",
        "lone_task",
        "request",
        "runtime",
        "stats",
        "task",
        "times",
        "writer",
    )

    def __init__(self, link: Link, stats: Stats) -> None:
        self.link = link
        self.stats = stats
        self.connection = Connection(link)
        self.writer = link.writer
        self.runtime = link.runtime
        self.request: Handled | None = None
        self.hook: str | None = None
        self.task: asyncio.Task[Any] | None = None
        self.lone_task: asyncio.Task[Any] | None = None
        self.errors: dict[str, int] = {}
        self.times: dict[str, Times] = {}
        self._limiter: RateLimiter | None = None  # made when a rate first applies
        self._pending: Pending | None = None  # made when needed, under the writer's lock
        link.activity = self
        link.writer.on_end.append(self._end_locked)

    @classmethod
    def of(cls, link: Link) -> Activity | None:
        """Return the activity of a connection; None once it has ended."""
        activity = link.activity
        assert activity is None or isinstance(activity, cls)
        return activity

    @property
    def running(self) -> str | None:
        """The type of the message being handled, or the name of the running hook."""
        request = self.request
        return self.hook if request is None else request.message_type[:MAX_ECHO]

    @property
    def pending(self) -> Pending:
        """The open calls and stoppable requests, made when first asked for."""
        pending, writer = self._pending, self.writer
        if pending is not None:
            return pending
        check_outside("a call", writer.lock)
        with writer.lock:
            if self._pending is None:
                over = writer.state > OPEN
                link, reader = self.link, self.link.reader
                self._pending = Pending(
                    writer.lock,
                    link.client_id,
                    reader.charge_locked,
                    over=over,
                    max_depth=link.limits.max_depth,
                )
                reader.interceptor = self._pending
            return self._pending

    def take_pending(self, kind: str, payload: dict[str, Any]) -> bool:
        """Act on an answer or a cancel; return False if nothing waits for it."""
        writer = self.writer
        with writer.lock:
            return self._pending is not None and self._pending.take_locked(kind, payload)

    def has_work(self) -> bool:
        """Tell whether a job runs for its client, or a call waits for the client's answer."""
        writer = self.writer
        with writer.lock:
            return self._pending is not None and self._pending.has_work_locked()

    def charge(self, rate: AnyRate, *, overall: bool = False) -> float:
        """Count a message against a rate; close the connection after too many strikes.

        Args:
            rate: how many messages may come, of one type or of all together.
            overall: it is the latter.

        Returns:
            0 if the message may pass, else the seconds that the client should wait.
        """
        now = monotonic()
        if self._limiter is None:
            self._limiter = RateLimiter(self.link.limits.max_strikes, now)
        limiter = self._limiter
        if isinstance(rate, SharedRate):
            owner = owner_of(self.link, rate.rate.per)
            if owner is None:
                wait = limiter.wait(None if overall else rate.rate, rate.rate, now)
            else:
                wait = limiter.judge(rate.take(owner, now), now)
        else:
            wait = limiter.wait(None if overall else rate, rate, now)
        writer = self.writer
        if limiter.beyond and writer.shut(1008, "too many messages", "rate_limited"):
            with writer.lock:
                self.link.reader.ignore_rest_locked()
        return wait

    def _end_locked(self) -> None:
        """Note that the connection is no longer open."""
        assert self.writer.lock.locked()
        if self._pending is not None:
            self._pending.end_locked()
        if self.lone_task is not None:
            cancel_task(self.lone_task)


# The activity that the calling thread or coroutine works for. A context variable, because
# the async handlers of all connections share one thread.
current: ContextVar[Activity] = ContextVar("daebus_activity")
