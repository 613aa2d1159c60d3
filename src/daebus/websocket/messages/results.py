"""Resolve what a handler returned: await it, or send each item of a generator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Generator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final

from ...interrupts.raised import from_signal
from .request import WebSocketRequest, asked

__all__ = ["ANSWERED_LATER", "PLAIN", "resolve"]


class _Deferred:
    """The result of a handler that another thread will answer for."""


ANSWERED_LATER: Final = _Deferred()

# A plain value costs one lookup; other values are examined. No set: all threads look here, and
# without the GIL a look into a set takes its lock.
PLAIN: Final = dict.fromkeys((dict, list, str, int, float, bool, tuple))

# An item of an async generator, and the future that is set once it was sent; None at the end.
_Step = tuple[Any, "Future[None]"] | None


def resolve(req: WebSocketRequest, result: Any) -> Any:
    """Wait for an async handler, send what a generator yields, return anything else.

    Returns:
        The value to send; None to send nothing, ``ANSWERED_LATER`` if another thread answers.

    Threads:
        The thread that called the handler; it waits.
    """
    if result is ANSWERED_LATER:
        return result
    if hasattr(result, "__await__"):
        if req.id is not None:  # the client can cancel it by its id
            req._begin()
        result = req._activity.runtime.loop.submit(_await(result, req)).result()
        # An async middleware may return a generator of its handler.
        return result if result.__class__ in PLAIN else resolve(req, result)
    if isinstance(result, Generator):
        return _send_each(result, req)
    if isinstance(result, AsyncGenerator):
        return _send_each_async(result, req)
    return result


def _send_each(items: Generator[Any, Any, Any], req: WebSocketRequest) -> Any:
    token = req._begin()
    with contextlib.closing(items):
        while True:
            token.check()
            try:
                item = next(items)
            except StopIteration as stop:
                return stop.value
            req._respond(item)


def _send_each_async(items: AsyncGenerator[Any, Any], req: WebSocketRequest) -> None:
    """Send from this thread, which may wait for room in the outbox; the loop must not."""
    req._begin()
    steps: SimpleQueue[_Step] = SimpleQueue()
    feeding = req._activity.runtime.loop.submit(_await(_feed(items, steps), req))
    feeding.add_done_callback(lambda _: steps.put(None))
    try:
        while (step := steps.get()) is not None:
            item, sent = step
            try:
                req._respond(item)
                sent.set_result(None)
            except Exception as exc:  # raised in the generator, at its yield
                if from_signal(exc):
                    raise
                sent.set_exception(exc)
    except BaseException:
        feeding.cancel()
        raise
    feeding.result()


async def _feed(items: AsyncGenerator[Any, Any], steps: SimpleQueue[_Step]) -> None:
    async with contextlib.aclosing(items):
        async for item in items:
            sent: Future[None] = Future()
            sent.set_running_or_notify_cancel()  # cancelling us must not cancel it
            steps.put((item, sent))
            await asyncio.wrap_future(sent)


async def _await(awaitable: Awaitable[Any], req: WebSocketRequest) -> Any:
    # For tasks that the handler starts and that outlive it: by then the connection handles
    # another message.
    asked.set(req)
    activity, token, task = req._activity, req._token, asyncio.current_task()
    assert task is not None
    if token is not None:
        token.attach(task)
    if activity.request is not req:  # a job: the connection handles something else
        return await awaitable
    activity.task = task
    if token is None:
        activity.lone_task = task
        if not activity.link.open:  # it ended before the task was noted
            task.cancel()
    try:
        return await awaitable
    finally:
        activity.task = activity.lone_task = None
