"""Other WSGI apps, each below a prefix of the path."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ...checks.arguments import check_path
from ...checks.functions import Kind, check_function
from ...errors import DuplicateHandlerError
from ...interrupts.raised import from_signal
from ...interrupts.stack import check_outside
from ...server.threads.safelog import get_logger
from .results import json_error

__all__ = ["Mount", "Mounts"]

logger = get_logger("daebus.http")

_KINDS: tuple[Kind, ...] = ("plain", "generator")  # what PEP 3333 allows; ASGI is async

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Mount:
    """One WSGI app and its prefix.

    Attributes:
        prefix: encoded as in ``PATH_INFO``: the bytes of UTF-8, one character each.
        app: the WSGI app.
    """

    prefix: str
    app: WSGI

    def answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Call the app with its part of the path; answer 500 if it raises.

        The server handles what it raises once its answer is being written.
        """
        path = environ["PATH_INFO"]
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + self.prefix
        environ["PATH_INFO"] = path[len(self.prefix) :]
        with contextlib.suppress(AttributeError, OSError):  # a hook may have read the body
            environ["wsgi.input"].seek(0)
        try:
            return self.app(environ, start_response)
        except BaseException as exc:  # a SystemExit in an app must not end a worker
            if from_signal(exc):
                raise

            def start(status: str, headers: list[tuple[str, str]], _: Any = None, /) -> Any:
                return start_response(status, headers, sys.exc_info())

            # An app that had written already makes this raise what it raised.
            result = json_error(500, "the app failed")(environ, start)
            place = self.prefix or "/"
            logger.exception("the app at %s failed on %r", place, path, kind=place)
            return result


class Mounts:
    """The mounted apps by their prefix.

    Attributes:
        all: longest prefix first; without the one at ``/``.
        root: the app at ``/``, which gets what nobody else answers; None for none.

    Threads:
        Any may mount; workers see all of it or nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # for who mounts
        self.all: tuple[Mount, ...] = ()
        self.root: Mount | None = None

    def add(self, prefix: str, app: WSGI) -> None:
        """Mount an app.

        Raises:
            DuplicateHandlerError: there is one at this prefix.
            TypeError: the app cannot be called as PEP 3333 says.
            ValueError: the prefix does not start with a slash, or is not ``/`` and ends with one.
        """
        if prefix == "/":
            prefix = ""
        elif not prefix.startswith("/") or prefix.endswith("/"):
            proper = "/" + (prefix.strip("/") or "old")
            raise ValueError(
                f"the prefix must start with a slash and not end with one, not {prefix!r}; "
                f"write app.mount({proper!r}, wsgi_app)"
            )
        if prefix:
            check_path(prefix)
        check_function("a WSGI app", app, ("environ", "start_response"), kinds=_KINDS)
        mount = Mount(prefix.encode().decode("latin-1"), app)
        check_outside(f"mounting an app at {prefix or '/'}", self._lock)
        with self._lock:
            others = self.all if prefix else (self.root,)
            rival = any(other and other.prefix == mount.prefix for other in others)
            if not rival and prefix:
                self.all = tuple(sorted([*self.all, mount], key=_length, reverse=True))
            elif not rival:
                self.root = mount
        if rival:
            raise DuplicateHandlerError(
                f"an app is mounted at {prefix or '/'} already; use another prefix"
            )

    def find(self, path: str) -> Mount | None:
        """Return the app for a ``PATH_INFO``."""
        for mount in self.all:
            if path.startswith(mount.prefix) and path[len(mount.prefix) :][:1] in ("", "/"):
                return mount
        return None


def _length(mount: Mount) -> int:
    return len(mount.prefix)
