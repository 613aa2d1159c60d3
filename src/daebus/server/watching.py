"""What the HTTP side asks of the topics, which the WebSocket side has.

It is here so that ``http/`` and ``websocket/`` need not know each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .handoff import Handshake, Refusal

__all__ = ["Shown", "TopicEvent", "TopicReader", "Wanted", "Watch"]


@dataclass(frozen=True, slots=True)
class Shown:
    """A topic as it is now.

    Attributes:
        tag: changes whenever what it holds does; printable ASCII without quotes.
        body: what it holds, as JSON.
        headers: to be added to the answer.
    """

    tag: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Wanted(NamedTuple):
    """A topic that somebody wants to watch.

    Attributes:
        topic: its name.
        since: epoch and offset of what was received last; None for nothing.
        last: how many messages to begin with if it cannot go on from there.
    """

    topic: str
    since: tuple[str, int] | None
    last: int


class TopicEvent(NamedTuple):
    """A message of a watched topic.

    Attributes:
        message_type: its type.
        payload: the whole envelope, as JSON on one line.
        positions: where the watch stands behind it: for each topic its name, the epoch and the
            offset. None if it cannot go on from here.
    """

    message_type: str
    payload: bytes
    positions: tuple[tuple[str, str, int], ...] | None


class Watch(Protocol):
    """Several topics, read one message after another.

    Attributes:
        more: False once all was taken.
        headers: to be added to the answer.
        ping_interval: seconds after which a silent client is sent something; None for never.
        expires: Unix time at which the client's identity ends; None for never.
    """

    more: bool
    headers: tuple[tuple[str, str], ...]
    ping_interval: float | None
    expires: float | None

    def take(self, limit: int) -> list[TopicEvent]:
        """Return the next messages, of about so many bytes; an empty list if there are none."""

    def close(self) -> None:
        """End it. Any thread, any number of times; never waits."""


class TopicReader(Protocol):
    """The topics, for clients that speak HTTP.

    Threads:
        One that may wait for user code.
    """

    def show(self, handshake: Handshake, topic: str) -> Shown | Refusal:
        """Judge a client as its upgrade would be, and return what a topic holds."""

    def readable(self, handshake: Handshake) -> tuple[tuple[str, str], ...]:
        """Return the headers with which a page of another place may read answers; runs no code."""

    def watch(
        self, handshake: Handshake, wanted: Sequence[Wanted], wake: Callable[[], object]
    ) -> Watch | Refusal:
        """Judge a client as its upgrade would be, and have it watch topics.

        Args:
            handshake: the request.
            wanted: one at least, each topic once.
            wake: called once there is something to take, by any thread, perhaps with a lock
                held: it must not wait.
        """
