"""The threads that listen: one connection to each server that has a channel of ours.

Rules of this module:

1. Each connection belongs to its thread, which alone subscribes; others change what is wanted and
   the thread sees it within ``SLICE`` seconds.
2. What comes is handed on in its order and never waits here.
3. Each connection that is made says so once all its subscriptions hold: frames may be missing.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from ...interrupts.flag import Flag
from ...interrupts.stack import check_outside, interrupted, within
from ...server.threads.safelog import get_logger
from ...server.threads.track import track
from ...server.threads.vitals import Vitals
from ...waits import lock_timeout, monotonic
from .address import Address
from .lane import RETRY_FIRST, RETRY_MOST
from .line import ANSWER_TIMEOUT, SLICE, Line, Lost, Quiet
from .shards import Shards

__all__ = ["Inbound"]

logger = get_logger("daebus.backplane")

# Channels of one command.
_BATCH = 100

# Seconds until a channel whose slot has moved is asked for again.
_AGAIN = 0.2


class Inbound:
    """The receiving side of one start.

    Args:
        shards: where the servers are.
        title: of the connections.
        receive: is given each frame and its channel.
        connected: called when a connection was made and its subscriptions hold.
        moved: called when a channel is not where it was sought: the map is wrong.
        vitals: watches over the threads.

    Attributes:
        reconnects: connections that were made anew.
    """

    def __init__(
        self,
        shards: Shards,
        title: str,
        receive: Callable[[str, bytes], None],
        connected: Callable[[], None],
        moved: Callable[[], None],
        vitals: Vitals,
    ) -> None:
        self.shards = shards
        self.title = title
        self.receive = receive
        self.connected = connected
        self.moved = moved
        self.vitals = vitals
        self.reconnects = 0
        self.ending = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._wanted: dict[str, int] = {}  # guarded by: _lock; channels and their slots
        self._astray: set[str] = set()  # guarded by: _lock; their slots have moved
        # Changed under the lock and replaced as a whole, so that whoever looks takes none.
        self._listeners: dict[Address, _Listener] = {}
        self._leaving: list[threading.Thread] = []  # guarded by: _lock

    @property
    def up(self) -> bool:
        """Whether all subscriptions hold, of which there may be none.

        Those to a server that was not needed before have a moment to come.
        """
        listeners = self._listeners
        wants = bool(self._wanted)  # unguarded: old as soon as it is told
        whole = all(one.up or one.is_late() for one in listeners.values())
        return bool(listeners or not wants) and whole

    def subscribe(self, channel: str) -> None:
        """Want the frames of a channel."""
        slot = self.shards.slot(channel)
        self._check("subscribing over the backplane")
        with self._lock:
            self._wanted[channel] = slot
        self.assign()

    def unsubscribe(self, channel: str) -> None:
        """Want them no more."""
        self._check("unsubscribing over the backplane")
        with self._lock:
            self._wanted.pop(channel, None)
        self.assign()

    def subscribed(self, channel: str, timeout: float) -> bool:
        """Wait until a subscription holds; False if it does not within that time."""
        check_outside("waiting for a subscription", self._lock)
        with self._lock:
            return self._changed.wait_for(
                lambda: any(channel in one.held for one in self._listeners.values()),
                lock_timeout(timeout),
            )

    def _check(self, what: str) -> None:
        """Raise ``StateError`` inside; callers may hold a lock of their own."""
        if self._lock.locked() and within(self._lock):
            raise interrupted(what)

    def assign(self) -> None:
        """Share what is wanted out to the servers that have it, and listen to those alone."""
        with self._lock:
            if self.ending:
                return
            shares: dict[Address, dict[str, int]] = {}
            for channel, slot in self._wanted.items():
                owner = self.shards.owner(slot)
                if owner is not None:
                    shares.setdefault(owner, {})[channel] = slot
            before = self._listeners
            # One more server, while all others are connected, is no outage.
            late = before.keys() <= shares.keys() and all(one.up for one in before.values())
            late = late and bool(before)
            listeners = {
                each: before.get(each) or _Listener(self, each, late=late) for each in shares
            }
            for address in before.keys() - shares.keys():
                before[address].wanted = {}
                if self.shards.cluster:
                    before[address].end()
                    self._leaving.append(before[address].thread)
                else:  # its next channel comes soon
                    listeners[address] = before[address]
            for address, share in shares.items():
                listeners[address].wanted = share
            self._listeners = listeners
            for address in shares.keys() - before.keys():
                listeners[address].thread.start()
            self._leaving = [thread for thread in self._leaving if thread.is_alive()]

    def renew(self) -> None:
        """Close every connection, and make it anew."""
        for listener in self._listeners.values():
            listener.deaf = True

    def note(self, change: Callable[[], None]) -> None:
        """Change what holds, and tell those that wait for it."""
        with self._lock:
            change()
            self._changed.notify_all()

    def stray(self, channel: str) -> None:
        """Note that a channel is no longer where it was: frames may be missing."""
        with self._lock:
            self._astray.add(channel)
        self.moved()

    def found(self, channel: str) -> bool:
        """Tell whether a channel was missing until now."""
        with self._lock:
            missing = channel in self._astray
            self._astray.discard(channel)
        return missing

    def stop(self) -> list[threading.Thread]:
        """Have the threads end; return them."""
        with self._lock:
            self.ending = True
            threads = [*self._leaving, *(one.thread for one in self._listeners.values())]
        for listener in self._listeners.values():
            listener.end()
        return threads

    def forget(self) -> None:
        """Close a forked child's copies."""
        for listener in self._listeners.values():
            if listener.line is not None:
                listener.line.close()


