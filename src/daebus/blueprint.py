"""``Blueprint``: handlers, views and hooks, collected before there is an app.

A blueprint remembers each decorated function as a step; an app takes a step once the
component that it needs is attached. Components of the blueprint's own, which never start, take
each step first: so what no app could take is refused where it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from .checks.annotations import checked
from .checks.arguments import check_path
from .components import Components, Needs, Step
from .data.encoder import PLAIN
from .errors import StateError
from .http.component import DaebusHttp
from .scaffold import Decorator, Scaffold
from .websocket.component import DaebusWebSocket

__all__ = ["Blueprint", "take_steps"]


class Blueprint(Scaffold):
    """A part of an app in a module of its own, added with ``app.register(blueprint)``.

    Its decorators are those of the app and of the components. Hooks, error handlers and
    middleware are for the whole app, whoever registers them.

    Args:
        name: its name in errors; an app accepts each name once.
        prefix: prefix of its message types: ``"chat"`` makes ``"say"`` ``"chat.say"``.
        url_prefix: prefix of its paths, such as ``"/chat"``.

    Raises:
        TypeError: an argument is not a string, or the name is empty.
        ValueError: a prefix has the wrong form.

    Threads:
        To be used by one thread, at the program's start. Several apps may register one.
    """

    @checked
    def __init__(self, name: str, *, prefix: str = "", url_prefix: str = "") -> None:
        if not name:
            raise TypeError("a blueprint needs a name, not ''; write Blueprint('chat')")
        if url_prefix and (not url_prefix.startswith("/") or url_prefix.endswith("/")):
            raise ValueError(
                f"url_prefix starts with a slash and does not end with one; write "
                f"url_prefix={'/' + url_prefix.strip('/')!r}"
            )
        if url_prefix:
            check_path(url_prefix, "url_prefix={}")
        if prefix.endswith("."):
            raise ValueError(
                f"prefix {prefix!r} needs no dot at its end; write prefix={prefix.rstrip('.')!r}"
            )
        self.name = name
        self._prefix = prefix + "." if prefix else ""
        self._url_prefix = url_prefix
        self._steps: list[Step] = []
        self._taken = False
        self._rehearsal = Components()
        for component in (DaebusHttp(health=None), DaebusWebSocket()):
            self._rehearsal.attach(component, name, debug=False, version=None, encoder=PLAIN)

    def __repr__(self) -> str:
        return f"<Blueprint {self.name!r}>"

    def _type_of(self, message_type: str) -> str:
        if message_type == "*" and self._prefix:
            raise ValueError(
                f"'*' takes every type, not those of {self._prefix!r} alone; register it with "
                f"the app, or in a blueprint without a prefix"
            )
        return self._prefix + message_type

    def _path_of(self, path: str) -> str:
        return self._url_prefix + check_path(path)

    def _decorator(self, needs: Needs | None, find: Callable[[Components], Decorator]) -> Decorator:
        def remember(function: Any) -> Any:
            if self._taken:
                raise StateError(
                    f"blueprint {self.name!r} is registered already; decorate its functions "
                    f"before app.register(blueprint)"
                )
            step = Step(self.name, function, needs, find)
            step.take(self._rehearsal)
            self._steps.append(step)
            return function

        return cast("Decorator", remember)  # it returns the function, as every decorator here does


def take_steps(blueprint: Blueprint) -> list[Step]:
    """Return the steps for an app to take; the blueprint takes no more from now on."""
    blueprint._taken = True
    return list(blueprint._steps)
