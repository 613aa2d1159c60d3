"""All topics of a component that other nodes have as well.

Rules of this module:

1. Topics have channels of their own, one a partition, apart from those of rooms: what is
   published there is not numbered, since offsets tell what is missing.
2. A topic is read once its channel is heard, and again after each interruption of that, with a
   spread, lest all nodes ask for everything at one moment.
3. A mark beside the topics of each partition is looked at every second: a store that was emptied
   has none, or another one. And every topic is compared now and then, for what nobody noticed.
"""

from __future__ import annotations

import random
import threading
from functools import partial
from itertools import groupby
from typing import Any, Final

from ....backplane.names import random_name
from ....backplane.store import read_notices
from ....interrupts.stack import held, interrupted, within
from ....waits import monotonic
from ..changes import StateFeed
from ..feed import Feed
from ..table import Topics
from ..topic import HistoryFeed
from .follower import Follower, Heard
from .histories import HistoryCopy
from .line import Line
from .states import StateCopy

__all__ = ["Sharing"]

# Seconds that a start waits for the topics.
_FIRST: Final = 1.0

# Seconds that a stop waits for the last changes.
_LAST: Final = 0.5

# Seconds between two looks at what is late, between two at the marks, and within which every
# topic is compared with the store once.
_TICK: Final = 0.25
_MARKS: Final = 1.0
_ROUND: Final = 10.0

# So many topics a second are read after an interruption, for 2 seconds at most.
_PACE: Final = 1000.0
_LONGEST: Final = 2.0


