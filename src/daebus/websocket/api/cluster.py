"""The processes of one app that a backplane joins, and the clients of all of them."""

from __future__ import annotations

from ...checks.annotations import checked
from ...checks.arguments import check_name, seconds
from ..cluster.info import NodeInfo
from ..cluster.queries import ClusterList, What, own
from .context import Context, Section

__all__ = ["Cluster", "ClusterMethods", "members", "members_async"]


class ClusterMethods(Section):
    """The way to what is known of other processes."""

    @property
    def cluster(self) -> Cluster:
        """Asks all processes of the app that a backplane joins; without one, this one alone."""
        return Cluster(self._context)


class Cluster:
    """The nodes, which are the processes of one app, and their clients.

    What it returns is how things were a moment ago. Nodes that do not answer in time are named in
    ``missing``; one that has gone is not waited for.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def nodes(self) -> dict[str, NodeInfo]:
        """Return the nodes that are alive by name, this one first; none without a backplane.

        Threads:
            Any; never waits.
        """
        node = self._context.node
        return {} if node is None else {node.name: node.own(), **node.peers()}

    @checked
    def get_clients(self, timeout: float = 1.0) -> ClusterList:
        """Return the ids of the clients of all nodes, those of this one first.

        Args:
            timeout: seconds that the other nodes have to answer.

        Raises:
            StateError: called in an async handler; write ``await get_clients_async()``.

        Threads:
            Any but the loop's.
        """
        return self._ask("get_clients", "clients", "", timeout)

    @checked
    async def get_clients_async(self, timeout: float = 1.0) -> ClusterList:
        """Return the ids of all clients; as ``get_clients``, for coroutines."""
        return await members_async(self._context, "clients", "", timeout)

    @checked
    def get_room_clients(self, room: str, timeout: float = 1.0) -> ClusterList:
        """Return the ids of the clients in a room; as ``get_clients``."""
        check_name(room, "get_room_clients({})")
        return self._ask("get_room_clients", "room", room, timeout)

    @checked
    async def get_room_clients_async(self, room: str, timeout: float = 1.0) -> ClusterList:
        """Return the ids of the clients in a room; as ``get_clients``, for coroutines."""
        check_name(room, "get_room_clients_async({})")
        return await members_async(self._context, "room", room, timeout)

    @checked
    def get_user_clients(self, user: str, timeout: float = 1.0) -> ClusterList:
        """Return the ids of a user's clients; as ``get_clients``."""
        check_name(user, "get_user_clients({})")
        return self._ask("get_user_clients", "user", user, timeout)

    @checked
    async def get_user_clients_async(self, user: str, timeout: float = 1.0) -> ClusterList:
        """Return the ids of a user's clients; as ``get_clients``, for coroutines."""
        check_name(user, "get_user_clients_async({})")
        return await members_async(self._context, "user", user, timeout)

    def _ask(self, method: str, what: What, name: str, timeout: float) -> ClusterList:
        self._context.check_blocking(f"cluster.{method}", f"cluster.{method}_async")
        return members(self._context, what, name, timeout)


def members(context: Context, what: What, name: str, timeout: float) -> ClusterList:
    """Return the ids of clients of all nodes; wait for the others, if there are any."""
    seconds("timeout", timeout)
    context.check_fork()
    hub, routes = context.hub, context.routes
    if routes is not None:
        return routes.queries.ask(what, name, timeout)
    return ClusterList(() if hub is None else own(hub.registry, what, name))


async def members_async(context: Context, what: What, name: str, timeout: float) -> ClusterList:
    """Return the same, in a coroutine."""
    routes = context.routes
    if routes is None:
        return members(context, what, name, timeout)
    seconds("timeout", timeout)
    context.check_fork()
    return await routes.queries.ask_async(what, name, timeout)
