"""``MemoryBackplane``: joins apps of one process, for tests of what is made for several.

It has the shortcomings of a real one, on demand: it can be cut, be deaf and lose frames.

Rules of this module:

1. One lock for all that are joined: what is published has one order.
2. What is given to a node is given by the thread of its own backplane, without the lock.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ..checks.annotations import checked
from ..checks.arguments import positive
from ..interrupts.stack import held, interrupted, within
from ..server.threads.pool import join_all
from ..server.threads.safelog import get_logger
from ..server.threads.track import track
from ..server.threads.vitals import Vitals
from ..waits import monotonic
from .memoryqueue import Entry, Kept
from .memorystore import MemoryStore, MemoryTopics
from .names import Names
from .protocol import Backplane, BackplaneCounters, BackplaneOptions

__all__ = ["MemoryBackplane"]

logger = get_logger("daebus.backplane")

_Job = Callable[[], object]


class _Bus:
    """What those that are joined share; ``lock`` guards all of theirs too."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.ends: list[MemoryBackplane] = []  # guarded by: lock
        self.leases: dict[str, tuple[float, bytes]] = {}  # guarded by: lock; until when, value
        self.topics = MemoryTopics(self.route_locked)  # guarded by: lock

    def route_locked(self, channel: str, frame: bytes) -> None:
        """Give a frame to all that listen."""
        assert self.lock.locked()
        for end in self.ends:
            end._take_locked(channel, frame)


