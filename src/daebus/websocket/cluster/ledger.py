"""What arrived from each sender, by number, and what did not.

Rules of this module:

1. Senders number what they send, for each channel from 1. Whoever joins later begins with the
   first number that it hears or is told; who listened before a sender was born begins with 1.
2. What was counted as missed and comes after all is dropped, so both sums stay true.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection

__all__ = ["Ledger"]

# Senders that are known, those included that are gone but may come back. Of more those are
# forgotten that have not said for the longest time that they are alive.
MAX_SENDERS = 4096

# A sender's age comes with a beat that was underway for a while; seconds of doubt.
DOUBT = 1.0


class _Sender:
    """What is known of one incarnation of a node."""

    __slots__ = ("born", "first", "last")

    def __init__(self) -> None:
        self.born: float | None = None  # by our clock
        self.first: dict[str, int] = {}  # by channel, where it is not known how many came before
        self.last: dict[str, int] = {}  # by channel


class Ledger:
    """Counts frames that are missing, and knows those that came twice.

    Args:
        clock: seconds, as of ``time.monotonic``.

    Attributes:
        missed: frames of others that did not arrive.

    Threads:
        Any; never waits.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._senders: dict[tuple[str, str], _Sender] = {}  # guarded by: _lock
        self._since: dict[str, float] = {}  # guarded by: _lock; when a channel was heard first
        self._gaps: Counter[str] = Counter()  # guarded by: _lock; by node, not reported yet
        self.missed = 0  # written under _lock

    def listening(self, channel: str) -> bool:
        """Note that a channel is heard from now on; False if it was so before."""
        with self._lock:
            if channel in self._since:
                return False
            self._since[channel] = self._clock()
            return True

    def left(self, channel: str) -> None:
        """Forget a channel that is not heard any more."""
        with self._lock:
            self._since.pop(channel, None)
            for sender in self._senders.values():
                sender.last.pop(channel, None)
                sender.first.pop(channel, None)

    def born(self, node: str, incarnation: str, seconds: float) -> None:
        """Note how long a sender has existed."""
        moment = self._clock() - seconds
        with self._lock:
            sender = self._sender_locked(node, incarnation)
            self._senders[node, incarnation] = self._senders.pop((node, incarnation))
            if sender.born is not None:
                return
            sender.born = moment
            for channel, first in tuple(sender.first.items()):
                if self._is_whole_locked(sender, channel):
                    self._miss_locked(node, first - 1)
            sender.first.clear()

    def take(self, channel: str, node: str, incarnation: str, number: int) -> bool:
        """Note a frame that came.

        Returns:
            False if it is to be dropped: it came before, or was counted as missed.
        """
        with self._lock:
            sender = self._sender_locked(node, incarnation)
            last = sender.last.get(channel)
            if last is None:
                last = self._baseline_locked(sender, channel, number - 1)
            if number <= last:
                return False
            sender.last[channel] = number
            if number != last + 1:
                self._miss_locked(node, number - last - 1)
            return True

    def told(self, channel: str, node: str, incarnation: str, number: int) -> None:
        """Note the number of the last frame that was sent before this was told."""
        with self._lock:
            if channel not in self._since:
                return
            sender = self._sender_locked(node, incarnation)
            last = sender.last.get(channel)
            if last is None:
                last = self._baseline_locked(sender, channel, number)
            if number >= last:
                sender.last[channel] = number
                self._miss_locked(node, number - last)

    def unused(self, node: str, incarnation: str, used: Collection[object]) -> None:
        """Note that a sender has sent nothing on all channels but these."""
        with self._lock:
            sender = self._sender_locked(node, incarnation)
            for channel in self._since:
                if channel not in used:
                    sender.last.setdefault(channel, 0)

    def take_gaps(self) -> dict[str, int]:
        """Return how many frames of which node were missed since this was asked last."""
        with self._lock:
            gaps, self._gaps = self._gaps, Counter()
        return gaps

    def _sender_locked(self, node: str, incarnation: str) -> _Sender:
        assert self._lock.locked()
        sender = self._senders.get((node, incarnation))
        if sender is None:
            sender = self._senders[node, incarnation] = _Sender()
            if len(self._senders) > MAX_SENDERS:
                del self._senders[next(iter(self._senders))]
        return sender

    def _baseline_locked(self, sender: _Sender, channel: str, number: int) -> int:
        """Return the number that was the last one before we listened, as far as is known."""
        assert self._lock.locked()
        if sender.born is None:
            sender.first[channel] = number + 1
            return number
        return 0 if self._is_whole_locked(sender, channel) else number

    def _is_whole_locked(self, sender: _Sender, channel: str) -> bool:
        """Tell whether we heard the channel before that sender was born."""
        assert self._lock.locked()
        since = self._since.get(channel)
        return since is not None and sender.born is not None and since + DOUBT < sender.born

    def _miss_locked(self, node: str, number: int) -> None:
        assert self._lock.locked()
        if number > 0:
            self.missed += number
            self._gaps[node] += number
