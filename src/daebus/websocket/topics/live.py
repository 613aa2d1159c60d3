"""What topics are lent while the app runs, and what all topics of a component share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypedDict

from ...data.encoder import PLAIN, Encoder
from ...server.threads.minder import Minder, Timer
from ..connection.writer import Writer
from .cursor import Cursor
from .envelopes import Event
from .history import Chunk, Saved
from .position import Answer, Kind, Position
from .subscribers import Subscribers

__all__ = ["Expiry", "Live", "Log", "Look", "Offered", "Shared", "Sharer", "Span", "TopicStats"]


class Span(NamedTuple):
    """The part of a topic that messages cover which are handed out at once.

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
    """What became of messages.

    Attributes:
        reached: subscribers that have them or will have them.
        queued: how many of those get them later.
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
        publish: hands messages to those of these subscribers that are current, and has the
            others read them when they come to them.
        max_topics: how many topics one client may ask for.
    """

    minder: Minder
    subscribers: Subscribers
    publish: Callable[[Sequence[Cursor], Sequence[bytes], Span], Offered]
    max_topics: int


class Look(NamedTuple):
    """All of a topic at one moment.

    Attributes:
        kind: of the topic.
        epoch: the count of offsets.
        offset: of the newest message or change.
        messages: those that are kept, of a history.
        values: keys and values as JSON, of a state.
    """

    kind: Kind
    epoch: str
    offset: int
    messages: list[Event]
    values: list[tuple[str, bytes]]


class TopicStats(TypedDict):
    """The counts of one topic; see ``DaebusWebSocket.stats``."""

    kind: Kind
    epoch: str
    offset: int
    entries: int
    bytes: int
    subscribers: int
    watchers: int
    gaps: int
    persist_error: str | None


class Log(Protocol):
    """What a feed asks of a log, of either kind."""

    @property
    def epoch(self) -> str:
        """The count of offsets."""

    @property
    def top(self) -> int:
        """Offset of the newest message or change."""

    @property
    def floor(self) -> int:
        """The oldest offset of which it can tell."""

    def begin(self, since: Position | None, last: int) -> tuple[Answer, int]:
        """Decide where a new subscriber begins."""

    def read(self, epoch: str, sent: int, base: int, limit: int) -> Chunk:
        """Return what follows a position."""

    def trim(self, moment: float) -> object:
        """Let go of what is too old."""

    def contents(self) -> bytes:
        """Return all that it holds, as JSON."""

    def dump(self) -> Saved:
        """Return all that is to be saved."""

    def restore(self, saved: Saved, time: float, moment: float, *, keep_epoch: bool) -> None:
        """Put what was saved before what is there."""

    @property
    def size(self) -> int:
        """Bytes that are kept."""

    @property
    def gaps(self) -> int:
        """How often readers were told that something is lost."""

    def __len__(self) -> int:
        """Return how many messages or values there are."""


class Sharer(Protocol):
    """Shares a topic with other nodes."""

    @property
    def busy(self) -> bool:
        """True while a change of ours is on its way."""

    def settle(self, timeout: float) -> None:
        """Wait until readers can be told where they stand."""


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


class Expiry:
    """The one timer of a topic, for what grows too old in it; used in its turns alone.

    Args:
        name: of the topic.
        shared: with the other topics of the component.
    """

    __slots__ = ("_at", "_name", "_shared", "_timer")

    def __init__(self, name: str, shared: Shared) -> None:
        self._name = name
        self._shared = shared
        self._at = float("inf")
        self._timer: Timer | None = None

    @property
    def planned(self) -> bool:
        """True if the minder will make a call."""
        return self._timer is not None

    def plan(self, at: float, moment: float, expire: Callable[[], object]) -> None:
        """Have the minder make a call at that moment, unless it makes one before.

        Args:
            at: when the first is too old.
            moment: now.
            expire: the call; it begins with ``forget``.
        """
        live = self._shared.live
        if live is None or at >= self._at:
            return
        self.forget()
        self._at = at
        self._timer = live.minder.call_later(max(0.0, at - moment), expire)

    def plan_next(
        self,
        after: list[Callable[[], object]],
        at: float | None,
        moment: float,
        expire: Callable[[], object],
        *,
        done: bool,
    ) -> None:
        """Plan again once something was let go; after the last a family may give up the topic.

        Args:
            after: see ``Feed.turn``.
            at: when the next is too old; None for never.
            moment: now.
            expire: the call.
            done: something was let go.
        """
        live = self._shared.live
        if at is not None:
            self.plan(at, moment, expire)
        elif done and live is not None:
            after.append(partial(live.subscribers.on_empty, self._name))

    def forget(self) -> None:
        """Cancel the timer, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._at = None, float("inf")
