"""One start: both sides, and the leases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ...server.threads.vitals import Vitals
from ..names import Names, random_name
from ..protocol import BackplaneCounters
from .inbound import Inbound
from .outbound import Outbound
from .queue import Queue
from .shards import Shards
from .store import RedisStore

__all__ = ["Session"]


# Leases after which the names of dead nodes are taken out of the set.
_TIDY = 60


class Session:
    """What one start has.

    Args:
        shards: where the servers are.
        queue: what waits to be sent.
        names: of channels and keys.
        receive: is given each frame and its channel.
        lost: called when a connection was made, and both sides work.
        vitals: watches over the threads.

    Attributes:
        outbound: sends.
        inbound: listens, once it is told to what.
        store: keeps topics.
    """

    def __init__(
        self,
        shards: Shards,
        queue: Queue,
        names: Names,
        receive: Callable[[str, bytes], None],
        lost: Callable[[], None],
        vitals: Vitals,
    ) -> None:
        title = f"daebus-{random_name()}"
        self._queue = queue
        self._names = names
        self._lost = lost
        self._leased = 0
        self.outbound = Outbound(shards, queue, title, self._connected, vitals)
        self.inbound = Inbound(
            shards, title, receive, self._connected, self.outbound.refresh, vitals
        )
        self.outbound.refreshed = self.inbound.assign
        self.store = RedisStore(self.outbound, names, cluster=shards.cluster)

    @property
    def up(self) -> bool:
        """Whether it is connected both ways."""
        return self.outbound.up and self.inbound.up

    def counters(self) -> BackplaneCounters:
        """Return what was counted."""
        return BackplaneCounters(
            lost_out=self._queue.lost,
            reconnects=self.outbound.reconnects + self.inbound.reconnects,
            queued_bytes=self._queue.size,
        )

    def _connected(self) -> None:
        if self.up:
            self._lost()

    # --- leases -------------------------------------------------------------------

    # A set has the names of all nodes, so that nobody has to search all keys; those whose lease has
    # ended are taken out by who finds them.

    def lease(self, node: str, value: bytes, seconds: float) -> None:
        """Set the lease of a node; 0 seconds end it."""
        key, every = self._names.lease(node), self._names.lease("")
        if seconds > 0:
            self._set(key, value, seconds, None)
            self._command("SADD", every, node)
            self._leased += 1
            if self._leased % _TIDY == 0:  # who died without a word is forgotten
                self._command("EXPIRE", every, max(60, round(2 * _TIDY * seconds)))
                self.leases(lambda found: None)
        else:
            self._command("DEL", key)
            self._command("SREM", every, node)

    def claim(
        self, node: str, value: bytes, seconds: float, done: Callable[[bytes | None], None]
    ) -> None:
        """Set the lease of a node unless there is one."""
        key, every = self._names.lease(node), self._names.lease("")

        def found(answer: Any) -> None:
            if isinstance(answer, bytes):
                done(answer)
            elif answer is None:  # it ended between the two
                self.claim(node, value, seconds, done)

        def was_set(answer: Any) -> None:
            if answer is None:
                self._command("GET", key, done=found)
            elif not isinstance(answer, Exception):
                done(None)

        self._command("SADD", every, node)
        self._set(key, value, seconds, was_set, "NX")

    def leases(self, done: Callable[[dict[str, bytes]], None]) -> None:
        """Read all leases."""
        every = self._names.lease("")
        values: dict[str, bytes | None] = {}

        def told(answer: Any) -> None:
            if isinstance(answer, Exception):
                return
            nodes = [each.decode(errors="replace") for each in answer]
            if not nodes:
                done({})
            for node in nodes:
                self._command("GET", self._names.lease(node), done=partial(read, node, len(nodes)))

        def read(node: str, expected: int, answer: Any) -> None:
            if isinstance(answer, Exception):
                return
            values[node] = answer
            if answer is None:
                self._command("SREM", every, node)
            if len(values) == expected:
                done({each: value for each, value in values.items() if value is not None})

        self._command("SMEMBERS", every, done=told)

    def _set(
        self,
        key: str,
        value: bytes,
        seconds: float,
        done: Callable[[Any], None] | None,
        *more: str,
    ) -> None:
        milliseconds = max(1, round(1000 * seconds))
        self._command("SET", key, value, "PX", milliseconds, *more, done=done)

    def _command(self, *args: Any, done: Callable[[Any], None] | None = None) -> None:
        self.outbound.command(args, done, key=args[1], keep=False)
