"""The views of an app, found with Werkzeug's routing."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from werkzeug.routing import Map, MapAdapter, Rule

from ...checks.functions import check_function
from ...errors import DuplicateHandlerError, name_of
from ...interrupts.stack import check_outside
from .hooks import VIEW_KINDS

__all__ = ["METHODS", "View", "Views"]

# Host names for which the bound map is kept; a client may invent many.
MAX_HOSTS = 64

# Views may be registered for others too, unless they look like a slip of one of these; who asks
# about the server as a whole is told of these.
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True, slots=True)
class View:
    """A registered view.

    Attributes:
        function: of the user.
        open: pages of other sites may change something by it.
    """

    function: Callable[..., Any]
    open: bool


class _Maps:
    """Makes Werkzeug's maps one after the other.

    A map compiles its rules, and CPython 3.11 raises ``SystemError`` now and then where
    several threads compile syntax trees at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def make(self, rules: Iterable[Rule]) -> Map:
        """Return a map of copies of these rules, complete and sorted.

        Raises:
            LookupError, ValueError: a rule is malformed.
        """
        check_outside("registering or finding a view", self._lock)
        copies = [rule.empty() for rule in rules]
        with self._lock:
            made = Map(copies)
            made.update()
        return made


_maps = _Maps()


class _Bound:
    """The map of all views at one moment, which no longer changes, bound to names of hosts."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._map = _maps.make(rules)
        self._adapters: dict[tuple[str, str, str], MapAdapter] = {}  # entries are only added

    def adapter(self, environ: dict[str, Any]) -> MapAdapter:
        """Return the map bound to the host name of this request."""
        scheme = environ["wsgi.url_scheme"]
        host = environ.get("HTTP_HOST") or environ["SERVER_NAME"]
        prefix = environ.get("SCRIPT_NAME", "")
        adapter = self._adapters.get((scheme, host, prefix))
        if adapter is None:
            script = prefix.encode("latin-1").decode(errors="replace")
            adapter = self._map.bind(host, script, url_scheme=scheme)
            if len(self._adapters) < MAX_HOSTS:
                self._adapters[scheme, host, prefix] = adapter
        return adapter


class Views:
    """The views by path and method.

    Attributes:
        some_open: one of them is meant for pages of other sites too.

    Threads:
        Any may register, and match meanwhile. Werkzeug's map sorts its rules in place, and
        who matched at that moment would find none; so it is made anew after a change.
    """

    def __init__(self) -> None:
        self.some_open = False
        self._lock = threading.Lock()
        self._rules: list[Rule] = []  # guarded by: _lock
        self._taken: dict[tuple[str, str], str] = {}  # guarded by: _lock
        self._all: dict[str, View] = {}  # entries are only added, under _lock
        self._bound: _Bound | None = None  # set under _lock; None after a change

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(
        self, path: str, view: Callable[..., Any], methods: Iterable[str], *, cross_site: bool
    ) -> None:
        """Register a view; see ``Router.add``."""
        names = [_method(name) for name in methods]
        if not names:
            raise ValueError(f"{path} has no methods; write methods=['GET'], or leave them out")
        rule = Rule(path, methods=names)
        try:
            scratch = _maps.make([rule])  # a rule knows its arguments once it is in a map
        except (LookupError, ValueError) as exc:
            raise ValueError(
                f"path {path!r} cannot be routed: {exc}; write '/items/<int:id>'"
            ) from None
        arguments = next(scratch.iter_rules()).arguments
        check_function(
            f"the view of {path!r}", view, ("req",), named=sorted(arguments), kinds=VIEW_KINDS
        )
        called, added = name_of(view), View(view, cross_site)
        check_outside(f"registering the view of {path!r}", self._lock)
        with self._lock:
            rivals = [
                (name, self._taken[path, name]) for name in names if (path, name) in self._taken
            ]
            if not rivals:
                self._taken.update({(path, name): called for name in names})
                rule.endpoint = str(len(self._all))
                self._all[rule.endpoint] = added
                self.some_open |= cross_site
                self._rules.append(rule)
                self._bound = None
        for name, known in rivals:
            raise DuplicateHandlerError(
                f"{name} {path} has a view already: {known}; use another path or method for "
                f"{called}"
            )

    def match(self, environ: dict[str, Any], path: str) -> tuple[View, Any]:
        """Return the view of a request, and the arguments that its path holds.

        Args:
            environ: of the request.
            path: its path, decoded.

        Raises:
            HTTPException: there is none, or not for this method; or a redirect.
        """
        query, method = environ.get("QUERY_STRING"), environ["REQUEST_METHOD"]
        bound = self._bound or self._bind()
        endpoint, arguments = bound.adapter(environ).match(path, method, query_args=query)
        return self._all[endpoint], arguments

    def _bind(self) -> _Bound:
        """Make the map after a change."""
        while True:
            check_outside("matching a path", self._lock)
            with self._lock:
                rules = tuple(self._rules)
            bound = _Bound(rules)
            with self._lock:
                if len(rules) == len(self._rules):
                    self._bound = bound
                    return bound


def _method(name: str) -> str:
    """Return a method in capitals.

    Raises:
        ValueError: no request can have it, or it is a slip of one that they have.
    """
    upper = name.upper()
    if upper in METHODS:
        return upper
    close = difflib.get_close_matches(upper, METHODS, 1)
    if close or not (name.isascii() and name.replace("-", "x").isalnum()):
        raise ValueError(
            f"{name!r} is not an HTTP method; did you mean {close[0] if close else 'GET'!r}?"
        )
    return upper
