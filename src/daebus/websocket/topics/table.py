"""All topics of a component: declared ones, and the members of families."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ...checks.arguments import MAX_NAME
from ...errors import ClientError, DuplicateHandlerError
from ...interrupts.stack import check_outside
from ..connection.link import Link
from ..protocol.codec import TEXT
from .changes import StateFeed
from .cursor import Watcher
from .envelopes import message
from .feed import Feed, Retired
from .live import Live, Shared, TopicStats
from .position import Answer, Kind, Position
from .spec import RESERVED, Spec
from .state import State
from .topic import HistoryFeed, Topic

__all__ = ["Topics"]

AnyFeed = HistoryFeed | StateFeed

# Members of families between two looks at who of them is needed no more.
_FEW = 64


class _Birth:
    """One topic that is made, by one thread: two would keep and share two topics of its name."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Topics:
    """The topics of one component; they outlive a stop of the app.

    Attributes:
        shared: by all topics.
        reserve: called before the first topic is declared; raises if it cannot be.
        opened: called with each topic when the app starts, and with each that is made while
            it runs, before anybody reads it. They may wait for a disk.
        closed: called with each topic when the app has stopped.
        retired: called with each topic of a family that was given up.

    Threads:
        Any may declare and look up, at any time.
    """

    def __init__(self) -> None:
        self.shared = Shared()
        self.reserve: Callable[[], object] = bool
        self.opened: list[Callable[[Feed[Any]], None]] = []
        self.closed: list[Callable[[Feed[Any]], None]] = []
        self.retired: list[Callable[[Feed[Any]], None]] = []
        self._lock = threading.Lock()
        # Read without the lock: one look, at a dict that only grows or loses single names.
        self._feeds: dict[str, AnyFeed] = {}
        self._births: dict[str, _Birth] = {}  # single operations only; empty when nothing is made
        self._families: tuple[Spec, ...] = ()
        self._auto: tuple[AnyFeed, ...] = ()
        self._joined = False  # to other processes
        self._look_at = _FEW  # guarded by: _lock; members then are looked at

    # --- declaring --------------------------------------------------------------------

    def declare(self, spec: Spec) -> Topic | State:
        """Make a topic or a family, or find a member of one.

        Raises:
            DuplicateHandlerError: the name is taken.
            ValueError: it would be kept twice; see ``join``.
        """
        check_outside("declaring a topic", self._lock)
        if self._joined:
            _check_kept_once(spec)
        self.reserve()
        if spec.is_family:
            with self._lock:
                taken = spec.name in [family.name for family in self._families]
                if not taken:
                    self._families = (*self._families, spec)
            if taken:
                raise _duplicate(spec.name)
        else:
            self._declare_one(spec)
        if spec.kind == "history":
            return Topic(spec, self._history_feed, self.shared)
        return State(spec, self._state_feed, self.shared)

    def join(self) -> None:
        """Take note that there is a backplane, which keeps what is shared.

        Raises:
            ValueError: a topic that would be shared has a file.
        """
        for spec in self.specs():
            _check_kept_once(spec)
        self._joined = True

    def _declare_one(self, spec: Spec) -> None:
        family = self.family_of(spec.name)
        if family is not None and (spec.name not in self._feeds or self._is_member(spec.name)):
            if family.kind != spec.kind:
                raise _duplicate(spec.name)
            if not (spec.is_plain or family.member(spec.name).is_like(spec)):
                raise DuplicateHandlerError(
                    f"topic {spec.name!r} is one of the family {family.name!r}, which has its own "
                    f"arguments; leave them out here, or declare the topic before the family"
                )
            return
        feed, fresh = self._give(spec)
        if not fresh:
            raise _duplicate(spec.name)
        live = self.shared.live
        if live is not None:
            feed.begin(live)  # some of what a file had may be about to expire
        if spec.auto is not None:
            with self._lock:
                self._auto = (*self._auto, feed)

    def _is_member(self, name: str) -> bool:
        feed = self._feeds.get(name)
        return feed is not None and feed.spec.family is not None

    def _history_feed(self, name: str) -> HistoryFeed:
        feed = self.find(name)
        assert isinstance(feed, HistoryFeed)
        return feed

    def _state_feed(self, name: str) -> StateFeed:
        feed = self.find(name)
        assert isinstance(feed, StateFeed)
        return feed

    def handle(self, name: str) -> Topic | State | None:
        """Return what the program holds of a topic; None if there is none."""
        feed = self.find(name)
        if isinstance(feed, HistoryFeed):
            return Topic(feed.spec, self._history_feed, self.shared)
        return None if feed is None else State(feed.spec, self._state_feed, self.shared)

    # --- looking up ---------------------------------------------------------------------

    def specs(self) -> list[Spec]:
        """Return all declarations, those of families too."""
        return [*self._families, *(feed.spec for feed in self.feeds())]

    def family_of(self, name: str) -> Spec | None:
        """Return the family that a name is one of."""
        return next((family for family in self._families if family.fits(name)), None)

    def knows(self, name: str) -> bool:
        """Tell whether there is such a topic, or could be one in a family."""
        if name in self._feeds:
            return True
        if len(name) > MAX_NAME or "*" in name or name == RESERVED or not name.isprintable():
            return False
        return self.family_of(name) is not None

    def find(self, name: str) -> AnyFeed | None:
        """Return a topic; one of a family is made if need be."""
        feed = self._feeds.get(name)
        if feed is not None or not self.knows(name):
            return feed
        family = self.family_of(name)
        assert family is not None
        self._look()
        return self._give(family.member(name))[0]

    def _give(self, spec: Spec) -> tuple[AnyFeed, bool]:
        """Return the topic of that name, and whether it was made for this."""
        name = spec.name
        while True:
            feed = self._feeds.get(name)
            if feed is not None:
                return feed, False
            birth = self._births.setdefault(name, _Birth())
            check_outside("declaring a topic", birth.lock)
            with birth.lock:
                if self._births.get(name) is not birth:  # it is over
                    continue
                try:
                    feed = self._feeds.get(name)
                    if feed is not None:
                        return feed, False
                    feed = self._feeds[name] = self._make(spec)
                    return feed, True
                finally:
                    del self._births[name]

    def _make(self, spec: Spec) -> AnyFeed:
        kind = HistoryFeed if spec.kind == "history" else StateFeed
        feed = kind(spec, self.shared)
        if self.shared.live is not None:
            for tell in self.opened:
                tell(feed)
        return feed

    def feeds(self) -> list[AnyFeed]:
        """Return all topics that exist now."""
        return list(self._feeds.values())

    def describe(self) -> dict[str, TopicStats]:
        """Return what ``stats()`` says of each topic."""
        return {feed.name: feed.describe() for feed in self.feeds()}

    # --- members that are not needed ------------------------------------------------------

    def prune(self, name: str) -> None:
        """Give up a member of a family that has neither messages nor readers."""
        feed = self._feeds.get(name)
        if feed is not None and feed.spec.family is not None and feed.retire():
            self._feeds.pop(name, None)
            for tell in self.retired:
                tell(feed)

    def _look(self) -> None:
        """Look for members whose messages have grown old, now and then."""
        with self._lock:
            due = len(self._feeds) >= self._look_at
            if due:
                self._look_at = _FEW + 2 * len(self._feeds)
        if due:
            for name in list(self._feeds):
                self.prune(name)
            with self._lock:  # of those that are left: names that nobody uses add up to nothing
                self._look_at = _FEW + 2 * len(self._feeds)

    # --- subscribing ------------------------------------------------------------------------

    def subscribe(
        self,
        link: Link,
        name: str,
        make: Callable[[Answer], bytes],
        since: Position | None = None,
        last: int = 0,
        *,
        counted: bool = False,
    ) -> bool:
        """Subscribe a client that may be; see ``Feed.subscribe``.

        Raises:
            ClientError: ``unknown_topic``, ``too_many_topics``.
        """
        done = False
        try:
            while True:
                try:
                    feed = self._known(name)
                    done = feed.subscribe(link, make, since, last, counted=counted)
                except Retired:
                    continue
                return done
        finally:
            if not done:
                self.prune(name)  # it may have been made for this

    def watch(
        self, name: str, since: Position | None, last: int, wake: Callable[[], object]
    ) -> tuple[Answer, Watcher]:
        """Have a reader that is no WebSocket begin; see ``Feed.watch``.

        Raises:
            ClientError: ``unknown_topic``.
        """
        while True:
            try:
                return self._known(name).watch(since, last, wake)
            except Retired:
                continue

    def show(self, name: str) -> tuple[Kind, Position, int, bytes]:
        """Return the kind of a topic, where it is, its floor, and all that it holds, as JSON.

        Raises:
            ClientError: ``unknown_topic``.
        """
        feed = self._known(name)
        shown = feed.spec.kind, *feed.show()
        self.prune(name)  # it may have been made for this
        return shown

    def _known(self, name: str) -> AnyFeed:
        feed = self.find(name)
        if feed is None:
            raise ClientError(f"there is no topic {name[:MAX_NAME]!r}", "unknown_topic")
        if feed.copy is not None:
            feed.settle()
        return feed

    def announce(self, link: Link, name: str, last: int = 0) -> bool:
        """Subscribe a client that has not asked for it, and tell it so.

        Raises:
            ClientError: ``unknown_topic``.
        """

        def tell(answer: Answer) -> bytes:
            return message("subscribed", answer.as_dict(), name)

        return self.subscribe(link, name, tell, last=last)

    def unsubscribe(self, link: Link, name: str, payload: bytes | None) -> bool:
        """End a subscription; see ``Feed.unsubscribe``."""
        feed = self._feeds.get(name)
        if feed is not None:
            try:
                return feed.unsubscribe(link, payload)
            except Retired:
                pass
        if payload is not None:
            link.writer.offer(link.writer.compress(TEXT, payload))
        return False

    @property
    def auto(self) -> tuple[AnyFeed, ...]:
        """The topics that every client is subscribed to as it connects."""
        return self._auto

    # --- the app -------------------------------------------------------------------------------

    def begin(self, live: Live) -> None:
        """The app starts: topics reach clients from now on."""
        for feed in self.feeds():
            for tell in self.opened:
                tell(feed)
        self.shared.live = live
        live.subscribers.on_empty = self.prune
        for feed in self.feeds():
            feed.begin(live)

    def end(self) -> None:
        """The app has stopped, and all clients have gone."""
        self.shared.live = None
        for feed in self.feeds():
            feed.end()
            for tell in self.closed:
                tell(feed)


def _check_kept_once(spec: Spec) -> None:
    if spec.persist is not None and spec.shared:
        raise ValueError(
            f"topic {spec.name!r} would be kept in a file (persist=) and by the backplane; leave "
            f"persist= out, or write shared=False for a topic of this process alone"
        )


def _duplicate(name: str) -> DuplicateHandlerError:
    return DuplicateHandlerError(
        f"topic {name!r} is declared already; keep what topic() or state() returned, or use "
        f"another name"
    )
