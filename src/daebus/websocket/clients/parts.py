"""Who is in which room, on all nodes: each writes its part of a room, and reads all of them.

Rules of this module:

1. A part belongs to its node: nobody else changes it, but to take it away once the node is gone.
   It counts as long as the node is alive, so no client has an entry that could outlive it.
2. The parts of a room are a state that nodes share, which no client can subscribe to. What clients
   see is merged from them, by each node for its own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from ...errors import StateLimitError
from ...server.threads.minder import Minder
from ..topics.changes import StateFeed
from ..topics.cursor import Watcher
from ..topics.feed import Retired
from ..topics.shared.sharing import Sharing
from ..topics.spec import Spec
from ..topics.table import Topics

__all__ = ["COUNT", "MAX_PEOPLE", "Crew", "Parts"]

# Users in a room that are shown one by one; if there are more, their number is.
MAX_PEOPLE: Final = 1000
COUNT: Final = "#"

# Before the name of the room. No topic of a program can begin with it.
_PREFIX: Final = "\0presence:"

# What all nodes together may have in a room.
_MAX_KEYS: Final = 100_000
_MAX_BYTES: Final = 16 << 20

# Seconds between two looks at who is alive, and between two at all parts: those of nodes that are
# gone for longer are taken away, and those of ours that somebody took away are put back.
_LOOK: Final = 0.5
_UPKEEP: Final = 5.0


class Crew(NamedTuple):
    """What is to know of the nodes.

    Attributes:
        own: the incarnation of this node.
        alive: returns those of the others that are alive.
        up: tells whether the backplane works.
    """

    own: str
    alive: Callable[[], frozenset[str]]
    up: Callable[[], bool]


class Parts:
    """The parts of all rooms that somebody here is in, or looks at.

    Args:
        topics: of the component.
        sharing: of the component.
        crew: the nodes.
        minder: of this start of the app.
        show: is told, by the minder, of a room of which something has changed.

    Threads:
        ``of`` and ``follow`` any; the rest the minder's, or that which starts and stops the app.
    """

    def __init__(
        self,
        topics: Topics,
        sharing: Sharing,
        crew: Crew,
        minder: Minder,
        show: Callable[[str], object],
    ) -> None:
        self._topics = topics
        self._sharing = sharing
        self._crew = crew
        self._minder = minder
        self._show = show
        # Both at once: what changes before its watcher is known would wake nobody any more.
        self._feeds: dict[str, tuple[StateFeed, Watcher]] = {}  # single operations only
        self._mine: dict[str, dict[str, bytes]] = {}
        self._alive: frozenset[str] = frozenset()
        self._dead: frozenset[str] = frozenset()  # those that were gone at the last look
        self._kept_up = minder.clock()
        self._ended = False
        minder.call_later(_LOOK, self._look)

    def follow(self, room: str) -> StateFeed:
        """Read the parts of a room from now on."""
        known = self._feeds.get(room)
        if known is not None:
            return known[0]
        name = _PREFIX + room
        spec = Spec("state", name, count=_MAX_KEYS, max_bytes=_MAX_BYTES, family=_PREFIX + "*")
        fresh = StateFeed(spec, self._topics.shared)
        changed = partial(self._changed, room)
        _, watcher = fresh.watch(None, 0, lambda: self._minder.call_later(0.0, changed))
        feed, _ = self._feeds.setdefault(room, (fresh, watcher))
        if feed is fresh:
            self._sharing.open(feed)
        return feed

    def leave(self, room: str) -> None:
        """Read the parts of a room no more, unless somebody here is in it."""
        if not self._mine.get(room):
            known = self._feeds.pop(room, None)
            if known is not None:
                feed, watcher = known
                watcher.close()
                self._sharing.close(feed)

    def put(self, room: str, values: Mapping[str, bytes], removed: Iterable[str]) -> bool:
        """Change our part; return False if there is no room for it."""
        if self._ended:
            return True
        own = self._crew.own
        mine = self._mine.setdefault(room, {})
        gone = [key for key in removed if key in mine]
        try:
            self.follow(room).change(
                {f"{own} {key}": value for key, value in values.items()},
                [f"{own} {key}" for key in gone],
            )
        except StateLimitError:
            return False
        except Retired:
            return True
        mine.update(values)
        for key in gone:
            del mine[key]
        if not mine:
            del self._mine[room]
        return True

    def of(self, room: str, *, wait: bool = False) -> dict[str, bytes]:
        """Return who is in a room, on all nodes that are alive, as JSON by user.

        Args:
            room: the room.
            wait: until it has been read, if it was not yet; a second at most.
        """
        feed = self.follow(room)
        if wait:
            feed.settle()
        return _merged(self._living(feed))

    def own(self, room: str) -> list[str]:
        """Return the users of our part of a room."""
        return list(self._mine.get(room, ()))

    def end(self) -> None:
        """Take our parts away.

        What the minder is about to write of a room counts no longer than this node.
        """
        self._ended = True
        own = self._crew.own
        for room, mine in list(self._mine.items()):
            known = self._feeds.get(room)
            if known is not None:
                with contextlib.suppress(Retired):
                    known[0].change({}, [f"{own} {key}" for key in list(mine)])

    def _living(self, feed: StateFeed) -> list[tuple[str, bytes]]:
        alive = self._crew.alive() | {self._crew.own}
        parts = [(key.partition(" "), value) for key, value in feed.values()]
        return [(user, value) for (node, _, user), value in parts if node in alive]

    # --- in the minder ------------------------------------------------------------------

    def _changed(self, room: str) -> None:
        known = self._feeds.get(room)
        if known is None or self._ended:
            return
        while known[1].take(_MAX_BYTES):
            pass
        self._show(room)

    def _look(self) -> None:
        """Look who is alive."""
        if self._ended:
            return
        self._minder.call_later(_LOOK, self._look)
        alive = self._crew.alive()
        if alive != self._alive:
            self._alive = alive
            for room in list(self._feeds):
                self._show(room)
        if self._crew.up() and self._minder.clock() - self._kept_up >= _UPKEEP:
            self._kept_up = self._minder.clock()
            self._keep_up(alive)

    def _keep_up(self, alive: frozenset[str]) -> None:
        own, dead = self._crew.own, set()
        for room, (feed, _) in list(self._feeds.items()):
            parts: dict[str, list[str]] = {own: []}
            for key, _ in feed.values():
                parts.setdefault(key.partition(" ")[0], []).append(key)
            gone = parts.keys() - alive - {own}
            dead |= gone
            there = set(parts[own])
            mine = {f"{own} {user}": value for user, value in self._mine.get(room, {}).items()}
            missing = {key: value for key, value in mine.items() if key not in there}
            buried = [key for node in gone & self._dead for key in parts[node]]
            if missing or buried:
                feed.change(missing, buried)
        self._dead = frozenset(dead)


def _merged(parts: list[tuple[str, bytes]]) -> dict[str, bytes]:
    """Return what is shown of a room of which these are the parts."""
    count, shown = 0, dict[str, dict[str, Any]]()
    for user, value in parts:
        said = json.loads(value)
        if user == COUNT:
            count += said
            continue
        known = shown.get(user)
        if known is None:
            shown[user] = said
        else:
            first = min(known, said, key=lambda entry: entry["since"])
            shown[user] = {**first, "clients": known["clients"] + said["clients"]}
    if count or len(shown) > MAX_PEOPLE:
        return {COUNT: b"%d" % (count + len(shown))}
    return {user: json.dumps(said, separators=(",", ":")).encode() for user, said in shown.items()}
