"""Paths that daebus answers itself, from a table.

Rules of this module:

1. An answer is computed by code of ours alone, at once, in whatever thread the request is:
   the acceptor's, as a rule, so that no view, hook or full pool is in its way.
2. An answer is a value: whoever has the connection writes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from ...server.handoff import STOPPING, Checked, Refusal
from ..protocol.errors import error_body, status_code_name

__all__ = ["CHECK", "NO_WEBSOCKETS", "OWN", "Health", "OwnAnswer", "OwnPaths", "check_answer"]

# Before all paths of ours.
OWN = "/_daebus/"

# Where a client asks whether it would be let in.
CHECK = f"{OWN}check"

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
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


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

    def __contains__(self, path: str) -> bool:
        return path in self._answers

    def add(self, path: str, answer: Callable[[], OwnAnswer]) -> None:
        """Answer a path.

        Args:
            path: without percent-encoding.
            answer: runs no user code, and never waits.
        """
        self._answers[path] = answer

    def answer(self, path: str, method: str) -> OwnAnswer | None:
        """Return the answer to a request, None if the path is not ours."""
        answer = self._answers.get(path)
        if answer is None:
            return None
        if method in ("GET", "HEAD"):
            return answer()
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


class Health:
    """What the health check says.

    Attributes:
        draining: the app is stopping.
        failed: one of its threads has died.
    """

    def __init__(self) -> None:
        self.draining = False
        self.failed = False

    def answer(self) -> OwnAnswer:
        """Return 200 while the app serves."""
        if self.failed:
            body = error_body("a thread of the server has died", status_code_name(500))
            return OwnAnswer(500, (_JSON, _FRESH), body)
        if self.draining:
            body = error_body(STOPPING.text, STOPPING.code)
            return OwnAnswer(STOPPING.status, (_JSON, _FRESH, *STOPPING.headers), body)
        return OwnAnswer(200, (_JSON, _FRESH), json.dumps({"status": "ok"}).encode())
