"""Telling running apps that they are in a forked child, where their threads are not."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app import Daebus

__all__ = ["forget", "remember"]

_running: weakref.WeakSet[Daebus] = weakref.WeakSet()


def remember(app: Daebus) -> None:
    """Have ``app.after_fork()`` called in a child that is forked from now on."""
    _running.add(app)


def forget(app: Daebus) -> None:
    """Let an app be that has stopped."""
    _running.discard(app)


def _in_child() -> None:
    for app in list(_running):
        app.after_fork()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
