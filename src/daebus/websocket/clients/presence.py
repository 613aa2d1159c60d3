"""Who is in which room: states that the server fills.

Rules of this module:

1. The minder alone changes the tables, so they need no lock. Other threads only tell it which
   client to look at.
2. It looks at where the client is now, not at what was announced: announcements of several
   threads may come in any order, and each is made after its change.
3. What gets less is told ``grace`` seconds later, so that a page that reloads makes no noise. A
   client that is identified as somebody else has not left: that is told at once.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from ...data.encoder import Encoder
from ...errors import EncodeError, StateLimitError
from ...server.threads.minder import Minder, Timer
from ...server.threads.safelog import get_logger
from ..topics.changes import StateFeed
from ..topics.feed import Feed, Retired
from ..topics.shared.sharing import Sharing
from ..topics.spec import Spec
from ..topics.table import Topics
from .groups import Change
from .parts import COUNT, MAX_PEOPLE, Crew, Parts
from .registry import Registry

__all__ = ["COUNT", "MAX_BYTES", "MAX_PEOPLE", "PREFIX", "Presence", "Rule"]

logger = get_logger("daebus.websocket")

# Before the name of a room, the name of its topic.
PREFIX: Final = "presence:"

MAX_BYTES: Final = 1 << 20

Info = Callable[[str], Mapping[str, Any]]
Moved = Callable[[str, str, bool], object]


class Rule(NamedTuple):
    """Rooms whose presence is shown.

    Attributes:
        spec: of their topics.
        grace: seconds until somebody who has left is taken away.
        info: says more of a client; None for no more.
    """

    spec: Spec
    grace: float
    info: Info | None

    def fits(self, room: str) -> bool:
        """Tell whether it is for this room."""
        name = PREFIX + room
        return self.spec.fits(name) if self.spec.is_family else self.spec.name == name


class _User:
    """Somebody in a room, with one client or several.

    Attributes:
        since: Unix time at which the first of them came.
        clients: those that are there now.
        shown: how many are said to be.
        info: what the program says of the first one.
        timer: shows less later; None if nothing got less.
    """

    __slots__ = ("clients", "info", "shown", "since", "timer")

    def __init__(self, info: Mapping[str, Any]) -> None:
        self.since = time.time()
        self.clients: set[str] = set()
        self.shown = 0
        self.info = info
        self.timer: Timer | None = None


class _Room:
    """A room that somebody is in, or was a moment ago.

    Attributes:
        users: by name.
        rule: how they are shown.
        touched: users whose value may have changed.
        counting: there are too many to show each.
    """

    def __init__(self, rule: Rule) -> None:
        self.users: dict[str, _User] = {}
        self.rule = rule
        self.touched: set[str] = set()
        self.counting = False


class Presence:
    """Shows who is in the rooms of one component.

    Args:
        topics: of the component.

    Threads:
        Any, but for what is said to be the minder's.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._rules: tuple[Rule, ...] = ()  # replaced as a whole
        self._minder: Minder | None = None
        self._registry: Registry | None = None
        self._moved: Moved = _nobody
        self._parts: Parts | None = None  # with a backplane
        self._changed: deque[str] = deque()  # clients to look at
        self._infos: dict[tuple[str, str], Mapping[str, Any]] = {}  # single operations only
        # The minder's alone.
        self._rooms: dict[str, _Room] = {}
        self._clients: dict[str, tuple[str, frozenset[str]]] = {}

    def declare(self, rule: Rule) -> None:
        """Show the rooms of a rule from now on; those who are there already as well.

        Raises:
            DuplicateHandlerError: there is one already.
        """
        self._topics.declare(rule.spec)
        self._rules = (*self._rules, rule)
        registry = self._registry
        if registry is not None:
            self._listen(registry)
            for room in registry.rooms.names():
                for client_id in registry.rooms.members(room) if rule.fits(room) else ():
                    self._note(client_id, [room])

    def of(self, room: str) -> dict[str, bytes]:
        """Return who is in a room, as JSON by user."""
        if self._rule(room) is None:
            return {}
        parts = self._parts
        if parts is not None:
            return parts.of(room, wait=True)
        return self._shown(room)

    def _shown(self, room: str) -> dict[str, bytes]:
        feed = self._topics.find(PREFIX + room)
        return dict(feed.values()) if isinstance(feed, StateFeed) else {}

    # --- the app --------------------------------------------------------------------

    def begin(self, minder: Minder, registry: Registry, moved: Moved) -> None:
        """Start with nobody.

        Args:
            minder: of this start of the app.
            registry: knows who is where.
            moved: called in the minder's thread with room, user, and True for one who came;
                must not wait.
        """
        self._minder, self._registry, self._moved = minder, registry, moved
        if self._rules:
            self._listen(registry)

    def join(self, sharing: Sharing, crew: Crew) -> None:
        """Show those who are on other nodes as well; after ``begin``."""
        minder = self._minder
        assert minder is not None
        self._parts = Parts(self._topics, sharing, crew, minder, self._merge)
        if self._opened not in self._topics.opened:
            self._topics.opened.append(self._opened)
            self._topics.retired.append(self._retired)
        for feed in self._topics.feeds():
            self._opened(feed)

    def part(self) -> None:
        """Take away what this node has said of rooms; before the backplane is left."""
        parts, self._parts = self._parts, None
        if parts is not None:
            parts.end()

    def _opened(self, feed: Feed[Any]) -> None:
        parts, room = self._parts, feed.name.removeprefix(PREFIX)
        if parts is not None and room != feed.name and self._rule(room) is not None:
            parts.follow(room)
            minder = self._minder
            if minder is not None:
                minder.call_later(0.0, partial(self._merge, room))

    def _retired(self, feed: Feed[Any]) -> None:
        parts, room = self._parts, feed.name.removeprefix(PREFIX)
        if parts is not None and room != feed.name:
            parts.leave(room)

    def end(self) -> None:
        """Show nobody any more; the app has stopped."""
        self.part()
        self._minder = self._registry = None
        for name in list(self._rooms):
            self._replace(name, {}, list(self._shown(name)))
        self._rooms.clear()
        self._clients.clear()
        self._changed.clear()
        self._infos.clear()

    def _listen(self, registry: Registry) -> None:
        if self._rooms_changed not in registry.rooms.listeners:
            registry.rooms.listeners.append(self._rooms_changed)
            registry.users.listeners.append(self._users_changed)

    # --- in the threads that join and leave ------------------------------------------

    def _rule(self, room: str) -> Rule | None:
        return next((rule for rule in self._rules if rule.fits(room)), None)

    def _rooms_changed(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            if self._rule(change.group) is not None:
                self._note(change.client_id, [change.group] if change.joined else ())

    def _users_changed(self, changes: tuple[Change, ...]) -> None:
        for client_id in dict.fromkeys(change.client_id for change in changes):
            self._note(client_id, ())

    def _note(self, client_id: str, joined: Iterable[str]) -> None:
        """Have the minder look at a client; ask the program for what it says of it."""
        for room in joined:
            rule = self._rule(room)
            if rule is not None and rule.info is not None:
                self._infos[client_id, room] = _ask(rule.info, client_id, self._encoder)
        minder = self._minder
        if minder is not None:
            self._changed.append(client_id)
            minder.call_later(0.0, self._look)

    @property
    def _encoder(self) -> Encoder:
        return self._topics.shared.encoder

    # --- in the minder ---------------------------------------------------------------

    def _look(self) -> None:
        """Look at all clients for which something has changed, and tell what is new."""
        touched: dict[str, None] = {}
        for _ in range(len(self._changed)):
            for room in self._look_at(self._changed.popleft()):
                touched[room] = None
        for room in touched:
            self._show(room)

    def _look_at(self, client_id: str) -> list[str]:
        """Note where a client is now; return the rooms that change by it."""
        registry = self._registry
        if registry is None:
            return []
        users = registry.users.of(client_id)
        user = users[0] if users else client_id
        rooms = frozenset(filter(self._rule, registry.rooms.of(client_id)))
        was, before = self._clients.get(client_id, (user, frozenset()))
        if rooms:
            self._clients[client_id] = (user, rooms)
        else:
            self._clients.pop(client_id, None)
        same = user == was
        left = before if not same else before - rooms
        entered = rooms if not same else rooms - before
        for room in left:
            self._leave(room, was, client_id, renamed=room in rooms)
        for room in entered:
            self._enter(room, user, client_id)
        for room in before - rooms:
            self._infos.pop((client_id, room), None)
        return [*left, *entered]

    def _enter(self, name: str, user: str, client_id: str) -> None:
        room = self._rooms.get(name)
        if room is None:
            rule = self._rule(name)
            assert rule is not None
            room = self._rooms[name] = _Room(rule)
        entry = room.users.get(user)
        if entry is None:
            entry = room.users[user] = _User(self._infos.get((client_id, name), {}))
            self._moved(name, user, True)
        entry.clients.add(client_id)
        if len(entry.clients) > entry.shown:
            entry.shown = len(entry.clients)
            room.touched.add(user)

    def _leave(self, name: str, user: str, client_id: str, *, renamed: bool) -> None:
        room = self._rooms[name]
        entry = room.users[user]
        entry.clients.discard(client_id)
        if entry.timer is not None:
            return
        if renamed:  # it is there still, under another name: no page that will come back
            self._lessen(name, room, user, entry)
        else:
            minder = self._minder
            assert minder is not None
            entry.timer = minder.call_later(room.rule.grace, lambda: self._settle(name, user))

    def _settle(self, name: str, user: str) -> None:
        """Take away who has not come back."""
        room = self._rooms.get(name)
        entry = None if room is None else room.users.get(user)
        if room is None or entry is None or self._minder is None:
            return
        entry.timer = None
        self._lessen(name, room, user, entry)
        self._show(name)

    def _lessen(self, name: str, room: _Room, user: str, entry: _User) -> None:
        """Note that fewer clients of a user are there, or none."""
        if len(entry.clients) != entry.shown:
            entry.shown = len(entry.clients)
            room.touched.add(user)
        if not entry.clients:
            del room.users[user]
            self._moved(name, user, False)

    def _show(self, name: str) -> None:
        """Tell the subscribers what has changed in a room."""
        room = self._rooms[name]
        touched, room.touched = room.touched, set()
        if not touched:
            return
        crowd = len(room.users)
        # It ends to count well below the bound, lest it change its mind with each who comes.
        if crowd > (MAX_PEOPLE // 2 if room.counting else MAX_PEOPLE):
            self._count(name, room)
        else:
            again, room.counting = room.counting, False
            shown = {
                user: self._value(room.users[user])
                for user in (room.users if again else touched & room.users.keys())
            }
            gone = [user for user in touched if user not in room.users]
            if not self._replace(name, shown, [*gone, COUNT] if again else gone):
                self._count(name, room)
        if not room.users:
            del self._rooms[name]

    def _count(self, name: str, room: _Room) -> None:
        """Show how many there are, in place of who."""
        keys = [] if room.counting else [key for key in self._said(name) if key != COUNT]
        room.counting = True
        self._replace(name, {COUNT: str(len(room.users)).encode()}, keys)

    def _said(self, name: str) -> list[str]:
        """Return what this node has said of a room."""
        parts = self._parts
        return list(self._shown(name)) if parts is None else parts.own(name)

    def _value(self, entry: _User) -> bytes:
        value = {"since": round(entry.since, 3), "clients": entry.shown, **entry.info}
        return self._encoder.dumps(value)

    def _merge(self, room: str) -> None:
        """Show what all nodes say of a room."""
        parts = self._parts
        if parts is None:
            return
        shown, before = parts.of(room), self._shown(room)
        fresh = {user: value for user, value in shown.items() if before.get(user) != value}
        gone = [user for user in before if user not in shown]
        if (fresh or gone) and not self._change(room, fresh, gone):
            self._change(room, {COUNT: str(len(shown)).encode()}, list(before))

    def _replace(self, room: str, values: Mapping[str, bytes], removed: list[str]) -> bool:
        """Say who is in a room of this node; return False if there is no room for that."""
        parts = self._parts
        if parts is None:
            return self._change(room, values, removed)
        if not self._topics.knows(PREFIX + room):  # the name of the room is too long
            return True
        return parts.put(room, values, removed)

    def _change(self, room: str, values: Mapping[str, bytes], removed: list[str]) -> bool:
        """Change a topic with one message; return False if it cannot hold that."""
        while True:
            feed = self._topics.find(PREFIX + room)
            if not isinstance(feed, StateFeed):  # the name of the room is too long
                return True
            try:
                feed.change(values, removed)
            except Retired:
                continue
            except StateLimitError:
                return False
            return True


def _ask(info: Info, client_id: str, encoder: Encoder) -> Mapping[str, Any]:
    """Return what the program says of a client; nothing if it fails."""
    try:
        # As JSON gives it back, so that no code of the program runs in the minder.
        said: dict[str, Any] = json.loads(encoder.dumps(dict(info(client_id))))
    except EncodeError as exc:
        logger.error("what info= says of client %s cannot be sent: %s", client_id, exc)
    except BaseException:  # a client must not be kept out of a room by it
        logger.exception("info= of presence failed for client %s", client_id)
    else:
        return said
    return {}


def _nobody(room: str, user: str, joined: bool) -> None:
    """Tell nobody."""
