"""``Backplane``: what carries frames between the processes of one app.

Rules of this module:

1. A backplane knows channels and bytes. Numbers, nodes and what is lost are the node's business.
2. Nothing here waits, ``stop`` and ``subscribed`` apart.
3. What is published is sent in the order of the calls; what a backplane drops it counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict, runtime_checkable

from .names import Names, check_node

__all__ = ["Backplane", "BackplaneCounters", "BackplaneOptions"]

_LEAST_TIMEOUT = 2.0
_LEAST_FRAME = 1024


class BackplaneCounters(TypedDict):
    """What a backplane has counted since its start.

    ``lost_out``: frames that it dropped; ``reconnects``: connections that were made anew;
    ``queued_bytes``: what waits to be sent now.
    """

    lost_out: int
    reconnects: int
    queued_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackplaneOptions:
    """What a backplane was told that is the node's business.

    Attributes:
        name: stands for the app's name in channels and keys; None for the app's own.
        node: name of the node; None for a random one.
        node_timeout: seconds after which a silent node counts as gone.
        max_frame: most bytes of a frame, header included.
        secret: signs frames; None for none.
        required: the app does not start without, and is unhealthy while it is down.
        queue_age: seconds that what is sent waits in an outage.
        database: number of the server's database, a world of its own.

    Raises:
        ValueError: one of them is out of its range.
    """

    name: str | None = None
    node: str | None = None
    node_timeout: float = 10.0
    max_frame: int = 1 << 20
    secret: str | bytes | None = field(default=None, repr=False)
    required: bool = False
    queue_age: float = 5.0
    database: int = 0

    def __post_init__(self) -> None:
        """Check them."""
        if self.node is not None:
            check_node(self.node)
        if self.name == "":
            raise ValueError("name is empty; leave it out for the name of the app")
        if not self.node_timeout >= _LEAST_TIMEOUT:
            raise ValueError(
                f"node_timeout must be at least {_LEAST_TIMEOUT:g} seconds, not "
                f"{self.node_timeout!r}; write node_timeout=10"
            )
        if self.max_frame < _LEAST_FRAME:
            raise ValueError(
                f"max_frame must be at least {_LEAST_FRAME} bytes, not {self.max_frame!r}; "
                f"write max_frame=1 << 20"
            )
        if self.secret is not None and not self.secret:
            raise ValueError("secret is empty; write secret=os.environ['DAEBUS_SECRET']")

    @property
    def key(self) -> bytes | None:
        """The secret as bytes."""
        return self.secret.encode() if isinstance(self.secret, str) else self.secret


@runtime_checkable
class Backplane(Protocol):
    """Carries frames between processes. ``DaebusRedis`` is one, ``MemoryBackplane`` another."""

    @property
    def options(self) -> BackplaneOptions:
        """What it was told that is the node's business."""

    @property
    def partitions(self) -> int:
        """Into how many channels rooms, users and topics are divided."""

    @property
    def ordered(self) -> bool:
        """Whether the frames of one publisher arrive in their order over all channels.

        If not, only those of each channel do.
        """

    @property
    def up(self) -> bool:
        """True while it can both send and receive, as far as it knows."""

    @property
    def store(self) -> Any:
        """Keeps topics that all nodes share; None if it cannot."""

    def start(
        self,
        names: Names,
        receive: Callable[[str, bytes], None],
        lost: Callable[[], None],
        died: Callable[[], object] = bool,
    ) -> None:
        """Begin to connect, and go on for ever; return at once.

        Args:
            names: of the app's channels and keys.
            receive: is given each frame with its channel, those of a channel in their order and
                by one thread at a time. It does not wait, and does not raise.
            lost: is called each time when a connection was made anew, the first time included,
                and works: frames may be missing, and what was kept is held until ``flush``.
            died: is called by a thread of the backplane that ends though it should not: the app
                does not count as running from then on. It does not wait, and does not raise.
        """

    def publish(self, channel: str, frame: bytes, *, keep: bool = True) -> bool:
        """Queue a frame and return at once.

        Frames with ``keep`` leave in the order of the calls, over all channels. What is queued in
        an outage is kept within the backplane's bounds, the oldest is dropped first; after it
        nothing of that leaves before ``flush``. If it is unknown whether a frame has arrived, it
        is sent again.

        Args:
            channel: where to.
            frame: what.
            keep: False for a frame that nobody needs later: it overtakes what is held, and is
                dropped if there is no connection.

        Returns:
            False if it was dropped at once.

        Threads:
            Any, one at a time: whoever holds the node's lock. It never calls back.
        """

    def flush(self) -> None:
        """Send what was kept: those who are to hear it listen again. It may be called often."""

    def subscribe(self, channel: str) -> None:
        """Have the frames of a channel received, from soon on and over all outages."""

    def unsubscribe(self, channel: str) -> None:
        """Have them received no more."""

    def subscribed(self, channel: str, timeout: float) -> bool:
        """Wait until a subscription holds; False if it does not within that time."""

    def renew(self) -> None:
        """Make the receiving side anew: nothing is heard through the one that there is."""

    def lease(self, node: str, value: bytes, seconds: float) -> None:
        """Set the lease of a node, which ends by itself; 0 seconds end it now.

        It is not kept in an outage.
        """

    def claim(
        self, node: str, value: bytes, seconds: float, done: Callable[[bytes | None], None]
    ) -> None:
        """Set the lease of a node unless there is one, in one step.

        Args:
            node: the name.
            value: of the lease.
            seconds: until it ends.
            done: is given None once it is set, or the value of the one that there is; it is not
                called if the connection is lost before. It does not wait.
        """

    def leases(self, done: Callable[[dict[str, bytes]], None]) -> None:
        """Read all leases; ``done`` as with ``claim``, with their values by node."""

    def counters(self) -> BackplaneCounters:
        """Return what was counted."""

    def forget(self) -> None:
        """Drop everything in a forked child: close its copies of sockets without a word."""

    def stop(self, timeout: float) -> list[threading.Thread]:
        """Send what is queued within that time, if there is a connection, and end.

        Returns:
            The threads that did not end.
        """
