"""A descriptor kept for bad times."""

from __future__ import annotations

import os

__all__ = ["SpareDescriptor"]


class SpareDescriptor:
    """Lent out when the process has no descriptor left, so that a client can be told.

    Without it clients would wait in the kernel's queue without a word.
    """

    def __init__(self) -> None:
        self._fd = -1
        self.regain()

    def lend(self) -> bool:
        """Free the descriptor; False if there is none to free."""
        if self._fd < 0:
            return False
        self.close()
        return True

    def regain(self) -> None:
        """Take one again, if one can be had."""
        if self._fd < 0:
            try:
                self._fd = os.open(os.devnull, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except OSError:
                self._fd = -1

    def close(self) -> None:
        """Release it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
