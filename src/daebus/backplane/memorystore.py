"""Topics that nodes of one process share, as a server would keep them: for tests.

It does what the scripts in ``redis/scripts`` do, and can lose what servers lose.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .names import Names, random_name
from .store import (
    APPLIED,
    DISORDER,
    REPEATED,
    Done,
    Kept,
    Known,
    Loaded,
    Value,
    Write,
    notice,
)

__all__ = ["MemoryStore", "MemoryTopics"]


class _Topic:
    """What is kept of one topic; see the keys in ``redis/scripts``."""

    def __init__(self, epoch: str, server: str, top: int) -> None:
        self.epoch = epoch
        self.server = server
        self.top = self.base = self.floor = top
        self.built = False
        self.kept: list[Kept] = []
        self.values: dict[str, Value] = {}


class MemoryTopics:
    """All topics of one bus; whoever calls holds the lock of that.

    Args:
        publish: is given a channel and what is published there.
        clock: Unix time.
    """

    def __init__(
        self, publish: Callable[[str, bytes], object], clock: Callable[[], float] = time.time
    ) -> None:
        self._publish = publish
        self._clock = clock
        self._server = random_name()
        self._topics: dict[str, _Topic] = {}  # by channel and name
        self._numbers: dict[tuple[str, str], int] = {}
        self._marks: dict[str, str] = {}

    # --- what happens to servers ------------------------------------------------------

    def flush(self) -> None:
        """Lose everything, and go on."""
        self._topics, self._numbers, self._marks = {}, {}, {}

    def save(self) -> Any:
        """Return all that is kept, for ``restart``."""
        return copy.deepcopy((self._topics, self._numbers, self._marks))

    def restart(self, saved: Any = None) -> None:
        """Be another server: an empty one, or one that has what was saved."""
        self.flush()
        if saved is not None:
            self._topics, self._numbers, self._marks = copy.deepcopy(saved)
        self._server = random_name()

    def rewind(self, saved: Any) -> None:
        """Be the same server with what was saved: nobody is told."""
        self._topics, self._numbers, self._marks = copy.deepcopy(saved)

    # --- the steps --------------------------------------------------------------------

    def _fenced(self, channel: str, name: str, known: Known, kind: str) -> _Topic:
        key = f"{channel} {name}"
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = _Topic("", "", 0)
        rewound = topic.epoch == known.epoch and known.top > topic.top
        if topic.server != self._server or rewound:
            self._begin(topic, known.top, kind)
        return topic

    def _begin(self, topic: _Topic, hint: int, kind: str) -> None:
        if hint > topic.top:
            topic.top = hint
            if kind == "history":
                topic.kept = []
        topic.epoch, topic.server, topic.built = random_name(), self._server, False
        topic.base = topic.floor = topic.top

    def _judge(self, channel: str, write: Write) -> int | None:
        last = self._numbers.get((write.writer, f"{channel} {write.topic}"))
        if last is not None and last >= write.number:
            return REPEATED
        return DISORDER if last is not None and last < write.before else None

    def _tell(self, channel: str, topic: _Topic, frame: bytes, now: float) -> None:
        self._publish(channel, notice(topic.epoch, topic.top, f"{now:.6f}", frame))

    def _done(self, channel: str, write: Write) -> None:
        self._numbers[write.writer, f"{channel} {write.topic}"] = write.number

    def append(self, channel: str, write: Write, count: int, floor: int) -> int:
        """See ``SharedStore.append``."""
        verdict = self._judge(channel, write)
        if verdict is not None:
            return verdict
        topic = self._fenced(channel, write.topic, write.known, "history")
        now = round(self._clock(), 6)
        topic.top += 1
        topic.kept.append(Kept(topic.top, now, write.frame))
        topic.kept = [one for one in topic.kept if one.offset >= floor]
        del topic.kept[: max(0, len(topic.kept) - (count or 1000))]
        self._done(channel, write)
        self._tell(channel, topic, write.frame, now)
        return topic.top

    def change(
        self,
        channel: str,
        write: Write,
        values: Mapping[str, bytes],
        removed: Sequence[str],
        ttl: int | None,
        only: int,
    ) -> int:
        """See ``SharedStore.change``."""
        verdict = self._judge(channel, write)
        if verdict is not None:
            return verdict
        topic = self._fenced(channel, write.topic, write.known, "state")
        self._done(channel, write)
        if only:
            value = topic.values.get(removed[0])
            if value is None or value.offset != only:
                return REPEATED
        now = round(self._clock(), 6)
        for key, data in values.items():
            topic.top += 1
            topic.values[key] = Value(topic.top, now, ttl, data)
        for key in removed:
            topic.top += 1
            topic.values.pop(key, None)
            topic.floor = topic.top
        self._tell(channel, topic, write.frame, now)
        return topic.top

    def load(self, channel: str, name: str, kind: str, known: Known, count: int) -> Loaded:
        """See ``SharedStore.load``."""
        topic = self._fenced(channel, name, known, kind)
        kept: list[Kept] = []
        values = None
        if kind == "state":
            if topic.epoch != known.epoch or topic.top != known.top or not count:
                values = topic.values.copy()
        elif topic.epoch == known.epoch:
            kept = [one for one in topic.kept if one.offset > known.top]
        else:
            kept = topic.kept[-count:]
        return Loaded(
            topic.epoch,
            topic.top,
            topic.base,
            topic.floor,
            topic.built,
            self._clock(),
            kept,
            values,
        )

    def rebuild(
        self,
        channel: str,
        name: str,
        epoch: str,
        base: int,
        values: Mapping[str, tuple[int | None, bytes]],
        frame: bytes,
    ) -> int:
        """See ``SharedStore.rebuild``."""
        topic = self._topics.get(f"{channel} {name}")
        if topic is None or topic.epoch != epoch or topic.built:
            return REPEATED
        now = round(self._clock(), 6)
        newer = {key: value for key, value in topic.values.items() if value.offset > base}
        topic.values = {}
        for key, (ttl, data) in values.items():
            if key not in newer:
                topic.top += 1
                topic.values[key] = Value(topic.top, now, ttl, data)
        topic.values |= newer
        topic.top += 1
        topic.floor = topic.top
        topic.built = True
        self._tell(channel, topic, frame, now)
        return APPLIED

    def renew(self, channel: str, name: str, kind: str, known: Known, frame: bytes) -> int:
        """See ``SharedStore.renew``."""
        topic = self._fenced(channel, name, known, kind)
        if topic.epoch != known.epoch:
            return REPEATED
        self._begin(topic, known.top, kind)
        topic.top += 1
        topic.base = topic.floor = topic.top
        if kind == "history":
            topic.kept = []
        self._tell(channel, topic, frame, self._clock())
        return APPLIED

    def mark(self, channel: str, value: str) -> str:
        """See ``SharedStore.mark``."""
        return self._marks.setdefault(channel, value)


class MemoryStore:
    """The store of one node of a bus.

    Args:
        topics: of the bus.
        names: of the app.
        perform: does a step under the lock of the bus, and has ``done`` called with what it
            returned; if the node is cut off, with an exception, or never.
    """

    def __init__(
        self,
        topics: MemoryTopics,
        names: Names,
        perform: Callable[[Callable[[], object], Done], object],
    ) -> None:
        self._topics = topics
        self._names = names
        self._perform = perform

    def channel(self, topic: str) -> str:
        """See ``SharedStore``."""
        return self._names.key(self._names.partition(topic), "t")

    def append(
        self, write: Write, *, count: int, floor: int, life: float | None, done: Done
    ) -> None:
        """See ``SharedStore``."""
        channel = self.channel(write.topic)
        self._perform(partial(self._topics.append, channel, write, count, floor), done)

    def change(
        self,
        write: Write,
        values: Mapping[str, bytes],
        removed: Sequence[str],
        *,
        ttl: int | None,
        only: int = 0,
        done: Done,
    ) -> None:
        """See ``SharedStore``."""
        channel = self.channel(write.topic)
        step = partial(self._topics.change, channel, write, dict(values), tuple(removed), ttl, only)
        self._perform(step, done)

    def load(self, topic: str, kind: str, known: Known, *, count: int, done: Done) -> None:
        """See ``SharedStore``."""
        channel = self.channel(topic)
        self._perform(partial(self._topics.load, channel, topic, kind, known, count), done)

    def rebuild(
        self,
        topic: str,
        epoch: str,
        base: int,
        values: Mapping[str, tuple[int | None, bytes]],
        frame: bytes,
        done: Done,
    ) -> None:
        """See ``SharedStore``."""
        channel = self.channel(topic)
        step = partial(self._topics.rebuild, channel, topic, epoch, base, dict(values), frame)
        self._perform(step, done)

    def renew(self, topic: str, kind: str, known: Known, frame: bytes, done: Done) -> None:
        """See ``SharedStore``."""
        channel = self.channel(topic)
        self._perform(partial(self._topics.renew, channel, topic, kind, known, frame), done)

    def mark(self, topic: str, value: str, done: Done) -> None:
        """See ``SharedStore``."""
        self._perform(partial(self._topics.mark, self.channel(topic), value), done)
