"""``Emitter``: sends to the clients of an app from a program that is none of its processes.

Rules of this module:

1. Nothing is read but answers: an emitter is no node, and nobody waits for it.
2. Every frame is numbered. The nodes are told that there is a sender before the first one, and its
   last numbers at the end: so they count what is lost, as with a node.
3. A method that sends does not wait. What cannot be sent any more it says by an exception; what
   was queued and did not get there, ``close`` says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from ..backplane.frames import Template
from ..backplane.names import Names, random_name
from ..backplane.redis.component import DaebusRedis, outbound_of
from ..backplane.store import SharedStore
from ..checks.annotations import checked
from ..checks.arguments import check_ids, check_name, seconds
from ..errors import BackplaneError, ForkedError, StateError, TooLargeError
from ..interrupts.stack import check_outside
from ..waits import monotonic, until
from ..websocket.protocol.envelope import encode
from ..websocket.topics.spec import check_topic
from .changes import Changes, Send
from .topics import EmittedState, EmittedTopic

__all__ = ["Emitter"]

# Seconds for which messages are held when Redis was away: nodes listen again by then.
HOLD = 2.0

# Seconds within which a Redis that is there is connected to.
SOON = 1.0


class Emitter:
    """Sends to the clients of an app, from cron's job or a program without a server.

    ::

        with Emitter("redis://127.0.0.1:6379/0", app="boiler") as emitter:
            emitter.broadcast_to_room("ops", {"job": "backup"}, "done")

    It connects by itself, and goes on when Redis was away. It needs the extra ``redis``.

    Args:
        url: of Redis or Valkey; see ``DaebusRedis``.
        app: the app's name, or the ``name`` of its ``DaebusRedis``.
        partitions: as its ``DaebusRedis`` has them.
        cluster: the server is one of a cluster.
        queue_bytes: most bytes that wait for Redis.
        queue_age: seconds that they wait.
        max_frame: most bytes of one message.
        secret: the one of the app, if it has one.

    Raises:
        ImportError: the package ``redis`` is not installed.
        ValueError: an argument is out of its range.

    Threads:
        Any may send at any time. It has one thread of its own.
    """

    @checked
    def __init__(
        self,
        url: str,
        app: str,
        *,
        partitions: int | None = None,
        cluster: bool = False,
        queue_bytes: int = 4 << 20,
        queue_age: float = 5.0,
        max_frame: int = 1 << 20,
        secret: str | bytes | None = None,
    ) -> None:
        check_name(app, "Emitter(url, app={})")
        self._redis = DaebusRedis(
            url,
            app,
            partitions=partitions,
            cluster=cluster,
            queue_bytes=queue_bytes,
            queue_age=queue_age,
            max_frame=max_frame,
            secret=secret,
        )
        self._secret = self._redis.options.key
        self._max_frame = max_frame
        self._queue_bytes = queue_bytes
        self._queue_age = queue_age
        self._names = Names(app, self._redis.partitions, self._redis.options.database)
        self._name = f"emit-{random_name()}"
        self._incarnation = random_name(8)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._answered = threading.Condition(self._lock)
        self._numbers: dict[str, int] = {}  # guarded by: _lock; the last one of each channel
        self._waiting = 0  # guarded by: _lock; messages that Redis has not confirmed
        self._away: float | None = None  # guarded by: _lock; since when nothing is heard of Redis
        self._failed: tuple[int, str] = (0, "")  # guarded by: _lock; how many, and why the first
        self._closed = False  # guarded by: _lock
        self._made = monotonic()
        self._calm = True  # Redis was not away, as far as is known
        self._timer: threading.Timer | None = None
        self._changes = Changes(
            self._lock, self._incarnation, queue_age, self._is_up, self._done_locked
        )
        self._redis.start(self._names, lambda channel, frame: None, self._connected)
        self._outbound = outbound_of(self._redis)
        self._say("hello", {"up": 0.0})

    def __repr__(self) -> str:
        return f"<Emitter for {self._names.app!r} over {self._redis!r}>"

    def __enter__(self) -> Emitter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except BackplaneError:
            if exc is None:  # else that one tells more
                raise

    # --- rooms, users and all -----------------------------------------------------

    def broadcast_to_all(
        self,
        data: Any,
        message_type: str = "broadcast",
        exclude: Iterable[str] = (),
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> None:
        """Send to every client; see ``DaebusWebSocket.broadcast_to_all``.

        Raises:
            BackplaneError: Redis is away, and was for ``queue_age``, or too much waits for it.
            EncodeError: the data has no JSON form.
            StateError: it is closed.
            TooLargeError: the message is larger than ``max_frame``.

        Threads:
            Any; does not wait.
        """
        self._send("all", "", message_type, data, exclude, droppable, conflate)

    def broadcast_to_room(
        self,
        room: str,
        data: Any,
        message_type: str = "broadcast",
        exclude: Iterable[str] = (),
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> None:
        """Send to every client in a room; raises as ``broadcast_to_all``."""
        check_name(room, "broadcast_to_room({}, data)")
        self._send("room", room, message_type, data, exclude, droppable, conflate)

    def send_to_user(
        self,
        user: str,
        data: Any,
        message_type: str = "message",
        exclude: Iterable[str] = (),
        *,
        droppable: bool = False,
        conflate: str | None = None,
    ) -> None:
        """Send to every client of a user; raises as ``broadcast_to_all``."""
        check_name(user, "send_to_user({}, data)")
        self._send("user", user, message_type, data, exclude, droppable, conflate)

    def _send(
        self,
        kind: str,
        to: str,
        message_type: str,
        data: Any,
        exclude: Iterable[str],
        droppable: bool,
        conflate: str | None,
    ) -> None:
        frame = Template(
            self._name,
            self._incarnation,
            kind,
            to,
            encode(message_type, data),
            exclude=tuple(check_ids(exclude, "exclude={}")),
            conflate=conflate,
            droppable=droppable,
        )
        size = self._judge(frame, f"the {message_type!r:.100} message")
        channel = self._names.frames(self._names.partition(to))
        check_outside("sending", self._lock)
        with self._lock:
            self._begin_locked(size)
            number = self._numbers[channel] = self._numbers.get(channel, 0) + 1
            numbered = frame.number(number, channel, self._secret)
            self._outbound.publish(channel, numbered, done=self._done)

    # --- topics and states ----------------------------------------------------------

    def topic(self, name: str) -> EmittedTopic:
        """Return a topic of the app, to publish to.

        Args:
            name: as the app declares it, or of one of a family.

        Raises:
            ValueError: no topic can have that name.
        """
        return EmittedTopic(check_topic(name, "topic({})"), self._emit)

    def state(self, name: str) -> EmittedState:
        """Return a state of the app, to change it.

        Args:
            name: as the app declares it, or of one of a family.

        Raises:
            ValueError: no state can have that name.
        """
        return EmittedState(check_topic(name, "state({})"), self._emit)

    def _emit(
        self,
        kind: str,
        name: str,
        payload: bytes,
        more: Mapping[str, Any],
        sender: Callable[[SharedStore], Send],
    ) -> None:
        frame = Template(self._name, self._incarnation, kind, name, payload, more=dict(more))
        size = self._judge(frame, f"a change of {name!r:.100}")
        check_outside("publishing", self._lock)
        with self._lock:
            self._begin_locked(size)
            store = self._redis.store
            assert store is not None  # it is started
            channel = store.channel(name)
            self._changes.add_locked(name, frame, channel, self._secret, sender(store))

    # --- what waits -------------------------------------------------------------------

    def _judge(self, frame: Template, what: str) -> int:
        """Return the size of a frame.

        Raises:
            TooLargeError: it is larger than ``max_frame``.
        """
        size = frame.size(signed=self._secret is not None)
        if size > self._max_frame:
            raise TooLargeError(
                f"{what} makes a frame of {size} bytes, and max_frame is {self._max_frame}; send "
                f"less, or say more here and in the app: max_frame={size}"
            )
        return size

    def _begin_locked(self, size: int) -> None:
        """Count one more message that waits.

        Raises:
            BackplaneError: it would wait in vain.
            StateError: the emitter is closed, or the parent process has it.
        """
        assert self._lock.locked()
        if self._pid != os.getpid():
            raise ForkedError(
                "the emitter was made in the parent process; make one in the child, after os.fork()"
            )
        if self._closed:
            raise StateError("the emitter is closed; make another one: Emitter(url, app=...)")
        if self._is_up():
            self._away = None
        elif self._away is None:
            self._away = monotonic()
        elif monotonic() - self._away > self._queue_age:
            raise BackplaneError(
                f"{self._redis!r} has been away for more than {self._queue_age:g} s; try again "
                f"later, or have more wait for it: queue_age={2 * self._queue_age:g}"
            )
        waiting = self._redis.counters()["queued_bytes"] + self._changes.bytes
        if waiting + size > self._queue_bytes:
            raise BackplaneError(
                f"{waiting} bytes wait for {self._redis!r}, and queue_bytes is "
                f"{self._queue_bytes}; send more slowly, or have more wait: "
                f"queue_bytes={2 * self._queue_bytes}"
            )
        self._waiting += 1

    def _done(self, answer: object) -> None:
        """Take note of what Redis says of one message, or that it was dropped."""
        with self._lock:
            self._done_locked(answer)

    def _done_locked(self, answer: object) -> None:
        assert self._lock.locked()
        self._waiting -= 1
        if isinstance(answer, Exception):
            count, first = self._failed
            self._failed = (count + 1, first or str(answer))
        if not self._waiting:
            self._answered.notify_all()

    def _is_up(self) -> bool:
        return self._outbound.up

    def _connected(self) -> None:
        """Send what was kept; the connection's thread."""
        self._changes.again()
        if self._calm and monotonic() - self._made < SOON:
            self._redis.flush()
        else:  # those who are to hear it were cut off as well, and need a moment to listen again
            timer = threading.Timer(HOLD, self._redis.flush)
            timer.daemon = True
            timer.start()
            self._timer = timer
        self._calm = False

    # --- the end ------------------------------------------------------------------------

    @checked
    def close(self, timeout: float = 5.0) -> None:
        """Send what waits, say goodbye and end the connection; a second time does nothing.

        Args:
            timeout: seconds that this may take.

        Raises:
            BackplaneError: something that was to be sent since the beginning has not reached Redis.

        Threads:
            Any; waits for Redis.
        """
        seconds("timeout", timeout)
        check_outside("Emitter.close")
        deadline = monotonic() + timeout
        if self._pid != os.getpid():
            self._redis.forget()
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._answered.wait_for(lambda: not self._waiting, until(deadline))
            self._say_goodbye_locked()
        if self._timer is not None:
            self._timer.cancel()
        self._redis.stop(max(0.0, deadline - monotonic()))
        with self._lock:
            count, why = self._failed
            left = count + self._waiting
        if left:
            raise BackplaneError(
                f"{left} message{'s' * (left != 1)} did not reach {self._redis!r}: "
                f"{why or 'there was no time left'}"
            )

    def _say(self, kind: str, more: dict[str, Any]) -> None:
        """Tell the nodes something of the emitter itself."""
        channel = self._names.beats
        frame = Template(self._name, self._incarnation, kind, more=more)
        self._redis.publish(channel, frame.number(0, channel, self._secret))

    def _say_goodbye_locked(self) -> None:
        """Tell the last numbers, so that a loss at the end is counted as well.

        Where channels may overtake each other, each gets a frame of its own for that: whatever
        has its number behind it comes too late.
        """
        assert self._lock.locked()
        if not self._numbers:
            return
        more: dict[str, Any] = {"all": list(self._numbers)}
        if self._redis.ordered:
            more["q"] = self._numbers
        else:
            tail = Template(self._name, self._incarnation, "tail")
            for channel, number in self._numbers.items():
                self._redis.publish(channel, tail.number(number, channel, self._secret))
        self._say("bye", more)
