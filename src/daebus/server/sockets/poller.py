"""Wait for many sockets at once, each armed for one event at a time.

A socket that was reported is not reported again until it is armed: its owner can read,
write and close without telling the poller. On Linux any thread arms with
one system call (``EPOLLONESHOT``) and wakes nobody; elsewhere the request travels to the
waiting thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import threading
from collections import deque
from typing import Protocol

from ...waits import poll_timeout
from .wakeup import Wakeup

__all__ = ["Poller", "make_poller"]


class Poller(Protocol):
    """What the acceptor needs of the operating system.

    Threads:
        ``arm`` and ``wake`` any; the others only the thread that waits, or the owner of
        the socket while it is not armed.
    """

    def arm(self, fd: int, *, known: bool, write: bool = False) -> None:
        """Report the descriptor once, when it is readable (or writable).

        Args:
            fd: the descriptor.
            known: it was armed before.
            write: wait until it is writable.
        """

    def forget(self, fd: int) -> None:
        """Let go of a descriptor that stays open."""

    def listen(self, fd: int) -> None:
        """Report a listener as long as clients wait at it."""

    def wait(self, timeout: float | None) -> list[int]:
        """Return the descriptors that are ready; none after a timeout, a day or ``wake``."""

    def wake(self) -> None:
        """Have ``wait`` return."""

    def close(self) -> None:
        """Release everything; later calls do nothing."""

    def abandon(self) -> None:
        """Close a forked child's copies."""


class EpollPoller:
    """Linux: sockets stay known to the kernel and are re-armed in place."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._pending = False  # guarded by: _lock
        self._closed = False  # guarded by: _lock
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._event, select.EPOLLIN)

    def arm(self, fd: int, *, known: bool, write: bool = False) -> None:
        """Report the descriptor once."""
        events = (select.EPOLLOUT if write else select.EPOLLIN) | select.EPOLLONESHOT
        # During a stop the socket or the poller may have been closed meanwhile.
        with contextlib.suppress(ValueError, OSError):
            if known:
                self._epoll.modify(fd, events)
            else:
                self._epoll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Let go of a descriptor that stays open."""
        with contextlib.suppress(ValueError, OSError):
            self._epoll.unregister(fd)

    def listen(self, fd: int) -> None:
        """Report a listener as long as clients wait at it."""
        self._epoll.register(fd, select.EPOLLIN)

    def wait(self, timeout: float | None) -> list[int]:
        """Return the descriptors that are ready."""
        ready = [fd for fd, _ in self._epoll.poll(poll_timeout(timeout))]
        if self._event in ready:
            ready.remove(self._event)
            with self._lock:
                self._pending = False
                os.eventfd_read(self._event)
        return ready

    def wake(self) -> None:
        """Have ``wait`` return."""
        with self._lock:
            if not self._pending and not self._closed:
                self._pending = True
                os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """Release everything."""
        with self._lock:
            self._closed = True
        self._epoll.close()
        os.close(self._event)

    def abandon(self) -> None:
        """Close a forked child's copies."""
        self._lock = threading.Lock()  # the thread that held it does not exist in the child
        self.close()


class SelectorPoller:
    """Elsewhere: the waiting thread registers and unregisters on behalf of the others."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wakeup = Wakeup(self._selector)
        self._inbox: deque[tuple[int, int]] = deque()  # append and popleft are atomic
        self._listeners: set[int] = set()

    def arm(self, fd: int, *, known: bool, write: bool = False) -> None:
        """Report the descriptor once."""
        self._inbox.append((fd, selectors.EVENT_WRITE if write else selectors.EVENT_READ))
        self._wakeup.set()

    def forget(self, fd: int) -> None:
        """Let go of a descriptor, or of what is left of a closed one."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def listen(self, fd: int) -> None:
        """Report a listener as long as clients wait at it."""
        self._listeners.add(fd)
        self._selector.register(fd, selectors.EVENT_READ, fd)

    def wait(self, timeout: float | None) -> list[int]:
        """Return the descriptors that are ready."""
        while self._inbox:
            fd, events = self._inbox.popleft()
            self.forget(fd)
            with contextlib.suppress(ValueError, OSError):
                self._selector.register(fd, events, fd)
        ready = []
        for key, _ in self._selector.select(poll_timeout(timeout)):
            if key.data is None:
                self._wakeup.clear()  # behind the select: what woke us is looked at next
                continue
            ready.append(key.fd)
            if key.fd not in self._listeners:
                self._selector.unregister(key.fd)
        return ready

    def wake(self) -> None:
        """Have ``wait`` return."""
        self._wakeup.set()

    def close(self) -> None:
        """Release everything."""
        self._wakeup.close()
        self._selector.close()

    def abandon(self) -> None:
        """Leave a forked child's copies to the garbage collector."""


def make_poller() -> Poller:
    """Return the best poller of this platform."""
    if hasattr(select, "epoll") and hasattr(os, "eventfd"):
        return EpollPoller()
    return SelectorPoller()
