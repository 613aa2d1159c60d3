"""What differs between builds of Python: with the GIL and without it."""

from __future__ import annotations

import gc
import importlib
import sysconfig
from collections.abc import Callable
from typing import Any

import pytest

from daebus.server.threads import stacks
from tests.support.waiting import eventually

__all__ = ["FREE_THREADED", "freed", "package", "shows", "shows_stacks"]

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def package(name: str) -> Any:
    """Import what needs a package that free-threaded builds may lack; who asks is skipped there."""
    if FREE_THREADED:
        return pytest.importorskip(name)
    return importlib.import_module(name)


def freed(condition: Callable[[], bool]) -> bool:
    """Wait until something is freed: by its last reference, or where there is no GIL collected."""

    def look() -> bool:
        if FREE_THREADED:  # the counts of other threads are merged late
            gc.collect()
        return condition()

    return bool(eventually(look))


def shows_stacks() -> bool:
    """Tell whether the stacks of other threads can be seen."""
    return stacks._can_look()


def shows(text: str, *names: str) -> bool:
    """Tell whether stacks of other threads show these functions, in order, if they can be seen."""
    if not shows_stacks():
        return stacks.LEFT_OUT in text
    places = [text.find(name) for name in names]
    return -1 not in places and places == sorted(places)
