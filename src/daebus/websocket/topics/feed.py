"""One topic: its log, under two locks, and the way from a publication to its subscribers.

Rules of this module:

1. ``_order`` lets one publication at a time get its offset and be offered, and so an answer to
   ``subscribe``. Hence answer, replay and live messages come in this order, and no buffer is
   needed. It comes before the lock of the registry, and is never held while waiting, nor
   while a connection is taken out of the registry, which announces that.
2. ``_data`` guards the log. It is a leaf: those who read for a slow client hold the lock of a
   connection, and publishers wait for those.
3. What interrupts a thread may publish (see ``interrupts``). If that must wait, it comes
   ``late``, before anything that is published after it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import (
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    TypeVar,
)

from ...interrupts.stack import held, inside
from ...server.threads.safelog import get_logger
from ...waits import monotonic
from ..connection.link import Link
from ..connection.outbox import GONE, TAKEN
from ..protocol.codec import TEXT
from .cursor import Cursor, Watcher, put
from .envelopes import Event
from .history import Chunk, Saved
from .live import Expiry, Live, Log, Offered, Shared, Sharer, Span, TopicStats
from .position import Answer, Position
from .spec import Spec
from .store import Store

__all__ = ["EVERYTHING", "After", "Feed", "Retired"]

logger = get_logger("daebus.websocket")

Args = ParamSpec("Args")
Result = TypeVar("Result")


class Retired(Exception):
    """This topic of a family had neither messages nor subscribers, and was given up."""


# Seconds that who subscribes waits for a topic of several nodes to be read.
SETTLE: Final = 1.0

# In place of a number of bytes: no bound.
EVERYTHING: Final = 1 << 60


AnyLog = TypeVar("AnyLog", bound=Log)


# What is called once the lock has been released.
After = list[Callable[[], object]]


class Feed(Generic[AnyLog]):
    """What both kinds of topic have in common.

    Args:
        spec: the declaration.
        log: empty.
        shared: with the other topics of the component.

    Attributes:
        name: of the topic.
        spec: the declaration.
        store: keeps what is published; None for a topic that is not kept.
        settled: what an earlier run of the program has kept is in it, if anything is.
        copy: shares it with other nodes; None for a topic of this process alone.
    """

    copy: Sharer | None = None

    def __init__(self, spec: Spec, log: AnyLog, shared: Shared) -> None:
        self.name = spec.name
        self.spec = spec
        self.store: Store | None = None
        self.settled = False
        self._shared = shared
        self._order = threading.Lock()
        self._data = threading.Lock()
        self._log = log  # guarded by: _data
        self._watchers: tuple[Watcher, ...] = ()  # guarded by: _data
        self._retired = False  # guarded by: _order
        self._patient = True  # guarded by: _order; see ``Cursor.pull``
        self._expiry = Expiry(spec.name, shared)  # guarded by: _order
        # What came while its thread was inside. Appended to without a lock.
        self._late: deque[tuple[After, Callable[[], object]]] = deque()

    @property
    def epoch(self) -> str:
        """The count of offsets."""
        return self._log.epoch  # unguarded: one look

    @property
    def top(self) -> int:
        """Offset of the newest message or change."""
        return self._log.top  # unguarded: one look

    # --- for subscribers -----------------------------------------------------------

    def subscribe(
        self,
        link: Link,
        make: Callable[[Answer], bytes],
        since: Position | None = None,
        last: int = 0,
        *,
        counted: bool = False,
    ) -> bool:
        """Subscribe a client: answer it, and send what it has missed.

        Args:
            link: the client.
            make: builds the envelope of the answer.
            since: the position that the client has; None if it is new.
            last: how many messages it wants if it cannot go on from there.
            counted: the client has asked for it.

        Returns:
            False if the client has gone, or takes nothing.

        Raises:
            ClientError: ``too_many_topics``.
            Retired: look the topic up again.

        Threads:
            Any that is not inside; never waits for a client.
        """
        return self.turn(self._join_locked, False, link, make, since, last, counted)

    def _join_locked(
        self,
        after: After,
        link: Link,
        make: Callable[[Answer], bytes],
        since: Position | None,
        last: int,
        counted: bool,
    ) -> bool:
        assert self._order.locked()
        live, writer = self._shared.live, link.writer
        if live is None:
            return False
        answer, sent = self._begin(since, last)
        cursor = Cursor(self, writer, answer.epoch, sent, counted=counted)
        earlier = live.subscribers.enter(link.client_id, cursor, live.max_topics)
        if earlier is False:
            return False
        if isinstance(earlier, Cursor):
            earlier.close()
        done = put(writer, writer.compress(TEXT, make(answer)))
        if done in TAKEN:
            # Nobody waits for what is rendered and written now.
            after.append(cursor.start)
            return True
        self._leave_locked(live, link, after)
        if done == GONE:
            after.append(writer.on_gone)
        return False

    def _begin(self, since: Position | None, last: int) -> tuple[Answer, int]:
        moment = monotonic()
        with held, self._data:
            self._log.trim(moment)
            return self._log.begin(since, last)

    def unsubscribe(self, link: Link, payload: bytes | None) -> bool:
        """End the subscription of a client, which gets nothing more of this topic.

        Args:
            link: the client.
            payload: the envelope that tells it so; None for none.

        Returns:
            False if it was not subscribed.
        """
        return self.turn(self._part_locked, False, link, payload)

    def _part_locked(self, after: After, link: Link, payload: bytes | None) -> bool:
        assert self._order.locked()
        live, writer = self._shared.live, link.writer
        if live is None:
            return False
        had = self._leave_locked(live, link, after)
        if payload is not None and put(writer, writer.compress(TEXT, payload)) == GONE:
            after.append(writer.on_gone)
        return had

    def _leave_locked(self, live: Live, link: Link, after: After) -> bool:
        assert self._order.locked()
        cursor = live.subscribers.leave(link.client_id, self.name)
        if cursor is None:
            return False
        cursor.close()
        if not live.subscribers.count(self.name):
            after.append(partial(live.subscribers.on_empty, self.name))
        return True

    def watch(
        self, since: Position | None, last: int, wake: Callable[[], object]
    ) -> tuple[Answer, Watcher]:
        """Begin to read, for a reader that is no WebSocket.

        Args:
            since: the position that it has; None if it is new.
            last: how many messages it wants if it cannot go on from there.
            wake: see ``Watcher``.

        Raises:
            Retired: look the topic up again.
        """
        with self._order:
            if self._retired:
                raise Retired
            answer, sent = self._begin(since, last)
            watcher = Watcher(self, answer.epoch, sent, wake)
            with held, self._data:
                self._watchers = (*self._watchers, watcher)
        return answer, watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Forget a watcher."""
        with held, self._data:
            self._watchers = tuple(other for other in self._watchers if other is not watcher)

    def show(self) -> tuple[Position, int, bytes]:
        """Return where the topic is, its floor, and all that it holds, as JSON."""
        moment = monotonic()
        with held, self._data:
            self._log.trim(moment)
            log = self._log
            return Position(log.epoch, log.top), log.floor, log.contents()

    def read(self, epoch: str, sent: int, base: int, limit: int) -> Chunk:
        """Return what follows a position; see ``History.read``.

        Threads:
            Any; takes the leaf lock.
        """
        moment = monotonic()
        with held, self._data:
            self._log.trim(moment)
            return self._log.read(epoch, sent, base, limit)

    # --- for publishers ------------------------------------------------------------

    def turn(
        self,
        action: Callable[Concatenate[After, Args], Result],
        instead: Result,
        *args: Args.args,
        **options: Args.kwargs,
    ) -> Result:
        """Do something while no other publication runs.

        Args:
            action: is given a list for what is to be called once the turn is over.
            instead: returned if this very thread was interrupted where it cannot wait, so
                that the action comes later.
            args: of the action.
            options: of the action.

        Returns:
            What the action returns.

        Raises:
            Retired: look the topic up again.

        Threads:
            Any; never waits for a client.
        """
        after: After = []
        if inside():
            # Others may wait for what this thread holds, while they have their turn.
            # And who shares it takes locks of the backplane.
            shared = self.copy is not None
            if shared or self._data.locked() or not self._order.acquire(blocking=False):
                self._postpone(after, partial(action, after, *args, **options))
                return instead
            try:
                self._begin_locked(after, patient=False)  # unguarded: it has just been taken
                result = action(after, *args, **options)
            finally:
                self._order.release()
        else:
            with self._order:
                self._begin_locked(after, patient=True)
                result = action(after, *args, **options)
        for call in after:
            call()
        if self._late:
            self.run_late()
        return result

    def step(self, action: Callable[..., object], *args: object) -> None:
        """Do something as ``turn`` does, in a thread of ours that nothing has interrupted.

        Raises:
            Retired: look the topic up again.
        """
        after: After = []
        with self._order:
            self._begin_locked(after, patient=True)
            action(after, *args)
        for call in after:
            call()
        if self._late:
            self.run_late()

    def _begin_locked(self, after: After, *, patient: bool) -> None:
        """Check that the topic is in use, and do what came late."""
        assert self._order.locked()
        self._patient = patient
        if self._retired:
            raise Retired
        while self._late:
            late, call = self._late.popleft()
            try:
                call()
            except Exception:  # such as a bound that is reached, for which nobody waits
                logger.exception("what was to be published to topic %r was not", self.name)
            after += late

    def _postpone(self, after: After, call: Callable[[], object]) -> None:
        """Leave a call to whoever comes next, or to the minder."""
        self._late.append((after, call))
        live = self._shared.live
        if live is not None:
            live.minder.call_later(0.0, self.run_late)

    def run_late(self) -> None:
        """Do what could not be done while its thread was inside."""
        with contextlib.suppress(Retired):
            self.turn(_nothing, None)

    def offer_locked(
        self, events: Sequence[Event], before: int, epoch: str, after: After
    ) -> Offered:
        """Hand messages to the subscribers, at once, and wake the watchers."""
        assert self._order.locked()
        live = self._shared.live
        offered = Offered(0, 0, [])
        if live is not None:
            cursors = live.subscribers.cursors(self.name)
            if cursors:
                span = Span(before, events[-1].offset, epoch, self._patient)
                offered = live.publish(cursors, [event.payload for event in events], span)
                after += [writer.on_gone for writer in offered.gone]
        for watcher in self._watchers:
            watcher.wake()
        return offered

    def nudge_locked(self, after: After) -> None:
        """Have every subscriber read on."""
        assert self._order.locked()
        live = self._shared.live
        cursors = () if live is None else live.subscribers.cursors(self.name)
        patient = self._patient
        after += [c.writer.on_gone for c in cursors if c.pull(patient=patient) == GONE]
        for watcher in self._watchers:
            watcher.wake()

    # --- for what grows too old ----------------------------------------------------------

    def _expire_locked(self, after: After) -> None:
        """Let go of what is too old, and plan for what will be."""
        assert self._order.locked()
        raise NotImplementedError

    def _expire(self) -> None:
        with contextlib.suppress(Retired):
            self.turn(self._expire_locked, None)

    # --- for what shares it with other nodes -------------------------------------------

    def log_locked(self, step: Callable[[AnyLog], Result]) -> Result:
        """Do something with the log, in a turn."""
        assert self._order.locked()
        with held, self._data:
            return step(self._log)

    def count_subscribers(self) -> int:
        """Return how many subscribers there are."""
        live = self._shared.live
        return 0 if live is None else live.subscribers.count(self.name)

    def settle(self) -> None:
        """Wait until readers can be told where they stand, a second at most.

        Threads:
            Any; the minder and who is inside do not wait.
        """
        copy, live = self.copy, self._shared.live
        if copy is None or live is None:
            return
        if threading.current_thread() is not live.minder.thread and not inside():
            copy.settle(SETTLE)

    # --- over the end of the program ---------------------------------------------------

    def begin(self, live: Live) -> None:
        """The app has started: let go of what grew too old meanwhile, and plan the rest."""
        if self._late:
            self.run_late()
        self._expire()

    def end(self) -> None:
        """The app has stopped, and its minder with all timers."""
        with self._order:
            self._expiry.forget()

    @property
    def retired(self) -> bool:
        """True if it was one of a family, and was given up."""
        return self._retired  # unguarded: it becomes true once

    def span(self) -> tuple[str, int, int]:
        """Return the epoch, and the oldest and newest offset of what is there."""
        moment = monotonic()
        with held, self._data:
            self._log.trim(moment)
            return self._log.epoch, self._log.floor, self._log.top

    def dump(self) -> Saved:
        """Return all that is to be saved."""
        with held, self._data:
            return self._log.dump()

    def restore(self, saved: Saved, time: float, *, keep_epoch: bool) -> None:
        """Put what was saved before what is there; for a topic that nobody has read.

        Args:
            saved: of an earlier run.
            time: Unix time now.
            keep_epoch: nothing can have been lost since, so that positions go on.
        """
        moment = monotonic()
        with self._order, held, self._data:
            self._log.restore(saved, time, moment, keep_epoch=keep_epoch)

    def retire(self) -> bool:
        """Give up a topic that has neither messages nor readers; return False if it has."""
        moment = monotonic()
        with self._order:
            live, copy = self._shared.live, self.copy  # one look
            with held, self._data:
                self._log.trim(moment)
                busy = bool(len(self._log) or self._watchers)
            busy = busy or (copy is not None and copy.busy)
            if busy or (live is not None and live.subscribers.count(self.name)):
                return False
            self._retired = True
            self._expiry.forget()
        return True

    def describe(self) -> TopicStats:
        """Return what ``stats()`` says of it."""
        live, store = self._shared.live, self.store
        log = self._log  # unguarded: it only counts
        return {
            "kind": self.spec.kind,
            "epoch": log.epoch,
            "offset": log.top,
            "entries": len(log),
            "bytes": log.size,
            "gaps": log.gaps,
            "subscribers": 0 if live is None else live.subscribers.count(self.name),
            "watchers": len(self._watchers),  # unguarded: one look
            "persist_error": None if store is None else store.error,
        }


def _nothing(after: After) -> None:
    """Do nothing but what came late."""
