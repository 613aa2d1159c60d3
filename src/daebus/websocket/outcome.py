"""What a handler returned, where that is no plain value."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from .request import WebSocketRequest, asked

__all__ = ["DEFERRED", "PLAIN", "outcome"]


class _Deferred:
    """Returned in a handler's place: the answer is given later, from elsewhere."""


DEFERRED: Final = _Deferred()

# One look into this set is all that a plain value costs. Others are looked at closely.
PLAIN: Final = frozenset((dict, list, str, int, float, bool, tuple))


def outcome(req: WebSocketRequest, result: Any) -> Any:
    """Wait for an async handler; give anything else back.

    Returns:
        What is to be sent; None if nothing is, ``DEFERRED`` if it comes from elsewhere.

    Threads:
        The one that called the handler, which waits.
    """
    if hasattr(result, "__await__"):
        return req.websocket.hub.loop.submit(_await(result, req)).result()
    return result


async def _await(awaitable: Any, req: WebSocketRequest) -> Any:
    # For tasks that it starts and that outlive it: the connection is at another message
    # by then.
    asked.set(req)
    connection = req.websocket
    if connection.request is not req:  # a job: the connection is at something else
        return await awaitable
    connection.task = asyncio.current_task()
    try:
        return await awaitable
    finally:
        connection.task = None
