"""The options of a handler, each a wrapper around it.

The wrapper that is applied last is the outermost: it sees a message first, in the
connection's thread.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any, Literal, get_args

from ...checks.functions import check_function, is_async
from ...errors import ClientError, name_of
from ...interrupts.raised import is_for_host
from ..protocol.envelope import MAX_ECHO
from .request import WebSocketRequest
from .results import ANSWERED_LATER, resolve
from .shared_rate import AnyRate

__all__ = ["Allow", "Handler", "Run", "RunIn", "bytes_as_message", "compile_handler"]

Handler = Callable[[WebSocketRequest], Any]
RunIn = Literal["connection", "pool", "main"]
Run = Callable[[WebSocketRequest, Handler], BaseException | None]
Allow = Callable[[WebSocketRequest], Any]


def compile_handler(
    handler: Handler,
    run: Run,
    *,
    timeout: float | None = None,
    run_in: RunIn = "connection",
    allow: Allow | None = None,
    rate: AnyRate | None = None,
) -> Handler:
    """Return a handler with its options, as one callable.

    Args:
        handler: the user's handler.
        run: handles a request outside of its connection's thread.
        timeout: seconds after which the request is stopped.
        run_in: the connection's own thread, the pool for jobs, or the thread of the host
            that calls ``app.pump()``.
        allow: tells whether a client may send the message.
        rate: how often it may; checked first, since ``allow`` may be slow.

    Raises:
        ValueError: ``run_in`` is not one of the three.
        TypeError: the handler is async and ``run_in`` is ``"main"``, or ``allow`` cannot be
            called.
    """
    if allow is not None:
        check_function("allow", allow, ("req",))
    if run_in not in get_args(RunIn):
        raise ValueError(f"run_in is {run_in!r}; write 'connection', 'pool' or 'main'")
    if run_in == "main" and is_async(handler):
        raise TypeError(
            f"{name_of(handler)} is async, so it runs on the loop; write it with def, or "
            f"leave out run_in='main'"
        )
    if timeout is not None:
        handler = _timed(handler, timeout)
    if run_in == "main":
        handler = _in_main(handler, run)
    elif run_in == "pool":
        handler = _in_pool(handler, run)
    if allow is not None:
        handler = _if_allowed(handler, allow)
    if rate is not None:
        handler = _at_rate(handler, rate)
    return handler


def _timed(handler: Handler, timeout: float) -> Handler:
    @functools.wraps(handler)
    def timed(req: WebSocketRequest) -> Any:
        req._begin().expire_after(timeout, req._activity.runtime.minder)
        return handler(req)

    return timed


def bytes_as_message(handler: Handler) -> Handler:
    """Send bytes that a handler returns or yields as binary messages, not as responses."""

    @functools.wraps(handler)
    def call(req: WebSocketRequest) -> Any:
        result = handler(req)
        if hasattr(result, "__await__"):
            return _send_awaited(req, result)
        if isinstance(result, Generator):
            return _send_items(req, result)
        if isinstance(result, AsyncGenerator):
            return _send_items_async(req, result)
        return _send_bytes(req, result)

    return call


def _send_bytes(req: WebSocketRequest, result: Any) -> Any:
    if not isinstance(result, bytes | bytearray | memoryview):
        return result
    req.websocket.send(bytes(result))
    return None


async def _send_awaited(req: WebSocketRequest, result: Any) -> Any:
    return _send_bytes(req, await result)


def _send_items(req: WebSocketRequest, items: Generator[Any, Any, Any]) -> Iterator[Any]:
    with contextlib.closing(items):
        for item in items:
            if _send_bytes(req, item) is not None:
                yield item


async def _send_items_async(
    req: WebSocketRequest, items: AsyncGenerator[Any, Any]
) -> AsyncIterator[Any]:
    async with contextlib.aclosing(items):
        async for item in items:
            if _send_bytes(req, item) is not None:
                yield item


def _in_main(handler: Handler, run: Run) -> Handler:
    def begin(req: WebSocketRequest) -> Any:
        req.check()  # it may have waited for long
        return handler(req)

    @functools.wraps(handler)
    def hand_over(req: WebSocketRequest) -> Any:
        activity = req._activity
        req._begin()

        def call() -> None:
            failure = run(req, begin)
            if failure is not None and is_for_host(failure):
                raise failure

        if not activity.runtime.pump.call(call, lambda: activity.link.open):
            raise ClientError("the program is busy; try again later", "busy")
        return ANSWERED_LATER

    return hand_over


def _in_pool(handler: Handler, run: Run) -> Handler:
    def begin(req: WebSocketRequest) -> Any:
        req.check()  # it may have waited for long
        return handler(req)

    @functools.wraps(handler)
    def submit(req: WebSocketRequest) -> Any:
        req._begin()  # now, in the order of the messages: the next one may be its cancel
        activity = req._activity
        if not activity.runtime.jobs.submit(activity.link, lambda: run(req, begin)):
            raise ClientError("too many jobs are waiting; try again later", "busy")
        return ANSWERED_LATER

    return submit


def _if_allowed(handler: Handler, allow: Allow) -> Handler:
    @functools.wraps(handler)
    def guarded(req: WebSocketRequest) -> Any:
        if not resolve(req, allow(req)):
            raise ClientError(f"you may not send {_short(req)!r}", "forbidden")
        return handler(req)

    return guarded


def _at_rate(handler: Handler, rate: AnyRate) -> Handler:
    @functools.wraps(handler)
    def metered(req: WebSocketRequest) -> Any:
        # Not keyed by the message's type: with "*" a client could invent any number of them.
        wait = req._activity.charge(rate)
        if wait:
            text = f"too many {_short(req)!r} messages"
            raise ClientError(text, "rate_limited", {"retry_after": wait})
        return handler(req)

    return metered


def _short(req: WebSocketRequest) -> str:
    return req.message_type[:MAX_ECHO]
