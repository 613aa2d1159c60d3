"""Answers and cancels, which are taken out of a client's messages before their turn.

Rules of this module:

1. The connection's lock guards it: the caller of a ``_locked`` method holds the lock, the
   other methods take it.
2. It is made with a connection's first call or stoppable request; messages of other
   connections are not searched.
3. This runs on the minder's thread too, so no user code runs here, and a text is decoded
   only if it contains our mark or looks like a short cancel.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Callable
from typing import Any, Protocol
from weakref import ref

from ...data.depth import MAX_DEPTH
from ...errors import CallError, CallTimeout, ClientGone
from ...interrupts.flag import Flag
from ...interrupts.stack import check_outside
from ...waits import lock_timeout
from ..protocol import envelope
from .cancellation import CancelToken

__all__ = ["KINDS", "Answer", "Pending", "PendingCall", "Settles", "Stoppable"]

# Message types of the protocol itself.
KINDS = frozenset(("cancel", "error", "response"))

# Open calls to one client at most; the next one raises.
MAX_CALLS = 100

# Texts of more characters are not cancels: an id has 128, each of which may be escaped.
_MAX_CANCEL = 1024

# Requests that are kept before those that have ended are removed.
_SWEEP = 16


class Stoppable(Protocol):
    """A request that can be stopped."""

    _token: CancelToken | None

    @property
    def id(self) -> str | float | None:
        """The id that the client gave it."""


class Settles(Protocol):
    """What is told of the end of a call."""

    def settle(self, data: Any, problem: Exception | None) -> None:
        """Take the answer, or what has come in its place; must not wait."""


class Answer(Flag):
    """What a client will answer: settled once, mostly under the connection's lock.

    No future: settling one takes a lock of its own, which a thread that was interrupted in
    its wait may hold.
    """

    def __init__(self) -> None:
        super().__init__()
        self._data: Any = None
        self._problem: Exception | None = None
        self._wake: Callable[[], None] | None = None

    def settle(self, data: Any, problem: Exception | None) -> None:
        """Keep the answer, or what has come in its place, and wake who waits."""
        self._data, self._problem = data, problem
        self.set()
        wake = self._wake
        if wake is not None:
            wake()

    def get(self) -> Any:
        """Return the data, or raise the problem; it is there."""
        problem, self._problem = self._problem, None  # an exception refers to its frames
        if problem is not None:
            raise problem
        return self._data

    async def wait_async(self, timeout: float) -> bool:
        """Wait in a coroutine; False if the time passed first."""
        loop, here = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                loop.call_soon_threadsafe(here.set)

        self._wake = wake  # before the look, as who settles looks after
        if not self.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(here.wait(), timeout)
        return self.is_set()


class Pending:
    """The open calls and the stoppable requests of one connection.

    Args:
        lock: of the connection.
        client_id: for exceptions.
        charge: called for each cancel, with the lock held.
        over: the connection is no longer open.
        max_depth: levels of a message.
    """

    def __init__(
        self,
        lock: threading.Lock,
        client_id: str,
        charge: Callable[[], None],
        *,
        over: bool,
        max_depth: int = MAX_DEPTH,
    ) -> None:
        self._lock = lock
        self._client_id = client_id
        self._charge = charge
        self._max_depth = max_depth
        self._over = over  # guarded by: _lock
        self._mark = secrets.token_hex(8)  # in the id of every call
        self._asked = 0  # guarded by: _lock
        self._calls: dict[str, Settles] = {}  # guarded by: _lock
        # Weak: a request may outlive its handler, in a thread that the handler started.
        # No WeakSet: it is changed by whichever thread drops the last reference.
        self._tokens: list[ref[CancelToken]] = []  # guarded by: _lock
        self._sweep_at = _SWEEP  # guarded by: _lock

    @property
    def waiting(self) -> bool:
        """True while a call waits for its answer."""
        return bool(self._calls)  # unguarded: true at that moment

    def has_work_locked(self) -> bool:
        """Tell whether a call waits for its answer, or a stoppable request has not ended."""
        assert self._lock.locked()
        return bool(self._calls) or any(not token.ended for token in self._alive_locked())

    def ask(self, answer: Settles) -> str:
        """Open a call.

        Args:
            answer: is settled once, under the connection's lock.

        Returns:
            Its id; call ``forget`` to give up.

        Raises:
            ClientGone: the connection is no longer open.
            CallError: too many calls are open already (code ``too_many_calls``).
        """
        check_outside("a call", self._lock)
        with self._lock:
            if self._over:
                raise ClientGone(self._client_id)
            if len(self._calls) >= MAX_CALLS:
                raise CallError(
                    f"{MAX_CALLS} calls to client {self._client_id} wait already, and no more may",
                    "too_many_calls",
                )
            self._asked += 1
            ident = f"{self._mark}-{self._asked}"
            self._calls[ident] = answer
        return ident

    def forget(self, ident: str) -> bool:
        """Give up an answer; return False if it has arrived."""
        return self._calls.pop(ident, None) is not None  # unguarded: in one step

    def enlist(self, req: Stoppable) -> CancelToken:
        """Return the request's token, which is set when its client cancels it or leaves."""
        check_outside("req.cancelled", self._lock)
        with self._lock:
            if req._token is None:
                token = CancelToken(self._lock, req.id)
                if self._over:
                    token.stop_locked("gone")
                else:
                    self._keep_locked(token)
                req._token = token
            return req._token

    def takes_locked(self, text: str) -> bool:
        """Act on a message that waits for its turn, if it is an answer or a cancel."""
        assert self._lock.locked()
        if not (self._calls and self._mark in text) and not (
            self._tokens and len(text) <= _MAX_CANCEL and '"cancel"' in text
        ):
            return False
        try:
            kind, payload = envelope.decode(text, self._max_depth)
        except envelope.BadMessage:  # the owner answers it when its turn comes
            return False
        return kind in KINDS and self.take_locked(kind, payload)

    def take_locked(self, kind: str, payload: dict[str, Any]) -> bool:
        """Act on a message of one of ``KINDS``; return False if nothing waits for it."""
        assert self._lock.locked()
        ident = payload.get("id")
        if not envelope.is_id(ident):
            return False
        if kind == "cancel":
            found = [token for token in self._alive_locked() if token.ident == ident]
            for token in found:
                token.stop_locked("cancelled")
            # A request that has ended may have left a thread that holds its token. But the
            # cancel may be for a later request with the same id, so it keeps its turn too.
            if all(token.ended for token in found):
                return False
            self._charge()
            return True
        answer = self._calls.pop(ident, None) if isinstance(ident, str) else None
        if answer is None:
            return False
        data = payload.get("data")
        answer.settle(data, None if kind == "response" else _call_error(data))
        return True

    def end_locked(self) -> None:
        """Note that the connection is no longer open: fail its calls, stop its requests."""
        assert self._lock.locked()
        if self._over:
            return
        self._over = True
        calls, self._calls = self._calls, {}
        for answer in list(calls.values()):
            answer.settle(None, ClientGone(self._client_id))
        for token in self._alive_locked():
            token.stop_locked("gone")

    def _alive_locked(self) -> list[CancelToken]:
        assert self._lock.locked()
        return [token for token in (kept() for kept in self._tokens) if token is not None]

    def _keep_locked(self, token: CancelToken) -> None:
        assert self._lock.locked()
        if len(self._tokens) >= self._sweep_at:
            self._tokens = [kept for kept in self._tokens if kept() is not None]
            self._sweep_at = max(_SWEEP, 2 * len(self._tokens))
        self._tokens.append(ref(token))


