"""History topics: ``Topic``, as the program sees it, and what it publishes through."""

from __future__ import annotations

import json
import time as times
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol

from ...checks.annotations import checked
from ...interrupts.stack import held
from ...waits import monotonic
from ..connection.sent import SendResult
from ..protocol.envelope import dumps
from .feed import EVERYTHING, After, Feed, Retired
from .handle import Handle
from .history import History
from .live import Look, Shared, Sharer
from .spec import Spec
from .store import Appended, Cleared

__all__ = ["HistoryFeed", "Publication", "Topic"]


# Messages that the minder lets go at once, so that sockets get their turn.
_MANY: Final = 1000
# Seconds between two looks for messages that are too old, which were published one by one.
_TOGETHER: Final = 1.0


class Publication(NamedTuple):
    """One message of a history topic.

    Attributes:
        offset: its number in the topic.
        message_type: its type.
        data: its data, as JSON gives it back.
        time: Unix time of its publication.
    """

    offset: int
    message_type: str
    data: Any
    time: float


class SharedHistory(Sharer, Protocol):
    """Publishes what other nodes are to have as well."""

    def publish(self, after: After, message_type: str, data: bytes) -> SendResult:
        """Have a message appended, in a turn."""

    def clear(self, after: After) -> None:
        """Have all messages forgotten, in a turn."""


class HistoryFeed(Feed[History]):
    """A history topic inside.

    Args:
        spec: the declaration.
        shared: with the other topics of the component.

    Attributes:
        copy: shares it with other nodes; None for a topic of this process alone.
    """

    copy: SharedHistory | None = None

    def __init__(self, spec: Spec, shared: Shared) -> None:
        log = History(
            spec.name,
            count=spec.count,
            max_bytes=spec.max_bytes,
            max_age=spec.max_age,
            replay_limit=spec.replay_limit,
        )
        super().__init__(spec, log, shared)

    def publish(self, message_type: str, data: bytes) -> SendResult:
        """Append a message, and send it to the subscribers; see ``Topic.publish``."""
        return self.turn(self._publish_locked, SendResult(), message_type, data)

    def _publish_locked(self, after: After, message_type: str, data: bytes) -> SendResult:
        assert self._order.locked()
        copy = self.copy  # one look: a stop takes it away
        if copy is not None:
            return copy.publish(after, message_type, data)
        return self.append_locked(after, message_type, data)

    def append_locked(
        self,
        after: After,
        message_type: str,
        data: bytes,
        *,
        time: float | None = None,
        moment: float | None = None,
    ) -> SendResult:
        """Append a message, and send it to the subscribers.

        Args:
            after: see ``turn``.
            message_type: its type.
            data: as JSON.
            time: Unix time of its publication; None for now.
            moment: of the clock that ages are measured by; None for now.
        """
        assert self._order.locked()
        now = times.time() if time is None else time
        then = monotonic() if moment is None else moment
        self._plan_locked(then)
        with held, self._data:
            event = self._log.append(message_type, data, now, then)
            epoch = self._log.epoch
        offset = event.offset
        offered = self.offer_locked([event], offset - 1, epoch, after)
        if self.store is not None:
            self.store.note(Appended(self.name, epoch, offset, message_type, data, now))
        return SendResult(offered.reached, offered.queued, offset=offset)

    def extend_locked(self, after: After, messages: Iterable[tuple[str, bytes, float]]) -> None:
        """Append messages of other nodes, and send them to the subscribers in one write.

        Args:
            after: see ``turn``.
            messages: type, data as JSON, and Unix time of each; at least one.
        """
        assert self._order.locked()
        moment = monotonic()
        self._plan_locked(moment)
        with held, self._data:
            log = self._log
            before, epoch = log.top, log.epoch
            events = [log.append(*message, moment) for message in messages]
        self.offer_locked(events, before, epoch, after)

    def _plan_locked(self, moment: float) -> None:
        """Have a message of that moment go when its time is over."""
        assert self._order.locked()
        if self.spec.max_age is not None and not self._expiry.planned:
            self._expiry.plan(moment + self.spec.max_age, monotonic(), self._expire)

    @property
    def floor(self) -> int:
        """The offset of the oldest message that was still needed when the last one came."""
        return self._log.floor

    def replaced_locked(self, after: After) -> None:
        """Have all subscribers read a log that is another one now."""
        assert self._order.locked()
        self.nudge_locked(after)
        with held, self._data:
            upcoming = self._log.next_due()
        if upcoming is not None:
            self._expiry.plan(upcoming, monotonic(), self._expire)

    def _expire(self) -> None:
        live = self._shared.live
        if live is not None and self._order.locked():
            # The minder must not wait for a crowd, and who uses it lets go of what is too old.
            live.minder.call_later(_TOGETHER, self._expire)
        else:
            super()._expire()

    def _expire_locked(self, after: After) -> None:
        assert self._order.locked()
        moment = monotonic()
        self._expiry.forget()
        with held, self._data:
            trimmed = self._log.trim(moment, _MANY)
            upcoming = self._log.next_due()
        if upcoming is not None and upcoming > moment:
            upcoming = max(upcoming, moment + _TOGETHER)
        self._expiry.plan_next(after, upcoming, moment, self._expire, done=trimmed)

    def look(self) -> Look:
        """Return what there is at this moment, for who reads it once."""
        moment = monotonic()
        with held, self._data:
            log = self._log
            log.trim(moment)
            events, *_ = log.read(log.epoch, log.floor - 1, 0, EVERYTHING)
            return Look("history", log.epoch, log.top, events, [])

    def newest(self, last: int | None) -> list[Publication]:
        """Return the newest messages; see ``Topic.history``."""
        log = self._log
        moment = monotonic()
        if not self._data.locked():
            with held, self._data:
                log.trim(moment)
        found = []
        for payload, at in log.newest(last):
            message = json.loads(payload.decode())
            found.append(Publication(message["offset"], message["type"], message["data"], at))
        return found

    def clear(self) -> None:
        """Begin anew; see ``Topic.clear``."""
        self.turn(self._clear_locked, None)

    def _clear_locked(self, after: After) -> None:
        assert self._order.locked()
        copy = self.copy  # one look
        if copy is not None:
            copy.clear(after)
        else:
            self.clear_locked(after)

    def clear_locked(self, after: After) -> None:
        """Forget all messages of this log, and tell the subscribers."""
        assert self._order.locked()
        with held, self._data:
            self._log.clear()
            epoch = self._log.epoch
        self.nudge_locked(after)
        if self.store is not None:
            self.store.note(Cleared(self.name, epoch))


