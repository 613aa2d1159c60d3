"""What topics are lent while the app runs, and what all topics of a component share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...data.encoder import PLAIN, Encoder
from ...server.threads.minder import Minder
from ..connection.writer import Writer
from .cursor import Cursor
from .subscribers import Subscribers

__all__ = ["Live", "Offered", "Shared", "Span"]


class Span(NamedTuple):
    """The part of a topic that one message covers.

    Attributes:
        before: who stands here is current, and gets it at once.
        offset: who got it stands here.
        epoch: of both.
        patient: see ``Cursor.pull``.
    """

    before: int
    offset: int
    epoch: str
    patient: bool = True


class Offered(NamedTuple):
    """What became of a message.

    Attributes:
        reached: subscribers that have it or will have it.
        queued: how many of those get it later.
        gone: connections that turned out to have ended.
    """

    reached: int
    queued: int
    gone: list[Writer]


class Live(NamedTuple):
    """What topics need of one start of the app.

    Attributes:
        minder: for what is due later.
        subscribers: the cursors of all connected clients.
        publish: hands a message to those of these subscribers that are current, and has the
            others read it when they come to it.
        max_topics: how many topics one client may ask for.
    """

    minder: Minder
    subscribers: Subscribers
    publish: Callable[[Sequence[Cursor], bytes, Span], Offered]
    max_topics: int


class Shared:
    """What the topics of a component have in common.

    Attributes:
        encoder: of the app.
        live: None while the app does not run.
        check: raises if this process is a fork of the one in which the app was started.
    """

    __slots__ = ("check", "encoder", "live")

    def __init__(self) -> None:
        self.check: Callable[[], object] = bool
        self.encoder: Encoder = PLAIN
        self.live: Live | None = None
