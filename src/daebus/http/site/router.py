"""The WSGI app: it finds the view that answers a request, with Werkzeug's routing.

A request passes in this order: paths of our own; a preflight; whether a page of another site
has sent it; ``before_request`` hooks; a mounted app, or the view or file, or the app at ``/``;
the error handler of what was raised; ``after_request`` hooks.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Literal

from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.wrappers import Response

from ...checks.arguments import check_path
from ...data.encoder import PLAIN, Encoder
from ...errors import DuplicateHandlerError
from ...interrupts.raised import from_signal
from ...server.threads.loop import LoopThread
from ...server.threads.safelog import format_exception, get_logger
from ..protocol.cors import Cors
from ..protocol.crosssite import is_cross_site
from .files import StaticFolder
from .front import Front
from .hooks import Hooks
from .mounts import Mount, Mounts
from .own import Health, OwnPaths
from .request import JsonReader, Request, close_uploads_with, spool_to
from .results import exception_response, json_error, keep_headers, to_response
from .spool import Spool
from .views import METHODS, Views

__all__ = ["RECEIVE", "BodyReader", "Router"]

logger = get_logger("daebus.http")

# What a request holds whose body has not come yet: a function that waits for the body and
# returns its size.
RECEIVE = "daebus.receive"

# See ``Router.who_reads``.
BodyReader = Literal["nobody", "hooks", "view"]


class Router:
    """The routes of an app, and what surrounds them.

    Args:
        static: folder whose files are served where no route matches; None for none.
        max_body: bytes of a request body.
        max_depth: levels of a JSON body.
        max_spool: bytes of all bodies and uploads on the disk.
        cors: which pages of other sites may read answers; None for none.
        health: path of the health check; None for none.
        cross_site: pages of other sites may change something.

    Attributes:
        debug: the answers to errors hold the traceback.
        front: the page at ``/`` until there is another one.
        encoder: makes JSON of what views return.
        own: paths that are answered before all others.
        health: what the health check says.
        spool: where bodies and uploads go that are too large for memory.
        hooks: run around views.
        mounts: other WSGI apps.
    """

    def __init__(
        self,
        static: str | None,
        max_body: int,
        max_depth: int,
        *,
        max_spool: int,
        cors: Cors | None = None,
        health: str | None = None,
        cross_site: bool = False,
    ) -> None:
        self.debug = False
        self.front = Front()
        self.encoder: Encoder = PLAIN
        self.own = OwnPaths()
        self.health = Health()
        self.spool = Spool(max_spool)
        if health is not None:
            self.own.add(health, self.health.answer)
        self.hooks = Hooks()
        self.mounts = Mounts()
        self._static = None if static is None else StaticFolder(static)
        self._max_body = max_body
        self._json = JsonReader(max_depth)
        self._cors = cors
        self._cross_site = cross_site
        self._views = Views()

    def add(
        self,
        path: str,
        view: Callable[..., Any],
        methods: Iterable[str],
        *,
        cross_site: bool = False,
    ) -> None:
        """Register a view; with ``cross_site`` pages of other sites may change something by it.

        Raises:
            DuplicateHandlerError: a method of that path has a view already.
            ValueError: the path does not start with a slash, or a method is not one.
            TypeError: the view does not take the request and the parts of the path.
        """
        check_path(path)
        if path in self.own:
            raise DuplicateHandlerError(
                f"{path} is answered by daebus itself; use another path, or move the health "
                f"check with DaebusHttp(health='/other') or None"
            )
        self._views.add(path, view, methods, cross_site=cross_site)

    def who_reads(self, environ: dict[str, Any]) -> BodyReader:
        """Return who could read the body of a request first, which has not come yet.

        Args:
            environ: of the request, without its body.

        Returns:
            "nobody" if it is refused whatever the body is; "hooks" if ``before_request``
            hooks may refuse it; else "view", be that a mounted app.

        Threads:
            Any; runs no user code.
        """
        path = environ["PATH_INFO"]
        if path in self.own:
            return "nobody"
        request = Request(environ)
        if self._is_refused(request):
            return "nobody"
        if not self.mounts.all or self.mounts.find(path) is None:
            try:
                self._views.match(environ, _decoded_path(request))
            except NotFound:
                if self.mounts.root is None:
                    return "nobody"
            except HTTPException:  # not for this method, or a redirect
                return "nobody"
        return "hooks" if self.hooks.before else "view"

    def wsgi(
        self, environ: dict[str, Any], start_response: Any, loop: LoopThread
    ) -> Iterable[bytes]:
        """Answer one request; what a view raises becomes a response."""
        known = environ.get("HTTP_IF_NONE_MATCH")
        own = self.own.answer(environ["PATH_INFO"], environ["REQUEST_METHOD"], known)
        if own is not None:
            return Response(own.body, own.status, own.headers)(environ, start_response)
        if self._cors is not None:
            preflight = self._answer_preflight(self._cors, environ)
            if preflight is not None:
                return preflight(environ, start_response)
            start_response = _with_cors(self._cors, environ, start_response)
        request = Request(environ)
        request.max_content_length = self._max_body
        request.json_module = self._json  # type: ignore[assignment]  # it has ``loads`` too
        spool_to(request, self.spool)
        if self._is_refused(request):
            return _refuse_cross_site(environ)(environ, start_response)
        hooks, mounts = self.hooks, self.mounts
        response: Response | None = None
        mount: Mount | None = None
        try:
            if hooks.before:
                response = self._ask_before(request, loop)
            if response is None:
                _receive_body(environ)
                if mounts.all:
                    mount = mounts.find(environ["PATH_INFO"])
                if mount is None:
                    response = self._respond(request, loop)
                    mount = mounts.root
        except BaseException as exc:  # a SystemExit in a view must not end a worker
            response = self._handle(exc, request, loop)
        if response is None:
            assert mount is not None
            request.close()
            return mount.answer(environ, start_response)
        if hooks.after:
            response = self._run_after(response, request, loop)
        close_uploads_with(response, request)
        return response(environ, start_response)

    def _is_refused(self, request: Request) -> bool:
        """Return whether a request would change something for a page of another site."""
        if self._cross_site or not is_cross_site(request.environ, self._cors):
            return False
        return not self._is_open(request)

    def _is_open(self, request: Request) -> bool:
        """Return whether the view of a request is meant for pages of other sites too."""
        views = self._views
        if not views.some_open or self.mounts.find(request.environ["PATH_INFO"]) is not None:
            return False
        try:
            return views.match(request.environ, _decoded_path(request))[0].open
        except HTTPException:
            return False

    def _respond(self, request: Request, loop: LoopThread) -> Response | None:
        """Return the answer of a view or file; None if the app at ``/`` is to answer."""
        path = _decoded_path(request)
        try:
            view, arguments = self._views.match(request.environ, path)
        except MethodNotAllowed as exc:
            allowed = sorted({*(exc.valid_methods or ()), "OPTIONS"})
            if request.method == "OPTIONS":
                return _tell_methods(allowed)
            raise MethodNotAllowed(allowed) from None
        except NotFound:
            return self._respond_without_view(request, path)
        result = view.function(request, **arguments)
        if inspect.isawaitable(result):
            result = loop.run(result)
        return to_response(result, self.encoder)

    def _respond_without_view(self, request: Request, path: str) -> Response | None:
        asks = request.method == "OPTIONS"
        if self._static is not None and (asks or request.method in ("GET", "HEAD")):
            environ = {**request.environ, "REQUEST_METHOD": "HEAD"} if asks else request.environ
            with contextlib.suppress(NotFound):
                found = self._static.find(path, environ)
                if not asks:
                    return found
                found.close()
                return _tell_methods(["GET", "HEAD", "OPTIONS"])
        if asks and path == "*":  # of the server, not of a path
            return _tell_methods(METHODS)
        if self.mounts.root is not None:
            return None
        if asks and path == "/":  # how some proxies look whether a server is there
            return _tell_methods(["OPTIONS"])
        front = self._front_page(request)
        if front is not None:
            return front
        raise NotFound

    def _front_page(self, request: Request) -> Response | None:
        """Return the page of an app that has none; None if somebody has seen to that."""
        if self._views or self._static is not None or self.mounts.all:
            return None
        if self.hooks.find(NotFound())[0] is not None:
            return None
        return self.front.answer(request)

    # --- around the views -------------------------------------------------------

    def _ask_before(self, request: Request, loop: LoopThread) -> Response | None:
        """Return the answer of the first ``before_request`` hook that has one."""
        for hook in self.hooks.before:
            result = hook(request)
            if inspect.isawaitable(result):
                result = loop.run(_after_body(result, request.environ))
            if result is not None:
                return to_response(result, self.encoder)
        return None

    def _handle(self, exc: BaseException, request: Request, loop: LoopThread) -> Response:
        """Return the answer for an exception, whatever it is."""
        if from_signal(exc):  # a guest's thread may be the main one
            raise exc
        try:
            return self._answer_to(exc, request, loop)
        except BaseException as failure:  # its own methods raise
            return self._fail("the answer to an exception of", failure, request)

    def _answer_to(self, exc: BaseException, request: Request, loop: LoopThread) -> Response:
        handler, expected = self.hooks.find(exc)
        if not expected:
            logger.error("the view of %s %r failed", request.method, request.path, exc_info=exc)
        if handler is not None:
            status = exc.code if isinstance(exc, HTTPException) else 500
            try:
                response = to_response(_call(loop, handler, request, exc), self.encoder, status)
            except BaseException as failure:
                return self._fail("the error handler of", failure, request)
            if isinstance(exc, HTTPException):
                keep_headers(response, exc)
            return response
        if isinstance(exc, HTTPException):
            return exception_response(exc)
        return self._failed(exc)

    def _run_after(self, response: Response, request: Request, loop: LoopThread) -> Response:
        """Return the response as the ``after_request`` hooks leave it."""
        try:
            for hook in self.hooks.after:
                result = _call(loop, hook, request, response)
                if result is not None and result is not response:
                    replaced, response = response, to_response(result, self.encoder)
                    response.call_on_close(replaced.close)
        except BaseException as failure:
            response.close()
            return self._fail("an after_request hook of", failure, request)
        return response

    def _fail(self, who: str, exc: BaseException, request: Request) -> Response:
        if from_signal(exc):
            raise exc
        logger.error("%s %s %r failed", who, request.method, request.path, exc_info=exc, kind=who)
        return self._failed(exc)

    def _failed(self, exc: BaseException) -> Response:
        """Return what a client is told of an exception."""
        traceback = format_exception(exc) if self.debug else None
        return json_error(500, "the view failed", traceback=traceback)

    def _answer_preflight(self, cors: Cors, environ: dict[str, Any]) -> Response | None:
        """Answer a preflight; return None if this request is not one."""
        method = environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD")
        origin = environ.get("HTTP_ORIGIN")
        if environ["REQUEST_METHOD"] != "OPTIONS" or origin is None or method is None:
            return None
        names = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS")
        headers = cors.preflight(origin, method, names)
        if headers is None:
            logger.warning(
                "refused a page from %.200r at the host %.200r; if that page is yours, write "
                "DaebusHttp(cors={'allowed_origins': [%.200r]})",
                origin,
                environ.get("HTTP_HOST"),
                origin,
            )
            response = json_error(403, "this origin is not allowed", "origin_not_allowed")
            response.headers["Vary"] = "Origin"
            return response
        return Response(status=204, headers=headers)


def _tell_methods(allowed: Iterable[str]) -> Response:
    return Response(headers={"Allow": ", ".join(allowed)})


def _receive_body(environ: dict[str, Any]) -> None:
    """Wait for the body of a request that hooks were asked about before it came."""
    receive = environ.get(RECEIVE)
    if receive is not None:
        environ["CONTENT_LENGTH"] = str(receive())


def _after_body(result: Awaitable[Any], environ: dict[str, Any]) -> Awaitable[Any]:
    """Return what is to be awaited, once the body is there: the loop must not wait for it."""
    try:
        _receive_body(environ)
    except BaseException:
        if isinstance(result, Coroutine):
            result.close()
        raise
    return result


def _decoded_path(request: Request) -> str:
    path: str = request.environ["PATH_INFO"]
    return path if path.isascii() else path.encode("latin-1").decode(errors="replace")


def _refuse_cross_site(environ: dict[str, Any]) -> Response:
    logger.warning(
        "refused a %s of a page from %.200r at the host %.200r; if that page is yours, name it in "
        "DaebusHttp(cors=...), or write @app.route(..., cross_site=True) for pages of all sites",
        environ["REQUEST_METHOD"],
        environ.get("HTTP_ORIGIN", "another site"),
        environ.get("HTTP_HOST"),
    )
    return json_error(403, "a page of another site must not do this", "cross_site_request")


def _with_cors(cors: Cors, environ: dict[str, Any], start_response: Any) -> Any:
    origin = environ.get("HTTP_ORIGIN")

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, cors.add(headers, origin), exc_info)

    return start


def _call(loop: LoopThread, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function of the app; await what an async one returns on the loop's thread."""
    result = function(*args, **options)
    if inspect.isawaitable(result):
        result = loop.run(result)
    return result
