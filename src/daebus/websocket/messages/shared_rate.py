"""Rates that several connections share: those of one user, or of one address.

Who reconnects goes on with what is left, since the tokens are not the connection's.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from ..connection.link import Link
from ..connection.networks import network_of
from .ratelimit import Bucket, Rate

__all__ = ["MAX_BUCKETS", "AnyRate", "SharedRate", "owner_of", "shared"]

# Users or addresses of which a rate is remembered; a bucket has 200 bytes. Those that are
# full again are let go first, which loses nothing.
MAX_BUCKETS = 10_000

Owner = tuple[str, str | int]


def owner_of(link: Link, per: str) -> Owner | None:
    """Return whose tokens a client spends.

    Args:
        link: the client's connection.
        per: ``"user"``: the name that ``identify`` gave; without one the identity, if that is
            a string or a number; else as for ``"address"``: an IPv4 address, or the /64 of an
            IPv6 one.

    Returns:
        None if there is nothing that it shares with others, as on a Unix socket.
    """
    if per == "user":
        if link.user is not None:
            return ("user", link.user)
        identity = link.identity
        if type(identity) is str or type(identity) is int:  # no others: they run code of theirs
            return ("user", identity)
    network = network_of(link.peer.remote_address)
    return ("address", network) if network else None


class SharedRate:
    """The buckets of one rate, by owner.

    Args:
        rate: of each owner.

    Attributes:
        rate: the same.

    Threads:
        Any; never waits.
    """

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        # Those that were used last are at the end.
        self._buckets: OrderedDict[Owner, Bucket] = OrderedDict()  # guarded by: _lock

    def __len__(self) -> int:
        with self._lock:
            return len(self._buckets)

    def take(self, owner: Owner, now: float) -> float:
        """Take one of the owner's tokens; return 0, or the seconds until there is one."""
        with self._lock:
            bucket = self._buckets.get(owner)
            if bucket is None:
                self._make_room_locked(now)
                bucket = self._buckets[owner] = Bucket(self.rate, now)
            else:
                self._buckets.move_to_end(owner)
            return bucket.take(max(now, bucket.used))  # another thread may have come first

    def _make_room_locked(self, now: float) -> None:
        """Let go of some that are full again, and of the oldest if there are too many."""
        assert self._lock.locked()
        for _ in range(2):
            if not self._buckets:
                return
            oldest = next(iter(self._buckets))
            idle = now - self._buckets[oldest].used
            if idle < self.rate.seconds and len(self._buckets) < MAX_BUCKETS:
                return
            del self._buckets[oldest]


AnyRate = Rate | SharedRate


def shared(rate: Rate) -> AnyRate:
    """Return the rate with buckets that connections share, if it asks for that."""
    return rate if rate.per == "client" else SharedRate(rate)
