"""The states of a connection, and the cause of its end.

::

    CONNECTING -> OPEN -> CLOSING -> CLOSED
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = [
    "CLOSED",
    "CLOSING",
    "CONNECTING",
    "LOST",
    "OPEN",
    "Cause",
]

CONNECTING: Final = 0
OPEN: Final = 1
CLOSING: Final = 2
CLOSED: Final = 3


class Cause(NamedTuple):
    """Why a connection ended.

    Attributes:
        why: one of the reasons of ``DisconnectInfo``.
        code: the close code received or sent first; 1006 if there was none.
        reason: the text that came with it.
    """

    why: str
    code: int
    reason: str


# Also reported of a connection that has not ended.
LOST: Final = Cause("lost", 1006, "")
