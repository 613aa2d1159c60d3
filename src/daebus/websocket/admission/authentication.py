"""Ask the program who a client is, before its connection opens.

Rules of this module:

1. Whatever the function does, the client gets an answer, which tells nothing internal.
2. No client is let in by mistake: an exception refuses it, and so does a function that
   returns None.
3. It runs in the connection's thread, so a slow one holds up nobody else.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import datetime
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import Reject
from ...server.handoff import STOPPING, Handshake, Refusal
from ...server.threads.loop import LoopThread
from ...server.threads.safelog import format_exception, get_logger
from ...waits import lock_timeout, monotonic
from ..settings import Check

__all__ = ["Authenticator", "Known", "expiry"]

logger = get_logger("daebus.websocket")

_UNKNOWN = Refusal(401, "unauthorized", "the client is not known here")
_LATE = Refusal(
    503, "authentication_timeout", "the authentication took too long", (("Retry-After", "5"),)
)
_EXPIRED = Refusal(401, "expired", "the client's identity has expired")


def expiry(identity: Any) -> float | None:
    """Return when an identity expires (its ``expires_at``) in Unix seconds, or None.

    Args:
        identity: an object with such an attribute, a mapping with such a key, or
            anything else, which never expires.

    Raises:
        TypeError: it is neither a number nor a datetime.
        ValueError: it is NaN, or a datetime without a time zone.
    """
    if isinstance(identity, Mapping):
        value = identity.get("expires_at")
    else:
        value = getattr(identity, "expires_at", None)
    if value is None:
        return None
    if isinstance(value, datetime.datetime):
        if value.utcoffset() is None:
            raise ValueError(
                f"expires_at is {value!r}, without a time zone; write datetime.now(timezone.utc) + "
                f"timedelta(minutes=15)"
            )
        return value.timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"expires_at must be Unix seconds or a datetime, not {value!r}; write time.time() + 900"
        )
    if math.isnan(value):
        raise ValueError("expires_at is NaN; write time.time() + 900")
    return float(value)


@dataclass(frozen=True, slots=True)
class Known:
    """Who a client is.

    Attributes:
        identity: what ``authenticate`` returned; None without such a function.
        expires: when the identity expires, in Unix seconds; None for never.
    """

    identity: Any = None
    expires: float | None = None


_ANYBODY = Known()


class Authenticator:
    """Runs the ``authenticate`` function.

    Args:
        loop: runs an async function.
        timeout: seconds that an async function may take; a sync one cannot be interrupted.
        debug: send a client the traceback of what the function raised.
    """

    def __init__(self, loop: LoopThread, timeout: float, *, debug: bool) -> None:
        self._loop = loop
        self._timeout = timeout
        self._debug = debug
        self._lock = threading.Lock()
        self._stopped = False  # set under _lock, once
        self._waiting: set[concurrent.futures.Future[Any]] = set()  # guarded by: _lock

    def ask(self, check: Check | None, handshake: Handshake) -> Known | Refusal:
        """Return the client's identity, or a refusal; never raises.

        Args:
            check: the function; None lets every client in, without an identity.
            handshake: the client's request.

        Threads:
            The thread that will be the connection's; waits for the function.
        """
        known: Known | Refusal = _ANYBODY
        if not self._stopped and check is not None:
            known = self._ask(check, handshake)
        # Checked last: the app may have stopped while the function ran.
        return STOPPING if self._stopped else known

    def stop(self) -> None:
        """Refuse all clients from now on, and cancel the async functions that still run."""
        with self._lock:
            self._stopped = True
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()

    def _ask(self, check: Check, handshake: Handshake) -> Known | Refusal:
        started = monotonic()
        try:
            # A fresh context: the thread may have run another client's connection before.
            identity = contextvars.Context().run(self._run, check, handshake)
            expires = expiry(identity)
        except Reject as exc:
            return Refusal(exc.status, exc.code, exc.text, exc.headers)
        except BaseException as exc:  # a SystemExit must not end the connection's thread
            if self._stopped and issubclass(type(exc), concurrent.futures.CancelledError):
                return STOPPING
            peer = handshake.remote_address or "a Unix socket"
            logger.exception("authenticate failed for a client from %s", peer)
            return Refusal(
                500,
                "internal_server_error",
                "the authentication failed",
                traceback=format_exception(exc) if self._debug else None,
            )
        seconds = monotonic() - started
        if seconds > self._timeout:
            logger.warning("authenticate took %.1f s", seconds)
        if isinstance(identity, Refusal):
            return identity
        if identity is None or identity is False:
            return _UNKNOWN
        if expires is not None and expires <= time.time():
            return _EXPIRED
        return Known(identity, expires)

    def _run(self, check: Check, handshake: Handshake) -> Any:
        result = check(handshake.request())
        return self._wait(result) if hasattr(result, "__await__") else result

    def _wait(self, awaitable: Any) -> Any:
        future = self._loop.submit(awaitable)
        with self._lock:
            self._waiting.add(future)
            stopped = self._stopped
        if stopped:
            future.cancel()
        try:
            return future.result(lock_timeout(self._timeout))
        except TimeoutError:
            if future.done():  # the function raised it
                raise
            future.cancel()
            return _LATE
        finally:
            with self._lock:
                self._waiting.discard(future)
