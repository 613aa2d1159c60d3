"""What a client asked for as it connected: headers, query and cookies. Pure.

A connection keeps them as the bytes in which they came, which takes a fifth of the memory that
the parsed ones would, and most are never asked for: they are parsed each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl

__all__ = ["Headers", "Values", "pack", "parse_cookies", "parse_query", "unpack"]


class Values(Mapping[str, str]):
    """Names and values, of which a name may have several; ``[]`` and ``get`` give the first.

    Args:
        pairs: in order.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._lists: dict[str, list[str]] = {}
        for name, value in pairs:
            self._lists.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str:
        return self._lists[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"

    def getlist(self, name: str) -> list[str]:
        """Return all values of a name, none if it does not occur."""
        return list(self._lists.get(name, ()))


class Headers(Values):
    """Headers: upper and lower case are the same, and lines of one name are joined.

    Args:
        pairs: names in lower case.
    """

    def __getitem__(self, name: str) -> str:
        lowered = name.lower()
        return ("; " if lowered == "cookie" else ", ").join(self._lists[lowered])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._lists

    def getlist(self, name: str) -> list[str]:
        """Return the values of all lines of that name."""
        return super().getlist(name.lower())


def pack(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return header lines as bytes, to be kept."""
    return "\n".join([f"{name}:{value}" for name, value in headers]).encode("latin-1", "replace")


def unpack(packed: bytes) -> Headers:
    """Return the headers that were packed."""
    lines = [line.partition(":") for line in packed.decode("latin-1").split("\n") if line]
    return Headers((name, value) for name, _, value in lines)


def parse_query(query: str) -> Values:
    """Return the fields of a query; what is not UTF-8 is replaced."""
    return Values(parse_qsl(query, keep_blank_values=True))


def parse_cookies(header: str) -> dict[str, str]:
    """Return the cookies of a ``Cookie`` header; of equal names the first, which is closest."""
    cookies: dict[str, str] = {}
    for part in header.split(";"):
        name, equals, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name:
            continue
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        cookies.setdefault(name, value.encode("latin-1", "replace").decode(errors="replace"))
    return cookies
