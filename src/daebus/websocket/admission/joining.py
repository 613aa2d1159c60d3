"""Who may enter a room, as the program says, and the entering itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...checks.functions import Ask, allows
from ...server.threads.minder import Minder
from ..clients.registry import Registry

__all__ = ["enter"]


def enter(
    registry: Registry, minder: Minder, checks: Sequence[Ask], client_id: str, room: str
) -> bool:
    """Put a client of this process into a room, if the ``on_join`` hooks let it.

    Returns:
        False if the client is not connected, or a hook refuses.

    Raises:
        RoomLimitError: the client is in as many rooms as it may be.
        Exception: a hook raised it; the client is not in the room.

    Threads:
        Any; waits only for the hooks, which run in this thread.
    """
    if checks and not _may_join(registry, checks, client_id, room):
        return False
    if registry.interrupted():
        minder.call_later(0.0, partial(registry.rooms.join, client_id, room))
        return registry.get(client_id) is not None
    return registry.rooms.join(client_id, room)


def _may_join(registry: Registry, checks: Sequence[Ask], client_id: str, room: str) -> bool:
    """Ask the hooks, if the client is connected and not in the room yet."""
    if registry.get(client_id) is None or room in registry.rooms.of(client_id):
        return True
    return allows(checks, "on_join", client_id, room)
