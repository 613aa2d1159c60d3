"""The parameters of handlers and hooks: which arguments to call each with. Pure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ...errors import name_of
from .request import WebSocketRequest

__all__ = ["hook_call", "is_async", "of_request", "takes"]


def of_request(kind: str, handler: Callable[..., Any]) -> Callable[[WebSocketRequest], Any]:
    """Return the handler as a function of the request.

    A handler whose parameters are named ``data`` and ``client_id`` gets those two; any
    other gets the request.

    Raises:
        TypeError: it cannot be called, or takes neither.
    """
    if not callable(handler):
        raise TypeError(f"the handler of {kind!r} cannot be called: {handler!r}")
    if _names(handler)[:2] == ["data", "client_id"] and takes(handler, 2):

        @functools.wraps(handler)
        def call(req: WebSocketRequest) -> Any:
            return handler(req.data, req.client_id)

        return call
    if takes(handler, 1):
        return handler
    name = getattr(handler, "__name__", "handler")
    raise TypeError(
        f"the handler of {kind!r} must take a request, and {name_of(handler)} takes "
        f"{inspect.signature(handler)}; write def {name}(req), or def {name}(data, client_id)"
    )


def _names(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # a function in C without a signature
        return []


def takes(function: Callable[..., Any], count: int) -> bool:
    """Tell whether a function takes that many arguments; True if it cannot be known."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function in C without a signature
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def is_async(handler: Callable[..., Any]) -> bool:
    """Tell whether a handler returns an awaitable or an async generator."""
    function = inspect.unwrap(handler)
    while isinstance(function, functools.partial):
        function = function.func
    for candidate in (function, getattr(function, "__call__", None)):  # noqa: B004  # its kind
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            return True
    return False


def hook_call(hook: Callable[..., Any]) -> Callable[[str, Any], Any]:
    """Return the hook as a function of two arguments.

    A hook with one parameter, or whose second has a default as in
    ``lambda client_id, name=name: ...``, is called with the client id alone.
    """
    try:
        parameters = list(inspect.signature(hook).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        parameters = []
    needed = [
        p
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    if len(needed) > 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return hook
    return lambda client_id, info: hook(client_id)
