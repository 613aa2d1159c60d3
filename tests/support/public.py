"""Every public method of an app, with arguments: listed from the classes, so that a new method
is called by the tests of interruptions without a word.
"""

from __future__ import annotations

import inspect
import io
import itertools
import queue
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from daebus import Blueprint, Daebus, DaebusHttp
from daebus.errors import (
    AttachError,
    CallError,
    CallTimeout,
    ClientError,
    ClientGone,
    DuplicateHandlerError,
    StateError,
)

__all__ = ["ENDS", "REFUSALS", "PublicCall", "app_calls", "public_calls"]

# What a call may raise at once, and be right.
REFUSALS = (
    AttachError,
    CallError,
    CallTimeout,
    ClientError,
    ClientGone,
    DuplicateHandlerError,
    LookupError,
    StateError,
    TypeError,
    ValueError,
)

# They end what the other calls are tried on, so they come last, or in tests of their own.
ENDS = frozenset(
    (
        "abort",
        "close",
        "disconnect_all_clients",
        "disconnect_client",
        "drain",
        "run",
        "stop",
    )
)

_numbers = itertools.count()


class PublicCall(NamedTuple):
    """One call of a public method, or a look at a property."""

    name: str
    run: Callable[[], object]


def _values(client_id: str) -> dict[str, Callable[[str], Any]]:
    """Return how to make each argument, by its name; given the name of the method."""

    def unique(_: str) -> str:
        return f"/unique{next(_numbers)}"

    def function(*_: Any) -> None:
        """Be a handler, a hook or a view."""

    return {
        "blueprint": lambda _: Blueprint("more"),
        "check": lambda _: lambda req: True,
        "client_id": lambda _: client_id,
        "client_ids": lambda _: [client_id],
        "component": lambda _: DaebusHttp(port=0),
        "data": lambda _: b"x",
        "environ": lambda _: {"PATH_INFO": "/", "REQUEST_METHOD": "GET", "HTTP_HOST": "x"},
        "error": lambda _: 418,
        "file": lambda _: io.StringIO(),
        "filter_func": lambda _: lambda *_: True,
        "function": lambda _: lambda proceed: proceed,
        "generator_func": lambda _: lambda connection, path: None,
        "handler": lambda _: function,
        "hook": lambda _: function,
        "identity": lambda _: "ada",
        "interval": lambda _: 900.0,
        "key": lambda _: "celsius",
        "message": lambda _: "text",
        "queue": lambda _: queue.SimpleQueue(),
        "message_type": unique,
        "name": unique,
        "path": unique,
        "prefix": unique,
        "rate": lambda _: "9000/s",
        "room": lambda _: "room",
        "room_pattern": lambda _: "no-*",
        "start_response": lambda _: lambda status, headers: None,
        "timeout": lambda _: 0.02,
        "topic": lambda _: "alarms",
        "topic_pattern": lambda _: "no-*",
        "user": lambda _: "ada",
        "value": lambda _: next(_numbers),
        "values": lambda _: {"note": 1},
        "wsgi_app": lambda _: lambda environ, start_response: [],
    }


# Arguments that are given although they have a default: output, and waits that are short.
_ALWAYS = frozenset(("file", "timeout"))


def _bind(method: Callable[..., Any], client_id: str) -> Callable[[], object]:
    values = _values(client_id)
    positional: list[str] = []
    keywords: list[str] = []
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            keywords.append(parameter.name)
        elif parameter.default is parameter.empty or parameter.name in _ALWAYS:
            (keywords if parameter.kind is parameter.KEYWORD_ONLY else positional).append(
                parameter.name
            )
    unknown = {*positional, *keywords} - values.keys()
    assert not unknown, f"say in {__file__} what {unknown} of {method} are"

    def run() -> object:
        made = [values[name](method.__name__) for name in positional]
        named = {name: values[name](method.__name__) for name in keywords}
        if "values" in named:
            named = named.pop("values") | named
        result = method(*made, **named)
        if inspect.iscoroutine(result):
            result.close()  # it is for the loop's thread, which nothing interrupts
        elif inspect.isfunction(result):  # a decorator with arguments
            result(_decorated(method.__name__))
        return result

    return run


def _decorated(name: str) -> Callable[..., Any]:
    if name == "background":
        return lambda: None
    if name == "thread":
        return lambda running: None
    return lambda *_, **__: None


def public_calls(subject: object, client_id: str) -> Iterator[PublicCall]:
    """Yield a call of every public method of an object, and of its properties.

    Args:
        subject: an app, a component, a connection, a request.
        client_id: for the methods that want one.
    """
    kind = type(subject)
    for name in sorted(dir(kind)):
        if name.startswith("_"):
            continue
        attribute = inspect.getattr_static(kind, name)
        label = f"{kind.__name__}.{name}"
        if isinstance(attribute, property):
            yield PublicCall(label, lambda name=name: getattr(subject, name))  # type: ignore[misc]  # a default argument
        elif inspect.isfunction(attribute):
            yield PublicCall(label, _bind(getattr(subject, name), client_id))


def app_calls(app: Daebus, connection: object, client_id: str) -> list[PublicCall]:
    """Return the calls of an app, its components and one connection, without those of ``ENDS``."""
    subjects = (app, app.http, app.websocket, connection)
    return [
        call
        for subject in subjects
        for call in public_calls(subject, client_id)
        if call.name.rpartition(".")[2] not in ENDS
    ]