class Topic(Handle[HistoryFeed]):
    """A topic whose messages each matter: alarms, lines of a log, a chat.

    The newest messages are kept. A subscriber that was away for a while, or reads slowly, gets
    what it has missed, or is told how much is lost. ``DaebusWebSocket.topic`` makes it.

    A name with ``*`` stands for a family: ``topic["device/7"]`` is one of it, and the other
    methods raise ``TypeError``.

    Threads:
        Every method may be called by any thread, and never waits for a client.
    """

    def __getitem__(self, name: str) -> Topic:
        """Return one topic of this family.

        Raises:
            KeyError: the name does not fit the pattern.
            TypeError: this is no family, or the name is not a string.
            ValueError: no topic can have that name.
        """
        if not self._spec.is_family:
            raise TypeError(
                f"topic {self.name!r} is no family; declare one with a *: topic('{self.name}/*')"
            )
        return Topic(self._member(name), self._find, self._shared)

    def publish(self, data: Any, message_type: str = "message") -> SendResult:
        """Append a message, and send it to every subscriber.

        The order is the same for all subscribers, whichever threads publish.

        Args:
            data: what JSON can carry; it is encoded once.
            message_type: the ``"type"`` of the message.

        Returns:
            How many subscribers of this process it was sent to or is queued for. Its number in
                the topic is ``offset``; None with a backplane, which gives it later.

        Raises:
            EncodeError: the data has no JSON form.
            TooLargeError: it is beyond ``max_frame`` of the backplane.
            TypeError: the type is not a string.

        Threads:
            Any; never waits for a client. The app need not run: who subscribes later may
                have the message replayed.
        """
        self._shared.check()
        payload = dumps(message_type, data, self._shared.encoder)
        if message_type.__class__ is not str:  # no code of the user's may run under a lock
            message_type = str.__str__(message_type)
        while True:
            try:
                return self._feed().publish(message_type, payload)
            except Retired:
                continue

    @checked
    def history(self, last: int | None = None) -> list[Publication]:
        """Return the messages that are kept, the oldest first.

        Args:
            last: only so many of the newest; None for all.

        Raises:
            ValueError: the number is negative.
        """
        if last is not None and last < 0:
            raise ValueError(f"history(last={last!r}) is less than 0; write history(last=20)")
        return self._feed().newest(last)

    def clear(self) -> None:
        """Forget all messages; offsets count from 1 again, in another epoch.

        Subscribers are told with a ``gap``.
        """
        self._shared.check()
        while True:
            try:
                return self._feed().clear()
            except Retired:
                continue