class _Channel:
    """A channel that is heard.

    Attributes:
        names: of the topics whose changes come there.
        mark: which was seen there; empty for none.
        holds: it was seen to be heard.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.mark = ""
        self.holds = False


class Sharing:
    """Shares the topics of a component.

    Args:
        topics: of the component.

    Threads:
        ``begin`` and ``end`` belong to the start and stop of the app; the rest any.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._line: Line | None = None
        self._lock = threading.Lock()
        self._heard: dict[str, _Channel] = {}  # guarded by: _lock
        self._copies: dict[str, HistoryCopy | StateCopy] = {}  # single operations only
        self._earlier: dict[str, Follower] = {}  # of the app's last run
        # The minder's alone.
        self._down_since: float | None = None
        self._marked_at = self._compared_at = 0.0

    # --- the app ------------------------------------------------------------------------

    def begin(self, line: Line, wait: float = _FIRST) -> None:
        """Share all topics from now on.

        Args:
            line: to the backplane.
            wait: seconds that it waits for them to be read, if the backplane can be reached.
        """
        self._line = line
        now = line.clock()
        self._down_since = None if line.up else now
        self._marked_at = self._compared_at = now
        if self.open not in self._topics.opened:
            self._topics.opened.append(self.open)
            self._topics.retired.append(self.close)
        for feed in self._topics.feeds():
            self.open(feed)
        line.later(_TICK, partial(self._tick, line))
        deadline = monotonic() + wait
        for copy in list(self._copies.values()) if line.up else ():
            copy.settle(max(0.0, deadline - monotonic()))

    def end(self, deadline: float) -> None:
        """Share no more: each topic goes on alone, as it is.

        Args:
            deadline: moment until which the last changes may arrive.
        """
        line = self._line
        if line is None:
            return
        pause, last = threading.Event(), min(deadline, monotonic() + _LAST)
        while line.up and self._is_busy() and monotonic() < last:
            pause.wait(0.005)
        self._line = None
        # A program may use another topic of a family in this very moment.
        copies, self._copies = self._copies.copy(), {}
        for copy in copies.values():
            copy.run(copy.follower.end)
        for feed in self._topics.feeds():
            feed.copy = None
            if feed.name in copies:
                self._earlier[feed.name] = copies[feed.name].follower
        with held, self._lock:
            self._heard.clear()

    def _is_busy(self) -> bool:
        return any(copy.busy for copy in list(self._copies.values()))

    def forget(self) -> None:
        """Let go in a forked child."""
        self._line = None
        self._lock = threading.Lock()
        self._heard, self._copies = {}, {}
        for feed in self._topics.feeds():
            feed.copy = None

    def open(self, feed: Feed[Any]) -> None:
        """Share one topic, if it is to be."""
        line = self._line
        if line is None or not feed.spec.shared or feed.name in self._copies:
            return
        copy: HistoryCopy | StateCopy
        if isinstance(feed, HistoryFeed):
            copy = HistoryCopy(feed, line)
        elif isinstance(feed, StateFeed):
            copy = StateCopy(feed, line)
        else:
            return
        if self._copies.setdefault(feed.name, copy) is not copy:  # another thread was first
            return
        feed.copy = copy
        earlier = self._earlier.pop(feed.name, None)
        if earlier is not None:
            copy.follower.shared = earlier.shared
        holds = self._hear(feed.name)
        copy.run(copy.follower.begin)
        if not holds:
            line.later(0.02, partial(self._look, line, line.store.channel(feed.name)))

    def close(self, feed: Feed[Any]) -> None:
        """Share a topic no more."""
        copy, line = self._copies.get(feed.name), self._line
        if copy is None or copy is not feed.copy:
            return
        self._copies.pop(feed.name, None)
        if line is None:
            return
        channel = line.store.channel(feed.name)
        with held, self._lock:
            heard = self._heard.get(channel)
            if heard is None:
                return
            heard.names.discard(feed.name)
            if heard.names:
                return
            del self._heard[channel]
        line.unhear(channel)

    # --- channels -----------------------------------------------------------------------

    def _hear(self, name: str) -> bool:
        """Hear the channel of a topic; return whether that is known to be so."""
        line = self._line
        assert line is not None
        channel = line.store.channel(name)
        if self._lock.locked() and within(self._lock):
            raise interrupted("declaring a topic")
        with held, self._lock:
            heard = self._heard.get(channel)
            fresh = heard is None
            if heard is None:
                heard = self._heard[channel] = _Channel()
            heard.names.add(name)
            holds = heard.holds
        if fresh:
            line.hear(channel, self.receive)
            self._look_at_mark(line, channel, name)
        return holds

    def _look(self, line: Line, channel: str) -> None:
        """Read the topics of a channel once it is heard: what came before was missed."""
        heard = self._heard.get(channel)  # unguarded: one look
        if line is not self._line or heard is None or heard.holds:
            return
        if line.hears(channel):
            heard.holds = True
            self._check(line, list(heard.names), spread=False)
        else:
            line.later(0.02 if line.up else 0.5, partial(self._look, line, channel))

    def receive(self, channel: str, data: bytes) -> None:
        """Take what was published on a channel; called by a thread of the backplane."""
        line = self._line
        if line is None:
            return
        try:
            notices = read_notices(data)
        except ValueError:
            return
        heard: list[Heard] = []
        for notice in notices:
            found = line.take(channel, notice.frame)
            if found is not None:
                heard.append((notice, *found))
        for topic, changes in groupby(heard, _topic):
            copy = self._copies.get(topic)
            if copy is not None:
                copy.run(copy.follower.hear, list(changes))

    def reconnected(self) -> None:
        """Compare all topics with the store: something may be missing."""
        line = self._line
        if line is not None:
            self._check(line, list(self._copies), spread=True)

    def _check(self, line: Line, names: list[str], *, spread: bool) -> None:
        within = min(_LONGEST, len(names) / _PACE) if spread else 0.0
        for name in names:
            copy = self._copies.get(name)
            if copy is not None:
                call = partial(copy.run, copy.follower.check)
                line.later(random.uniform(0.0, within), call)

    # --- time ---------------------------------------------------------------------------

    def _tick(self, line: Line) -> None:
        if line is not self._line:
            return
        now = line.clock()
        if line.up:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = now
        down = self._down_since is not None and now - self._down_since > line.patience
        copies = list(self._copies.values())
        for copy in copies:
            if copy.follower.is_due(now, line.patience, down=down):
                copy.run(partial(copy.follower.tick, patience=line.patience, down=down))
        if line.up and now - self._marked_at >= _MARKS:
            self._marked_at = now
            self._look_at_marks(line)
        if line.up and copies:
            self._compare_some(line, copies, now)
        line.later(_TICK, partial(self._tick, line))

    def _look_at_marks(self, line: Line) -> None:
        for channel, heard in list(self._heard.items()):  # unguarded: one look
            names = list(heard.names)
            if names:
                self._look_at_mark(line, channel, names[0])

    def _look_at_mark(self, line: Line, channel: str, name: str) -> None:
        line.store.mark(name, random_name(12), partial(self._marked, line, channel))

    def _marked(self, line: Line, channel: str, mark: object) -> None:
        heard = self._heard.get(channel)  # unguarded: one look
        if heard is None or not isinstance(mark, str):
            return
        before, heard.mark = heard.mark, mark
        if before not in ("", mark):
            self._check(line, list(heard.names), spread=True)

    def _compare_some(self, line: Line, copies: list[Any], now: float) -> None:
        """Compare so many topics that all have their turn within a round."""
        share = int(len(copies) * (now - self._compared_at) / _ROUND)
        if share:
            self._compared_at = now
            for copy in random.sample(copies, min(share, len(copies))):
                copy.run(copy.follower.compare)


def _topic(heard: Heard) -> str:
    return heard[1].to
