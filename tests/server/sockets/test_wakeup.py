"""Waking a selector: no wake-up is lost, and many cost no more than one."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator

import pytest

from daebus.server.sockets.wakeup import Wakeup


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


@pytest.fixture
def wakeup(selector: selectors.BaseSelector) -> Iterator[Wakeup]:
    made = Wakeup(selector)
    yield made
    made.close()


def woken(selector: selectors.BaseSelector) -> bool:
    """Tell whether the selector would return now."""
    return bool(selector.select(0))


def test_set_wakes(selector: selectors.BaseSelector, wakeup: Wakeup) -> None:
    assert not woken(selector)
    wakeup.set()
    assert woken(selector)
    wakeup.clear()
    assert not woken(selector)


def test_its_key_has_no_data(selector: selectors.BaseSelector, wakeup: Wakeup) -> None:
    wakeup.set()
    ((key, events),) = selector.select(0)
    assert key.data is None
    assert events == selectors.EVENT_READ


def test_many_sets_need_one_clear(selector: selectors.BaseSelector, wakeup: Wakeup) -> None:
    for _ in range(100_000):  # more than the pair of sockets could hold
        wakeup.set()
    wakeup.clear()
    assert not woken(selector)


def test_it_can_be_set_again(selector: selectors.BaseSelector, wakeup: Wakeup) -> None:
    for _ in range(3):
        wakeup.set()
        wakeup.clear()
    wakeup.set()
    assert woken(selector)


def test_clear_without_set(selector: selectors.BaseSelector, wakeup: Wakeup) -> None:
    wakeup.clear()
    wakeup.set()
    assert woken(selector)


def test_set_wakes_a_thread_that_waits(selector: selectors.BaseSelector, wakeup: Wakeup) -> None:
    came = threading.Event()

    def wait() -> None:
        if selector.select(10):
            came.set()

    thread = threading.Thread(target=wait)
    thread.start()
    wakeup.set()
    assert came.wait(5)
    thread.join(5)


class Interrupted:
    """The receiving socket, with a ``set()`` from another thread just before each read."""

    def __init__(self, sock: socket.socket, wakeup: Wakeup) -> None:
        self._sock = sock
        self._wakeup = wakeup
        self.threads: list[threading.Thread] = []

    def recv(self, size: int) -> bytes:
        thread = threading.Thread(target=self._wakeup.set)
        thread.start()
        self.threads.append(thread)
        # It may have to wait for a lock that our caller holds.
        thread.join(0.2)
        return self._sock.recv(size)

    def close(self) -> None:
        self._sock.close()


def test_a_wake_up_during_clear_is_not_lost(
    selector: selectors.BaseSelector, wakeup: Wakeup, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Interrupted(wakeup._receiver, wakeup)
    monkeypatch.setattr(wakeup, "_receiver", receiver)
    wakeup.set()
    wakeup.clear()
    for thread in receiver.threads:
        thread.join(5)
    # That one came before the inbox is looked at, so it may have been swallowed; the
    # next one must wake.
    wakeup.set()
    assert woken(selector)


def test_after_the_close(selector: selectors.BaseSelector) -> None:
    wakeup = Wakeup(selector)
    wakeup.close()
    wakeup.set()
    wakeup.close()
