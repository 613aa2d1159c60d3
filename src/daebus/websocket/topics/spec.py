"""What a topic was declared with. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ...checks.arguments import MAX_NAME
from .position import Kind

__all__ = ["RESERVED", "Spec", "check_topic"]

# A name that the address of the stream of events has in place of a topic's.
RESERVED = "events"


@dataclass(frozen=True)
class Spec:
    """The arguments of one declaration.

    Attributes:
        kind: of topic.
        name: of the topic; with ``*`` that of a family.
        message_type: of a state's messages.
        count: messages of a history that are kept, or keys of a state.
        max_bytes: of messages or values.
        max_age: seconds that messages are kept; None for no limit.
        replay_limit: messages that a new subscriber is sent at once, at most.
        ttl: seconds that values are kept; None for ever.
        min_interval: seconds between two messages of a state.
        auto: messages that each client is sent as it connects; None if it is not subscribed.
        persist: the file in which it is kept; None for none.
        family: the pattern of the family that it is a member of; None for none.
        shared: with a backplane it is one topic on all nodes.
    """

    kind: Kind
    name: str
    message_type: str = "message"
    count: int = 1000
    max_bytes: int = 1 << 20
    max_age: float | None = 300.0
    replay_limit: int = 1000
    ttl: float | None = None
    min_interval: float = 0.0
    auto: int | None = None
    persist: Path | None = None
    family: str | None = None
    shared: bool = True

    @property
    def is_family(self) -> bool:
        """True if it stands for all topics whose names fit."""
        return "*" in self.name

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(".*".join(map(re.escape, self.name.split("*"))), re.DOTALL)

    def fits(self, name: str) -> bool:
        """Tell whether a name is one of this family."""
        return self._pattern.fullmatch(name) is not None

    @property
    def is_plain(self) -> bool:
        """True if it was declared with a name alone."""
        return self in (Spec("history", self.name), Spec("state", self.name, "state"))

    def is_like(self, other: Spec) -> bool:
        """Tell whether another one says the same, whatever family either is of."""
        return replace(self, family=None) == replace(other, family=None)

    def member(self, name: str) -> Spec:
        """Return the declaration of one topic of the family."""
        return replace(self, name=name, family=self.name)


def check_topic(value: object, example: str, *, family: bool = False) -> str:
    """Return the name of a topic, if it is valid.

    Args:
        value: the argument.
        example: what to write, with ``{}`` for the name.
        family: it may have a ``*``.

    Raises:
        TypeError: it is not a string.
        ValueError: it is empty, too long, or holds what a name does not.
    """
    if not isinstance(value, str):
        better = example.format(repr("alarms"))
        raise TypeError(f"the name of a topic is a string, not {value!r:.100}; write {better}")
    if not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise ValueError(
            f"the name of a topic has 1 to {MAX_NAME} printable characters, not {value!r:.200}"
        )
    if value == RESERVED:
        raise ValueError(
            f"the name {value!r} is that of the stream of events; write "
            f"{example.format(repr('my_' + value))}"
        )
    if "*" in value and not family:
        raise ValueError(
            f"{value!r} names a family, and this needs one topic; write "
            f"{example.format(repr(value.replace('*', '7')))}"
        )
    return value
