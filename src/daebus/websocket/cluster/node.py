"""``Node``: the life of this process among the others of its app.

Rules of this module:

1. What comes is counted before it is handled, and handled once.
2. Neither the backplane's threads nor the minder wait here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ...backplane.frames import Template
from ...backplane.names import Names
from ...backplane.protocol import Backplane
from ...errors import BackplaneError, TooLargeError
from ...server.threads.minder import Minder
from ...waits import monotonic
from .info import BackplaneEvent, BackplaneInfo, BackplaneStats, NodeInfo
from .intake import Handler
from .life import Life

__all__ = ["Handler", "Node"]

# Seconds for which a start waits: for the backplane, for a name, to hear those who have a lease;
# and for a backplane that is required.
CONNECT = 0.5
SETTLE = 2.0
MEET = 0.5
REQUIRED = 5.0


class Node:
    """One node, from a start of the app to its stop.

    Args:
        app: name of the app.
        backplane: carries frames.
        minder: has the clock, and the beats.
        clients: tells how many clients are connected, for the beats.
        version: of the program, for the beats.
        tell: is given events and what is to know of them. It does not wait.

    Attributes:
        incarnation: random for each start.
        names: of channels and keys.
        gone: called with the name of each node that is gone; they do not wait.
        lost: called each time when connections were made anew; they do not wait.
        channels: who is given what comes on other channels than ours, as it is.
        refused: to be called with a channel on which such a thing is not signed as ours is.

    Threads:
        Any, where nothing else is said, and they do not wait. Handlers and those in ``gone`` are
        called by threads of the backplane and the minder, without a lock.
    """

    def __init__(
        self,
        app: str,
        backplane: Backplane,
        minder: Minder,
        *,
        clients: Callable[[], int] = int,
        version: str | None = None,
        tell: Callable[[BackplaneEvent, BackplaneInfo], object] = lambda event, info: None,
    ) -> None:
        self._backplane = backplane
        self._options = options = backplane.options
        self.names = Names(options.name or app, backplane.partitions, options.database)
        self._clients = clients
        self._version = version
        self._life = Life(
            backplane, minder, self.names, clients=clients, version=version, tell=tell
        )
        self.incarnation = self._life.incarnation
        self.gone = self._life.gone
        self.lost = self._life.lost
        self.channels = self._life.intake.channels
        self.refused = self._life.intake.refused

    # --- what it is -------------------------------------------------------------

    @property
    def name(self) -> str:
        """Our name; client ids begin with it and a dot.

        It changes if another live node turns out to have it, which ``start`` asks for.
        """
        return self._life.joining.name

    @property
    def up(self) -> bool:
        """Whether frames go out and come in now, as far as is known."""
        return self._life.hearing.up and self._backplane.up

    def health(self) -> tuple[bool, bool]:
        """Return whether the backplane works, and whether the app needs it."""
        return self.up, self._options.required

    def owner(self, client_id: str) -> str | None:
        """Return the other node that a client's id begins with; None if it is none, or ours.

        It need not be alive.
        """
        name, dot, _ = client_id.partition(".")
        if not dot or name == self.name or name in self._life.joining.former:
            return None
        return name

    def peers(self) -> dict[str, NodeInfo]:
        """Return the other nodes that are alive, by name."""
        return self._life.peers.infos()

    def incarnations(self) -> frozenset[str]:
        """Return the incarnations of the other nodes that are alive."""
        return self._life.peers.incarnations()

    def own(self) -> NodeInfo:
        """Return what others know of this one."""
        return NodeInfo(self.name, self._clients(), self._life.age(), self._version, own=True)

    def is_alive(self, name: str) -> bool:
        """Tell whether another node is alive, as far as is known."""
        return name in self._life.peers

    def stats(self) -> BackplaneStats:
        """Return what ``stats()`` says of the backplane."""
        counters = self._backplane.counters()
        return {
            "up": self.up,
            "nodes": 1 + len(self._life.peers),
            "missed": self._life.ledger.missed,
            "lost_out": counters["lost_out"],
            "deaf_resets": self._life.hearing.deaf_resets,
            "unsigned": self._life.intake.unsigned,
            "reconnects": counters["reconnects"],
            "queued_bytes": counters["queued_bytes"],
        }

    # --- its life -----------------------------------------------------------------

    def on(self, kind: str, handler: Handler) -> None:
        """Have frames of other nodes of a kind handled; before ``start``.

        The handler is called by a thread of the backplane, in the order of each channel, once for
        each frame, whatever was sent twice. It must not wait.
        """
        handlers = self._life.intake.handlers
        assert kind not in handlers, kind
        handlers[kind] = handler

    def start(self) -> None:
        """Connect, and take a name that no other live node has.

        It waits a moment for the backplane, and if it is away goes on without: the node joins
        when it comes.

        Raises:
            BackplaneError: it is required, and does not come within 5 seconds.
        """
        self.begin()
        required = self._options.required
        now = monotonic()
        there = self._backplane.subscribed(self.names.beats, REQUIRED if required else CONNECT)
        joined = there and self._life.joining.wait(now + (REQUIRED if required else SETTLE))
        if joined:
            self._life.met.wait(MEET)
        if required and not (joined and self.up):
            raise BackplaneError(
                f"{self._backplane!r} is required, and is not there after {REQUIRED:g} s; start "
                f"it, or leave required=True out to start without"
            )

    def begin(self) -> None:
        """Connect as ``start`` does, and wait for nothing."""
        self._life.begin()

    def stop(self, timeout: float) -> list[threading.Thread]:
        """Say goodbye and end.

        Threads:
            One that may wait.

        Returns:
            The threads of the backplane that did not end.
        """
        self._life.end()
        return self._backplane.stop(timeout)

    def forget(self) -> None:
        """Drop everything in a forked child."""
        self._life.end(goodbye=False)
        self._backplane.forget()

    def listen(self, to: str) -> None:
        """Count one more member of a room, user or topic here, whose partition is then heard."""
        self._life.partitions.add(to)

    def unlisten(self, to: str) -> None:
        """Count one member less; the partition is left 30 seconds after its last one."""
        self._life.partitions.remove(to)

    def wait_heard(self, to: str, timeout: float = 0.5) -> bool:
        """Wait until the partition of a room, user or topic is heard; False if it is not."""
        return self._life.partitions.wait(to, timeout)

    # --- what it sends --------------------------------------------------------------

    def post(
        self,
        kind: str,
        to: str,
        payload: bytes,
        *,
        exclude: tuple[str, ...] = (),
        droppable: bool = False,
        conflate: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> int:
        """Queue a frame for all nodes that may have members of a room, user or topic.

        Args:
            kind: what it is: ``all``, ``room``, ``user``, ``topic``.
            to: name of the room, user or topic; empty for all.
            payload: for the receivers' clients.
            exclude: ids of clients that do not get it.
            droppable: see ``Policy``.
            conflate: see ``Policy``.
            more: further fields of the header, under names that ``frames`` does not use.

        Returns:
            To how many other live nodes it was handed.

        Raises:
            TooLargeError: the frame is larger than ``max_frame``; nothing was sent.
        """
        template = self._template(kind, to, payload, exclude, droppable, conflate, more)
        channel = self.names.frames(self.names.partition(to))
        return len(self._life.peers) if self._life.outgoing.send(channel, template) else 0

    def post_to(
        self,
        node: str,
        kind: str,
        payload: bytes = b"",
        *,
        to: str = "",
        exclude: tuple[str, ...] = (),
        droppable: bool = False,
        conflate: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> bool:
        """Queue a frame for one other node; see ``post``.

        Returns:
            False if no such node is alive, or it was dropped at once.

        Raises:
            TooLargeError: the frame is larger than ``max_frame``; nothing was sent.
        """
        template = self._template(kind, to, payload, exclude, droppable, conflate, more)
        return node in self._life.peers and self._life.outgoing.send(
            self.names.node(node), template
        )

    def judge(
        self,
        kind: str,
        payload: bytes,
        *,
        conflate: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Raise what ``post_to`` would raise, and send nothing: for several frames, before any.

        Raises:
            TooLargeError: the frame would be larger than ``max_frame``.
        """
        self._template(kind, "", payload, (), True, conflate, more)

    def _template(
        self,
        kind: str,
        to: str,
        payload: bytes,
        exclude: tuple[str, ...],
        droppable: bool,
        conflate: str | None,
        more: Mapping[str, Any] | None,
    ) -> Template:
        template = Template(
            self.name,
            self.incarnation,
            kind,
            to,
            payload,
            exclude=exclude,
            conflate=conflate,
            droppable=droppable,
            more=more,
        )
        size = template.size(signed=self._options.secret is not None)
        if size > self._options.max_frame:
            raise TooLargeError(
                f"a message of {size} bytes, with what nodes add, is beyond max_frame="
                f"{self._options.max_frame} of the backplane; send less at once, or raise it"
            )
        return template
