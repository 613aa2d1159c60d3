"""Knowing from the stack that this thread holds a lock, and an event without one."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from typing import Any

import pytest

from daebus.errors import StateError
from daebus.interrupts.flag import Flag
from daebus.interrupts.stack import bottom, check_outside, inside
from daebus.websocket.clients.registry import Registry
from tests.support.builds import FREE_THREADED


class Probing(dict[str, Any]):
    """Stands where a registry keeps its connections, and asks while they are looked at."""

    def __init__(self, probe: Callable[[], None]) -> None:
        super().__init__()
        self.probe = probe

    def __len__(self) -> int:
        self.probe()
        return super().__len__()


def reserve(probe: Callable[[], None]) -> Registry:
    """Have something called within ``Registry.reserve``, which holds the lock."""
    registry = Registry(9)
    registry._open = Probing(probe)
    registry.reserve()
    return registry


def test_outside_is_outside() -> None:
    assert not inside()


@pytest.mark.skipif(not FREE_THREADED, reason="with the GIL threads wait for each other anyway")
def test_threads_that_ask_at_once_do_not_wait_for_each_other() -> None:
    waits: list[int] = []

    def asks() -> None:
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        for _ in range(5000):
            inside()
        waits.append(resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before)

    threads = [threading.Thread(target=asks) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(waits) == 4
    assert sum(waits) < 500  # of 20,000 calls; half of all when each look took a lock


def test_inside_is_seen_from_any_depth() -> None:
    seen: list[bool] = []
    reserve(lambda: seen.append(inside()))
    reserve(lambda: seen.extend(inside() for _ in range(2)))
    assert seen == [True, True, True]


def test_nobody_looks_below_a_bottom() -> None:
    seen: list[bool] = []
    space: dict[str, Any] = {"__name__": "daebus.bottom"}
    exec("def call(function):\n    function()", space)
    function = bottom(space["call"])
    reserve(lambda: function(lambda: seen.append(inside())))
    reserve(lambda: function(lambda: reserve(lambda: seen.append(inside()))))
    assert seen == [False, True]


def test_another_thread_is_outside() -> None:
    seen: list[bool] = []

    def ask_elsewhere() -> None:
        other = threading.Thread(target=lambda: seen.append(inside()))
        other.start()
        other.join(5)

    reserve(ask_elsewhere)
    assert seen == [False]


def test_what_cannot_wait_says_what_to_do() -> None:
    registry = Registry(9)
    with registry._lock:  # by somebody else
        check_outside("app.pump()", registry._lock)

    def ask() -> None:
        with pytest.raises(StateError, match=r"app.pump\(\) .* call it in another thread"):
            check_outside("app.pump()", made._lock)

    made = Registry(9)
    made._open = Probing(ask)
    made.reserve()


def test_a_flag_wakes_all_who_wait() -> None:
    flag = Flag()
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(flag.wait(20))) for _ in range(5)]
    for thread in threads:
        thread.start()
    flag.set()
    for thread in threads:
        thread.join(20)
    assert woken == [True] * 5
    assert flag.wait()


def test_a_flag_is_waited_for_no_longer_than_said() -> None:
    flag = Flag()
    assert not flag.wait(0.01)
    assert not flag.is_set()
    flag.set()
    flag.clear()
    assert not flag.wait(0)
    assert not flag._waiters


def test_who_starts_a_thread_is_inside() -> None:
    """Every new thread takes a lock of ``threading`` before its start is over."""
    space: dict[str, Any] = {"__name__": "threading"}
    exec("def start(lock, probe):\n    with lock:\n        return probe()", space)
    assert space["start"](threading.RLock(), inside)
    assert not inside()
