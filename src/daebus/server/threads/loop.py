"""The private asyncio loop: one thread, started for the first coroutine."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from ...errors import StateError
from ...interrupts.stack import check_outside
from ...waits import monotonic, until
from .safelog import get_logger
from .track import track
from .vitals import Vitals

__all__ = ["LoopThread"]

logger = get_logger("daebus.server")

T = TypeVar("T")

# Seconds that cancelled coroutines have to tidy up when the loop stops.
TIDY_TIMEOUT = 1.0


class LoopThread:
    """Runs coroutines on behalf of synchronous threads.

    A coroutine inherits the context variables of the thread that hands it over.

    Args:
        vitals: watches over the thread.

    Attributes:
        vitals: as given, for what shares its start of the app.
    """

    def __init__(self, vitals: Vitals | None = None) -> None:
        self.vitals = vitals or Vitals()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None  # guarded by: _lock
        self._thread: threading.Thread | None = None  # guarded by: _lock
        self._stopped = False  # guarded by: _lock
        # Handed-out futures that are not done: a thread that waits for one must not outlast the
        # loop. Each takes itself out, in any thread and perhaps within the lock: add, discard and
        # list() are single steps of the interpreter.
        self._futures: set[concurrent.futures.Future[Any]] = set()
        self._asked: float | None = None  # an unanswered probe; the prober's and the loop's

    @property
    def thread(self) -> threading.Thread | None:
        """The thread, None while no coroutine has needed it."""
        return self._thread  # unguarded: set once

    def is_current(self) -> bool:
        """Return whether the caller is on the loop's thread, where it must not block."""
        return threading.current_thread() is self._thread  # unguarded: set once

    def submit(self, awaitable: Awaitable[T]) -> concurrent.futures.Future[T]:
        """Schedule a coroutine, or whatever else can be awaited.

        Returns:
            A future for the caller's thread to wait on.

        Raises:
            StateError: the loop has been stopped.
            RuntimeError: no thread can be started.

        Threads:
            Any, the loop's own included, but that one must not wait for the result.
        """
        coroutine = awaitable if isinstance(awaitable, Coroutine) else _await(awaitable)
        try:
            return self._submit(coroutine)
        except BaseException:
            coroutine.close()  # not under the lock: it frees what is the user's
            raise

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        check_outside("an async function", self._lock)
        spare: asyncio.AbstractEventLoop | None = None
        if self._loop is None:  # unguarded: looked at again below
            # Before the lock, as the policy may be the user's. It keeps the context that it is
            # made in, which must not be that of the client that happens to need it first.
            spare = contextvars.Context().run(asyncio.new_event_loop)
            spare.time = monotonic  # type: ignore[method-assign]  # see ``waits``
        try:
            with self._lock:
                if self._stopped:
                    raise StateError("the app is stopping; no coroutine can be started any more")
                if self._loop is None:
                    assert spare is not None  # a loop that was made stays
                    self._start_locked(spare)
                    spare = None
                assert self._loop is not None
                future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
                self._futures.add(future)
            future.add_done_callback(self._futures.discard)
            return future
        finally:
            if spare is not None:
                spare.close()

    def _start_locked(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._lock.locked()
        thread = threading.Thread(
            target=self.vitals.guard, args=(self._run, loop), name="daebus-loop", daemon=True
        )
        track(thread, "loop").start()
        self._loop, self._thread = loop, thread

    def run(self, awaitable: Awaitable[T]) -> T:
        """Await on the loop, and wait here for the result.

        Returns:
            What the awaitable gave.

        Raises:
            StateError: the loop has been stopped.
            RuntimeError: no thread can be started.
            BaseException: what the awaitable raised; ``CancelledError`` if a stop ended it.

        Threads:
            Any but the loop's, which would wait for itself.
        """
        return self.submit(awaitable).result()

    def probe(self) -> float:
        """Return for how many seconds the loop has not answered; ask again if it has.

        Threads:
            One prober at a time; never waits.
        """
        asked = self._asked
        if asked is not None:
            return monotonic() - asked
        with self._lock:
            loop = self._loop
        if loop is not None:
            self._asked = monotonic()
            try:
                loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # closed already
                self._asked = None
        return 0.0

    def _answer(self) -> None:
        self._asked = None

    def cancel_all(self) -> None:
        """Cancel every coroutine; threads that wait for one see ``CancelledError``."""
        with self._lock:
            loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed already
                loop.call_soon_threadsafe(_cancel_tasks, loop)

    def stop(self, deadline: float) -> list[threading.Thread]:
        """Cancel all coroutines and end the thread.

        Args:
            deadline: moment of ``time.monotonic()``.

        Returns:
            The thread, if it would not end: something blocks it.
        """
        with self._lock:
            self._stopped = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return []
        with contextlib.suppress(RuntimeError):  # closed already
            loop.call_soon_threadsafe(self._begin_stop, loop)
        if thread is threading.current_thread():
            return []
        thread.join(until(deadline))
        return [thread] if thread.is_alive() else []

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            while True:
                try:
                    loop.run_forever()
                    break
                except (SystemExit, KeyboardInterrupt):  # asyncio lets these two through
                    logger.exception("a coroutine tried to end the loop's thread")
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            with self._lock:
                futures = list(self._futures)
            for future in futures:
                future.cancel()
            loop.close()

    def _begin_stop(self, loop: asyncio.AbstractEventLoop) -> None:
        tasks = _cancel_tasks(loop)

        async def when_cancelled() -> None:
            if tasks:
                await asyncio.wait(tasks, timeout=TIDY_TIMEOUT)
            loop.stop()

        self._last = loop.create_task(when_cancelled())


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _cancel_tasks(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    return tasks
