"""The part of ``DaebusWebSocket`` that puts clients into rooms and knows them as users."""

from __future__ import annotations

from .arguments import check_name
from .parts import Part

__all__ = ["Membership"]


class Membership(Part):
    """Rooms and users, from any thread. A client that leaves is in none any more."""

    def join(self, client_id: str, room: str) -> bool:
        """Put a client into a room, which is made if there is none.

        Args:
            client_id: who; it may be in the room already.
            room: any name of 1 to 128 characters.

        Returns:
            False if the client is not connected.

        Raises:
            RoomLimitError: the client is in ``max_rooms`` rooms.
            TypeError: the name is no string.
            ValueError: it is empty or too long.

        Threads:
            Any; never waits.
        """
        self._check_fork()
        check_name(room, "join(client_id, {})")
        hub = self._hub
        return hub is not None and hub.registry.rooms.join(client_id, room)

    def leave(self, client_id: str, room: str) -> bool:
        """Take a client out of a room, which is gone with the last one.

        Returns:
            False if the client was not in it.

        Threads:
            Any; never waits.
        """
        self._check_fork()
        hub = self._hub
        return hub is not None and hub.registry.rooms.leave(client_id, room)

    def get_rooms(self) -> list[str]:
        """Return the rooms that somebody is in, in the order in which they were made."""
        hub = self._hub
        return [] if hub is None else hub.registry.rooms.names()

    def get_room_clients(self, room: str) -> list[str]:
        """Return the ids of the clients in a room, in the order in which they joined."""
        hub = self._hub
        return [] if hub is None else hub.registry.rooms.members(room)

    def get_client_rooms(self, client_id: str) -> list[str]:
        """Return the rooms that a client is in, in the order in which it joined."""
        hub = self._hub
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
        self._check_fork()
        if user is not None:
            check_name(user, "identify(client_id, {})")
        hub = self._hub
        return hub is not None and hub.registry.users.move(client_id, user)

    def get_user_clients(self, user: str) -> list[str]:
        """Return the ids of a user's clients, in the order in which they were identified."""
        hub = self._hub
        return [] if hub is None else hub.registry.users.members(user)
