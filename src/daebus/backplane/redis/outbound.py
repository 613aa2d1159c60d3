"""The thread that sends: frames and commands, pipelined, over one connection to each server.

Rules of this module:

1. What is kept stays in order, that of its slot in a cluster. It is taken from the queue, sent,
   and forgotten once it is answered; if the connection is lost first, it waits again, at the front.
2. A server that is away delays nobody but its own slots, but for the seconds in which it is asked.
3. After a connection was lost what is kept is held until ``flush``.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ...errors import BackplaneError
from ...interrupts.flag import Flag
from ...server.threads.safelog import get_logger
from ...server.threads.track import track
from ...server.threads.vitals import Vitals
from ...waits import monotonic, until
from .address import Address
from .lane import RETRY_FIRST, Ask, Lane
from .line import Lost
from .queue import Done, Entry, Part, Queue
from .shards import Shards

__all__ = ["Outbound"]

logger = get_logger("daebus.backplane")

# Commands of one round trip.
_BATCH = 100

# Seconds between two looks at the map of a cluster.
_MAP_PAUSE = 0.1

# Answers that say: not here, or not now. In a cluster the map is read again.
_ELSEWHERE = ("MovedError", "TryAgainError", "ClusterDownError", "MasterDownError", "AskError")


class Outbound:
    """The sending side of one start.

    Args:
        shards: where the servers are.
        queue: what waits.
        title: of the connections.
        connected: called by the thread when a connection was made.
        vitals: watches over the thread.

    Attributes:
        on_connect: called by the thread with each new connection, before anything else is sent on
            it: with a function that sends one command and returns its answer, or raises.
        reconnects: connections that were made anew.

    Threads:
        Any may send. What was to be called back is called by the thread, and must be quick.
    """

    def __init__(
        self,
        shards: Shards,
        queue: Queue,
        title: str,
        connected: Callable[[], None],
        vitals: Vitals,
    ) -> None:
        self.on_connect: list[Callable[[Ask], None]] = []
        self.reconnects = 0
        self._shards = shards
        self._queue = queue
        self._title = title
        self._connected = connected
        self._publish = "SPUBLISH" if shards.cluster else "PUBLISH"
        self._scripts: dict[str, tuple[str, str]] = {}  # by name: digest and source
        self._lanes: dict[Address, Lane] = {}  # changed by the thread alone
        self._held = True  # what is kept is held somewhere
        self._flush = False
        self._more = Flag()
        self._end_by: float | None = None
        self._map_at = 0.0  # when the map may be read again
        self.refreshed: Callable[[], object] = bool  # the map of the cluster is new
        run = partial(vitals.guard, self._run)
        self.thread = threading.Thread(target=run, name="daebus-redis-out", daemon=True)
        track(self.thread, "backplane")

    # --- what others call -------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether every server that is needed is connected."""
        lanes = list(self._lanes.values())
        return bool(lanes) and all(lane.line is not None for lane in lanes)

    @property
    def problem(self) -> str:
        """Why a server is away; empty if none is."""
        return next((lane.problem for lane in self._lanes.values() if lane.problem), "")

    def publish(
        self, channel: str, frame: bytes, *, keep: bool = True, done: Done | None = None
    ) -> bool:
        """Queue a frame; False if it was dropped at once.

        Args:
            channel: where to.
            frame: what.
            keep: see ``Backplane.publish``.
            done: see ``command``; the answer is the number of connections that were given it.
        """
        slot = self._shards.slot(channel)
        if not keep and not self._reaches(slot):
            return False
        self._put(Entry((self._publish, channel, frame), slot, keep=keep, done=done))
        return True

    def command(
        self, args: tuple[Any, ...], done: Done | None = None, *, key: str = "", keep: bool = True
    ) -> None:
        """Queue a command, in the order of the frames.

        Args:
            args: the command and its arguments.
            done: called by the thread with the answer, or with an exception: what Redis said, or a
                ``BackplaneError`` if the command was dropped.
            key: any key of it, by which a cluster finds its server.
            keep: it waits for a connection, and is sent again if nobody knows whether it was
                done: what it does, it must do once. If not, and there is none, it is dropped.
        """
        entry = Entry(args, self._shards.slot(key), keep=keep, done=done)
        if not keep and not self._reaches(entry.slot):
            self._queue.drop([entry])
            self._wake()
        else:
            self._put(entry)

    def script(self, name: str, source: str) -> None:
        """Name a script for ``evaluate``."""
        self._scripts[name] = (hashlib.sha1(source.encode()).hexdigest(), source)

    def evaluate(
        self,
        name: str,
        keys: tuple[str, ...],
        args: tuple[bytes | str | float, ...],
        done: Done | None = None,
        *,
        keep: bool = True,
        part: Part | None = None,
    ) -> None:
        """Queue a script, as ``command`` does a command.

        A server that has lost it is sent it again, then perhaps after what was queued later.

        Args:
            name: of the script.
            keys: of it.
            args: of it.
            done: see ``command``.
            keep: see ``command``.
            part: the step of a series that it is, to which ``join`` may add the next ones.
        """
        digest, source = self._scripts[name]
        command = ["EVALSHA", digest, len(keys), *keys, *args]
        slot = self._shards.slot(keys[0])
        entry = Entry(command, slot, keep=keep, done=done, script=source, part=part)
        if not keep and not self._reaches(slot):
            self._queue.drop([entry])
            self._wake()
        else:
            self._put(entry)

    def join(self, key: str, part: Part, argument: bytes, done: Done) -> bool:
        """Add the next step of a series to a script, if nothing was queued behind that.

        Args:
            key: any key of it.
            part: the step.
            argument: that the script of this step alone would end with.
            done: called with the answer to all.

        Returns:
            False if it has to be queued by itself.
        """
        return self._queue.join(self._shards.slot(key), part, argument, done)

    def flush(self) -> None:
        """Send what was held."""
        if self._held:
            self._flush = True
            self._wake()

    def refresh(self) -> None:
        """Read the map of the cluster again."""
        self._shards.stale = True
        self._wake()

    def stop(self, deadline: float) -> None:
        """Send what waits until then, if there is a connection, and end; return at once."""
        self._end_by = deadline
        self.flush()
        self._wake()

    def forget(self) -> None:
        """Close a forked child's copies."""
        for lane in self._lanes.values():
            if lane.line is not None:
                lane.line.close()

    def _put(self, entry: Entry) -> None:
        self._queue.put(entry, self._holds)
        self._wake()

    def _wake(self) -> None:
        if not self._more.is_set():
            self._more.set()

    def _lane(self, slot: int) -> Lane | None:
        owner = self._shards.owner(slot)
        return None if owner is None else self._lanes.get(owner)

    def _reaches(self, slot: int) -> bool:
        lane = self._lane(slot)
        return lane is not None and lane.line is not None

    def _holds(self, slot: int) -> bool:
        lane = self._lane(slot)
        return lane is None or lane.held

    # --- the thread -------------------------------------------------------------

    def _is_stopping(self) -> bool:
        return self._end_by is not None

    def _ended(self) -> bool:
        return self._end_by is not None and monotonic() > self._end_by

    def _gives_up(self, lane: Lane) -> bool:
        """Tell whether a wait for an answer is to end: at a stop, that for a new connection."""
        return self._ended() if lane.line is not None else self._is_stopping()

    def _run(self) -> None:
        try:
            while not self._is_over():
                self._more.clear()
                sent = self._turn()
                if not sent or (self._queue.is_empty() and not self._is_stopping()):
                    self._more.wait(self._pause())
        finally:
            for lane in self._lanes.values():
                if lane.line is not None:
                    lane.line.close()
                    lane.line = None

    def _is_over(self) -> bool:
        if self._end_by is None:
            return False
        connected = any(lane.line is not None for lane in self._lanes.values())
        return self._ended() or not connected or self._queue.is_empty()

    def _pause(self) -> float:
        waiting = [lane.retry_at for lane in self._lanes.values() if lane.line is None]
        if not self._queue.is_empty() or self._shards.stale:
            waiting.append(monotonic() + RETRY_FIRST)
        return until(min(waiting, default=monotonic() + 60.0))

    def _turn(self) -> bool:
        """Do what is to be done; return whether anything was sent."""
        self._map()
        for lane in list(self._lanes.values()):
            if lane.line is None and monotonic() >= lane.retry_at and self._end_by is None:
                self._open(lane)
        if self._flush:
            self._flush = False
            self._queue.locked(self._release)
        busy = [lane for lane in self._lanes.values() if lane.line is not None and self._send(lane)]
        for lane in busy:
            self._receive(lane)
        for entry in self._queue.tidy():
            self._tell(entry, BackplaneError("Redis is away, and the command was dropped"))
        return bool(busy)

    def _release(self) -> None:
        for lane in self._lanes.values():
            lane.held = lane.line is None
        self._held = any(lane.held for lane in self._lanes.values())

    def _map(self) -> None:
        """Have a lane for each server."""
        if self._shards.stale and monotonic() >= self._map_at:
            self._map_at = monotonic() + _MAP_PAUSE
            try:
                self._shards.refresh(self._title, self._is_stopping)
            except Lost as exc:
                logger.warning("no server of the Redis cluster answers: %s", exc)
                return
            self.refreshed()
        masters = self._shards.masters
        if masters != self._lanes.keys():
            before = self._lanes
            # Replaced as a whole: other threads read it.
            self._lanes = {one: before.get(one) or Lane(one) for one in masters}
            self._held = True
            for address in before.keys() - masters:
                self._close(before[address])

    def _open(self, lane: Lane) -> None:
        if not lane.open(self._title, partial(self._gives_up, lane), self.on_connect):
            self._shards.stale = self._shards.stale or self._shards.cluster
            return
        self.reconnects += lane.was_up
        lane.was_up = True
        self._connected()

    def _close(self, lane: Lane) -> None:
        """Give a connection up; what was underway waits again if it is kept."""
        flying = lane.close()
        self._held = True
        self._queue.put_back(entry for entry in flying if entry.keep)
        self._queue.drop(entry for entry in flying if not entry.keep)
        self._queue.cut(partial(self._is_of, lane))

    def _is_of(self, lane: Lane, slot: int) -> bool:
        return self._shards.owner(slot) == lane.address

    def _lose(self, lane: Lane, exc: Exception) -> None:
        self._close(lane)
        lane.lost(exc)
        if self._shards.cluster:
            self._shards.stale = True

    def _send(self, lane: Lane) -> bool:
        entries = self._queue.take(_BATCH, partial(self._is_of, lane), hurried=lane.held)
        if not entries:
            return False
        try:
            lane.send(entries)
        except Lost as exc:
            self._lose(lane, exc)
            return False
        return True

    def _receive(self, lane: Lane) -> None:
        """Read the answers to everything that is underway."""
        again: list[Entry] = []
        fault: Exception | None = None
        try:
            while lane.flying:
                answer = lane.answer(self._title, self._is_stopping)
                entry = lane.flying[0]
                if isinstance(answer, Exception):
                    verdict = self._judge(lane, entry, answer)
                    if verdict is not None:
                        fault = answer if verdict else fault
                        again.append(lane.flying.pop(0))
                        continue
                del lane.flying[0]
                self._tell(entry, answer)
        except Lost as exc:
            lane.flying[:0] = again
            self._lose(lane, exc)
            return
        if again:
            self._queue.put_back(again)
        if fault is not None:
            self._lose(lane, fault)

    def _judge(self, lane: Lane, entry: Entry, answer: Exception) -> bool | None:
        """Judge an error: None if it is the answer, False to send again, True to connect anew."""
        kind = type(answer).__name__
        if kind == "NoScriptError" and entry.script is not None:
            lane.send_whole(entry.script)  # SCRIPT FLUSH, or another server by now
            return False
        if kind == "ReadOnlyError":  # a replica by now: the address leads elsewhere, or will
            return True
        if kind in _ELSEWHERE:
            self._shards.stale = self._shards.cluster
            return not self._shards.cluster
        logger.warning(
            "Redis at %s refuses %s: %s",
            lane.address,
            entry.command[0],
            answer,
            kind=(str(entry.command[0]), kind),
        )
        if entry.is_frame:
            self._queue.drop([entry])
        return None

    def _tell(self, entry: Entry, answer: Any) -> None:
        for done in entry.dones:
            try:
                done(answer)
            except Exception:
                logger.exception("what waited for the answer to %s failed", entry.command[0])
