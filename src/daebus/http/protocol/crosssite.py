"""Which requests pages of other sites have sent in the user's name. Pure.

Rules of this module:

1. A browser says where a request comes from: in ``Sec-Fetch-Site`` to secure addresses and
   ``localhost``, and in ``Origin`` with every method that may change something.
2. What says neither is a program, which acts in nobody's name but its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...origins import is_own_origin
from .cors import Cors

__all__ = ["is_cross_site"]

# Methods that change nothing (RFC 9110 section 9.2.1), TRACE apart, which no browser sends.
SAFE = frozenset(("GET", "HEAD", "OPTIONS"))

# "none" is what the user asked for without any page, such as by a bookmark.
_OWN = ("same-origin", "none")


def is_cross_site(environ: Mapping[str, Any], cors: Cors | None) -> bool:
    """Return whether a request would change something for a page of another site.

    Args:
        environ: of the request (PEP 3333).
        cors: a page that it names may send what it likes; cookies only if it says so.
    """
    if environ["REQUEST_METHOD"] in SAFE:
        return False
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    if site in _OWN or (site is None and origin is None):
        return False
    if site is None and origin is not None and is_own_origin(origin, environ.get("HTTP_HOST")):
        return False
    if cors is None or origin is None or not cors.is_allowed(origin):
        return True
    return "HTTP_COOKIE" in environ and not cors.allows_cookies
