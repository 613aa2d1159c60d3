"""The views of an app, found with Werkzeug's routing."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from werkzeug.routing import Map, MapAdapter, Rule

from ...checks.functions import check_function
from ...errors import DuplicateHandlerError, name_of
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


class Views:
    """The views by path and method.

    Attributes:
        some_open: one of them is meant for pages of other sites too.

    Threads:
        Registering is meant for one thread; any may match meanwhile.
    """

    def __init__(self) -> None:
        self.some_open = False
        self._map = Map()
        self._all: dict[str, View] = {}
        self._taken: dict[tuple[str, str], str] = {}
        self._adapters: dict[tuple[str, str, str], MapAdapter] = {}  # entries are only added

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(
        self, path: str, view: Callable[..., Any], methods: Iterable[str], *, cross_site: bool
    ) -> None:
        """Register a view; see ``Router.add``."""
        names = [_method(name) for name in methods]
        if not names:
            raise ValueError(f"{path} has no methods; write methods=['GET'], or leave them out")
        endpoint = str(len(self._all))
        rule = Rule(path, endpoint=endpoint, methods=names)
        try:
            scratch = Map([rule.empty()])  # a rule knows its arguments once it is in a map
        except (LookupError, ValueError) as exc:
            raise ValueError(
                f"path {path!r} cannot be routed: {exc}; write '/items/<int:id>'"
            ) from None
        arguments = next(scratch.iter_rules()).arguments
        check_function(
            f"the view of {path!r}", view, ("req",), named=sorted(arguments), kinds=VIEW_KINDS
        )
        for name in names:
            if (path, name) in self._taken:
                raise DuplicateHandlerError(
                    f"{name} {path} has a view already: {self._taken[path, name]}; use another "
                    f"path or method for {name_of(view)}"
                )
        for name in names:
            self._taken[path, name] = name_of(view)
        self._all[endpoint] = View(view, cross_site)
        self.some_open |= cross_site
        self._map.add(rule)

    def match(self, environ: dict[str, Any], path: str) -> tuple[View, Any]:
        """Return the view of a request, and the arguments that its path holds.

        Args:
            environ: of the request.
            path: its path, decoded.

        Raises:
            HTTPException: there is none, or not for this method; or a redirect.
        """
        query, method = environ.get("QUERY_STRING"), environ["REQUEST_METHOD"]
        endpoint, arguments = self._adapter(environ).match(path, method, query_args=query)
        return self._all[endpoint], arguments

    def _adapter(self, environ: dict[str, Any]) -> MapAdapter:
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
