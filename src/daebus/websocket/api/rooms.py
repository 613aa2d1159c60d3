"""The part of ``DaebusWebSocket`` that puts clients into rooms and knows them as users."""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

from ...arguments import check_name
from ...errors import name_of
from ..clients.registry import Registry
from .context import Section

__all__ = ["JoinHook", "Rooms"]

JoinHook = TypeVar("JoinHook", bound=Callable[[str, str], Any])


class Rooms(Section):
    """Rooms and users, from any thread. A client that leaves is in none any more."""

    def join(self, client_id: str, room: str) -> bool:
        """Put a client into a room, which is made if there is none.

        Args:
            client_id: who; it may be in the room already.
            room: any name of 1 to 128 characters.

        Returns:
            False if the client is not connected, or an ``on_join`` hook refuses.

        Raises:
            RoomLimitError: the client is in ``max_rooms`` rooms.
            TypeError: the name is no string.
            ValueError: it is empty or too long.
            Exception: whatever an ``on_join`` hook raises; the client is not in the room.

        Threads:
            Any; waits for nothing but the ``on_join`` hooks, which run here.
        """
        self._context.check_fork()
        check_name(room, "join(client_id, {})")
        hub = self._context.hub
        if hub is None or (
            self._context.settings.on_join and not self._may_join(hub.registry, client_id, room)
        ):
            return False
        return hub.registry.rooms.join(client_id, room)

    def on_join(self, room_pattern: str) -> Callable[[JoinHook], JoinHook]:
        """Decorate a function that is asked before a client enters a room.

        It gets the client's id and the room. If it returns ``False``, or anything that is
        false but ``None``, ``join`` returns ``False`` and the client stays out. What it
        raises comes out of ``join``: in the client's handler a ``ClientError`` tells it
        why. All hooks whose pattern fits are asked, until one refuses.

        Args:
            room_pattern: of names, as in ``fnmatch``: ``"team-*"``, ``"*"`` for all.

        Raises:
            TypeError: the pattern is no string, or the function is async: ``join`` may be
                called where nobody can wait for it.

        Threads:
            It runs in the thread that calls ``join``, that of the async handlers included,
            so it should not take long.
        """
        check_name(room_pattern, "on_join({})")
        fits = re.compile(fnmatch.translate(room_pattern)).match

        def register(hook: JoinHook) -> JoinHook:
            if inspect.iscoroutinefunction(hook):
                raise _not_async(hook)
            self._context.settings.on_join.append((fits, hook))
            return hook

        return register

    def _may_join(self, registry: Registry, client_id: str, room: str) -> bool:
        """Ask the hooks about a client that is connected and not in the room yet."""
        if registry.get(client_id) is None or room in registry.rooms.of(client_id):
            return True
        for fits, hook in tuple(self._context.settings.on_join):
            if fits(room):
                verdict = hook(client_id, room)
                if hasattr(verdict, "__await__"):  # true, and yet no answer
                    getattr(verdict, "close", bool)()
                    raise _not_async(hook)
                if verdict is not None and not verdict:
                    return False
        return True

    def leave(self, client_id: str, room: str) -> bool:
        """Take a client out of a room, which is gone with the last one.

        Returns:
            False if the client was not in it.

        Threads:
            Any; never waits.
        """
        self._context.check_fork()
        hub = self._context.hub
        return hub is not None and hub.registry.rooms.leave(client_id, room)

    def get_rooms(self) -> list[str]:
        """Return the rooms that somebody is in, in the order in which they were made."""
        hub = self._context.hub
        return [] if hub is None else hub.registry.rooms.names()

    def get_room_clients(self, room: str) -> list[str]:
        """Return the ids of the clients in a room, in the order in which they joined."""
        hub = self._context.hub
        return [] if hub is None else hub.registry.rooms.members(room)

    def get_client_rooms(self, client_id: str) -> list[str]:
        """Return the rooms that a client is in, in the order in which it joined."""
        hub = self._context.hub
        return [] if hub is None else hub.registry.rooms.of(client_id)

    def identify(self, client_id: str, user: str | None) -> bool:
        """Note whose client it is; one user may have several, such as tabs.

        Args:
            client_id: who.
            user: any name of 1 to 128 characters, in place of an earlier one; None for
                nobody, such as after a logout.

        Returns:
            False if the client is not connected.

        Raises:
            TypeError: the user is no string.
            ValueError: it is empty or too long.

        Threads:
            Any; never waits.
        """
        self._context.check_fork()
        if user is not None:
            check_name(user, "identify(client_id, {})")
        hub = self._context.hub
        return hub is not None and hub.registry.identify(client_id, user)

    def get_user_clients(self, user: str) -> list[str]:
        """Return the ids of a user's clients, in the order in which they were identified."""
        hub = self._context.hub
        return [] if hub is None else hub.registry.users.members(user)


def _not_async(hook: object) -> TypeError:
    return TypeError(
        f"on_join hooks are no coroutines, and {name_of(hook)} is one: write def, not async def"
    )
