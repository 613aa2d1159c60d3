"""``DaebusRedis``: the component that an app attaches, and its arguments."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ...checks.annotations import checked
from ...checks.arguments import check_name, positive, seconds
from ...errors import StateError
from ...server.threads.pool import join_all
from ...server.threads.vitals import Vitals
from ...waits import lock_timeout, monotonic
from ..names import Names
from ..protocol import Backplane, BackplaneCounters, BackplaneOptions
from .address import read_url
from .line import require_redis
from .outbound import Outbound
from .queue import Queue
from .session import Session
from .shards import Shards
from .store import RedisStore

__all__ = ["DaebusRedis", "outbound_of"]

# Into how many channels rooms, users and topics are divided, alone and in a cluster.
_PARTITIONS = {False: 1, True: 64}
MAX_PARTITIONS = 1024

# A cut subscriber costs all that was underway: Redis gives it 32 MiB, and 8 MiB for a minute.
MAX_FRAME = 8 << 20

# Of a process that is gone for longer nobody waits to hear.
MAX_NODE_TIMEOUT = 3600.0

# Share of a stop in which what is queued may leave.
_FLUSH = 0.5


class DaebusRedis(Backplane):
    """Joins the processes of an app through Redis or Valkey.

    Args:
        url: ``redis://``, ``rediss://`` with TLS, or ``unix://``, with user, password and
            database, as in ``"redis://user:password@10.0.0.5:6379/0"``; in a cluster that of any
            of its servers. With TLS ``?ssl_ca_certs=FILE`` and the like may follow.
        name: stands for the app's name in channels and keys; None for the app's own. Apps of one
            name are one.
        node: name of this process, 1 to 32 of ``A-Z a-z 0-9 _ -``; None for a random one.
        partitions: into how many channels rooms, users and topics are divided, the same for all
            processes; None for 1, and 64 in a cluster.
        cluster: the server is one of a cluster (from 7.0 on, with sharded pub/sub).
        required: the app does not start without Redis, and its health check says 503 while
            Redis is away.
        queue_bytes: bytes that wait for Redis at most; the oldest are dropped, and counted.
        queue_age: seconds that they wait at most.
        node_timeout: seconds of silence after which a process counts as gone, at least 2.
        max_frame: bytes of one message between processes, 1 KiB to 8 MiB and not more than
            ``queue_bytes``; a larger one raises ``TooLargeError`` where it is sent.
        secret: signs what is sent; what is not signed with it is dropped, and counted. None for
            no signatures.

    Raises:
        ImportError: the package ``redis`` is not installed.
        DaebusError: it is older than 8.0.1.
        ValueError: an argument is out of range or of the wrong form; the text names it.
        TypeError: an argument is of another type; the message names it.
    """

    @checked
    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        name: str | None = None,
        *,
        node: str | None = None,
        partitions: int | None = None,
        cluster: bool = False,
        required: bool = False,
        queue_bytes: int = 4 << 20,
        queue_age: float = 5.0,
        node_timeout: float = 10.0,
        max_frame: int = 1 << 20,
        secret: str | bytes | None = None,
    ) -> None:
        require_redis()
        self._address = read_url(url)
        if cluster and (self._address.db or self._address.path):
            what = "a Unix socket" if self._address.path else f"database {self._address.db}"
            raise ValueError(
                f"a cluster is reached over TCP and has database 0 alone, not {what}; write "
                f"'redis://10.0.0.5:6379' or leave out cluster=True"
            )
        if name is not None:
            check_name(name, "DaebusRedis(url, {})")
        if partitions is not None and not 1 <= partitions <= MAX_PARTITIONS:
            raise ValueError(f"partitions must be from 1 to {MAX_PARTITIONS}, not {partitions!r}")
        positive("queue_bytes", queue_bytes)
        if max_frame > MAX_FRAME:
            raise ValueError(f"max_frame must be at most {MAX_FRAME} bytes, not {max_frame!r}")
        if max_frame > queue_bytes:
            raise ValueError(
                f"max_frame must be at most queue_bytes, {queue_bytes}, not {max_frame!r}; write "
                f"max_frame={queue_bytes}"
            )
        if not node_timeout <= MAX_NODE_TIMEOUT:
            raise ValueError(
                f"node_timeout must be from 2 to {MAX_NODE_TIMEOUT:g} seconds, not "
                f"{node_timeout!r}; write node_timeout=10"
            )
        given: object = secret
        if given is not None and not isinstance(given, str | bytes):
            raise TypeError(f"secret must be a string or bytes, not of {type(given).__name__}")
        self._cluster = cluster
        self._partitions = _PARTITIONS[cluster] if partitions is None else partitions
        self._queue_bytes = queue_bytes
        self._queue_age = seconds("queue_age", queue_age)
        self._options = BackplaneOptions(
            name=name,
            node=node,
            node_timeout=node_timeout,
            max_frame=max_frame,
            secret=secret,
            required=required,
            queue_age=self._queue_age,
            database=self._address.db,
        )
        self._session: Session | None = None

    def __repr__(self) -> str:
        if self.up:
            return f"<DaebusRedis {self._address} up>"
        session = self._session
        problem = "" if session is None else session.outbound.problem
        return f"<DaebusRedis {self._address} down{': ' if problem else ''}{problem}>"

    # --- Backplane --------------------------------------------------------------

    @property
    def options(self) -> BackplaneOptions:
        """What it was told that is the node's business."""
        return self._options

    @property
    def partitions(self) -> int:
        """Into how many channels rooms, users and topics are divided."""
        return self._partitions

    @property
    def ordered(self) -> bool:
        """Whether all channels together have one order: unless they are in a cluster."""
        return not self._cluster

    @property
    def up(self) -> bool:
        """True while it is connected both ways."""
        session = self._session
        return session is not None and session.up

    @property
    def store(self) -> RedisStore | None:
        """Keeps topics that all nodes share; None while the app does not run."""
        session = self._session
        return None if session is None else session.store

    def start(
        self,
        names: Names,
        receive: Callable[[str, bytes], None],
        lost: Callable[[], None],
        died: Callable[[], object] = bool,
    ) -> None:
        """Begin to connect, and go on for ever; return at once."""
        shards = Shards(self._address, cluster=self._cluster)
        queue = Queue(self._queue_bytes, self._queue_age)
        self._session = Session(shards, queue, names, receive, lost, Vitals(died))
        self._session.outbound.thread.start()

    def publish(self, channel: str, frame: bytes, *, keep: bool = True) -> bool:
        """Queue a frame and return at once; False if it was dropped."""
        session = self._session
        return session is not None and session.outbound.publish(channel, frame, keep=keep)

    def flush(self) -> None:
        """Send what was kept."""
        session = self._session
        if session is not None:
            session.outbound.flush()

    def subscribe(self, channel: str) -> None:
        """Have the frames of a channel received, from soon on and over all outages."""
        session = self._session
        if session is not None:
            session.inbound.subscribe(channel)

    def unsubscribe(self, channel: str) -> None:
        """Have them received no more."""
        session = self._session
        if session is not None:
            session.inbound.unsubscribe(channel)

    def subscribed(self, channel: str, timeout: float) -> bool:
        """Wait until a subscription holds; False if it does not within that time."""
        session = self._session
        return session is not None and session.inbound.subscribed(channel, timeout)

    def renew(self) -> None:
        """Make the receiving side anew."""
        session = self._session
        if session is not None:
            session.inbound.renew()

    def lease(self, node: str, value: bytes, seconds: float) -> None:
        """Set the lease of a node, which ends by itself; 0 seconds end it now."""
        session = self._session
        if session is not None:
            session.lease(node, value, seconds)

    def claim(
        self, node: str, value: bytes, seconds: float, done: Callable[[bytes | None], None]
    ) -> None:
        """Set the lease of a node unless there is one; tell the value of that."""
        session = self._session
        if session is not None:
            session.claim(node, value, seconds, done)

    def leases(self, done: Callable[[dict[str, bytes]], None]) -> None:
        """Read all leases."""
        session = self._session
        if session is not None:
            session.leases(done)

    def counters(self) -> BackplaneCounters:
        """Return what was counted."""
        session = self._session
        if session is None:
            return BackplaneCounters(lost_out=0, reconnects=0, queued_bytes=0)
        return session.counters()

    def forget(self) -> None:
        """Drop everything in a forked child: close its copies of sockets without a word."""
        session, self._session = self._session, None
        if session is not None:
            session.outbound.forget()
            session.inbound.forget()

    def stop(self, timeout: float) -> list[threading.Thread]:
        """Send what is queued within that time, if there is a connection, and end."""
        session, self._session = self._session, None
        if session is None:
            return []
        now = monotonic()
        session.outbound.stop(now + _FLUSH * lock_timeout(timeout))
        threads = [session.outbound.thread, *session.inbound.stop()]
        return join_all(threads, now + lock_timeout(timeout))


def outbound_of(component: DaebusRedis) -> Outbound:
    """Return the side that sends; for what else is done with Redis.

    Raises:
        StateError: it was not started.
    """
    session = component._session  # one look: a stop takes it away
    if session is None:
        raise StateError("this DaebusRedis is not at work; start its app first")
    return session.outbound
