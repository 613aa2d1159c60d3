"""One frame: a line of JSON that says from whom and to whom, and the payload. Pure.

::

    {"v":1,"n":"k7Qm2x","i":"9fX2","k":"room","to":"floor 3","x":["k7Qm2x.a1"],"s":1042}
    {"type":"reading","data":{...}}

========  ===========================================================================
``v``     version, 1
``n i``   the node, and its incarnation: random for each start
``s``     number of the frame: counts up for each sender and channel, from 1; 0: not numbered
``k to``  kind, and the room, user, topic or client
``x c d`` ids that do not get it, key to conflate by, whether it may be dropped
``h``     HMAC-SHA256 over channel, the line without it, and payload: 16 bytes, base64url
========  ===========================================================================

Other letters belong to the kind. The payload is what clients get; nodes never look into it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["VERSION", "FrameError", "Header", "Template", "Unsigned", "pack", "unpack"]

VERSION = 1

_dumps = json.JSONEncoder(separators=(",", ":")).encode
_OWN = frozenset(["v", "n", "i", "s", "k", "to", "x", "c", "d", "h"])
_SIGNATURE = 16  # bytes
_MARK = b',"h":"'
_SIGNED_END = len(_MARK) + 22 + len(b'"}')
_NUMBER_ROOM = len(',"s":}\n') + 20

# Most frames of a sender differ in number and payload alone: what stands before the number is
# packed and read once, if it is short. So many of each are remembered.
_REMEMBERED = 1000
_NUMBERED = re.compile(rb'(.{,300}),"s":(0|[1-9][0-9]{,17})\}', re.DOTALL)


class FrameError(ValueError):
    """A frame that is none of ours, or of another version."""


class Unsigned(FrameError):
    """A frame without a signature, or with a wrong one."""


class Header(NamedTuple):
    """What the first line of a frame says.

    Attributes:
        node: who sent it.
        incarnation: which start of that node.
        number: of the frame, for its sender and channel; 0 if it is not numbered.
        kind: what it is.
        to: name of the room, user, topic or client; empty for all.
        exclude: ids of clients that do not get it.
        conflate: a key; a waiting message with the same key is replaced.
        droppable: drop it for a client that is too slow.
        more: the fields that belong to the kind; other frames share them, so nobody changes them.
    """

    node: str
    incarnation: str
    number: int
    kind: str
    to: str
    exclude: tuple[str, ...]
    conflate: str | None
    droppable: bool
    more: dict[str, Any]


class Template:
    """A frame that has all but its number, so that numbering it takes no time.

    Args:
        node: who sends it.
        incarnation: which start of it.
        kind: what it is.
        to: name of the room, user, topic or client.
        payload: the bytes for the receiver.
        exclude: ids of clients that do not get it.
        conflate: a key to conflate by.
        droppable: whether slow clients may go without it.
        more: fields that belong to the kind; none has a name of the others.
    """

    __slots__ = ("_head", "_payload")

    def __init__(
        self,
        node: str,
        incarnation: str,
        kind: str,
        to: str = "",
        payload: bytes = b"",
        *,
        exclude: tuple[str, ...] = (),
        conflate: str | None = None,
        droppable: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        rest = tuple(more.items()) if more else ()
        recurs = not exclude and conflate is None and all(type(each) is str for _, each in rest)
        head = _recurring_head if recurs else _head
        self._head = head(node, incarnation, kind, to, exclude, conflate, droppable, rest)
        self._payload = payload

    def size(self, *, signed: bool = False) -> int:
        """Return how large the frame will be at most."""
        return len(self._head) + _NUMBER_ROOM + _SIGNED_END * signed + len(self._payload)

    def number(self, number: int, channel: str = "", secret: bytes | None = None) -> bytes:
        """Return the frame.

        Args:
            number: of the frame.
            channel: that it is for; it is part of what is signed.
            secret: to sign it with.
        """
        line = b'%b,"s":%d}' % (self._head, number)
        if secret is not None:
            signature = _sign(secret, channel, line, self._payload)
            line = b'%b%b%b"}' % (line[:-1], _MARK, signature)
        return b"%b\n%b" % (line, self._payload)


def _head(
    node: str,
    incarnation: str,
    kind: str,
    to: str,
    exclude: tuple[str, ...],
    conflate: str | None,
    droppable: bool,
    rest: tuple[tuple[str, Any], ...],
) -> bytes:
    """Return the line up to the number."""
    fields: dict[str, Any] = {"v": VERSION, "n": node, "i": incarnation, "k": kind}
    if to:
        fields["to"] = to
    if exclude:
        fields["x"] = exclude
    if conflate is not None:
        fields["c"] = conflate
    if droppable:
        fields["d"] = 1
    for name, value in rest:
        assert name not in _OWN, f"{name!r} is a name of the frame's own"
        fields[name] = value
    return _dumps(fields)[:-1].encode()


_recurring_head = functools.lru_cache(_REMEMBERED)(_head)


def pack(header: Header, payload: bytes, channel: str = "", secret: bytes | None = None) -> bytes:
    """Return a frame; what ``unpack`` reads."""
    template = Template(
        header.node,
        header.incarnation,
        header.kind,
        header.to,
        payload,
        exclude=header.exclude,
        conflate=header.conflate,
        droppable=header.droppable,
        more=header.more,
    )
    return template.number(header.number, channel, secret)


def unpack(frame: bytes, channel: str = "", secret: bytes | None = None) -> tuple[Header, bytes]:
    """Take a frame apart.

    Args:
        frame: as it came.
        channel: on which it came.
        secret: with which it must be signed; None takes those that are and those that are not.

    Raises:
        Unsigned: it is not signed, or not with this secret.
        FrameError: it is none of ours.
    """
    line, found, payload = frame.partition(b"\n")
    if not found:
        raise FrameError("no line")
    if secret is not None:
        head, signature = line[:-_SIGNED_END] + b"}", line[-_SIGNED_END:]
        wanted = b'%b%b"}' % (_MARK, _sign(secret, channel, head, payload))
        if not hmac.compare_digest(signature, wanted):
            raise Unsigned("no signature, or a wrong one")
        line = head
    numbered = _NUMBERED.fullmatch(line)
    if numbered is None:
        return _read(line), payload
    start, number = numbered.groups()
    header = _read_recurring(start)._replace(number=int(number))
    return header, payload


def _read(line: bytes) -> Header:
    try:
        fields = json.loads(line)
        if fields["v"] != VERSION:
            raise FrameError(f"version {fields['v']!r:.20} is not {VERSION}")
        return _header(fields)
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        if isinstance(exc, FrameError):
            raise
        raise FrameError(f"not a line of ours: {exc!r:.100}") from None


@functools.lru_cache(_REMEMBERED)
def _read_recurring(start: bytes) -> Header:
    return _read(b'%b,"s":0}' % start)


def _header(fields: dict[str, Any]) -> Header:
    number, exclude = fields["s"], fields.get("x", ())
    texts = (fields["n"], fields["i"], fields["k"], fields.get("to", ""), fields.get("c", ""))
    if not all(type(text) is str for text in (*texts, *exclude)) or type(number) is not int:
        raise FrameError("a field of another type")
    return Header(
        fields["n"],
        fields["i"],
        number,
        fields["k"],
        fields.get("to", ""),
        tuple(exclude),
        fields.get("c"),
        bool(fields.get("d")),
        {name: value for name, value in fields.items() if name not in _OWN},
    )


def _sign(secret: bytes, channel: str, line: bytes, payload: bytes) -> bytes:
    mac = hmac.new(secret, channel.encode(errors="surrogatepass"), hashlib.sha256)
    for part in (b"\n", line, b"\n", payload):
        mac.update(part)
    return base64.urlsafe_b64encode(mac.digest()[:_SIGNATURE]).rstrip(b"=")
