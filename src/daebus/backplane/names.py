"""The names of channels and keys of one app, and which partition something belongs to. Pure.

Rules of this module:

1. Only the tag of a partition stands in braces: in a cluster all that belongs to one partition
   lies in one slot, so that one script may touch it.
2. Names of apps, rooms, users and topics are escaped, so that none of them can break out.
"""

from __future__ import annotations

import binascii
import functools
import re
import secrets
import string
from urllib.parse import quote

__all__ = ["MAX_NODE", "SLOTS", "Names", "check_node", "crc16", "escape", "random_name", "tags"]

MAX_NODE = 32
SLOTS = 16384  # of a cluster

_NODE = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NODE}}}")
_ALPHABET = string.ascii_letters + string.digits


def check_node(name: str) -> str:
    """Return the name of a node.

    Raises:
        ValueError: it is not of 1 to 32 letters, digits, ``_`` and ``-``.
    """
    if not _NODE.fullmatch(name):
        raise ValueError(
            f"a node's name is 1 to {MAX_NODE} of A-Z a-z 0-9 _ -, not {name!r:.100}; "
            f"write node='web-1'"
        )
    return name


def random_name(length: int = 6) -> str:
    """Return a random name, such as that of a node which was given none."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def escape(text: str) -> str:
    """Return a name as a part of a key: all but letters, digits and ``_-.~`` as in URLs."""
    return quote(text, safe="", errors="surrogatepass")


def crc16(data: bytes) -> int:
    """Return the CRC16 by which a cluster places keys (XMODEM)."""
    return binascii.crc_hqx(data, 0)


@functools.cache
def tags(partitions: int) -> tuple[str, ...]:
    """Return a tag for each partition, such that they are spread evenly over the slots."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        tag = f"t{number:02d}"
        found.setdefault(crc16(tag.encode()) % SLOTS * partitions // SLOTS, tag)
        number += 1
    return tuple(found[place] for place in range(partitions))


class Names:
    """The channels and keys of one app.

    Args:
        app: name of the app, or the one that stands for it.
        partitions: into how many channels rooms, users and topics are divided.
        database: of the server; its channels know no databases.

    Attributes:
        app: as given.
        partitions: as given.
        prefix: of all channels and keys.
        beats: the channel of beats and goodbyes.
    """

    __slots__ = ("_tags", "app", "beats", "partitions", "prefix")

    def __init__(self, app: str, partitions: int = 1, database: int = 0) -> None:
        self.app = app
        self.partitions = partitions
        self.prefix = f"d:{escape(app)}:" + f"{database}:" * bool(database)
        self.beats = f"{self.prefix}b"
        self._tags = tags(partitions)

    def partition(self, to: str) -> int:
        """Return the partition of a room, user or topic; that of all, the empty name, is 0."""
        if self.partitions == 1 or not to:
            return 0
        return crc16(to.encode(errors="surrogatepass")) % self.partitions

    def frames(self, partition: int) -> str:
        """Return the channel of a partition."""
        return f"{self.prefix}{{{self._tags[partition]}}}:f"

    def node(self, name: str) -> str:
        """Return the channel of what is for one node alone."""
        return f"{self.prefix}n:{name}"

    def lease(self, name: str) -> str:
        """Return the key that a node keeps alive; without a name what all of them begin with."""
        return f"{self.prefix}node:{name}"

    def key(self, partition: int, kind: str, *parts: str) -> str:
        """Return a key beside the channel of a partition, of a topic or a state."""
        return ":".join(
            (f"{self.prefix}{{{self._tags[partition]}}}", kind, *(escape(part) for part in parts))
        )
