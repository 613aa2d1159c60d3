"""Tell running apps of what no stop announces: that they are in a forked child, and the exit."""

from __future__ import annotations

import atexit
import contextlib
import os
from typing import Protocol

from .server.threads.safelog import forget_repeats

__all__ = ["Running", "forget", "remember"]


class Running(Protocol):
    """An object that is told."""

    def after_fork(self) -> None:
        """Mark this object as the copy in the child."""

    def before_exit(self) -> None:
        """Stop, soon; the interpreter ends, and takes no new threads any more."""


# Not a WeakSet, which whichever thread drops an app would change amid a loop over it.
_running: set[Running] = set()


def remember(app: Running) -> None:
    """Tell an app of every fork from now on, and of the exit."""
    _running.add(app)


def forget(app: Running) -> None:
    """Tell an app nothing any more; it has stopped."""
    _running.discard(app)


def _in_child() -> None:
    forget_repeats()  # whose lock a thread of the parent may hold
    for app in list(_running):
        app.after_fork()
    _running.clear()


def _at_exit() -> None:
    for app in list(_running):
        # Somebody cannot wait, or it is too late for a new thread.
        with contextlib.suppress(KeyboardInterrupt, RuntimeError):
            app.before_exit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
# Registered at import: what the program registers later runs before it, with the app still up.
atexit.register(_at_exit)