class _Listener:
    """One connection that listens, and its thread."""

    def __init__(self, inbound: Inbound, address: Address, *, late: bool) -> None:
        self.address = address
        self.wanted: dict[str, int] = {}  # replaced as a whole
        self.held: set[str] = set()  # changed under the lock of ``inbound``
        self.up = False
        self.deaf = False
        self.line: Line | None = None
        self._inbound = inbound
        self._ended = Flag()
        self._asked: set[str] = set()  # sent, and not taken back
        self._refused: set[str] = set()
        self._again: set[str] = set()  # asked in vain, because their slots have moved
        self._again_at = 0.0
        self._was_up = False
        self._late_until = monotonic() + ANSWER_TIMEOUT * late
        self._subscribe, self._unsubscribe = "SUBSCRIBE", "UNSUBSCRIBE"
        if inbound.shards.cluster:
            self._subscribe, self._unsubscribe = "SSUBSCRIBE", "SUNSUBSCRIBE"
        run = partial(inbound.vitals.guard, self._run)
        self.thread = threading.Thread(target=run, name="daebus-redis-in", daemon=True)
        track(self.thread, "backplane")

    def end(self) -> None:
        """Have the thread end."""
        self._ended.set()

    def is_late(self) -> bool:
        """Tell whether it is one more that was never up, and has time to be."""
        return not self._was_up and monotonic() < self._late_until

    def _run(self) -> None:
        complained, delay = False, RETRY_FIRST
        while not self._ended.is_set():
            line = self.line = Line(self.address, self._inbound.title, self._ended.is_set)
            since = monotonic()
            try:
                line.open()
                self._listen(line)
            except Lost as exc:
                complained = complained and not self.up
                if self._ended.is_set():
                    break
                if not complained:
                    complained = True
                    logger.warning(
                        "the subscription to Redis at %s was lost: %s; it is made anew",
                        self.address,
                        exc,
                        kind=str(self.address),
                    )
            finally:
                self._inbound.note(self._is_down)
                line.close()
            steady = monotonic() - since > ANSWER_TIMEOUT
            delay = RETRY_FIRST if steady else min(RETRY_MOST, 2 * delay)
            self._ended.wait(delay * random.uniform(0.0, 1.0))

    def _is_up(self) -> None:
        self.up = True
        self._inbound.reconnects += self._was_up
        self._was_up = True

    def _is_down(self) -> None:
        self.up = False
        self.held.clear()
        self._asked.clear()
        self._refused.clear()
        self._again.clear()

    def _listen(self, line: Line) -> None:
        """Hand on what comes until it is to end or to be made anew."""
        self.deaf = False
        began = monotonic()
        while not self._ended.is_set() and not self.deaf:
            self._ask(line)
            message = None
            with suppress(Quiet):
                message = line.read(SLICE)
            if message is not None:
                self._take(message)
            if not self.up:
                if self._asked <= self.held | self._refused:
                    late = self.is_late()
                    self._inbound.note(self._is_up)
                    if not late:  # else nothing is missing that was heard before
                        self._inbound.connected()
                elif monotonic() - began > ANSWER_TIMEOUT:
                    raise Lost(f"it has not answered for {ANSWER_TIMEOUT:.0f} s")

    def _ask(self, line: Line) -> None:
        """Subscribe to what is wanted by now."""
        wanted = self.wanted
        if self._again and monotonic() >= self._again_at:
            self._asked -= self._again
            self._again.clear()
        if wanted.keys() == self._asked:
            return
        new = wanted.keys() - self._asked
        old = self._asked - wanted.keys()
        groups: dict[int, list[str]] = {}
        for channel in new:
            groups.setdefault(wanted[channel], []).append(channel)
        commands: list[tuple[Any, ...]] = []
        for channels in groups.values():  # one slot a command, or a cluster refuses it
            commands += ((self._subscribe, *part) for part in _parts(channels))
        commands += ((self._unsubscribe, channel) for channel in sorted(old))
        self._asked = set(wanted)
        self._refused -= old
        line.send(commands)

    def _take(self, message: Any) -> None:
        inbound = self._inbound
        if isinstance(message, Exception):
            self._fail(message)
            return
        kind = message[0]
        channel = message[1].decode(errors="replace") if message[1] is not None else ""
        if kind in (b"message", b"smessage"):
            try:
                inbound.receive(channel, message[2])
            except Exception:
                logger.exception("a frame on %s was not understood", channel)
        elif kind in (b"subscribe", b"ssubscribe"):
            inbound.note(partial(self.held.add, channel))
            if inbound.found(channel):
                inbound.connected()
        elif kind in (b"unsubscribe", b"sunsubscribe"):
            inbound.note(partial(self.held.discard, channel))
            if channel in self.wanted:  # nobody asked for it: the slot has moved
                self._miss([channel])

    def _miss(self, channels: Iterable[str]) -> None:
        """Ask for channels again, here if the map of the cluster goes on to say so."""
        self._again.update(channels)
        self._again_at = monotonic() + _AGAIN
        for channel in channels:
            self._inbound.stray(channel)

    def _fail(self, error: Any) -> None:
        """Look after a subscription that was refused: it is not said which one."""
        if type(error).__name__ == "MovedError":
            slot = int(error.slot_id)
            self._miss([channel for channel, its in self.wanted.items() if its == slot])
            return
        if type(error).__name__ in ("ClusterDownError", "AskError", "TryAgainError"):
            self._inbound.moved()
            raise Lost(f"{error}")
        logger.warning(
            "Redis at %s refuses a subscription: %s",
            self.address,
            error,
            kind=(str(self.address), type(error).__name__),
        )
        self._refused |= self._asked - self.held


def _parts(channels: list[str]) -> Iterable[list[str]]:
    for start in range(0, len(channels), _BATCH):
        yield channels[start : start + _BATCH]
