"""Which server has which slot. Alone, one has all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..names import SLOTS, crc16
from .address import Address
from .line import Line, Lost

__all__ = ["Shards"]


class Shards:
    """The map of a cluster, which its servers know.

    Args:
        address: of the server, or of one of the cluster.
        cluster: it is one of a cluster.

    Attributes:
        cluster: as given.
        stale: somebody has found it wrong.

    Threads:
        One refreshes it; any may read. The map is replaced as a whole.
    """

    def __init__(self, address: Address, *, cluster: bool) -> None:
        self.cluster = cluster
        self.stale = cluster
        self._first = address
        self._owners: list[Address | None] = [None] * SLOTS if cluster else [address]
        self._masters: frozenset[Address] = frozenset() if cluster else frozenset([address])

    def slot(self, key: str) -> int:
        """Return the slot of a channel or key; without a cluster there is one, 0."""
        if not self.cluster:
            return 0
        start = key.find("{")
        end = key.find("}", start + 1)
        if start >= 0 and end > start + 1:
            key = key[start + 1 : end]
        return crc16(key.encode()) % SLOTS

    def owner(self, slot: int) -> Address | None:
        """Return who has a slot; None if it is not known."""
        return self._owners[slot]

    @property
    def masters(self) -> frozenset[Address]:
        """All who have any."""
        return self._masters

    def refresh(self, title: str, ended: Callable[[], bool]) -> None:
        """Ask the servers for the map, one after the other until one answers.

        Raises:
            Lost: none does.
        """
        problem = Lost("no server of the cluster is known")
        for address in [*self._masters, self._first]:
            line = Line(address, title, ended)
            try:
                line.open()
                answer = line.ask("CLUSTER", "SLOTS")
            except Lost as exc:
                problem = exc
            except Exception as exc:  # an error that the server gave as the answer
                problem = Lost(f"{exc}")
            else:
                self._owners = owners = self._read(answer, address)
                self._masters = frozenset(owner for owner in owners if owner is not None)
                self.stale = False
                return
            finally:
                line.close()
        raise problem

    def _read(self, answer: Iterable[Any], asked: Address) -> list[Address | None]:
        owners: list[Address | None] = [None] * SLOTS
        for first, last, master, *_ in answer:
            host, port = master[0], int(master[1])
            name = host.decode() if isinstance(host, bytes) else str(host or "")
            # Who does not know its own name answers without one.
            known = name not in ("", "?")
            owner = asked.at(name if known else asked.host, port)
            for slot in range(int(first), int(last) + 1):
                owners[slot] = owner
        return owners
