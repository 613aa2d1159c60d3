"""Clients that watch topics over HTTP: no thread each, the minder writes to all of them.

Rules of this module:

1. A stream keeps no queue. It pulls from its topics when the socket takes more, so that a
   client that reads slowly costs one piece of text.
2. The minder alone reads, writes and closes the socket. Other threads may wake a stream,
   and have the minder release it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable

from ...interrupts.flag import Flag
from ...server.handoff import Refusal
from ...server.sockets.transport import NOSIGNAL, Stream
from ...server.threads.departures import Departures, pause_before_return
from ...server.threads.minder import Minder, Timer
from ...server.watching import TopicEvent, Watch
from ...waits import monotonic
from ..protocol import events

__all__ = ["MAX_PENDING", "EventStream", "Watchers"]

# Bytes of messages that are rendered for one client at a time.
MAX_PENDING = 65536

# Bytes that a client may send meanwhile; it has nothing to say.
_MAX_INPUT = 65536

_TOO_MANY = Refusal(
    503, "too_many_watchers", "too many clients watch topics", (("Retry-After", "5"),)
)


class EventStream:
    """One client that watches.

    Args:
        minder: writes to it.
        write_timeout: seconds in which it must take something, else it is cut.
        left: called once it has gone.

    Attributes:
        watch: what it watches; set before it begins.
    """

    def __init__(
        self, minder: Minder, write_timeout: float, left: Callable[[EventStream], None]
    ) -> None:
        self.watch: Watch | None = None
        self._minder = minder
        self._write_timeout = write_timeout
        self._left = left
        self._sock: Stream | None = None
        self._pending = memoryview(b"")
        self._last = b""
        self._woken = True  # there may be something to take
        self._released = False
        self._input = 0
        self._wrote = 0.0  # when it took something last
        self._stalled = 0.0  # since when there is something that it does not take, at the tick
        self._stalled_at = -1.0  # what ``_wrote`` was then
        self._expiry: Timer | None = None
        self._alarm: Timer | None = None

    def begin(self, sock: Stream, head: bytes) -> None:
        """Start to write.

        Args:
            sock: of the client, which the minder reads, writes and closes from now on.
            head: what it is sent first.
        """
        assert self.watch is not None
        self._pending = memoryview(head)
        self._wrote = monotonic()
        self._sock = sock
        if self.watch.expires is not None:
            rest = max(0.0, self.watch.expires - time.time())
            self._expiry = self._minder.call_later(rest, self.end)
        self._minder.call_later(0.0, self._tick)
        self._minder.attend(self)

    def wake(self) -> None:
        """Have the minder look for something to write. Any thread; never waits."""
        self._woken = True
        if self._sock is not None:
            self._minder.attend(self)

    def end(self, last: bytes = b"") -> None:
        """End the stream; the client may come back. Any thread; never waits.

        Args:
            last: sent before that if the client takes it at once.
        """
        self._last = last
        self._minder.release(self)

    @property
    def is_idle(self) -> bool:
        """True if the client has taken what it was sent."""
        return not self._pending

    # --- what the minder asks -------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return -1 if self._released or self._sock is None else self._sock.fileno()

    def interest(self) -> int:
        """Return what it waits for: input always, which is the client's end."""
        write = self._pending or self._woken
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)

    def ready(self, events: int) -> None:
        """Read what the client sends, and write what it takes."""
        try:
            if events & selectors.EVENT_READ:
                self._read()
            if events & selectors.EVENT_WRITE:
                self._write()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.end()

    def release(self) -> None:
        """Close it; a second time does nothing."""
        if self._released:
            return
        self._released = True
        for timer in (self._expiry, self._alarm):
            if timer is not None:
                timer.cancel()
        if self.watch is not None:
            self.watch.close()
        if self._sock is not None:
            with contextlib.suppress(OSError):
                if self._last:
                    self._sock.send(bytes(self._pending) + self._last, NOSIGNAL)
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            self._sock.close()
        self._left(self)

    def abandon(self) -> None:
        """Close a forked child's copy of the socket; the parent goes on."""
        self._released = True
        if self._sock is not None:
            os.close(self._sock.detach())

    def _read(self) -> None:
        assert self._sock is not None
        data = self._sock.recv(4096)
        self._input += len(data)
        if not data or self._input > _MAX_INPUT:
            self.end()

    def _write(self) -> None:
        if not self._pending:
            self._pending = memoryview(self._next())
        if self._pending:
            assert self._sock is not None
            sent = self._sock.send(self._pending, NOSIGNAL)
            self._pending = self._pending[sent:]
            self._wrote = monotonic()

    def _next(self) -> bytes:
        """Render what to write next; nothing if the client has all there is."""
        watch = self.watch
        assert watch is not None
        self._woken = False
        taken = watch.take(MAX_PENDING)
        if watch.more:
            self._woken = True
        return b"".join(map(_rendered, taken))

    # --- deadlines ------------------------------------------------------------------

    def _tick(self) -> None:
        """Cut a client that takes nothing, and show one that hears nothing that we are here."""
        assert self.watch is not None
        if self._released:
            return
        ping, now = self.watch.ping_interval, monotonic()
        if not (self._pending or self._woken) or self._wrote != self._stalled_at:
            self._stalled, self._stalled_at = now, self._wrote
        elif now - self._stalled >= self._write_timeout:
            self.end()
            return
        if ping is not None and not self._pending and now - self._wrote >= ping:
            self._pending = memoryview(events.PING)
            self._minder.attend(self)
        seconds = min(self._write_timeout, ping or self._write_timeout)
        self._alarm = self._minder.call_later(seconds, self._tick)


