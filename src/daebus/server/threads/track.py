"""Which threads are ours, and what each of them is for.

A thread's role is an attribute of its ``Thread`` object. So there is nothing to clean up
when it ends or after a fork, and nothing to guard: names are for people who read logs,
and a host may give its own threads any name.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

__all__ = ["is_own", "lent", "role_of", "roles", "track"]

_ATTRIBUTE = "_daebus_role"


def track(thread: threading.Thread, role: str) -> threading.Thread:
    """Mark a thread as ours; a new role replaces the old one.

    Args:
        thread: started or not.
        role: what it is for, one word for reports.

    Returns:
        The thread.
    """
    setattr(thread, _ATTRIBUTE, role)
    return thread


def role_of(thread: threading.Thread) -> str | None:
    """Return what a thread of ours is for, None for a thread of the host."""
    role: str | None = getattr(thread, _ATTRIBUTE, None)
    return role


def is_own() -> bool:
    """Tell whether the calling thread is ours, or lent to us."""
    return role_of(threading.current_thread()) is not None


def roles() -> Counter[str]:
    """Return how many threads of ours are alive, by role."""
    found = map(role_of, threading.enumerate())
    return Counter(role for role in found if role is not None)


@contextlib.contextmanager
def lent(role: str) -> Iterator[None]:
    """Treat the calling thread, which is another server's, as ours within the block.

    It goes back as it came: with its name, and without a role.
    """
    thread = threading.current_thread()
    name, before = thread.name, role_of(thread)
    track(thread, role)
    try:
        yield
    finally:
        thread.name = name
        setattr(thread, _ATTRIBUTE, before)
