"""A message as the program sees it, and the text of it. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..errors import ClientError
from ..websocket.protocol import envelope

__all__ = ["Message", "decode", "encode", "error"]

# Levels of arrays and objects in a message of the server, which may send what its own clients
# may not: the parser's recursion is what must be bounded.
_MAX_DEPTH = 500


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the server.

    Attributes:
        type: the message type.
        data: the data, None if the message has none.
        id: of a question of ``call()``; else None.
        topic: the topic that it was published to; else None.
        offset: its place in that topic; else None.
    """

    type: str
    data: Any = None
    id: str | float | None = None
    topic: str | None = None
    offset: int | None = None


def encode(kind: str, data: Any = ..., ident: str | float | None = None) -> str:
    """Return the text of a message; without data it has none.

    Raises:
        EncodeError: the data has no JSON form.
    """
    message = (
        b'{"type":%b}' % json.dumps(kind).encode() if data is ... else envelope.encode(kind, data)
    )
    return (message if ident is None else envelope.stamp(message, ident)).decode()


def error(problem: ClientError, ident: str | float) -> str:
    """Return the text of the answer to a question that failed."""
    data = {**problem.data, "error": problem.text, "code": problem.code}
    return encode("error", data, ident)


def decode(text: str) -> Message:
    """Read a message.

    Raises:
        BadMessage: it is none.
    """
    kind, fields = envelope.decode(text, _MAX_DEPTH)
    ident, topic, offset = fields.get("id"), fields.get("topic"), fields.get("offset")
    return Message(
        kind,
        fields.get("data"),
        ident if envelope.is_id(ident) else None,
        topic if isinstance(topic, str) else None,
        offset if isinstance(offset, int) and not isinstance(offset, bool) else None,
    )
