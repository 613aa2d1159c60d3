"""The hooks around views: before them, after them, and when they raise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from werkzeug.exceptions import HTTPException

from ...checks.functions import Kind, check_function
from ...errors import DuplicateHandlerError, name_of
from ...interrupts.stack import check_outside

__all__ = ["VIEW_KINDS", "Hooks"]

Hook = Callable[..., Any]

# A generator is an answer that is streamed; an async one cannot be.
VIEW_KINDS: tuple[Kind, ...] = ("plain", "async", "generator")


class Hooks:
    """The registered hooks, sync or async; each is called with the request first.

    Attributes:
        before: in the order in which they run.
        after: in the order in which they run, the last registered first.

    Threads:
        Any may register; workers see all of it or nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # for who registers
        self.before: tuple[Hook, ...] = ()
        self.after: tuple[Hook, ...] = ()
        self._by_status: dict[int, Hook] = {}  # entries are only added
        self._by_class: dict[type[BaseException], Hook] = {}  # entries are only added

    def add_before(self, hook: Hook) -> None:
        """Register a hook that runs before views.

        Raises:
            TypeError: it cannot be called so.
        """
        check_function("a before_request hook", hook, ("req",))
        check_outside("registering a before_request hook", self._lock)
        with self._lock:
            self.before = (*self.before, hook)

    def add_after(self, hook: Hook) -> None:
        """Register a hook that runs after views.

        Raises:
            TypeError: it cannot be called so.
        """
        check_function("an after_request hook", hook, ("req", "response"))
        check_outside("registering an after_request hook", self._lock)
        with self._lock:
            self.after = (hook, *self.after)

    def add_error(self, error: Any, handler: Hook) -> None:
        """Register a handler that answers in place of an error.

        Args:
            error: a status or a class of exceptions.
            handler: gets the request and the exception.

        Raises:
            ValueError: the error is neither.
            DuplicateHandlerError: it has a handler already.
            TypeError: the handler cannot be called so.
        """
        check_function("an error handler", handler, ("req", "exc"), kinds=VIEW_KINDS)
        known: dict[Any, Hook]
        if isinstance(error, type) and issubclass(error, Exception):
            known, name = self._by_class, error.__name__
        elif type(error) is int and 400 <= error <= 599:
            known, name = self._by_status, str(error)
        else:
            raise ValueError(
                f"error_handler takes a status from 400 to 599 or a class of exceptions, not "
                f"{error!r}; write @app.error_handler(404)"
            )
        check_outside(f"registering an error handler of {name}", self._lock)
        with self._lock:
            first = known.get(error)
            if first is None:
                known[error] = handler
        if first is not None:
            raise DuplicateHandlerError(
                f"{name} has an error handler already: {name_of(first)}; "
                f"call {name_of(handler)} from there"
            )

    def find(self, exc: BaseException) -> tuple[Hook | None, bool]:
        """Return the handler of an exception, and whether the exception was expected.

        The status of one of Werkzeug's exceptions comes first, then its class and its bases.
        All others are a 500. Redirects and ``abort(response)`` are answers already.
        """
        status = 500
        if isinstance(exc, HTTPException):
            if exc.response is not None or exc.code is None or exc.code < 400:
                return None, True
            status = exc.code
            if status in self._by_status:
                return self._by_status[status], True
        for kind in type(exc).__mro__:
            if kind in self._by_class:
                return self._by_class[kind], True
        return self._by_status.get(status), isinstance(exc, HTTPException)
