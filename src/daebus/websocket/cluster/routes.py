"""Sends of this process to the clients of all, and what other processes do to ours.

Rules of this module:

1. A frame is queued for the other nodes before clients of this one are written to, so that what
   one thread sends arrives everywhere in its order. What is too large is sent nowhere.
2. A client of this node is reached without the backplane.
3. What comes from other nodes is done by the thread that brings it, which must not wait; user
   code, such as ``on_join`` hooks, runs in a thread of its own, and so does what is sent to a
   room or user behind an order that waits there: who is made to join gets what is sent next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from ...backplane.frames import Header
from ...checks.functions import Ask
from ...errors import ClientError, RoomLimitError
from ...interrupts.stack import inside
from ...server.threads.pool import WorkerPool
from ...server.threads.safelog import get_logger
from ..admission.joining import enter
from ..clients.broadcast import OUTCOMES, Policy, SendResult, Target
from ..clients.groups import Change
from ..connection.outbox import GONE
from ..connection.sent import handed
from ..hub import Hub
from ..messages.pending import PendingCall
from .calls import Calls, split
from .fields import field, texts
from .node import Node
from .queries import Queries

__all__ = ["Routes"]

logger = get_logger("daebus.websocket")

# Orders of other nodes that may wait for ``on_join`` hooks, and messages behind them; of more
# the orders are logged and lost, and the messages overtake.
MAX_ORDERS = 1000

_HANDED: Final = handed(SendResult(1), 1)


class Routes:
    """The ways from and to the other nodes, from a start of the app to its stop.

    Args:
        node: this node, not started yet.
        hub: has the clients of this node.
        checks: the ``on_join`` hooks.
        partitions: into how many channels rooms and users are divided.
        max_frame: bytes of a frame at most.

    Attributes:
        node: as given.
        calls: to clients of other nodes.
        queries: to all nodes.
    """

    def __init__(
        self,
        node: Node,
        hub: Hub,
        checks: Sequence[Ask],
        *,
        partitions: int,
        max_frame: int,
    ) -> None:
        self.node = node
        self._hub = hub
        self._registry = hub.registry
        self._minder = hub.runtime.minder
        self._checks = checks
        self._divided = partitions > 1
        self.calls = Calls(node, hub.registry, hub.runtime.minder)
        self.queries = Queries(node, hub.registry, max_frame)
        # One thread, so that a client joins and leaves in the order in which it was told to.
        self._orders = WorkerPool("daebus-cluster", 1, MAX_ORDERS, vitals=self._minder.vitals)
        self._lock = threading.Lock()
        # How many orders, and messages behind them, wait for each room and user, by its name.
        self._ahead: dict[str, int] = {}  # guarded by: _lock
        for kind in ("all", "room", "user"):
            node.on(kind, self._take_message)
        node.on("client", self._take_for_clients)
        node.on("close", self._take_close)
        for kind in ("join", "leave", "identify"):
            node.on(kind, self._take_order)

    def begin(self) -> None:
        """Hear the partitions of the rooms and users that have clients here."""
        if self._divided:
            for groups in (self._registry.rooms, self._registry.users):
                groups.listeners.append(self._groups_changed)

    def begin_stop(self) -> None:
        """End the waits for other nodes, and let none begin."""
        self.calls.stop()
        self.queries.stop()

    def stop(self) -> list[threading.Thread]:
        """Take no more orders; return the threads to be joined."""
        return self._orders.stop()

    # --- what is sent from here ------------------------------------------------------

    def deliver(self, target: Target, payload: bytes, policy: Policy) -> SendResult:
        """Send one encoded message to clients of all nodes; as ``Door.deliver``.

        Raises:
            TooLargeError: it is larger than ``max_frame``, and was sent nowhere.
        """
        kind, name = target
        if kind == "client":
            return self._deliver_to_one(target, payload, policy)
        nodes = self.node.post(
            kind,
            name,
            payload,
            exclude=tuple(self._elsewhere(policy.exclude)),
            droppable=policy.droppable,
            conflate=policy.conflate,
        )
        return handed(self._hub.door.deliver(target, payload, policy), nodes)

    def _deliver_to_one(self, target: Target, payload: bytes, policy: Policy) -> SendResult:
        owner = self.owner(target.name)
        if owner is None:
            return self._hub.door.deliver(target, payload, policy)
        handed_over = self.node.post_to(
            owner,
            "client",
            payload,
            to=target.name,
            droppable=policy.droppable,
            conflate=policy.conflate,
        )
        return _HANDED if handed_over else OUTCOMES[GONE]

    def deliver_each(
        self, client_ids: Iterable[str], payload: bytes, policy: Policy
    ) -> dict[str, SendResult]:
        """Send one encoded message to several clients; return a result for each.

        Raises:
            TooLargeError: it is larger than ``max_frame``, and was sent nowhere.
        """
        results = dict.fromkeys(client_ids, OUTCOMES[GONE])
        here, elsewhere = self._sort(results)
        batches = split(elsewhere)
        droppable, conflate = policy.droppable, policy.conflate
        for _, ids in batches:
            self.node.judge("client", payload, conflate=conflate, more={"ids": ids})
        for node, ids in batches:
            handed_over = self.node.post_to(
                node,
                "client",
                payload,
                droppable=droppable,
                conflate=conflate,
                more={"ids": ids},
            )
            if handed_over:
                results.update(dict.fromkeys(ids, _HANDED))
        results.update(self._hub.door.deliver_each(here, payload, policy))
        return results

    def ask_each(
        self, client_ids: Iterable[str], kind: str, message: bytes, timeout: float
    ) -> dict[str, PendingCall]:
        """Ask those of several clients that are other nodes'; as ``Calls.ask``."""
        _, elsewhere = self._sort(client_ids)
        return self.calls.ask(elsewhere, kind, message, timeout) if elsewhere else {}

    def owner(self, client_id: str) -> str | None:
        """Return the node of a client that is not one of ours; None if it is, or nobody's."""
        if self._registry.get(client_id) is not None:
            return None
        return self.node.owner(client_id)

    def _sort(self, client_ids: Iterable[str]) -> tuple[list[str], dict[str, list[str]]]:
        """Return which clients are ours or nobody's, and the others by their nodes."""
        here: list[str] = []
        elsewhere: dict[str, list[str]] = {}
        for client_id in client_ids:
            owner = self.owner(client_id)
            (here if owner is None else elsewhere.setdefault(owner, [])).append(client_id)
        return here, elsewhere

    def order(self, kind: str, client_id: str, **more: Any) -> bool | None:
        """Have another node do something with a client of its own.

        Args:
            kind: ``join``, ``leave``, ``identify`` or ``close``.
            client_id: the client.
            more: what the node needs to know.

        Returns:
            Whether it was handed over; None if the client is none of another node.
        """
        owner = self.owner(client_id)
        if owner is None:
            return None
        return self.node.post_to(owner, kind, to=client_id, more=more)

    def wait_heard(self, name: str) -> None:
        """Wait until what is sent to a room or user comes here too, for a moment at most.

        Not in an outage, nor where nobody may wait.
        """
        hurried = not self._divided or self._hub.runtime.loop.is_current() or inside()
        if not hurried and self.node.up:
            self.node.wait_heard(name)

    def _elsewhere(self, client_ids: Iterable[str]) -> Iterable[str]:
        return (one for one in client_ids if self.node.owner(one) is not None)

    # --- what comes from other nodes -------------------------------------------------

    def _take_message(self, header: Header, payload: bytes) -> None:
        policy = Policy(header.droppable, header.conflate, header.exclude)
        target = Target(header.kind, header.to)  # type: ignore[arg-type]  # one of the three
        deliver = partial(self._hub.door.deliver, target, payload, policy)
        ahead = header.to in self._ahead  # unguarded: this thread brought what came before
        if not (ahead and self._submit(header.to, deliver)):
            deliver()

    def _take_for_clients(self, header: Header, payload: bytes) -> None:
        policy = Policy(header.droppable, header.conflate)
        ids = texts(header, "ids") if "ids" in header.more else [header.to]
        self._hub.door.deliver_each(ids, payload, policy)

    def _take_close(self, header: Header, payload: bytes) -> None:
        link = self._registry.get(header.to)
        if link is not None:
            link.shut(field(header, "code", int), field(header, "reason", str), "server")

    def _take_order(self, header: Header, payload: bytes) -> None:
        if not self._checks:
            self._carry_out(header)
            return
        group = header.more.get("user" if header.kind == "identify" else "room")
        name = group if isinstance(group, str) else ""
        if not self._submit(name, partial(self._carry_out_alone, header)):
            logger.warning(
                "a %s of client %s, which node %s asked for, is lost: too many wait for the hooks",
                header.kind,
                header.to,
                header.node,
            )

    def _submit(self, name: str, job: Callable[[], object]) -> bool:
        """Have a job of a room or user done behind those that wait; False if too many do."""

        def do() -> None:
            try:
                job()
            finally:
                self._count(name, -1)

        self._count(name, 1)
        done = self._orders.submit(do)
        if not done:
            self._count(name, -1)
        return done

    def _count(self, name: str, change: int) -> None:
        with self._lock:
            ahead = self._ahead.pop(name, 0) + change
            if ahead:
                self._ahead[name] = ahead

    def _carry_out_alone(self, header: Header) -> None:
        """Carry out an order whose hooks may refuse: nobody waits for what they raise."""
        try:
            self._carry_out(header)
        except ClientError as exc:
            logger.info(
                "client %s may not join, which node %s asked for: %s", header.to, header.node, exc
            )
        except Exception:
            logger.exception(
                "a %s of client %s, which node %s asked for, failed",
                header.kind,
                header.to,
                header.node,
            )

    def _carry_out(self, header: Header) -> None:
        client_id, registry = header.to, self._registry
        if header.kind == "identify":
            user = header.more.get("user")
            registry.identify(client_id, None if user is None else field(header, "user", str))
        elif header.kind == "leave":
            registry.rooms.leave(client_id, field(header, "room", str))
        else:
            try:
                room = field(header, "room", str)
                enter(registry, self._minder, self._checks, client_id, room)
            except RoomLimitError as exc:
                logger.warning("node %s had a client join in vain: %s", header.node, exc)

    # --- partitions ------------------------------------------------------------------

    def _groups_changed(self, changes: tuple[Change, ...]) -> None:
        # Each change is told once, in whatever order: the node counts.
        for change in changes:
            (self.node.listen if change.joined else self.node.unlisten)(change.group)
