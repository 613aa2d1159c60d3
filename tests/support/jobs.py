"""Jobs for threads, and threads that cannot be started."""

from __future__ import annotations

import contextvars
import threading

__all__ = ["Gate", "NoThreads", "note_context"]


class Gate:
    """A job that says when it runs, and ends when it is told to."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.open = threading.Event()
        self.done = threading.Event()
        self.thread: threading.Thread | None = None
        self.name = ""

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.name = self.thread.name
        self.running.set()
        self.open.wait(10)
        self.done.set()

    def pass_through(self) -> None:
        self.open.set()
        assert self.done.wait(5)


class NoThreads(threading.Thread):
    """A thread that the system has no room for."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


def note_context(seen: list[str], value: str) -> None:
    """A job that leaves something in a context variable."""
    seen.append(_VARIABLE.get())
    _VARIABLE.set(value)


_VARIABLE = contextvars.ContextVar("_VARIABLE", default="clean")
