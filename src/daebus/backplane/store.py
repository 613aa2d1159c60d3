"""What keeps the topics that all nodes share, as they see it.

Rules of this module:

1. Every change is one step: it gets its offset, is kept, and is published with that offset on
   the channel of its partition. So all nodes hear the changes of a topic in one order.
2. Nothing here waits. What is asked for is done in the order of the calls, and ``done`` is called
   by a thread of the backplane, never by the caller's; with an exception where it failed.
3. An epoch holds as long as nothing can have been lost. Where that is not certain (the server
   was started anew, is another one, is empty, or knows less than a node does) there is a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

__all__ = [
    "APPLIED", "DISORDER", "REPEATED", "Done", "Kept", "Known", "Loaded", "Notice", "SharedStore",
    "Value", "Write", "describe", "notice", "read_change", "read_notices",
]  # fmt: skip

# What ``done`` is given for a change.
REPEATED: Final = 0  # it was made before, or nothing was to be done
DISORDER: Final = -1  # one that was made before it is missing; nothing was done
APPLIED: Final = 1  # or the offset

Done = Callable[[Any], None]


class Known(NamedTuple):
    """How far a node has heard of a topic; an empty epoch for not at all."""

    epoch: str
    top: int


class Write(NamedTuple):
    """What every change has.

    Attributes:
        topic: its name.
        known: how far the writer has heard.
        writer: the incarnation of the node.
        number: of the change, for this writer and topic; what has been done is not done again.
        before: the number of the change that must have been made before, if the store remembers.
        frame: what is published.
        brief: the topic is one of a family, and forgotten when it is not used for a week.
    """

    topic: str
    known: Known
    writer: str
    number: int
    before: int
    frame: bytes
    brief: bool = False


class Kept(NamedTuple):
    """One message of a history as it is kept."""

    offset: int
    time: float
    frame: bytes


class Value(NamedTuple):
    """One value of a state as it is kept.

    Attributes:
        offset: of its last change.
        time: Unix time of that, by the clock of the store.
        ttl: milliseconds until it is due to be removed; None for never.
        data: as JSON.
    """

    offset: int
    time: float
    ttl: int | None
    data: bytes


class Loaded(NamedTuple):
    """A topic as it is kept.

    Attributes:
        epoch: its count of offsets.
        top: offset of the newest change.
        base: offset at which the epoch began.
        floor: of a state: offset of the newest removal.
        built: of a state: false from the beginning of an epoch until somebody who knew its values
            has written them.
        now: Unix time by the clock of the store.
        kept: of a history: what came behind the position that was known, or the newest.
        values: of a state: all by key; None if nothing has changed since that position.
    """

    epoch: str
    top: int
    base: int
    floor: int
    built: bool
    now: float
    kept: list[Kept]
    values: dict[str, Value] | None


class Notice(NamedTuple):
    """A change as it is published."""

    epoch: str
    top: int
    time: float
    frame: bytes


def notice(epoch: str, top: int, time: str, *frames: bytes) -> bytes:
    """Return the bytes that are published of one change, or of several to one topic.

    Args:
        epoch: of the topic.
        top: offset of the last one; if there are several, each has one offset.
        time: of all.
        frames: of each.
    """
    sizes = [b" %d" % len(frame) for frame in frames] if len(frames) > 1 else []
    line = b"%b %d %b%b\n" % (epoch.encode(), top, time.encode(), b"".join(sizes))
    return line + b"".join(frames)


def read_notices(data: bytes) -> list[Notice]:
    """Take them apart, in their order.

    Raises:
        ValueError: they are none.
    """
    line, found, frames = data.partition(b"\n")
    name, number, moment, *sizes = line.split(b" ")
    if not found:
        raise ValueError("no line")
    epoch, top, time = name.decode("ascii"), int(number), float(moment)
    if not sizes:
        return [Notice(epoch, top, time, frames)]
    notices, start, offset = [], 0, top - len(sizes)
    for size in map(int, sizes):
        offset += 1
        notices.append(Notice(epoch, offset, time, frames[start : start + size]))
        start += size
    return notices


def describe(
    values: Mapping[str, bytes], removed: Sequence[str], ttl: int | None
) -> tuple[dict[str, Any], bytes]:
    """Return fields of a header, and the payload, that tell of a change of a state."""
    more: dict[str, Any] = {}
    if values:
        more["set"] = [[key, len(data)] for key, data in values.items()]
    if removed:
        more["gone"] = list(removed)
    if ttl is not None:
        more["ttl"] = ttl
    return more, b"".join(values.values())


def read_change(
    more: Mapping[str, Any], payload: bytes
) -> tuple[dict[str, bytes], list[str], int | None]:
    """Return the values, removed keys and milliseconds of ``describe``."""
    values, start = {}, 0
    for key, size in more.get("set", ()):
        values[key] = payload[start : start + size]
        start += size
    return values, more.get("gone", []), more.get("ttl")


class SharedStore(Protocol):
    """Keeps topics. ``DaebusRedis`` has one, ``MemoryBackplane`` another."""

    def channel(self, topic: str) -> str:
        """Return the channel on which the changes of a topic are published."""

    def append(
        self, write: Write, *, count: int, floor: int, life: float | None, done: Done
    ) -> None:
        """Add a message to a history.

        Args:
            write: what every change has.
            count: messages that are kept, about; 0 for as many as nodes have asked for.
            floor: offset of the oldest one that anybody needs; 0 for ``count`` alone.
            life: seconds after which nobody needs any; None for never.
            done: is given the offset, ``REPEATED`` or ``DISORDER``.
        """

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
        """Set and remove keys of a state; each gets an offset of its own, in that order.

        Args:
            write: what every change has.
            values: as JSON.
            removed: keys.
            ttl: milliseconds for which these values last; None for ever.
            only: remove the one key only if that is the offset of its last change; 0 in any case.
            done: as with ``append``.
        """

    def load(self, topic: str, kind: str, known: Known, *, count: int, done: Done) -> None:
        """Read a topic, and have it begin a new epoch if it must.

        Args:
            topic: its name.
            kind: ``history`` or ``state``.
            known: how far it is known.
            count: messages at most, if another epoch is known; of a state 0 to be given its
                values even if nothing has changed.
            done: is given ``Loaded``.
        """

    def rebuild(
        self,
        topic: str,
        epoch: str,
        base: int,
        values: Mapping[str, tuple[int | None, bytes]],
        frame: bytes,
        done: Done,
    ) -> None:
        """Put the values of a state back that its store has lost, if nobody else has.

        Args:
            topic: its name.
            epoch: the new one, in which they are missing.
            base: offset at which that began: what was changed since is newer.
            values: milliseconds that they last, and JSON.
            frame: what is published: all are to load it anew.
            done: is given ``APPLIED`` or ``REPEATED``.
        """

    def renew(self, topic: str, kind: str, known: Known, frame: bytes, done: Done) -> None:
        """Begin a new epoch, if that one still is: the store was found to count backwards."""

    def mark(self, topic: str, value: str, done: Done) -> None:
        """Read the mark beside the topics of a partition, which is gone when they are.

        Args:
            topic: any of them.
            value: of the mark if it has to be made.
            done: is given its value.
        """
