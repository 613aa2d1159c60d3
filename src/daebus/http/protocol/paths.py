"""What a request path may hold, so that hooks, mounts, routes and files read the same in it.

Rules of this module:

1. A path that a file system, a proxy or another program could resolve to a different one is
   refused: dot segments, and encoded slashes, backslashes and NULs.
2. A path is decoded once. What is encoded twice is text: ``%252e`` is the text ``%2e``.
"""

from __future__ import annotations

import re

__all__ = ["fault_in_decoded_path", "fault_in_path"]

_DOTS = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_SEPARATORS = re.compile(r"\\|%(?:2f|5c|00)", re.IGNORECASE)
_DECODED = re.compile(r"/\.{1,2}(?:/|$)|[\\\0]")


def fault_in_path(path: str) -> str | None:
    """Return what is wrong with a path as it was sent, without the query; None if nothing is."""
    if "%" not in path and "/." not in path and "\\" not in path:
        return None
    if _DOTS.search(path):
        return "the path holds a segment of dots; resolve it before it is sent"
    if _SEPARATORS.search(path):
        return "the path holds a backslash, or an encoded slash, backslash or NUL"
    return None


def fault_in_decoded_path(path: str) -> str | None:
    """Return what is wrong with a path that somebody else has decoded; None if nothing is."""
    return (
        "the path holds a segment of dots, a backslash or a NUL" if _DECODED.search(path) else None
    )
