"""The decorators with which an app registers views and hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Concatenate, TypeVar

from werkzeug.wrappers import Response

from ...checks.annotations import checked
from .request import Request
from .router import Router

__all__ = ["AfterHook", "BeforeHook", "ErrorHandler", "HttpDecorators", "View"]

# What a view gets beside the request depends on its path, which types do not tell.
View = TypeVar("View", bound=Callable[Concatenate[Request, ...], Any])
BeforeHook = TypeVar("BeforeHook", bound=Callable[[Request], Any])
AfterHook = TypeVar("AfterHook", bound=Callable[[Request, Response], Any])
ErrorHandler = TypeVar("ErrorHandler", bound=Callable[[Request, Any], Any])


class HttpDecorators:
    """The decorators of ``DaebusHttp``; ``app`` has the same ones.

    Args:
        router: where views and hooks are registered.
    """

    def __init__(self, router: Router) -> None:
        self._router = router

    @checked
    def route(
        self, path: str, methods: Iterable[str] = ("GET",), *, cross_site: bool = False
    ) -> Callable[[View], View]:
        """Decorate a view; the same as ``app.route``.

        The view gets the ``Request`` and the parts of the path that Werkzeug's routing
        found, such as ``id`` of ``"/items/<int:id>"``. It may be async. It returns a dict
        or list (sent as JSON), str (HTML), bytes, a generator, ``(body, status)``,
        ``(body, status, headers)`` or a Werkzeug ``Response``.

        Args:
            path: such as ``"/items/<int:id>"``.
            methods: that it answers; HEAD goes with GET.
            cross_site: pages of other sites may send methods other than GET, HEAD and
                OPTIONS, such as forms, in the user's name; otherwise they get 403.

        Raises:
            DuplicateHandlerError: the path has a view for that method already.
            ValueError: the path does not start with a slash, or a method is not one.
            TypeError: the view does not take the request and the parts of the path.
        """

        def register(view: View) -> View:
            self._router.add(path, view, methods, cross_site=cross_site)
            return view

        return register

    @checked
    def before_request(self, hook: BeforeHook) -> BeforeHook:
        """Decorate a hook that runs before each request: ``hook(req)``, sync or async.

        What it returns, unless None, is the answer; it may be anything that a view may
        return. It runs before views, files and mounted apps, and before a 404. Several run
        in the order in which they were registered.

        Raises:
            TypeError: it cannot be called so.
        """
        self._router.hooks.add_before(hook)
        return hook

    @checked
    def after_request(self, hook: AfterHook) -> AfterHook:
        """Decorate a hook that runs after each request: ``hook(req, response)``, sync or async.

        It may change Werkzeug's response, or return another answer. It sees answers of
        views, files, other hooks and error handlers, and errors; not those of mounted apps.
        Several run in reverse order: the last registered is the next to the view.

        Raises:
            TypeError: it cannot be called so.
        """
        self._router.hooks.add_after(hook)
        return hook

    @checked
    def error_handler(self, error: int | type[Exception]) -> Callable[[ErrorHandler], ErrorHandler]:
        """Decorate the handler of a status or an exception: ``handler(req, exc)``, sync or async.

        It returns what a view may return; without a status of its own the answer has the
        error's, 500 for an exception that is not one of Werkzeug's. The handler of the status
        is looked for first, then that of the exception's class and its bases; the handler of
        500 takes all other exceptions. A handler that raises is answered with a plain 500.

        Args:
            error: such as ``404``, ``werkzeug.exceptions.Forbidden`` or ``KeyError``.

        Raises:
            ValueError: the argument is neither a status from 400 to 599 nor a class of exceptions.
            DuplicateHandlerError: it has a handler already.
        """

        def register(handler: ErrorHandler) -> ErrorHandler:
            self._router.hooks.add_error(error, handler)
            return handler

        return register

    @checked
    def mount(self, prefix: str, wsgi_app: Callable[..., Any]) -> None:
        """Give all requests below a prefix to another WSGI app.

        It goes before routes and files; of several prefixes the longest wins. An app at ``/``
        comes last: it gets what no route, file or other app answers. The app sees
        the prefix in ``SCRIPT_NAME`` and the rest in ``PATH_INFO`` (PEP 3333). What pages of
        other sites would change is refused before the app sees it.

        Args:
            prefix: such as ``"/old"``, for ``/old`` and ``/old/...``; or ``"/"``.
            wsgi_app: such as a Flask app.

        Raises:
            DuplicateHandlerError: an app is mounted there already.
            TypeError: the app cannot be called.
            ValueError: the prefix does not start with a slash, or ends with one and is not
                ``"/"``.
        """
        self._router.mounts.add(prefix, wsgi_app)