class PendingCall:
    """A call that has been sent, and the wait for its answer.

    Args:
        client_id: who was asked.
        kind: the message type.
        answer: is settled by whoever takes what comes back.
        forget: gives the answer up; returns False if it has arrived.
    """

    def __init__(
        self, client_id: str, kind: str, answer: Answer, forget: Callable[[], bool]
    ) -> None:
        self._client_id = client_id
        self._kind = kind
        self._answer = answer
        self._forget = forget

    def result(self, timeout: float) -> Any:
        """Wait for the answer, so many seconds at most.

        Raises:
            ClientGone, CallTimeout, CallError: as ``DaebusWebSocket.call``.
        """
        try:
            if not self._answer.wait(lock_timeout(timeout)):
                self._give_up(timeout)
            return self._answer.get()
        finally:
            self.forget()

    async def result_async(self, timeout: float) -> Any:
        """Wait for the answer in a coroutine."""
        try:
            if not await self._answer.wait_async(timeout):
                self._give_up(timeout)
            return self._answer.get()
        finally:
            self.forget()

    def forget(self) -> None:
        """Give up the answer."""
        self._forget()

    def _give_up(self, timeout: float) -> None:
        """Raise ``CallTimeout``, unless the answer arrived at the last moment."""
        if self._forget():
            raise CallTimeout(
                f"client {self._client_id} did not answer {self._kind!r} within {timeout:g} s"
            )


def _call_error(data: Any) -> CallError:
    fields = data if isinstance(data, dict) else {}
    text, code = fields.get("error"), fields.get("code")
    return CallError(
        text if isinstance(text, str) else "the client answered with an error",
        # Numbers are common too. Nothing else: it is converted under the lock, and str() fails
        # for deeply nested data.
        str(code) if isinstance(code, str | int | float) else "call_error",
        data,
    )
