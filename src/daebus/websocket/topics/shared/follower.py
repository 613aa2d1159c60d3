"""One topic on one node: how its copy is kept at what the store has.

Rules of this module:

1. All happens in turns of the topic (``Feed.turn``), so what is said here holds between two of
   them. Who calls back is a thread of the backplane; nothing waits.
2. A change of ours is not made here: it goes to the store, and comes back from there like those
   of others, in the one order of all. Until it is confirmed it is ``pending``, and sent again
   after each interruption; the store does what it has done already not again.
3. What was missed is read from the store, and only that. What is heard meanwhile is kept aside.
4. Who hears nothing for too long is ``ALONE``: the log goes on in an epoch of its own, and
   readers are told so. What comes back later replaces it, and they are told that as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from ....backplane.frames import Header
from ....backplane.names import random_name
from ....backplane.store import Known, Loaded, Notice, SharedStore
from ....interrupts.flag import Flag
from ....server.threads.safelog import get_logger
from ..feed import After
from ..position import Kind
from .pending import Change, Pending

__all__ = ["ALONE", "FOLLOWING", "LOADING", "Bus", "Copy", "Follower", "Heard"]

logger = get_logger("daebus.backplane")

ALONE: Final = 0
LOADING: Final = 1
FOLLOWING: Final = 2

# Bytes of changes of one topic that wait to be confirmed.
_MAX_PENDING: Final = 8 << 20

# Changes that are kept aside while the copy is read; if there are more it is read again.
_MAX_ASIDE: Final = 2000


# A change that was published: with its place in the topic, what its frame says, and the payload.
Heard = tuple[Notice, Header, bytes]


class Bus(Protocol):
    """What a follower asks of the backplane."""

    @property
    def store(self) -> SharedStore:
        """Keeps the topics."""

    @property
    def up(self) -> bool:
        """True while it can be reached, as far as is known."""

    @property
    def writer(self) -> str:
        """Stands for this node in the store, from its start to its stop."""

    def clock(self) -> float:
        """Return the moment, as ages and times to live are measured."""

    def judge(self, size: int) -> None:
        """Refuse a change that is too large.

        Raises:
            TooLargeError: it is.
        """

    def frame(self, kind: str, topic: str, number: int, payload: bytes, **more: Any) -> bytes:
        """Return what is published of a change."""

    def read(self, topic: str, frame: bytes) -> tuple[Header, bytes] | None:
        """Take that apart; None if it is not of ours."""

    def later(self, seconds: float, call: Callable[[], object]) -> object:
        """Have something called after that time."""


class Copy(Protocol):
    """A log that is a copy; all methods but ``run`` are called in a turn."""

    kind: Kind

    def run(self, action: Callable[..., Any], *args: Any) -> None:
        """Do something in a turn; not at all if the topic was given up."""

    def known(self) -> Known:
        """Return its epoch and top."""

    def span(self, header: Header) -> int:
        """Return how many offsets a change has."""

    def accept(self, after: After, heard: Sequence[Heard]) -> None:
        """Add the changes that come next, and tell the readers."""

    def differs(self, notice: Notice, header: Header, payload: bytes) -> bool:
        """Tell whether another change was accepted in the place of this one."""

    def append(self, after: After, loaded: Loaded, confirmed: int) -> None:
        """Add what came behind the copy, and tell the readers; there may be a hole before it.

        Args:
            after: see ``Feed.turn``.
            loaded: of the epoch of the copy.
            confirmed: the changes of ours up to this number are in it.
        """

    def adopt(self, after: After, loaded: Loaded, confirmed: int, before: Known) -> None:
        """Hold what was loaded, and tell the readers.

        Args:
            after: see ``Feed.turn``.
            loaded: of another epoch than the copy's.
            confirmed: the changes of ours up to this number are in it.
            before: how far the copy has followed, ever.
        """

    def alone(self, after: After, epoch: str, changes: list[Change]) -> None:
        """Go on in an epoch of its own, with these changes."""

    def load_count(self, *, whole: bool) -> int:
        """Return ``count`` for ``SharedStore.load``."""

    def values(self) -> dict[str, tuple[int | None, bytes]]:
        """Return all values of a state, and how many milliseconds they last."""

    def unshared(self, top: int) -> list[Change]:
        """Return what was done to the log behind an offset, which the store is yet to be told."""


class Follower:
    """Keeps one copy.

    Args:
        topic: its name.
        copy: of it.
        bus: the backplane.

    Attributes:
        state: ``ALONE``, ``LOADING`` before the first copy is here or while a hole is filled, or
            ``FOLLOWING``.
        shared: how far the copy has followed, while it is alone.
        ready: set once readers can be told where they stand.
        lost: changes of ours that were given up without being done anywhere.
    """

    def __init__(self, topic: str, copy: Copy, bus: Bus) -> None:
        self.topic = topic
        self.state = ALONE
        self.shared = Known("", 0)
        self.ready = Flag()
        self.pending = Pending()
        self._copy = copy
        self._bus = bus
        self._held = True  # changes are not sent now
        self._asked = 0  # number of the newest load
        self._asking = False
        self._asked_at = self._sent_at = float("-inf")
        self._aside: deque[Heard] = deque()
        self._again = False

    # --- the app starts and stops -------------------------------------------------------

    def begin(self, after: After) -> None:
        """Begin to follow."""
        self.state = LOADING
        self._held = not self._bus.up
        self.ready.clear()
        for change in self._copy.unshared(self.shared.top):
            self.write(change)
        self.check(after)

    def end(self, after: After) -> None:
        """Follow no more."""
        if self.state != ALONE:
            self.leave(after)
        self._asked += 1
        self._asking = False

    def leave(self, after: After) -> None:
        """Go on alone."""
        if self.state == FOLLOWING:
            self.shared = self._copy.known()
        elif self.state == LOADING and self._copy.known().epoch == self.shared.epoch:
            self.shared = Known(self.shared.epoch, self._copy.known().top)
        self.state = ALONE
        self._held = True
        self._aside.clear()
        self._copy.alone(after, random_name(), self.pending.take())
        self.ready.set()

    # --- changes of ours -----------------------------------------------------------------

    def is_alone(self, after: After) -> bool:
        """Tell whether changes are made here: too much that waits makes it so as well."""
        if self.state != ALONE and self.pending.size > _MAX_PENDING:
            logger.warning("topic %r is changed faster than the backplane takes it", self.topic)
            self.leave(after)
        return self.state == ALONE

    def write(self, change: Change) -> None:
        """Have a change made, as soon as that can be."""
        self.pending.add(change)
        if not self._held:
            self._send(change)

    def _send(self, change: Change) -> None:
        change.send(change, self._position(), partial(self._done, change.number))

    def _position(self) -> Known:
        known = self._copy.known()
        if self.state == FOLLOWING or known.epoch == self.shared.epoch:
            return known
        return self.shared

    def _done(self, number: int, result: object) -> None:
        """Take the answer to a change; the backplane's thread, in no turn."""
        if isinstance(result, int) and result >= 0:
            # All before it were made as well. What is kept of them goes in the next turn.
            self.pending.confirmed = max(self.pending.confirmed, number)
        else:
            self._copy.run(self._failed, result)

    def _failed(self, after: After, result: object) -> None:
        if self.pending and not self._held:
            if isinstance(result, Exception):
                logger.warning("topic %r could not be changed: %s", self.topic, result)
            self._held = True
            self._bus.later(0.5, partial(self._copy.run, self.resend))

    def resend(self, after: After) -> None:
        """Send again what is not confirmed."""
        if self.state == ALONE or not self._bus.up:
            return
        self._held = False
        self._sent_at = self._bus.clock()
        for place, change in enumerate(self.pending.all()):
            if not place:
                change.before = 0
            self._send(change)

    # --- reading -------------------------------------------------------------------------

    def check(self, after: After) -> None:
        """Compare the copy with the store, and read what it lacks."""
        if self.state != ALONE:
            self.resend(after)
        self._ask()

    def _ask(self) -> None:
        self._asked += 1
        self._asking, self._again = True, False
        self._asked_at = self._bus.clock()
        run, asked, position = self._copy.run, self._asked, self._position()
        self._bus.store.load(
            self.topic,
            self._copy.kind,
            position,
            count=self._copy.load_count(whole=position.epoch != self._copy.known().epoch),
            done=lambda result: run(self._loaded, asked, result),
        )

    def _loaded(self, after: After, asked: int, result: Loaded | Exception) -> None:
        if asked != self._asked:
            return
        self._asking = False
        if isinstance(result, Exception):
            logger.warning("topic %r could not be read: %s", self.topic, result)
            return
        if self._again:
            self._aside.clear()
            self._ask()
            return
        position = self._position()
        followed = position if self.state != ALONE else self.shared
        known = self._copy.known()
        if result.epoch != followed.epoch:
            if self._copy.kind == "state" and followed.epoch and not result.built:
                self._rebuild(result)
                return
            dirty = self._dirty(followed)
            self._copy.adopt(after, result, self.pending.confirmed, followed)
        elif self.state == ALONE or known.epoch != result.epoch:
            dirty = self._dirty(followed)
            self._copy.adopt(after, result, self.pending.confirmed, followed)
        else:
            dirty = []
            if result.top > known.top:
                self._copy.append(after, result, self.pending.confirmed)
        self._follow(after, dirty)

    def _dirty(self, followed: Known) -> list[Change]:
        """Return what was done alone; a history's messages were for those who were here."""
        alone = self.state == ALONE and self._copy.kind == "state"
        return self._copy.unshared(followed.top) if alone else []

    def _follow(self, after: After, dirty: list[Change]) -> None:
        was = self.state
        self.state = FOLLOWING
        self.shared = self._copy.known()
        if was == ALONE:
            self._held = not self._bus.up
            for change in dirty:
                self.write(change)
        aside, self._aside = self._aside, deque()
        for one in aside:
            self._hear(after, one)
            if self.state != FOLLOWING:  # it is read again, and all these are in that
                break
        if self.state == FOLLOWING:
            self.ready.set()

    def _rebuild(self, loaded: Loaded) -> None:
        """Give the store back the values that it has lost."""
        if self.state == FOLLOWING:
            self.shared = self._copy.known()
            self.state = LOADING
        self._asking = True
        run = self._copy.run
        frame = self._bus.frame("anew", self.topic, 0, b"")
        self._bus.store.rebuild(
            self.topic,
            loaded.epoch,
            loaded.base,
            self._copy.values(),
            frame,
            lambda result: run(self._rebuilt, result),
        )

    def _rebuilt(self, after: After, result: object) -> None:
        self._asking = False
        if not isinstance(result, Exception):
            self._ask()

    # --- hearing -------------------------------------------------------------------------

    def hear(self, after: After, heard: Sequence[Heard]) -> None:
        """Take changes that were published, in their order."""
        if self._come_next(heard):
            self._accept(after, heard)
        else:
            for one in heard:
                self._hear(after, one)

    def _accept(self, after: After, heard: Sequence[Heard]) -> None:
        """Add changes; those of ours are confirmed by that, as the answer may get lost."""
        self._copy.accept(after, heard)
        writer, pending = self._bus.writer, self.pending
        for _, header, _ in heard:
            if header.incarnation == writer:
                pending.confirmed = max(pending.confirmed, header.number)

    def _come_next(self, heard: Sequence[Heard]) -> bool:
        """Tell whether all of them can be accepted as they are."""
        if self.state != FOLLOWING:
            return False
        epoch, top = self._copy.known()
        for notice, header, _ in heard:
            span = self._copy.span(header)
            if not span or notice.epoch != epoch or notice.top - span != top:
                return False
            top = notice.top
        return True

    def _hear(self, after: After, one: Heard) -> None:
        if self.state != FOLLOWING:
            if self._asking:
                self._keep_aside(one)
            return
        notice, header, payload = one
        copy = self._copy
        known, span = copy.known(), copy.span(header)
        if notice.epoch == known.epoch:
            if notice.top <= known.top:
                if span and copy.differs(notice, header, payload):
                    logger.warning("the store has forgotten a part of topic %r", self.topic)
                    self.renew()
                return
            if span and notice.top - span == known.top:
                self._accept(after, [one])
                return
        self.shared = known
        self.state = LOADING
        self._ask()  # what is read then has this change too

    def _keep_aside(self, one: Heard) -> None:
        if len(self._aside) < _MAX_ASIDE:
            self._aside.append(one)
        else:
            self._again = True

    def renew(self) -> None:
        """Have a new epoch begun, without the messages of the old one."""
        frame = self._bus.frame("anew", self.topic, 0, b"")
        store, kind = self._bus.store, self._copy.kind
        store.renew(self.topic, kind, self._position(), frame, _ignore)

    # --- time ------------------------------------------------------------------------------

    def is_due(self, now: float, patience: float, *, down: bool) -> bool:
        """Tell whether ``tick`` has something to do; one look, without the topic's lock."""
        if self.state != FOLLOWING:
            return self.state == LOADING or (not down and now - self._asked_at >= 1.0)
        oldest = self.pending.oldest
        return down or self._held or (oldest is not None and now - oldest > 1.0)

    def tick(self, after: After, patience: float, *, down: bool) -> None:
        """Look whether something has taken too long; a few times a second.

        Args:
            after: see ``Feed.turn``.
            patience: seconds that changes wait.
            down: nothing was heard of the backplane for longer than that.
        """
        now = self._bus.clock()
        oldest = self.pending.oldest
        late = oldest is not None and now - oldest > patience
        if self.state != ALONE and (down or (late and self._held)):
            self.leave(after)
        if not self._bus.up:
            return
        if self.state != FOLLOWING:
            if now - self._asked_at >= (patience if self._asking else 1.0):
                self.check(after)
        elif self.pending and now - self._sent_at >= 1.0:
            self.resend(after)

    def compare(self, after: After) -> None:
        """Compare the copy with the store, for what nobody has noticed."""
        if self.state == FOLLOWING and not self._asking:
            self._ask()


def _ignore(result: object) -> None:
    """Do nothing: what comes of it is heard."""
