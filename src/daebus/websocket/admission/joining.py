"""Who may enter a room, as the program says, and the entering itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...errors import name_of
from ...server.threads.minder import Minder
from ..clients.registry import Registry
from ..settings import JoinCheck

__all__ = ["enter"]


def enter(
    registry: Registry, minder: Minder, checks: Sequence[JoinCheck], client_id: str, room: str
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


def _may_join(registry: Registry, checks: Sequence[JoinCheck], client_id: str, room: str) -> bool:
    """Ask the hooks, if the client is connected and not in the room yet."""
    if registry.get(client_id) is None or room in registry.rooms.of(client_id):
        return True
    for fits, hook in tuple(checks):
        if fits(room):
            verdict = hook(client_id, room)
            if hasattr(verdict, "__await__"):  # a coroutine is true, but not an answer
                getattr(verdict, "close", bool)()
                raise TypeError(
                    f"{name_of(hook)} is async, which an on_join hook must not be; "
                    f"write def, not async def"
                )
            if verdict is not None and not verdict:
                return False
    return True
