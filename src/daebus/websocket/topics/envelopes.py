"""The messages of a topic, as bytes. Pure.

A publication keeps the app's own type; ``topic`` and ``offset`` stand beside its data.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ...errors import StateLimitError

__all__ = [
    "Event", "Item", "check_limits", "gap", "heap_of", "make_item", "message", "publication_head",
    "quote", "state",
]  # fmt: skip

# Types and names as JSON; a program has few of them.
_quoted: dict[str, bytes] = {}
_MAX_QUOTED = 2000


class Event(NamedTuple):
    """One message of a topic, as any reader gets it.

    Attributes:
        message_type: its type.
        payload: the whole envelope.
        offset: the position behind it.
    """

    message_type: str
    payload: bytes
    offset: int


def quote(text: str) -> bytes:
    """Return a string as JSON."""
    found = _quoted.get(text)
    if found is None:
        found = json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")
        try:
            found.decode()
        except UnicodeDecodeError:  # half a surrogate pair: only an escape can carry it
            found = json.dumps(text).encode()
        if len(_quoted) < _MAX_QUOTED and len(text) <= 128:
            _quoted[text] = found
    return found


def publication_head(message_type: str, topic: str, offset: int) -> bytes:
    """Return what stands before the data; behind it comes a brace."""
    return b'{"type":%b,"topic":%b,"offset":%d,"data":' % (
        quote(message_type),
        quote(topic),
        offset,
    )


def state(
    message_type: str,
    topic: str,
    offset: int,
    values: Iterable[bytes],
    removed: Iterable[bytes],
    *,
    snapshot: bool = False,
    synced: bool = False,
) -> bytes:
    """Return a change of a state.

    Args:
        message_type: of the state.
        topic: its name.
        offset: of the newest change in it.
        values: keys and values, each as ``"key":value``.
        removed: keys that are no more, as JSON.
        snapshot: whoever gets it forgets what it had.
        synced: nothing more is to follow.
    """
    return b'%b{%b"set":{%b},"removed":[%b]%b}}' % (
        publication_head(message_type, topic, offset),
        b'"snapshot":true,' if snapshot else b"",
        b",".join(values),
        b",".join(removed),
        b',"synced":true' if synced else b"",
    )


def gap(topic: str, epoch: str, offset: int, missed: int | None, reason: str) -> bytes:
    """Return what tells a subscriber that messages up to an offset are lost for it."""
    return message(
        "gap",
        {"topic": topic, "epoch": epoch, "offset": offset, "missed": missed, "reason": reason},
    )


def message(kind: str, data: Any, topic: str | None = None) -> bytes:
    """Return a message of daebus's own."""
    beside = {} if topic is None else {"topic": topic}
    text = json.dumps({"type": kind, **beside, "data": data}, separators=(",", ":"))
    return text.encode()


class Item(NamedTuple):
    """A value of a state as it is kept.

    Attributes:
        offset: of its last change.
        text: ``"key":value``.
        start: of the value in it.
        time: Unix time of the change.
        expires: the moment when it is due to be removed; None for never.
    """

    offset: int
    text: bytes
    start: int
    time: float
    expires: float | None


def make_item(offset: int, key: str, data: bytes, time: float, expires: float | None) -> Item:
    """Return a value as it is kept."""
    head = quote(key)
    return Item(offset, b"%b:%b" % (head, data), len(head) + 1, time, expires)


def heap_of(items: Mapping[str, Item]) -> list[tuple[float, str]]:
    """Return when keys are due to be removed, as a heap."""
    heap = [(item.expires, key) for key, item in items.items() if item.expires is not None]
    heapq.heapify(heap)
    return heap


def check_limits(topic: str, count: int, size: int, max_keys: int, max_bytes: int) -> None:
    """Refuse a state that is too large.

    Raises:
        StateLimitError: it has more keys or bytes than are allowed.
    """
    if count > max_keys:
        raise StateLimitError(
            f"state {topic!r} would have {count} keys, and {max_keys} are the most; "
            f"remove some, or write max_keys={_roomy(count, max_keys)}"
        )
    if size > max_bytes:
        raise StateLimitError(
            f"state {topic!r} would have {size} bytes, and {max_bytes} are the "
            f"most; keep less in it, or write max_bytes={_roomy(size, max_bytes)}"
        )


def _roomy(needed: int, most: int) -> int:
    """Return a bound for what was one too many, doubled until that fits."""
    while most < needed:
        most *= 2
    return most
