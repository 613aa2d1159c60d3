"""How a node comes to a name that no other live node has.

Rules of this module:

1. A name is claimed in one step, by its lease. If there is a lease the one who has it is asked;
   one who died does not answer, and its name is taken over.
2. Who has no name yet sends no beat: others would take it for the one who has.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

from ...backplane.names import MAX_NODE, random_name
from ...backplane.protocol import Backplane
from ...server.threads.safelog import get_logger
from ...waits import until

__all__ = ["Joining"]

logger = get_logger("daebus.backplane")


class Joining:
    """Claims a name, again after each outage.

    Args:
        backplane: has the leases.
        name: that is wanted.
        incarnation: of this start.
        lease: seconds for which the name is ours without another word.
        patience: seconds in which somebody who has the name would answer.
        clock: seconds, as of ``time.monotonic``.
        ask: asks who has a name.
        joined: is told once the name is ours.

    Attributes:
        name: that is claimed, or ours.
        former: names that were ours before.

    Threads:
        Any; only ``wait`` waits. The functions are called without a lock.
    """

    def __init__(
        self,
        backplane: Backplane,
        name: str,
        incarnation: str,
        *,
        lease: float,
        patience: float,
        clock: Callable[[], float],
        ask: Callable[[str], None],
        joined: Callable[[], None],
    ) -> None:
        self._backplane = backplane
        self._base = name
        self._incarnation = incarnation
        self._lease = lease
        self._patience = patience
        self._clock = clock
        self._ask = ask
        self._tell_joined = joined
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._joined = False  # guarded by: _lock
        self._decide_at: float | None = None  # guarded by: _lock; somebody may answer until then
        self._attempt = 0  # guarded by: _lock
        self.name = name  # written under _lock
        self.former: frozenset[str] = frozenset()  # written under _lock

    @property
    def joined(self) -> bool:
        """True once the name is ours."""
        return self._joined  # unguarded: old as soon as it is told

    def connected(self) -> None:
        """Claim the name, if it is not ours; the backplane is there."""
        with self._lock:
            if self._joined:
                return
            self._decide_at = None
            self._attempt += 1
            attempt, name = self._attempt, self.name
        self._backplane.claim(
            name, self.lease_value(), self._lease, lambda other: self._claimed(attempt, other)
        )

    def lease_value(self) -> bytes:
        """Return what our lease says."""
        return json.dumps({"i": self._incarnation}).encode()

    def renew(self) -> None:
        """Set the lease anew."""
        if self._joined:  # unguarded: the next beat sets it as well
            self._backplane.lease(self.name, self.lease_value(), self._lease)

    def rival(self, incarnation: str) -> None:
        """Give way to another node that has our name, or the claim to it."""
        if incarnation == self._incarnation:
            return
        with self._lock:
            if not self._joined and self._decide_at is None:
                return  # the claim itself will tell
            old = self.name
            suffix = f"-{random_name(4)}"
            self.name = self._base[: MAX_NODE - len(suffix)] + suffix
            self.former |= {old}
            self._joined, self._decide_at = False, None
            new = self.name
        logger.warning(
            "another node is named %s; this one is now %s; give each a node= of its own, or none",
            old,
            new,
        )
        self.connected()

    def advance(self) -> None:
        """Take the name over, if nobody has answered in time."""
        with self._lock:
            if self._decide_at is None or self._clock() < self._decide_at:
                return
        self._backplane.lease(self.name, self.lease_value(), self._lease)
        self._finish()

    def wait(self, deadline: float) -> bool:
        """Wait until a moment for the name to be ours."""
        while True:
            self.advance()
            with self._lock:
                if self._joined or until(deadline) <= 0:
                    return self._joined
                self._changed.wait(min(0.05, until(deadline)))

    def _claimed(self, attempt: int, other: bytes | None) -> None:
        if other is None or _incarnation_of(other) == self._incarnation:
            with self._lock:
                if attempt != self._attempt:
                    return
            self._finish()
            return
        with self._lock:
            if attempt != self._attempt or self._joined:
                return
            self._decide_at = self._clock() + self._patience
            name = self.name
        self._ask(name)

    def _finish(self) -> None:
        with self._lock:
            if self._joined:
                return
            self._joined, self._decide_at = True, None
            self._changed.notify_all()
        self._tell_joined()


def _incarnation_of(lease: bytes) -> object:
    try:
        return json.loads(lease)["i"]
    except (ValueError, KeyError, TypeError):
        return None
