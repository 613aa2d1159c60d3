"""Questions to all live nodes: which clients they have. They never wait for one that is gone.

Rules of this module:

1. Asked are the nodes that are known, by name: nobody counts answers that somebody else promised.
2. What has come by the deadline is returned, with the names of those that said nothing.
3. A node that is found to be gone is not waited for.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ...backplane.frames import Header
from ...waits import lock_timeout
from ..clients.registry import Registry
from ..messages.pending import Answer
from .fields import field
from .node import Node

__all__ = ["Answers", "ClusterList", "Queries", "What", "own"]

What = Literal["clients", "room", "user"]


class ClusterList(list[str]):
    """Ids of clients of several nodes, and which of the nodes said nothing in time.

    Args:
        ids: of the clients; those of this process come first.
        missing: names of the nodes whose clients are not known.
    """

    def __init__(self, ids: Iterable[str] = (), missing: Iterable[str] = ()) -> None:
        super().__init__(ids)
        self._missing = tuple(missing)

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of nodes that did not answer in time: their clients may be missing."""
        return self._missing


class Answers(dict[str, Any]):
    """The answers of several clients by their ids, and which nodes were not asked.

    Args:
        answers: of each client its answer, or the exception in its place.
        missing: names of the nodes whose clients are not known.
    """

    def __init__(self, answers: Mapping[str, Any], missing: Iterable[str] = ()) -> None:
        super().__init__(answers)
        self._missing = tuple(missing)

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of nodes that did not say in time which clients they have."""
        return self._missing


class _Query:
    """A question to several nodes, and what they have said so far.

    Args:
        own: ids of clients of this node.
        nodes: the others.

    Attributes:
        done: is set once all have answered, or are gone.
    """

    def __init__(self, own: list[str], nodes: Iterable[str]) -> None:
        self._own = own
        self._waiting = set(nodes)
        self._parts: dict[str, dict[int, list[str]]] = {name: {} for name in self._waiting}
        self._missing: set[str] = set()
        self.done = Answer()
        self._settle()

    def add(self, node: str, part: int, parts: int, ids: list[str]) -> None:
        """Take a part of what a node says."""
        known = self._parts.get(node)
        if known is not None:
            known[part] = ids
            if len(known) == parts:
                self._waiting.discard(node)
                self._settle()

    def lose(self, node: str) -> None:
        """Wait for a node no longer."""
        if node in self._waiting:
            self._missing.add(node)
            self._waiting.discard(node)
            self._settle()

    def lose_all(self) -> None:
        """Wait for nobody."""
        for node in list(self._waiting):
            self.lose(node)

    def _settle(self) -> None:
        if not self._waiting:
            self.done.settle(None, None)

    def result(self) -> ClusterList:
        """Return what is known by now."""
        missing = {*self._waiting, *self._missing}
        ids = dict.fromkeys(self._own)
        for name in sorted(self._parts.keys() - missing):
            for _, part in sorted(self._parts[name].items()):
                ids.update(dict.fromkeys(part))
        return ClusterList(ids, sorted(missing))


class Queries:
    """The questions of this node that wait, and the answers to those of others.

    Args:
        node: this node.
        registry: the clients of this node.
        max_frame: bytes of a frame at most; a long answer takes several.

    Threads:
        ``ask`` may be called from any thread but the loop's.
    """

    def __init__(self, node: Node, registry: Registry, max_frame: int) -> None:
        self._node = node
        self._registry = registry
        self._room = max(1, max_frame // 2)
        self._stopping = False
        self._open: dict[str, _Query] = {}
        node.on("query", self._take_query)
        node.on("reply", self._take_reply)
        node.gone.append(self._node_gone)

    def ask(self, what: What, name: str, timeout: float) -> ClusterList:
        """Ask all live nodes, and wait.

        Args:
            what: for all their clients, or those of a room or a user.
            name: of the room or user.
            timeout: seconds that they have.
        """
        ident = secrets.token_hex(8)
        try:
            query = self._begin(ident, what, name)
            query.done.wait(lock_timeout(timeout))
        finally:
            self._open.pop(ident, None)
        return query.result()

    async def ask_async(self, what: What, name: str, timeout: float) -> ClusterList:
        """Ask all live nodes, and wait in a coroutine."""
        ident = secrets.token_hex(8)
        try:
            query = self._begin(ident, what, name)
            await query.done.wait_async(timeout)
        finally:
            self._open.pop(ident, None)
        return query.result()

    def _begin(self, ident: str, what: What, name: str) -> _Query:
        peers = self._node.peers()
        query = self._open[ident] = _Query(own(self._registry, what, name), peers)
        for peer in peers:
            asked = self._node.post_to(peer, "query", to=name, more={"r": ident, "q": what})
            if not asked or self._stopping:
                query.lose(peer)
        return query

    def stop(self) -> None:
        """Have no query wait any more, nor those that are still to come."""
        self._stopping = True
        for query in list(self._open.values()):
            query.lose_all()

    def _take_query(self, header: Header, payload: bytes) -> None:
        parts = _split(own(self._registry, field(header, "q", str), header.to), self._room)
        for number, part in enumerate(parts):
            more = {"r": field(header, "r", str), "p": (number, len(parts))}
            self._node.post_to(header.node, "reply", part, more=more)

    def _take_reply(self, header: Header, payload: bytes) -> None:
        query = self._open.get(field(header, "r", str))
        if query is not None:
            part, parts = field(header, "p", list)
            query.add(header.node, part, parts, json.loads(payload))

    def _node_gone(self, name: str) -> None:
        for query in list(self._open.values()):
            query.lose(name)


def own(registry: Registry, what: str, name: str) -> list[str]:
    """Return the ids of clients of this node: all, or those of a room or a user."""
    if what == "room":
        return registry.rooms.members(name)
    if what == "user":
        return registry.users.members(name)
    return [link.client_id for link in registry.snapshot()]


def _split(ids: list[str], room: int) -> list[bytes]:
    """Return ids as lists in JSON, each of about so many bytes at most."""
    parts: list[bytes] = []
    texts: list[str] = []
    size = 0
    for text in map(json.dumps, ids):
        if texts and size + len(text) > room:
            parts.append(f"[{','.join(texts)}]".encode())
            texts, size = [], 0
        texts.append(text)
        size += len(text) + 1
    return [*parts, f"[{','.join(texts)}]".encode()]
