"""The parameters of handlers and hooks: which arguments to call each with. Pure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ...checks.functions import check_function, shown, signature_of, takes
from ...errors import name_of
from .request import WebSocketRequest

__all__ = ["hook_call", "of_request"]


def of_request(kind: str, handler: Callable[..., Any]) -> Callable[[WebSocketRequest], Any]:
    """Return the handler as a function of the request.

    A handler whose parameters are named ``data`` and ``client_id`` gets those two; any
    other gets the request.

    Raises:
        TypeError: it cannot be called, or takes neither.
    """
    if not callable(handler):
        raise TypeError(
            f"the handler of {kind!r} must be a function, not {handler!r:.100}; "
            f"write lambda req: ..."
        )
    names = [parameter.name for parameter in _parameters(handler)]
    if names[:2] == ["data", "client_id"] and takes(handler, "data", "client_id"):

        @functools.wraps(handler)
        def call(req: WebSocketRequest) -> Any:
            return handler(req.data, req.client_id)

        return call
    if takes(handler, "req"):
        return handler
    name = getattr(handler, "__name__", "handler")
    raise TypeError(
        f"the handler of {kind!r} must take a request, and {name_of(handler)} takes "
        f"{shown(handler)}; write def {name}(req), or def {name}(data, client_id)"
    )


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a function, or of the one behind a wrapper that takes any."""
    signature = signature_of(function)
    if signature is None:
        return []
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        inner = getattr(function, "__wrapped__", None)
        if callable(inner):
            return _parameters(inner)
    return parameters


def hook_call(
    what: str, hook: Callable[..., Any], first: str = "client_id"
) -> Callable[[str, Any], Any]:
    """Return a hook as a function of two arguments.

    A hook with one parameter, or whose second has a default as in
    ``lambda client_id, name=name: ...``, is called with the first alone.

    Args:
        what: what it is, for the error, such as ``"an on_disconnect hook"``.
        hook: of the user.
        first: what its first argument is.

    Raises:
        TypeError: it takes neither one argument nor two, or nothing would run what it gives.
    """
    needed = [
        p
        for p in _parameters(hook)
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in _parameters(hook))
    if callable(hook) and (len(needed) > 1 or variadic):
        check_function(what, hook, (first, "info"))
        return hook
    check_function(what, hook, (first,))
    return lambda who, info: hook(who)
