"""Deadlines of many connections, most of which never come due."""

from __future__ import annotations

import heapq
import itertools
import math

from .conn import Conn

__all__ = ["Deadlines"]


class Deadlines:
    """A heap with one or two entries per client, however many requests it makes.

    A deadline that moves away costs nothing: its entry comes up too early and is put
    back. Not thread-safe; the acceptor's lock guards it.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Conn]] = []
        self._number = itertools.count()

    def note(self, client: Conn) -> None:
        """Remember the client's deadline."""
        if client.deadline < client.alarm:
            client.alarm = client.deadline
            heapq.heappush(self._heap, (client.alarm, next(self._number), client))

    def due(self, now: float, most: int) -> list[Conn]:
        """Return clients whose deadline has passed, and forget it.

        Args:
            now: the moment.
            most: how many at most; ``next`` is in the past if there are more.
        """
        late: list[Conn] = []
        while self._heap and self._heap[0][0] <= now and len(late) < most:
            moment, _, client = heapq.heappop(self._heap)
            if moment != client.alarm:
                continue  # an earlier alarm has taken its place
            client.alarm = math.inf
            if client.deadline <= now:
                client.deadline = math.inf
                late.append(client)
            else:
                self.note(client)
        return late

    def next(self) -> float:
        """Return the moment of the next check; infinity if there is none."""
        return self._heap[0][0] if self._heap else math.inf
