"""Paths that daebus answers itself, from a table.

Rules of this module:

1. An answer is computed by code of ours alone, at once, in whatever thread the request is:
   the acceptor's, as a rule, so that no view, hook or full pool is in its way.
2. An answer is a value: whoever has the connection writes it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from werkzeug.http import parse_etags

from ...server.handoff import Checked, Refusal
from ..protocol.errors import error_body, status_code_name

__all__ = [
    "CHECK",
    "CLIENT",
    "NO_WEBSOCKETS",
    "OWN",
    "Health",
    "OwnAnswer",
    "OwnPaths",
    "check_answer",
]

# Before all paths of ours.
OWN = "/_daebus/"

# Where a client asks whether it would be let in.
CHECK = f"{OWN}check"

# Where pages get the client that goes with this server.
CLIENT = "/_daebus/client.js"

NO_WEBSOCKETS = Refusal(501, "not_implemented", "there are no WebSockets on this server")

_JSON = ("Content-Type", "application/json")
_FRESH = ("Cache-Control", "no-store")
_OWN = "GET, HEAD, OPTIONS"


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """An answer of ours, whole.

    Attributes:
        status: HTTP status code.
        headers: without those about the connection and the length.
        body: dropped in the answer to HEAD.
        etag: of the body, among the headers too; empty for what is not kept.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    etag: str = ""


class OwnPaths:
    """The table of these paths; all are for GET and HEAD.

    The check is one of them. Where there are WebSockets it is answered by those who take them,
    as user code is asked; the table has the answer for where there are none.

    Threads:
        Adding is for the program's start; any thread may ask.
    """

    def __init__(self) -> None:
        self._answers: dict[str, Callable[[], OwnAnswer]] = {}  # entries are only added
        self.add(CHECK, lambda: check_answer(Checked(NO_WEBSOCKETS)))
        self.add(CLIENT, _client)

    def __contains__(self, path: str) -> bool:
        return path in self._answers

    def add(self, path: str, answer: Callable[[], OwnAnswer]) -> None:
        """Answer a path.

        Args:
            path: without percent-encoding.
            answer: runs no user code, and never waits.
        """
        self._answers[path] = answer

    def answer(self, path: str, method: str, known: str | None = None) -> OwnAnswer | None:
        """Return the answer to a request, None if the path is not ours.

        Args:
            path: without percent-encoding and query.
            method: of the request.
            known: the request's ``If-None-Match``, None if it has none.
        """
        make = self._answers.get(path)
        if make is None:
            return None
        if method in ("GET", "HEAD"):
            answer = make()
            if known is not None and answer.etag and parse_etags(known).contains_weak(answer.etag):
                return OwnAnswer(304, answer.headers, b"")
            return answer
        if method == "OPTIONS":
            return OwnAnswer(200, (_FRESH, ("Allow", _OWN)), b"")
        body = error_body(f"{path} is there for GET alone", status_code_name(405))
        return OwnAnswer(405, (_JSON, _FRESH, ("Allow", _OWN)), body)


def check_answer(checked: Checked) -> OwnAnswer:
    """Return the answer to a check: 204, or the refusal of the upgrade."""
    refusal = checked.refusal
    if refusal is None:
        return OwnAnswer(204, (_FRESH, *checked.headers), b"")
    headers = (_JSON, _FRESH, *refusal.headers, *checked.headers)
    return OwnAnswer(refusal.status, headers, error_body(refusal.text, refusal.code))


@functools.cache
def _client() -> OwnAnswer:
    """Return the browser client, which every page may use; it is read once."""
    try:
        body = pkgutil.get_data("daebus", "browser/client.js")
    except OSError:  # a program that was frozen without the files of its packages
        body = None
    if body is None:
        text = "client.js is missing beside daebus; add the files of its package to the program"
        return OwnAnswer(404, (_JSON, _FRESH), error_body(text, status_code_name(404)))
    etag = hashlib.blake2b(body, digest_size=12).hexdigest()
    headers = (
        ("Content-Type", "text/javascript; charset=utf-8"),
        ("Cache-Control", "no-cache"),  # ask again, and be told that it is the same
        ("ETag", f'"{etag}"'),
        ("X-Content-Type-Options", "nosniff"),
        ("Access-Control-Allow-Origin", "*"),
    )
    return OwnAnswer(200, headers, body, etag)


class Health:
    """What the health check says.

    Attributes:
        leaving: the app is stopping, or about to; None while it is not.
        failed: one of its threads has died.
        backplane: tells whether what joins the app to other processes works, and whether it must;
            None without one.
    """

    def __init__(self) -> None:
        self.leaving: Refusal | None = None
        self.failed = False
        self.backplane: Callable[[], tuple[bool, bool]] | None = None

    def answer(self) -> OwnAnswer:
        """Return 200 while the app serves."""
        if self.failed:
            body = error_body("a thread of the server has died", status_code_name(500))
            return OwnAnswer(500, (_JSON, _FRESH), body)
        leaving = self.leaving
        if leaving is not None:
            body = error_body(leaving.text, leaving.code)
            return OwnAnswer(leaving.status, (_JSON, _FRESH, *leaving.headers), body)
        if self.backplane is None:
            return OwnAnswer(200, (_JSON, _FRESH), json.dumps({"status": "ok"}).encode())
        up, required = self.backplane()
        healthy = up or not required
        found = {"status": "ok" if healthy else "down", "backplane": "up" if up else "down"}
        return OwnAnswer(200 if healthy else 503, (_JSON, _FRESH), json.dumps(found).encode())
