"""The other nodes: who is alive, who is suspect, who is gone.

Rules of this module:

1. Silence is measured by what we hear ourselves: as long as we do not hear our own beats nobody
   else grows silent.
2. Readers take no lock: what they read is replaced as a whole.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from ...server.threads.safelog import get_logger
from .info import BackplaneEvent, BackplaneInfo, NodeInfo

__all__ = ["Beat", "Event", "Peers"]

logger = get_logger("daebus.backplane")

Event = tuple[BackplaneEvent, BackplaneInfo]


class Beat(NamedTuple):
    """What a node says of itself.

    Attributes:
        node: its name.
        incarnation: which start of it.
        clients: how many are connected there.
        seconds: how long it has run.
        version: of the program there.
    """

    node: str
    incarnation: str
    clients: int
    seconds: float
    version: str | None


class _Peer:
    """One of them."""

    __slots__ = ("beat", "heard", "suspect")

    def __init__(self, beat: Beat, heard: float) -> None:
        self.beat = beat
        self.heard = heard  # by the clock of what we hear
        self.suspect = False


class Peers:
    """Knows the other nodes by their beats.

    Args:
        suspect_after: seconds of silence after which one is suspect.
        gone_after: seconds after which it counts as gone.

    Threads:
        Any; never waits. What happened is returned, to be told without a lock.
    """

    def __init__(self, suspect_after: float, gone_after: float) -> None:
        self._suspect_after = suspect_after
        self._gone_after = gone_after
        self._lock = threading.Lock()
        self._alive: dict[str, _Peer] = {}  # guarded by: _lock; replaced, never changed
        self._heard = 0.0  # guarded by: _lock; seconds in which we heard ourselves

    def __len__(self) -> int:
        return len(self._alive)  # unguarded: see the rules

    def __contains__(self, name: str) -> bool:
        return name in self._alive  # unguarded: see the rules

    def names(self) -> frozenset[str]:
        """Return the names of those that are alive."""
        return frozenset(self._alive)  # unguarded: see the rules

    def incarnations(self) -> frozenset[str]:
        """Return the incarnations of those that are alive."""
        alive = self._alive.values()  # unguarded: see the rules
        return frozenset(peer.beat.incarnation for peer in alive)

    def infos(self) -> dict[str, NodeInfo]:
        """Return what is known of those that are alive."""
        return {
            name: NodeInfo(
                name,
                peer.beat.clients,
                peer.beat.seconds,
                peer.beat.version,
                suspect=peer.suspect,
            )
            for name, peer in self._alive.items()  # unguarded: see the rules
        }

    def heard(self, beat: Beat) -> list[Event]:
        """Note a beat."""
        events: list[Event] = []
        with self._lock:
            peer = self._alive.get(beat.node)
            if peer is not None and peer.beat.incarnation == beat.incarnation:
                recovered, peer.suspect = peer.suspect, False
                peer.beat, peer.heard = beat, self._heard
            else:
                recovered = False
                if peer is not None:
                    events.append(self._gone_locked(peer, "replaced"))
                self._alive = self._alive | {beat.node: _Peer(beat, self._heard)}
                events.append(("node_up", BackplaneInfo(beat.node)))
        if recovered:
            logger.info("node %s is heard again", beat.node)
        return events

    def bye(self, node: str, incarnation: str) -> list[Event]:
        """Note a goodbye."""
        with self._lock:
            peer = self._alive.get(node)
            if peer is None or peer.beat.incarnation != incarnation:
                return []
            return [self._gone_locked(peer, "bye")]

    def pass_time(self, seconds: float) -> list[Event]:
        """Note how long we have heard ourselves since the last time; return who is gone."""
        silent: list[tuple[str, float]] = []
        with self._lock:
            self._heard += seconds
            events = []
            for name, peer in self._alive.items():
                silence = self._heard - peer.heard
                if silence >= self._gone_after:
                    events.append(self._gone_locked(peer, "silent", silence))
                elif silence >= self._suspect_after and not peer.suspect:
                    peer.suspect = True
                    silent.append((name, silence))
        for name, silence in silent:
            logger.warning("node %s has not been heard for %.1f s", name, silence)
        return events

    def _gone_locked(self, peer: _Peer, reason: str, seconds: float = 0.0) -> Event:
        assert self._lock.locked()
        name = peer.beat.node
        self._alive = {other: it for other, it in self._alive.items() if other != name}
        return "node_down", BackplaneInfo(name, seconds=seconds, reason=reason)
