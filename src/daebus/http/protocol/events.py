"""The stream of events that ``EventSource`` reads (WHATWG HTML, section 9.2). Pure.

The id of an event says where the client stands in every topic of its stream, so that a browser
that comes back with ``Last-Event-ID`` goes on from there by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

__all__ = ["MEDIA_TYPE", "PING", "event", "event_id", "parse_id", "retry"]

MEDIA_TYPE = "text/event-stream"

# A comment: it shows that the connection lives, and no page sees it.
PING = b":\n\n"

_PART = re.compile(r"([^=,]+)=([!-+\--~]{1,64})\.([0-9]{1,16})")
_BREAKS = re.compile(rb"\r\n|\r|\n")


def event(message_type: str, data: bytes, identifier: str | None) -> bytes:
    """Return one event.

    Args:
        message_type: its name. One that holds a line break has no place in an event; ``data``
            has it as well.
        data: what it says.
        identifier: for ``id:``; None leaves the id of the event before it.
    """
    lines = []
    if message_type and message_type.isprintable():
        lines.append(b"event: " + message_type.encode(errors="replace"))
    if b"\n" in data or b"\r" in data:
        lines += [b"data: " + line for line in _BREAKS.split(data)]
    else:
        lines.append(b"data: " + data)
    if identifier is not None:
        lines.append(b"id: " + identifier.encode())
    lines.append(b"\n")
    return b"\n".join(lines)


def retry(seconds: float) -> bytes:
    """Return the hint how long a client waits before it comes back."""
    return b"retry: %d\n\n" % (seconds * 1000)


def event_id(positions: Iterable[tuple[str, str, int]]) -> str:
    """Return the id that tells a position in each topic: names, epochs and offsets."""
    return ",".join(f"{quote(name, safe='')}={epoch}.{offset}" for name, epoch, offset in positions)


def parse_id(text: str) -> Mapping[str, tuple[str, int]]:
    """Read such an id.

    Returns:
        Epoch and offset by the name of the topic.

    Raises:
        ValueError: it is none.
    """
    found: dict[str, tuple[str, int]] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{text!r:.200} is not the id of an event")
        found[unquote(match[1])] = (match[2], int(match[3]))
    return found
