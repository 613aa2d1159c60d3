"""The methods of ``DaebusWebSocket`` for rooms and users."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ...checks.annotations import checked
from ...checks.arguments import check_client_id, check_name
from ...checks.functions import check_function, fitting
from ..admission.joining import enter
from .context import Section

__all__ = ["JoinHook", "Rooms"]

JoinHook = TypeVar("JoinHook", bound=Callable[[str, str], Any])


class Rooms(Section):
    """Rooms and users, from any thread. A client that disconnects leaves all of them."""

    def join(self, client_id: str, room: str) -> bool:
        """Put a client into a room; the room is made if it does not exist.

        Args:
            client_id: the client; it may be in the room already.
            room: any name of 1 to 128 characters.

        Returns:
            False if the client is not connected, or an ``on_join`` hook refuses. For a client of
                another process: whether it was handed to that, which asks its own hooks.

        Raises:
            RoomLimitError: the client is in ``max_rooms`` rooms.
            TypeError: the name is not a string.
            ValueError: the name is empty or too long.
            Exception: an ``on_join`` hook raised it; the client is not in the room.

        Threads:
            Any; waits only for the ``on_join`` hooks, which run in this thread, and, with a
                backplane of several partitions, half a second at most until what other processes
                send to the room is heard here.
        """
        self._context.check_fork()
        check_client_id(client_id)
        check_name(room, "join(client_id, {})")
        hub, routes = self._context.hub, self._context.routes
        if hub is None:
            return False
        handed = self._context.order("join", client_id, room=room)
        if handed is not None:
            return handed
        checks = self._context.settings.on_join
        entered = enter(hub.registry, hub.runtime.minder, checks, client_id, room)
        if entered and routes is not None:
            routes.wait_heard(room)
        return entered

    @checked
    def on_join(self, room_pattern: str) -> Callable[[JoinHook], JoinHook]:
        """Decorate a function that is asked before a client enters a room.

        It gets the client's id and the room. A falsy result other than ``None`` refuses:
        ``join`` returns ``False`` and the client stays out. Its exceptions are raised by
        ``join``: in the client's handler, a ``ClientError`` tells the client why. All hooks
        whose pattern matches are called, until one refuses.

        Args:
            room_pattern: a pattern of names as in ``fnmatch``: ``"team-*"``, ``"*"`` for all.
                A name fits itself, also one with brackets.

        Raises:
            TypeError: the pattern is not a string, or the function is async, which ``join``
                cannot always wait for.

        Threads:
            It runs in the thread that calls ``join``, which may be that of the async
                handlers, so it should not take long.
        """
        check_name(room_pattern, "on_join({})")
        fits = fitting(room_pattern)

        def register(hook: JoinHook) -> JoinHook:
            check_function("an on_join hook", hook, ("client_id", "room"), kinds=("plain",))
            self._context.settings.on_join.append((fits, hook))
            return hook

        return register

    def leave(self, client_id: str, room: str) -> bool:
        """Take a client out of a room; an empty room no longer exists.

        Returns:
            False if the client was not in the room. For a client of another process: whether it
                was handed to that.

        Raises:
            TypeError: the name is not a string.
            ValueError: the name is empty or too long.

        Threads:
            Any; never waits.
        """
        self._context.check_fork()
        check_client_id(client_id)
        check_name(room, "leave(client_id, {})")
        hub = self._context.hub
        if hub is None:
            return False
        handed = self._context.order("leave", client_id, room=room)
        if handed is not None:
            return handed
        rooms = hub.registry.rooms
        if hub.registry.interrupted():
            hub.runtime.minder.call_later(0.0, partial(rooms.leave, client_id, room))
            return room in rooms.of(client_id)
        return rooms.leave(client_id, room)

    def get_rooms(self) -> list[str]:
        """Return the rooms that have clients here, in the order in which they were made."""
        hub = self._context.hub
        return [] if hub is None else hub.registry.rooms.names()

    def get_room_clients(self, room: str) -> list[str]:
        """Return the ids of the clients in a room, in the order in which they joined.

        With a backplane ``cluster.get_room_clients(room)`` asks the other processes too.
        """
        check_name(room, "get_room_clients({})")
        hub = self._context.hub
        return [] if hub is None else hub.registry.rooms.members(room)

    def get_client_rooms(self, client_id: str) -> list[str]:
        """Return the rooms that a client is in, in the order in which it joined."""
        check_client_id(client_id)
        hub = self._context.hub
        return [] if hub is None else hub.registry.rooms.of(client_id)

    def identify(self, client_id: str, user: str | None) -> bool:
        """Set the user of a client; one user may have several clients, such as tabs.

        Args:
            client_id: the client.
            user: any name of 1 to 128 characters, which replaces an earlier one; None for no
                user, as after a logout.

        Returns:
            False if the client is not connected. For a client of another process: whether it was
                handed to that.

        Raises:
            TypeError: the name is not a string.
            ValueError: the name is empty or too long.

        Threads:
            Any; waits only as ``join`` does with a backplane of several partitions.
        """
        self._context.check_fork()
        check_client_id(client_id)
        if user is not None:
            check_name(user, "identify(client_id, {})")
        hub = self._context.hub
        if hub is None:
            return False
        handed = self._context.order("identify", client_id, user=user)
        if handed is not None:
            return handed
        registry, routes = hub.registry, self._context.routes
        if registry.interrupted():
            hub.runtime.minder.call_later(0.0, partial(registry.identify, client_id, user))
            return registry.get(client_id) is not None
        known = registry.identify(client_id, user)
        if known and user is not None and routes is not None:
            routes.wait_heard(user)
        return known

    def get_user_clients(self, user: str) -> list[str]:
        """Return the ids of a user's clients, in the order in which they were identified.

        With a backplane ``cluster.get_user_clients(user)`` asks the other processes too.
        """
        check_name(user, "get_user_clients({})")
        hub = self._context.hub
        return [] if hub is None else hub.registry.users.members(user)
