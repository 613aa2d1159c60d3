"""From a path to a view and back to a response, on Werkzeug's routing and wrappers."""

from __future__ import annotations

import inspect
import json
import logging
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest, HTTPException, NotFound
from werkzeug.routing import Map, MapAdapter, Rule
from werkzeug.utils import send_from_directory
from werkzeug.wrappers import Request as WerkzeugRequest
from werkzeug.wrappers import Response

from ..errors import DuplicateHandlerError
from ..server.loop import LoopThread
from .wire import status_code_name

__all__ = ["Request", "Router"]

logger = logging.getLogger("daebus.http")

# Bounds that Werkzeug needs for forms: memory for fields that are no files, and parts.
MAX_FORM_MEMORY = 1 << 20
MAX_FORM_PARTS = 1000

# Names of this server that are remembered with the map; a client may invent many.
MAX_HOSTS = 64


class Request(WerkzeugRequest):
    """An HTTP request: Werkzeug's, and ``payload``."""

    max_form_memory_size = MAX_FORM_MEMORY
    max_form_parts = MAX_FORM_PARTS

    @property
    def payload(self) -> Any:
        """What the client sent: the JSON body, else the form, else the query, as plain data.

        Raises:
            werkzeug.exceptions.BadRequest: the body claims to be JSON and is not; answered 400.
        """
        if self.is_json:
            try:
                return json.loads(self.get_data())
            except (ValueError, RecursionError):
                raise BadRequest("the body is not JSON") from None
        if self.form:
            return self.form.to_dict()
        return self.args.to_dict()


class Router:
    """The routes of an app, and its static folder.

    Args:
        static: folder whose files are served where no route matches; None for none.
        max_body: bytes of a request body.
    """

    def __init__(self, static: str | None, max_body: int) -> None:
        self.debug = False
        self._static = None if static is None else str(Path(static).resolve())
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
                    f"path or method"
                )
        endpoint = str(len(self._views))
        for name in names:
            self._taken[path, name] = getattr(view, "__qualname__", repr(view))
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
            response = _error(exc)
        except BaseException:  # a SystemExit in a view must not end a worker
            logger.exception("the view of %s %r failed", request.method, request.path)
            text = traceback.format_exc().rstrip() if self.debug else "the view failed"
            response = _json_error(500, text)
        if "files" in vars(request):  # they were asked for; large ones are on the disk
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
                return self._file(request)
            raise
        result = self._views[endpoint](request, **arguments)
        if inspect.isawaitable(result):
            result = loop.submit(_await(result)).result()
        return _to_response(result)

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

    def _file(self, request: Request) -> Response:
        path = request.path.lstrip("/")
        if not path or path.endswith("/"):
            path += "index.html"
        assert self._static is not None
        return send_from_directory(self._static, path, request.environ)


def _to_response(result: Any) -> Response:
    """Turn what a view returned into a response.

    Raises:
        TypeError: it is nothing that can be sent.
    """
    status: Any = 200
    headers: Any = None
    if isinstance(result, tuple):
        if len(result) == 2:
            result, status = result
        elif len(result) == 3:
            result, status, headers = result
        else:
            raise TypeError("a view returns a body, (body, status) or (body, status, headers)")
    if isinstance(result, Response):
        return result
    if isinstance(result, dict | list):
        kind, result = "application/json", json.dumps(result, allow_nan=False)
    elif isinstance(result, str):
        kind = "text/html; charset=utf-8"
    elif isinstance(result, bytes):
        kind = "application/octet-stream"
    elif inspect.isgenerator(result):
        kind = "text/plain; charset=utf-8"
    elif result is None and status != 200:
        kind, result = "text/html; charset=utf-8", b""
    else:
        raise TypeError(
            f"a view returns dict, list, str, bytes, a generator, a tuple with a status, or a "
            f"Response; not {type(result).__name__}"
        )
    response = Response(result, status, headers, content_type=kind if headers is None else None)
    if headers is not None and "content-type" not in Headers(headers):
        response.headers["Content-Type"] = kind
    return response


def _error(exc: HTTPException) -> Response:
    if exc.response is not None:
        return cast(Response, exc.response)  # the view's own: abort(response)
    own = exc.get_response()
    if own.status_code < 400:  # a redirect
        return own
    response = _json_error(own.status_code, exc.description or exc.name)
    for name in ("Allow", "WWW-Authenticate", "Retry-After", "Content-Range"):
        if name in own.headers:
            response.headers[name] = own.headers[name]
    return response


def _json_error(status: int, text: str) -> Response:
    body = json.dumps({"error": text, "code": status_code_name(status)})
    return Response(body, status, mimetype="application/json")


async def _await(awaitable: Any) -> Any:
    return await awaitable