class Watchers:
    """All streams of one server.

    Args:
        most: streams at once; more are refused.
        minder: writes to them; None if nobody can, so that there are none.

    Threads:
        Any.
    """

    def __init__(self, most: int, minder: Minder | None) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._places = 0  # guarded by: _lock
        self._streams: set[EventStream] = set()  # guarded by: _lock
        self._refused = False  # who comes back before the end is refused
        self._departures: Departures[EventStream] | None = None
        if minder is not None:
            self._departures = Departures(
                minder,
                left=self._all,
                may_go=lambda stream: stream.is_idle,
                tell=self._tell,
                finish=self.stop,
            )

    def __len__(self) -> int:
        """Return how many there are, or are about to be."""
        return self._places  # unguarded: one look

    def reserve(self) -> Refusal | None:
        """Take a place for a stream, to be given back by ``cancel`` or ``left``."""
        with self._lock:
            if self._places >= self._most:
                return _TOO_MANY
            self._places += 1
        return None

    def cancel(self) -> None:
        """Give back the place of a stream that did not begin."""
        with self._lock:
            self._places -= 1

    def enter(self, stream: EventStream) -> None:
        """Add a stream, which has a place; it ends at once if all were ended."""
        with self._lock:
            self._streams.add(stream)
        if self._departures is not None and self._departures.over.is_set():
            self._tell(stream)

    def left(self, stream: EventStream) -> None:
        """Remove a stream that has ended, and give back its place."""
        with self._lock:
            self._streams.discard(stream)
            self._places -= 1

    def leave(self, spread: float, *, refused: bool) -> Flag | None:
        """End each stream within so many seconds, at a moment of its own.

        Args:
            spread: seconds.
            refused: who comes back before they are over is refused, for which a browser gives
                up. So they are told to come after that.

        Returns:
            Set once that is done; None if there can be no streams.
        """
        if self._departures is None:
            return None
        self._refused = refused
        self._departures.begin(spread)
        return self._departures.over

    def stop(self) -> None:
        """End all streams, also those that are about to begin."""
        if self._departures is not None:
            self._departures.over.set()
        for stream in self._all():
            self._tell(stream)

    def abandon(self) -> None:
        """Close a forked child's copies of the sockets, without a word on the wire."""
        self._lock = threading.Lock()  # the thread that held it does not exist in the child
        for stream in self._streams:
            stream.abandon()

    def _all(self) -> list[EventStream]:
        with self._lock:
            return list(self._streams)

    def _tell(self, stream: EventStream) -> None:
        assert self._departures is not None
        pause = pause_before_return()
        if self._refused and not self._departures.over.is_set():
            pause += self._departures.rest()
        stream.end(events.retry(pause))


def _rendered(event: TopicEvent) -> bytes:
    identifier = None if event.positions is None else events.event_id(event.positions)
    return events.event(event.message_type, event.payload, identifier)
