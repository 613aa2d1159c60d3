"""What is taken out of a client's messages before their turn: answers and cancels.

Rules of this module:

1. It is guarded by the connection's lock: ``_locked`` means that the caller holds it,
   the others take it.
2. It is made with a connection's first call or stoppable request; the messages of other
   connections are not looked at.
3. Nothing of the user's runs here, and a text is decoded only if it bears our token, or
   looks like a short cancel: this is the minder's thread.
"""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from weakref import ref

from ...errors import CallError, ClientGone
from ..protocol import envelope
from .cancellation import CancelToken

if TYPE_CHECKING:
    from .request import WebSocketRequest

__all__ = ["KINDS", "Pending"]

# Message types of the protocol itself.
KINDS = frozenset(("cancel", "error", "response"))

# Questions that may be open to one client; the next one raises.
MAX_CALLS = 100

# Longer texts, in characters, are no cancels: an id has 128, each of which may be escaped.
_MAX_CANCEL = 1024

# Requests that are kept before those that have ended are swept out.
_SWEEP = 16


class Pending:
    """The open calls and the stoppable requests of one connection.

    Args:
        lock: of the connection.
        client_id: for exceptions.
        over: the connection is no longer open.
    """

    def __init__(self, lock: threading.Lock, client_id: str, *, over: bool) -> None:
        self._lock = lock
        self._client_id = client_id
        self._over = over  # guarded by: _lock, as all below
        self._token = secrets.token_hex(8)  # in the id of every call
        self._asked = 0
        self._calls: dict[str, Future[Any]] = {}
        # Weak: a request may outlive its handler, in a thread that the handler started.
        # No WeakSet: it is changed by whichever thread drops the last reference.
        self._works: list[ref[CancelToken]] = []
        self._sweep_at = _SWEEP

    @property
    def waiting(self) -> bool:
        """True while a call waits for its answer."""
        return bool(self._calls)

    def has_work_locked(self) -> bool:
        """Tell whether a call waits for its answer, or a request that can stop has not ended."""
        return bool(self._calls) or any(not work.ended for work in self._alive_locked())

    def ask(self) -> tuple[str, Future[Any]]:
        """Open a call.

        Returns:
            Its id, and the future of the answer; whoever gives up says ``forget``.

        Raises:
            ClientGone: the connection is no longer open.
            CallError: with code ``too_many_calls``.
        """
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # nobody but us settles it
        with self._lock:
            if self._over:
                raise ClientGone(self._client_id)
            if len(self._calls) >= MAX_CALLS:
                raise CallError(
                    f"{MAX_CALLS} calls to client {self._client_id} wait for answers already",
                    "too_many_calls",
                )
            self._asked += 1
            ident = f"{self._token}-{self._asked}"
            self._calls[ident] = future
        return ident, future

    def forget(self, ident: str) -> bool:
        """Wait for an answer no longer; False if it has come."""
        with self._lock:
            return self._calls.pop(ident, None) is not None

    def enlist(self, req: WebSocketRequest) -> CancelToken:
        """Return the request's work, which is stopped when its client says so, or leaves."""
        with self._lock:
            if req.work is None:
                work = CancelToken(self._lock, req.id)
                if self._over:
                    work.stop_locked("gone")
                else:
                    self._keep_locked(work)
                req.work = work
            return req.work

    def takes_locked(self, text: str) -> bool:
        """Act on a message that waits for its turn, if it is an answer or a cancel."""
        if not (self._calls and self._token in text) and not (
            self._works and len(text) <= _MAX_CANCEL and '"cancel"' in text
        ):
            return False
        try:
            kind, payload = envelope.decode(text)
        except envelope.BadMessage:  # the owner answers it, in its turn
            return False
        return kind in KINDS and self.take_locked(kind, payload)

    def take_locked(self, kind: str, payload: dict[str, Any]) -> bool:
        """Act on a message of one of ``KINDS``; False if nobody waits for it."""
        ident = payload.get("id")
        if not envelope.is_id(ident):
            return False
        if kind == "cancel":
            found = [work for work in self._alive_locked() if work.ident == ident]
            for work in found:
                work.stop_locked("cancelled")
            # One that has ended may have left a thread that is to hear of it. But if a
            # later request has the same id, it is that one's cancel, so it keeps its turn.
            return not all(work.ended for work in found)
        future = self._calls.pop(ident, None) if isinstance(ident, str) else None
        if future is None:
            return False
        if kind == "response":
            future.set_result(payload.get("data"))
        else:
            future.set_exception(_call_error(payload.get("data")))
        return True

    def end_locked(self) -> None:
        """Note that the connection is no longer open: nobody waits for it any longer."""
        if self._over:
            return
        self._over = True
        for future in self._calls.values():
            future.set_exception(ClientGone(self._client_id))
        self._calls.clear()
        for work in self._alive_locked():
            work.stop_locked("gone")

    def _alive_locked(self) -> list[CancelToken]:
        return [work for work in (kept() for kept in self._works) if work is not None]

    def _keep_locked(self, work: CancelToken) -> None:
        if len(self._works) >= self._sweep_at:
            self._works = [kept for kept in self._works if kept() is not None]
            self._sweep_at = max(_SWEEP, 2 * len(self._works))
        self._works.append(ref(work))


def _call_error(data: Any) -> CallError:
    fields = data if isinstance(data, dict) else {}
    text, code = fields.get("error"), fields.get("code")
    return CallError(
        text if isinstance(text, str) else "the client answered with an error",
        # Numbers are common too. Nothing else: text is made of it under the lock, and of
        # what is nested deeply none can be made.
        str(code) if isinstance(code, str | int | float) else "call_error",
        data,
    )
