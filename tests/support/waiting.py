"""Waiting for what announces itself by no event, and names for test cases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


def stable_id(value: object) -> str:
    """Return a short name of a test case that is the same in every process."""
    text = ascii(value)
    return type(value).__name__ if " at 0x" in text or "set(" in text or "{'" in text else text[:30]


def eventually(condition: Callable[[], Any], timeout: float = 5.0) -> Any:
    """Wait until a condition holds that announces itself by no event; return its value.

    For what another process or the kernel decides, such as a descriptor going away.
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        pause.wait(0.01)
