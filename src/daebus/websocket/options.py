"""What a handler may ask for when it is registered, each a wrapper around it.

The order is that of the calls, the outermost last: what is applied last sees a message
first, in the connection's thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..errors import ClientError
from .outcome import DEFERRED
from .request import WebSocketRequest

__all__ = ["Handler", "Run", "compile_handler"]

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
