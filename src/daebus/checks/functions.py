"""What a function of the user's can be called with, and what calling it gives. Pure.

What counts is the function that will be called, not the one that a decorator has wrapped: a
decorator made with ``functools.wraps`` may supply an argument.
"""

from __future__ import annotations

import fnmatch
import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

from ..errors import name_of

__all__ = [
    "Ask",
    "Kind",
    "allows",
    "check_function",
    "fitting",
    "is_async",
    "kind_of",
    "shown",
    "signature_of",
    "takes",
]

Kind = Literal["plain", "async", "generator", "async generator"]

# Which names it is asked about, and a hook that says whether a client may have one.
Ask = tuple[Callable[[str], object], Callable[[str, str], Any]]

# What to write in place of a function that nothing awaits, or that nothing iterates over.
_BETTER: dict[Kind, str] = {
    "async": "def, not async def",
    "generator": "return, not yield",
    "async generator": "return, not yield",
}


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of what is called; None if it cannot be known, as of some C code."""
    try:
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None


def takes(function: Callable[..., Any], *arguments: object, **named: object) -> bool:
    """Tell whether a function can be called so; True if it cannot be known."""
    signature = signature_of(function)
    if signature is None:
        return True
    try:
        signature.bind(*arguments, **named)
    except TypeError:
        return False
    return True


def kind_of(function: Callable[..., Any]) -> Kind:
    """Return what calling a function gives: a value, or what must be awaited or iterated over."""
    while isinstance(function, functools.partial):
        function = function.func
    for candidate in (function, getattr(function, "__call__", None)):  # noqa: B004  # its kind
        if inspect.iscoroutinefunction(candidate):
            return "async"
        if inspect.isasyncgenfunction(candidate):
            return "async generator"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
    return "plain"


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether a function, or the one that it wraps, is async or an async generator."""
    return kind_of(inspect.unwrap(function)) in ("async", "async generator")


def check_function(
    what: str,
    function: Any,
    arguments: Iterable[str],
    *,
    named: Iterable[str] = (),
    kinds: Iterable[Kind] = ("plain", "async"),
) -> None:
    """Check a function that is registered, so that no call of it can fail for its form.

    Args:
        what: what it is to be, such as ``"an on_connect hook"``.
        function: of the user.
        arguments: what it is called with, by position.
        named: what it is called with by name, besides.
        kinds: what it may be.

    Raises:
        TypeError: it is no function, takes other arguments, or is of another kind; the text
            says what to write.
    """
    arguments, named = tuple(arguments), tuple(named)
    if not callable(function):
        raise TypeError(
            f"{what} must be a function, not {function!r:.100}; "
            f"write {_definition(function, [*arguments, *named])}"
        )
    kind = kind_of(function)
    if kind not in kinds:
        article = "a " if kind == "generator" else "an " if kind == "async generator" else ""
        raise TypeError(
            f"{name_of(function)} is {article}{kind}, which {what} must not be; "
            f"write {_BETTER.get(kind, 'async def')}"
        )
    if not takes(function, *arguments, **dict.fromkeys(named)):
        names = [*arguments, *named]
        given = " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
        raise TypeError(
            f"{what} is called with {given or 'no arguments'}, and {name_of(function)} takes "
            f"{shown(function)}; write {_definition(function, names)}"
        )


def shown(function: Callable[..., Any]) -> str:
    """Return the parameters of a function for a message, without annotations."""
    signature = signature_of(function)
    if signature is None:
        return "(...)"
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare))


def _definition(function: Callable[..., Any], names: list[str]) -> str:
    name = getattr(function, "__name__", "")
    listed = ", ".join(names)
    if not isinstance(name, str) or not name.isidentifier():  # a lambda, or no function at all
        return f"lambda {listed}: ..." if names else "lambda: ..."
    return f"def {name}({listed})"


def fitting(pattern: str) -> Callable[[str], object]:
    """Return a function that tells whether a name fits the pattern of a hook.

    That is a pattern as in ``fnmatch``. Names may have brackets of their own, and a hook must
    not be passed over for that: so a pattern also fits as it stands, with ``*`` for anything,
    as that of a family of topics does.
    """
    plain = ".*".join(map(re.escape, pattern.split("*")))
    return re.compile(rf"(?s:{plain})\Z|{fnmatch.translate(pattern)}").match


def allows(hooks: Iterable[Ask], kind: str, client_id: str, name: str) -> bool:
    """Ask hooks whether a client may have something; None allows it as a true answer does.

    Args:
        hooks: those that fit the name are asked, until one refuses.
        kind: of the hooks, such as ``on_join``.
        client_id: the client.
        name: of the room or topic.

    Raises:
        TypeError: a hook is async.
        Exception: a hook raised it.
    """
    for fits, hook in tuple(hooks):
        if fits(name):
            verdict = hook(client_id, name)
            if hasattr(verdict, "__await__"):  # a coroutine is true, but not an answer
                getattr(verdict, "close", bool)()
                raise TypeError(
                    f"{name_of(hook)} is async, which an {kind} hook must not be; "
                    f"write def, not async def"
                )
            if verdict is not None and not verdict:
                return False
    return True
