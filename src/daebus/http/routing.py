"""From a path to a view and back to a response, on Werkzeug's routing and wrappers."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import Map, MapAdapter, Rule
from werkzeug.wrappers import Response

from ..errors import DuplicateHandlerError, name_of
from ..server.loop import LoopThread
from .files import StaticFolder
from .request import Request
from .results import exception_response, json_error, to_response

__all__ = ["Router"]

logger = logging.getLogger("daebus.http")

# Names of this server that are remembered with the map; a client may invent many.
MAX_HOSTS = 64


class Router:
    """The routes of an app, and its static folder.

    Args:
        static: folder whose files are served where no route matches; None for none.
        max_body: bytes of a request body.
    """

    def __init__(self, static: str | None, max_body: int) -> None:
        self.debug = False
        self._static = None if static is None else StaticFolder(static)
        self._max_body = max_body
        self._map = Map()
        self._views: dict[str, Callable[..., Any]] = {}
        self._taken: dict[tuple[str, str], str] = {}
        self._adapters: dict[tuple[str, str], MapAdapter] = {}  # entries are only added

    def add(self, path: str, view: Callable[..., Any], methods: Iterable[str]) -> None:
        """Register a view.

        Raises:
            DuplicateHandlerError: a method of that path has a view already.
            ValueError: the path does not start with a slash.
        """
        if not path.startswith("/"):
            raise ValueError(f"path must start with a slash; write @app.route({'/' + path!r})")
        names = [method.upper() for method in methods]
        for name in names:
            if (path, name) in self._taken:
                raise DuplicateHandlerError(
                    f"{name} {path} has a view already: {self._taken[path, name]}; use another "
                    f"path or method for {name_of(view)}"
                )
        endpoint = str(len(self._views))
        for name in names:
            self._taken[path, name] = name_of(view)
        self._views[endpoint] = view
        self._map.add(Rule(path, endpoint=endpoint, methods=names))

    def wsgi(
        self, environ: dict[str, Any], start_response: Any, loop: LoopThread
    ) -> Iterable[bytes]:
        """Answer one request; what a view raises becomes a response."""
        request = Request(environ)
        request.max_content_length = self._max_body
        try:
            response = self._respond(request, loop)
        except HTTPException as exc:
            response = exception_response(exc)
        except BaseException:  # a SystemExit in a view must not end a worker
            logger.exception("the view of %s %r failed", request.method, request.path)
            text = traceback.format_exc().rstrip() if self.debug else "the view failed"
            response = json_error(500, text)
        if request.uploads:
            response.direct_passthrough = False  # Werkzeug would not say when it is closed
            response.call_on_close(request.close)
        return response(environ, start_response)

    def _respond(self, request: Request, loop: LoopThread) -> Response:
        try:
            endpoint, arguments = self._adapter(request.environ).match(
                request.environ["PATH_INFO"].encode("latin-1").decode(errors="replace"),
                request.method,
                query_args=request.environ.get("QUERY_STRING"),
            )
        except NotFound:
            if self._static is not None and request.method in ("GET", "HEAD"):
                return self._static.find(request.path, request.environ)
            raise
        result = self._views[endpoint](request, **arguments)
        if inspect.isawaitable(result):
            result = loop.submit(_await(result)).result()
        return to_response(result)

    def _adapter(self, environ: dict[str, Any]) -> MapAdapter:
        """Return the map as seen by clients that use the host name of this request."""
        scheme = environ["wsgi.url_scheme"]
        host = environ.get("HTTP_HOST") or environ["SERVER_NAME"]
        adapter = self._adapters.get((scheme, host))
        if adapter is None:
            adapter = self._map.bind(host, url_scheme=scheme)
            if len(self._adapters) < MAX_HOSTS:
                self._adapters[scheme, host] = adapter
        return adapter


async def _await(awaitable: Any) -> Any:
    return await awaitable
