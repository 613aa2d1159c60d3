"""What becomes known when one of our threads dies.

None is meant to: what they call is caught. If something gets through all the same, half of
the app is gone, and whoever looks after the program must hear of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from .safelog import get_logger

__all__ = ["Vitals"]

logger = get_logger("daebus.server")


class Vitals:
    """Watches over the threads of one start of an app.

    Args:
        on_death: called in a thread that dies; must neither wait nor raise.

    Attributes:
        on_death: as given, for threads that somebody else watches over.
    """

    def __init__(self, on_death: Callable[[], object] = bool) -> None:
        self.on_death = on_death

    def guard(self, run: Callable[..., object], *args: object) -> None:
        """Run the whole of a thread; log what ends it before its time, and tell."""
        try:
            run(*args)
        except BaseException:  # whatever it is, nobody else would hear of it
            try:
                self.on_death()
            finally:
                logger.exception("%s died; stop the app", threading.current_thread().name)
