"""What a handler may ask for when it is registered, each a wrapper around it.

The order is that of the calls, the outermost last: what is applied last sees a message
first, in the connection's thread.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any

from ..errors import ClientError
from .outcome import DEFERRED
from .request import WebSocketRequest

__all__ = ["Handler", "Run", "bytes_as_message", "compile_handler"]

Handler = Callable[[WebSocketRequest], Any]
Run = Callable[[WebSocketRequest, Handler], None]


def compile_handler(
    handler: Handler, run: Run, *, timeout: float | None = None, background: bool = False
) -> Handler:
    """Return the one callable that a message's handler is.

    Args:
        handler: the user's.
        run: handles a request outside of its connection's thread.
        timeout: seconds after which the request is stopped.
        background: in the pool for jobs.
    """
    if timeout is not None:
        handler = _timed(handler, timeout)
    if background:
        handler = _in_background(handler, run)
    return handler


def _timed(handler: Handler, timeout: float) -> Handler:
    @functools.wraps(handler)
    def timed(req: WebSocketRequest) -> Any:
        req.begin().expire_after(timeout, req.websocket.hub.minder)
        return handler(req)

    return timed


def bytes_as_message(handler: Handler) -> Handler:
    """Have bytes that a handler returns or yields sent as binary messages, not responses."""

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


def _in_background(handler: Handler, run: Run) -> Handler:
    def begin(req: WebSocketRequest) -> Any:
        req.check()  # it may have waited for long
        return handler(req)

    @functools.wraps(handler)
    def submit(req: WebSocketRequest) -> Any:
        req.begin()  # here, in the order of the messages: a cancel may be next
        if not req.websocket.hub.jobs.submit(lambda: run(req, begin)):
            raise ClientError("too many jobs are waiting; try again later", "busy")
        return DEFERRED

    return submit
