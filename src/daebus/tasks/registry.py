"""The tasks of an app: functions that run at an interval, or all the time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NotRequired, TypedDict, TypeVar

from ..checks.annotations import checked
from ..checks.arguments import LEAST_SECONDS
from ..checks.functions import check_function
from ..errors import DuplicateHandlerError, StateError, name_of
from ..interrupts.flag import Flag
from ..interrupts.stack import check_outside
from ..server.threads.loop import LoopThread
from ..server.threads.pool import join_all
from ..waits import lock_timeout, monotonic
from .task import Kind, StopToken, Task, TaskRun

__all__ = ["BackgroundFunction", "TaskStats", "Tasks", "TasksStats", "ThreadFunction"]

BackgroundFunction = TypeVar("BackgroundFunction", bound=Callable[[], Any])
ThreadFunction = TypeVar("ThreadFunction", bound=Callable[[StopToken], Any])

# The arguments that the functions are called with.
_ARGUMENTS: dict[Kind, tuple[str, ...]] = {"background": (), "thread": ("running",)}


class TaskStats(TypedDict):
    """The counts of one background function or thread; see ``Daebus.stats``."""

    alive: bool
    calls: int
    errors: int
    missed: NotRequired[int]  # of a background function


class TasksStats(TypedDict):
    """The counts of all background functions and threads, by name."""

    background: dict[str, TaskStats]
    thread: dict[str, TaskStats]


class Tasks:
    """The tasks of an app."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[tuple[Kind, str], Task] = {}  # guarded by: _lock
        self._loop: LoopThread | None = None  # guarded by: _lock; None: the app does not run
        self._gate = Flag()  # guarded by: _lock; of this start

    def add(
        self,
        kind: Kind,
        name: str,
        function: Callable[..., Any],
        *,
        interval: float | None = None,
        auto_start: bool = True,
    ) -> None:
        """Register a function; while the app runs it starts at once.

        Raises:
            TypeError: the name is not a string, or the function takes other arguments.
            DuplicateHandlerError: the name is taken.
            RuntimeError: no thread can be started.
        """
        if not isinstance(name, str) or not name:
            raise TypeError(
                f"a {kind} needs a name, not {name!r}; write @app.{kind}('my_name', ...)"
            )
        check_function(f"the function of {kind} {name!r}", function, _ARGUMENTS[kind])
        check_outside(f"@app.{kind}")
        with self._lock:
            known = self._tasks.get((kind, name))
            if known is None:
                task = Task(kind, name, function, interval, auto_start)
                if auto_start and self._loop is not None:
                    self._start_locked(task, self._loop)
                self._tasks[kind, name] = task
        if known is not None:
            raise DuplicateHandlerError(
                f"{kind} {name!r} has a function already: {name_of(known.function)}; "
                f"use another name for {name_of(function)}"
            )

    @checked
    def background(
        self, name: str, interval: float
    ) -> Callable[[BackgroundFunction], BackgroundFunction]:
        """Decorate a function to call at an interval; see ``Daebus.background``.

        Raises:
            ValueError: the interval is less than a millisecond, or longer than a lock waits.
        """
        if not LEAST_SECONDS <= interval <= threading.TIMEOUT_MAX:
            raise ValueError(
                f"interval must be {LEAST_SECONDS} seconds or more, and finite, not "
                f"{interval!r}; write @app.background({name!r}, 1.0)"
            )

        def register(function: BackgroundFunction) -> BackgroundFunction:
            self.add("background", name, function, interval=interval)
            return function

        return register

    @checked
    def thread(
        self, name: str, auto_start: bool = True
    ) -> Callable[[ThreadFunction], ThreadFunction]:
        """Decorate a function with a thread of its own; see ``Daebus.thread``."""

        def register(function: ThreadFunction) -> ThreadFunction:
            self.add("thread", name, function, auto_start=auto_start)
            return function

        return register

    def start(self, loop: LoopThread) -> None:
        """Make the threads; no function is called before ``release``.

        Raises:
            RuntimeError: no thread can be started.
        """
        with self._lock:
            self._loop = loop
            self._gate = Flag()
            for task in self._tasks.values():
                if task.auto_start:
                    self._start_locked(task, loop)

    def release(self) -> None:
        """Let the functions begin; called once the app runs."""
        with self._lock:
            self._gate.set()

    def begin_stop(self) -> None:
        """Tell all functions to end, without waiting for any."""
        with self._lock:
            self._loop = None
            for task in self._tasks.values():
                if task.run is not None:
                    task.run.stop()
            self._gate.set()

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the threads; return those that did not end."""
        with self._lock:
            runs = [task.run for task in self._tasks.values() if task.run is not None]
        return join_all([thread for run in runs for thread in run.threads()], deadline)

    def start_one(self, name: str) -> bool:
        """Start the thread of that name; return False if it runs already.

        Raises:
            LookupError: no thread has that name.
            StateError: the app does not run.
            RuntimeError: no thread can be started.
        """
        check_outside("start_thread()")
        with self._lock:
            task = self._thread_locked(name)
            if self._loop is None:
                raise StateError("the app does not run; start it first: app.start()")
            if task.alive:
                return False
            self._start_locked(task, self._loop)
            return True

    def stop_one(self, name: str, timeout: float) -> bool:
        """Stop the thread of that name; return True if it ended, False if it did not run.

        Raises:
            LookupError: no thread has that name.
        """
        check_outside("stop_thread()")
        with self._lock:
            task = self._thread_locked(name)
            run = task.run
            if run is None or not run.thread.is_alive():
                return False
            run.stop()
        if run.thread is not threading.current_thread():
            run.thread.join(lock_timeout(timeout))
        return not run.thread.is_alive()

    def _thread_locked(self, name: str) -> Task:
        assert self._lock.locked()
        task = self._tasks.get(("thread", name))
        if task is None:
            known = ", ".join(repr(name) for kind, name in self._tasks if kind == "thread")
            raise LookupError(f"there is no thread {name!r}; known are: {known or 'none'}")
        return task

    def _start_locked(self, task: Task, loop: LoopThread) -> None:
        assert self._lock.locked()
        run = TaskRun(task, loop, self._gate)
        run.thread.start()
        task.run = run

    def forget(self) -> None:
        """Drop the threads in a forked child: they do not exist here."""
        self._lock = threading.Lock()  # the thread that held it does not exist here
        self._loop = None
        for task in self._tasks.values():
            task.run = None

    def stats(self) -> TasksStats:
        """Return counts by kind and name."""
        tasks = list(self._tasks.values())  # unguarded: one look
        stats: TasksStats = {"background": {}, "thread": {}}
        for task in tasks:
            stats[task.kind][task.name] = {
                "alive": task.alive,
                "calls": task.calls,
                "errors": task.errors,
            }
            if task.interval is not None:
                stats[task.kind][task.name]["missed"] = task.missed
        return stats

    def describe(self) -> list[str]:
        """Return a line of text for each task."""
        tasks = list(self._tasks.values())  # unguarded: one look
        now = monotonic()
        lines = []
        for task in tasks:
            began = task.began
            lines.append(
                f"{task}, {'alive' if task.alive else 'not alive'}, {task.calls} calls, "
                f"{task.errors} failed, "
                + ("-" if began is None else f"running for {now - began:.1f} s")
            )
        return lines
