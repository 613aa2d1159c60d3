"""What a topic tells whoever keeps it over the end of the program."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["Appended", "Changed", "Cleared", "Record", "Store"]


class Appended(NamedTuple):
    """A history topic has a new message.

    Attributes:
        topic: its name.
        epoch: of the offset.
        offset: of the message.
        message_type: its type.
        data: its data, as JSON.
        time: Unix time.
    """

    topic: str
    epoch: str
    offset: int
    message_type: str
    data: bytes
    time: float


class Changed(NamedTuple):
    """A key of a state was set or removed.

    Attributes:
        topic: its name.
        epoch: of the offset.
        offset: of the newest change of the same step.
        key: which.
        value: as JSON; None if the key was removed.
        time: Unix time.
        expires: Unix time when it is removed by itself; None for never.
    """

    topic: str
    epoch: str
    offset: int
    key: str
    value: bytes | None
    time: float
    expires: float | None


class Cleared(NamedTuple):
    """A topic has begun anew, in another epoch."""

    topic: str
    epoch: str


Record = Appended | Changed | Cleared


class Store(Protocol):
    """Keeps records."""

    @property
    def error(self) -> str | None:
        """Why records are not kept at present; None while they are."""

    def note(self, record: Record) -> None:
        """Keep a record, later, in another thread.

        Threads:
            Any, under the lock of the topic, in the order of the offsets: it must not wait,
                nor raise.
        """
