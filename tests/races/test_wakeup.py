"""Waking a selector: nothing put into an inbox may be slept over."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from daebus.server.sockets.wakeup import Wakeup
from daebus.server.threads.minder import Minder


class Meddling:
    """A receiving socket that does something right before each read."""

    def __init__(self, sock: socket.socket, before: Callable[[], None]) -> None:
        self._sock = sock
        self._before = before

    def recv(self, size: int) -> bytes:
        self._before()
        return self._sock.recv(size)

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


def test_a_wake_up_amid_the_clearing_does_not_lose_the_next_one(
    selector: selectors.BaseSelector,
) -> None:
    wakeup = Wakeup(selector)
    done = threading.Event()

    def another_thread_wakes() -> None:
        def wake() -> None:
            wakeup.set()
            done.set()

        # Where clearing holds the lock the other one comes right after it.
        threading.Thread(target=wake, daemon=True).start()
        done.wait(0.2)

    receiver = wakeup._receiver
    wakeup._receiver = cast(socket.socket, Meddling(receiver, another_thread_wakes))
    wakeup.set()
    wakeup.clear()
    wakeup._receiver = receiver
    assert done.wait(5)
    wakeup.set()
    assert selector.select(5), "the selector sleeps although it was woken"
    wakeup.close()


def test_a_timer_set_amid_the_clearing_does_not_wait_for_the_longest_sleep() -> None:
    minder = Minder()
    meddled, second = threading.Event(), threading.Event()

    def another_thread_calls() -> None:
        if not meddled.is_set():
            meddled.set()
            caller = threading.Thread(target=lambda: minder.call_later(0.0, lambda: None))
            caller.start()
            caller.join(0.2)

    wakeup = minder._wakeup
    wakeup._receiver = cast(socket.socket, Meddling(wakeup._receiver, another_thread_calls))
    minder.start()
    try:
        assert meddled.wait(5)
        first = threading.Event()
        minder.call_later(0.0, first.set)
        assert first.wait(5)
        minder.call_later(0.0, second.set)
        assert second.wait(5)
    finally:
        minder.stop()
        minder.thread.join(5)
