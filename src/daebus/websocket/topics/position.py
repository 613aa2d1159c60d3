"""Where a subscriber stands in a topic, what it asks for, and what it is answered. Pure.

Rules of this module:

1. A position is a pair: an offset says nothing without the epoch that it counts in.
2. An answer always says whether the subscriber has missed something, and why.
"""

from __future__ import annotations

import random
import string
from typing import Any, Final, Literal, NamedTuple, TypeGuard

from ...errors import ClientError

__all__ = [
    "CLOSED",
    "MAX_OFFSET",
    "SNAPSHOT",
    "UNTOLD",
    "Answer",
    "Asked",
    "Kind",
    "Position",
    "Reason",
    "new_epoch",
    "next_epoch",
    "parse_request",
]

Kind = Literal["history", "state"]
Reason = Literal["new", "epoch", "expired", "ahead", "limit"]

# In place of the offset up to which a subscriber was told: it needs all of a state, or nothing.
SNAPSHOT: Final = -1
CLOSED: Final = -2

# In place of the top that a catch-up is good against: it has not begun, and ends with a message
# even if nothing has changed.
UNTOLD: Final = -1

# The largest integer that a page reads exactly.
MAX_OFFSET: Final = (1 << 53) - 1

# Characters of an epoch that a client may send: ours are short.
_MAX_EPOCH = 64

_LETTERS = string.ascii_letters + string.digits

# Seeded by the system, so that neither a seed of the program's nor a fork repeats an epoch.
_random = random.SystemRandom()


class Position(NamedTuple):
    """How far somebody has come.

    Attributes:
        epoch: which count of offsets is meant.
        offset: of the last message, or the last change, that was received.
    """

    epoch: str
    offset: int


class Asked(NamedTuple):
    """What a ``subscribe`` message asks for."""

    topic: str
    since: Position | None
    last: int


class Answer(NamedTuple):
    """What a new subscriber is told.

    Attributes:
        topic: its name.
        kind: of the topic.
        epoch: the count of offsets.
        offset: of the newest message or change.
        recovered: True if it gets all that came since its position.
        reason: why it does not; None if it does.
        replay: how many messages, or keys of a state, follow at once.
        missed: messages since its position that it will not get; None where nobody knows.
    """

    topic: str
    kind: Kind
    epoch: str
    offset: int
    recovered: bool
    reason: Reason | None
    replay: int
    missed: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as they are sent."""
        return self._asdict()


def new_epoch() -> str:
    """Return the name of a count of offsets that begins now."""
    return "".join(_random.choices(_LETTERS, k=6))


def next_epoch(epoch: str) -> str:
    """Return another epoch, for a topic that begins anew."""
    name, _, number = epoch.partition("-")
    return f"{name}-{int(number or 0) + 1}"


def parse_request(data: object) -> Asked:
    """Read the data of a ``subscribe`` or ``unsubscribe`` message.

    Raises:
        ClientError: ``unknown_topic`` without a name, ``bad_position`` if what it has to say
            of its position is of another form.
    """
    if not isinstance(data, dict) or not isinstance(data.get("topic"), str):
        raise ClientError('data needs a topic, as in {"topic": "alarms"}', "unknown_topic")
    last = data.get("last", 0)
    if last is None:
        last = 0
    if not _is_offset(last):
        raise ClientError("last must be a number of messages, 0 or more", "bad_position")
    given = data.get("since")
    since = None
    if given is not None:
        fields = given if isinstance(given, dict) else {}
        epoch, offset = fields.get("epoch"), fields.get("offset")
        if not isinstance(epoch, str) or len(epoch) > _MAX_EPOCH or not _is_offset(offset):
            raise ClientError(
                'since must be a position, as in {"epoch": "Zk3f9Q", "offset": 1041}',
                "bad_position",
            )
        since = Position(epoch, offset)
    return Asked(data["topic"], since, last)


def _is_offset(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_OFFSET
