"""Tell running apps that they are in a forked child, where their threads do not exist."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from .server.threads.safelog import forget_repeats

__all__ = ["Forkable", "forget", "remember"]


class Forkable(Protocol):
    """An object that is told of a fork."""

    def after_fork(self) -> None:
        """Mark this object as the copy in the child."""


_running: weakref.WeakSet[Forkable] = weakref.WeakSet()


def remember(app: Forkable) -> None:
    """Have ``after_fork`` called in every child that is forked from now on."""
    _running.add(app)


def forget(app: Forkable) -> None:
    """Stop telling an app of forks; it has stopped."""
    _running.discard(app)


def _in_child() -> None:
    forget_repeats()  # whose lock a thread of the parent may hold
    for app in list(_running):
        app.after_fork()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
