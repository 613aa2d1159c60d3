"""The methods of ``DaebusWebSocket`` for who is in which room."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ...checks.annotations import checked
from ...checks.arguments import check_name
from ...checks.functions import check_function, fitting
from ..clients.presence import MAX_BYTES, MAX_PEOPLE, PREFIX, Rule
from ..topics.spec import Spec, check_topic
from .context import Section

__all__ = ["PresenceHook", "PresenceMethods"]

PresenceHook = TypeVar("PresenceHook", bound=Callable[[str, str, bool], Any])


class PresenceMethods(Section):
    """Who is where."""

    @checked
    def presence(
        self,
        room_pattern: str,
        *,
        grace: float = 5.0,
        info: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        """Show clients who is in a room, as a state that the server fills.

        The topic of the room ``"floor 3"`` is ``"presence:floor 3"``, its messages are of type
        ``presence``, and its keys are users: the name that ``identify`` gave, else the client's
        id. A value has ``since`` (Unix time), ``clients`` (how many of the user's are there) and
        what ``info`` says. A room of more than 1,000 users shows ``{"#": number}`` instead, until
        there are 500 or less. A room with a name of more than 119 characters has none.

        Args:
            room_pattern: a room, or with ``*`` all rooms whose names fit: ``"floor *"``.
            grace: seconds until somebody who has left is taken away, so that a page that is
                loaded again makes no noise; 0 for at once.
            info: is called with a client's id as it joins, and returns more to show of it. That
                of a user's first client counts. What it raises is logged.

        Raises:
            DuplicateHandlerError: there is one for this pattern already, or such a topic.
            ValueError: the name is too long for a topic, or ``grace`` is out of range.

        Threads:
            Any, at any time. ``info`` runs in the thread that joins.
        """
        check_name(room_pattern, "presence({})")
        if info is not None:
            check_function("info= of presence", info, ("client_id",), kinds=("plain",))
        if grace < 0:
            raise ValueError(f"grace must be 0 or more seconds, not {grace!r}")
        name = check_topic(PREFIX + room_pattern, "presence({})", family=True)
        spec = Spec(
            "state",
            name,
            message_type="presence",
            count=MAX_PEOPLE + 1,
            max_bytes=MAX_BYTES,
            shared=False,
        )
        self._context.check_fork()
        self._context.presence.declare(Rule(spec, grace, info))

    def get_presence(self, room: str) -> dict[str, Any]:
        """Return who is in a room, as clients are shown it; empty without ``presence``.

        A thread of its own keeps it, a moment behind: ``get_room_clients`` has a client as soon as
        ``join`` has returned.

        Threads:
            Any; never waits.
        """
        check_name(room, "get_presence({})")
        shown = self._context.presence.of(room)
        return {user: json.loads(value.decode()) for user, value in shown.items()}

    @checked
    def on_presence(self, room_pattern: str) -> Callable[[PresenceHook], PresenceHook]:
        """Decorate a function that is told of users who come and go.

        It gets room, user, and True for one who came, once for all clients of the user, and of
        one who left once ``grace`` is over. Not of those who are there when the app stops.

        Args:
            room_pattern: a pattern of names as in ``fnmatch``, of rooms that have ``presence``.

        Raises:
            TypeError: the pattern is not a string.

        Threads:
            It runs in a thread of its own, one call after the other; 1,000 may wait, more are
                counted as ``lost_notices`` and dropped. It may be async.
        """
        check_name(room_pattern, "on_presence({})")
        fits = fitting(room_pattern)

        def register(hook: PresenceHook) -> PresenceHook:
            check_function("an on_presence hook", hook, ("room", "user", "joined"))
            self._context.settings.on_presence.append((fits, hook))
            return hook

        return register