class MemoryBackplane(Backplane):
    """Joins several apps of one process, as ``DaebusRedis`` joins processes.

    ::

        first = MemoryBackplane()
        one.attach(first)
        other.attach(MemoryBackplane(first))

    Args:
        joined: another one, with which it shares what is published.
        name: stands for the app's name in channels, where apps of different names are joined.
        node: name of the node; a random one without.
        partitions: into how many channels rooms, users and topics are divided.
        required: see ``DaebusRedis``.
        queue_bytes: most bytes that are kept while it is cut.
        queue_age: seconds for which they are kept.
        node_timeout: seconds after which a silent node counts as gone.
        max_frame: most bytes of a frame.
        secret: signs frames.
        clock: seconds; tests pass one that they set by hand. That of ``time.monotonic`` without.
        threaded: False has ``deliver`` do what its thread would do.

    Raises:
        ValueError: an argument is out of its range.
    """

    @checked
    def __init__(
        self,
        joined: MemoryBackplane | None = None,
        name: str | None = None,
        *,
        node: str | None = None,
        partitions: int = 1,
        required: bool = False,
        queue_bytes: int = 4 << 20,
        queue_age: float = 5.0,
        node_timeout: float = 10.0,
        max_frame: int = 1 << 20,
        secret: str | bytes | None = None,
        clock: Callable[[], float] | None = None,
        threaded: bool = True,
    ) -> None:
        self._options = BackplaneOptions(
            name=name,
            node=node,
            node_timeout=node_timeout,
            max_frame=max_frame,
            secret=secret,
            required=required,
            queue_age=queue_age,
        )
        self._partitions = positive("partitions", partitions)
        self._clock = clock or monotonic
        self._threaded = threaded
        self._bus: _Bus = _Bus() if joined is None else joined._bus
        self._lock = self._bus.lock
        self._receive: Callable[[str, bytes], None] = lambda channel, frame: None
        self._lost: Callable[[], object] = bool
        self._names = Names("", 1)
        self._thread: threading.Thread | None = None
        self._running = False  # guarded by: _lock
        self._cut = False  # guarded by: _lock
        self._deaf = False  # guarded by: _lock
        self._held = True  # guarded by: _lock
        self._late: deque[_Job] = deque()  # any thread appends
        self._to_lose = 0  # guarded by: _lock
        self._channels: set[str] = set()  # guarded by: _lock
        self._inbox: deque[tuple[str, _Job]] = deque()  # guarded by: _lock; with the channel
        self._kept = Kept(positive("queue_bytes", queue_bytes), queue_age)  # guarded by: _lock
        self._reconnects = 0  # guarded by: _lock

    def __repr__(self) -> str:
        return f"<MemoryBackplane {'up' if self.up else 'down'}>"

    # --- what tests do to it ------------------------------------------------------

    def cut(self, unsure: int = 0) -> None:
        """Let nothing out and in any more, until ``restore``; what is underway here is lost.

        Args:
            unsure: of how many frames that were sent last it is not known whether they arrived:
                so many are sent again.
        """
        with held, self._lock:
            self._cut = True
            self._inbox.clear()
            self._kept.take_back(unsure, self._clock())

    def restore(self) -> None:
        """End what ``cut`` began."""
        with held, self._lock:
            self._cut, self._held = False, True
            self._reconnects += 1
            self._put_locked(self._lost)

    def deafen(self) -> None:
        """Receive nothing more, without knowing it, until the node has noticed."""
        with held, self._lock:
            self._deaf = True

    def lose(self, frames: int = 1) -> None:
        """Lose the next frames that would be received here."""
        with held, self._lock:
            self._to_lose += frames

    def overtake(self, rank: Callable[[str], float]) -> None:
        """Let what has come on different channels overtake each other, where that may be.

        Args:
            rank: of a channel; the lowest comes first.
        """
        with held, self._lock:
            if not self.ordered:
                self._inbox = deque(sorted(self._inbox, key=lambda entry: rank(entry[0])))

    def deliver(self, most: int | None = None) -> int:
        """Give the node what has come, in the calling thread; return how much it was."""
        done = 0
        while most is None or done < most:
            with held, self._lock:
                if not self._inbox:
                    break
                _, job = self._inbox.popleft()
            self._do(job)
            done += 1
        return done

    # --- the protocol ---------------------------------------------------------------

    @property
    def options(self) -> BackplaneOptions:
        """What it was told that is the node's business."""
        return self._options

    @property
    def partitions(self) -> int:
        """Into how many channels rooms, users and topics are divided."""
        return self._partitions

    @property
    def ordered(self) -> bool:
        """Whether all channels together have one order; as in a cluster only without partitions."""
        return self._partitions == 1

    @property
    def up(self) -> bool:
        """True unless it is cut."""
        return self._running and not self._cut  # unguarded: old as soon as it is told

    @property
    def store(self) -> Any:
        """Keeps topics that all nodes share."""
        return MemoryStore(self._bus.topics, self._names, self._perform)

    @property
    def topics(self) -> MemoryTopics:
        """What is kept of topics, to which tests do what happens to servers."""
        return self._bus.topics

    def start(
        self,
        names: Names,
        receive: Callable[[str, bytes], None],
        lost: Callable[[], None],
        died: Callable[[], object] = bool,
    ) -> None:
        """Join the others."""
        self._names, self._receive, self._lost = names, receive, lost
        with held, self._lock:
            self._channels.clear()
            self._kept.clear()
            self._inbox.clear()
            self._reconnects = 0
            self._running = self._held = True
            self._bus.ends.append(self)
            if not self._cut:
                self._put_locked(lost)
        if self._threaded:
            thread = threading.Thread(
                target=Vitals(died).guard, args=(self._run,), name="daebus-memory", daemon=True
            )
            self._thread = track(thread, "backplane")
            thread.start()

    def publish(self, channel: str, frame: bytes, *, keep: bool = True) -> bool:
        """Hand a frame to those that listen, or keep it."""
        if self._lock.locked() and within(self._lock):
            self._late.append(functools.partial(self._publish_locked, channel, frame, keep))
            return True
        with held, self._lock:
            self._catch_up_locked()
            return self._publish_locked(channel, frame, keep)

    def flush(self) -> None:
        """Hand out what was kept."""
        with held, self._lock:
            if self._cut:
                return
            self._held = False
            for entry in self._kept.take(self._clock()):
                self._route_locked(entry, keep=True)

    def subscribe(self, channel: str) -> None:
        """Listen to a channel."""
        self._change(lambda: self._channels.add(channel))  # unguarded: run under _lock

    def unsubscribe(self, channel: str) -> None:
        """Listen to it no more."""
        self._change(lambda: self._channels.discard(channel))  # unguarded: run under _lock

    def subscribed(self, channel: str, timeout: float) -> bool:
        """Tell whether it listens to a channel; there is nothing to wait for."""
        return self.up and channel in self._channels  # unguarded: old as soon as it is told

    def renew(self) -> None:
        """Hear again."""
        with held, self._lock:
            self._deaf = False
            if not self._cut:
                self._reconnects += 1
                self._put_locked(self._lost)

    def lease(self, node: str, value: bytes, seconds: float) -> None:
        """Set the lease of a node."""
        with held, self._lock:
            if not self._cut:
                self._bus.leases[self._names.lease(node)] = (self._clock() + seconds, value)

    def claim(
        self, node: str, value: bytes, seconds: float, done: Callable[[bytes | None], None]
    ) -> None:
        """Set the lease of a node unless there is one."""
        with held, self._lock:
            if self._cut:
                return
            key, now = self._names.lease(node), self._clock()
            until, other = self._bus.leases.get(key, (now, b""))
            if until > now:
                self._put_locked(lambda: done(other))
            else:
                self._bus.leases[key] = (now + seconds, value)
                self._put_locked(lambda: done(None))

    def leases(self, done: Callable[[dict[str, bytes]], None]) -> None:
        """Read all leases of the app."""
        with held, self._lock:
            if self._cut:
                return
            prefix, now = self._names.lease(""), self._clock()
            found = {
                key.removeprefix(prefix): value
                for key, (until, value) in self._bus.leases.items()
                if until > now and key.startswith(prefix)
            }
            self._put_locked(lambda: done(found))

    def counters(self) -> BackplaneCounters:
        """Return what was counted."""
        return BackplaneCounters(
            lost_out=self._kept.dropped,  # unguarded: old as soon as it is told
            reconnects=self._reconnects,  # unguarded: as before
            queued_bytes=self._kept.size,  # unguarded: as before
        )

    def forget(self) -> None:
        """Leave in a forked child, where no thread of it exists."""
        self._bus = _Bus()
        self._lock = self._bus.lock
        self._thread = None
        self._running = False  # unguarded: no other thread exists in the child

    def stop(self, timeout: float) -> list[threading.Thread]:
        """Hand out what is kept, unless it is cut, and leave."""
        self.flush()
        with held, self._lock:
            self._running = False
            if self in self._bus.ends:
                self._bus.ends.remove(self)
            self._bus.changed.notify_all()
        thread, self._thread = self._thread, None
        return [] if thread is None else join_all([thread], monotonic() + timeout)

    # --- inside -----------------------------------------------------------------------

    def _change(self, job: _Job) -> None:
        if self._lock.locked() and within(self._lock):
            self._late.append(job)
            return
        with held, self._lock:
            self._catch_up_locked()
            job()

    def _publish_locked(self, channel: str, frame: bytes, keep: bool) -> bool:
        assert self._lock.locked()
        if not self._running:
            return False
        entry = Entry(self._clock(), channel, frame)
        if self._cut or (self._held and keep):
            return keep and self._kept.add(entry)
        self._route_locked(entry, keep=keep)
        return True

    def _catch_up_locked(self) -> None:
        """Do what came when its thread could not."""
        assert self._lock.locked()
        while self._late:
            self._late.popleft()()

    def _put_locked(self, job: _Job, channel: str = "") -> None:
        assert self._lock.locked()
        self._inbox.append((channel, job))
        self._bus.changed.notify_all()

    def _perform(self, step: Callable[[], object], done: Callable[[Any], None]) -> None:
        """Do something to what is kept, and have ``done`` called with what came of it."""
        if self._lock.locked() and within(self._lock):
            raise interrupted("publishing")
        with held, self._lock:
            if not self._running or self._cut:
                return
            result = step()
            self._put_locked(lambda: done(result))

    def _route_locked(self, entry: Entry, *, keep: bool) -> None:
        assert self._lock.locked()
        if keep:
            self._kept.sent(entry)
        self._bus.route_locked(entry.channel, entry.frame)

    def _take_locked(self, channel: str, frame: bytes) -> None:
        assert self._lock.locked()
        if channel not in self._channels or self._cut or self._deaf:
            return
        if self._to_lose:
            self._to_lose -= 1
            return
        receive = self._receive
        self._put_locked(lambda: receive(channel, frame), channel)

    def _run(self) -> None:
        while True:
            with held, self._lock:
                while self._running and not self._inbox:
                    self._catch_up_locked()
                    if not self._inbox:
                        self._bus.changed.wait()
                if not self._running:
                    return
                _, job = self._inbox.popleft()
            self._do(job)

    def _do(self, job: _Job) -> None:
        try:
            job()
        except Exception:
            logger.exception("the node's %s failed", job)
