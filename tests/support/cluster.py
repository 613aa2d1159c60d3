"""Several apps in this process that a backplane joins, and their clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from daebus import Daebus, DaebusHttp, DaebusWebSocket, WebSocketRequest
from daebus.backplane.memory import MemoryBackplane
from daebus.backplane.redis.component import DaebusRedis
from daebus.testing import AppClient
from daebus.websocket.api.context import context_of
from daebus.websocket.cluster.node import Node
from daebus.websocket.cluster.routes import Routes
from tests.support.waiting import eventually

__all__ = ["Site", "cluster", "node_of", "open_calls", "routes_of"]


def node_of(app: Daebus) -> Node:
    """Return the node of an app that runs."""
    node = context_of(app.websocket).node
    assert node is not None
    return node


def routes_of(app: Daebus) -> Routes:
    """Return the ways from an app that runs to the others."""
    routes = context_of(app.websocket).routes
    assert routes is not None
    return routes


def open_calls(site: Site) -> int:
    """Return how many calls between nodes a site remembers, those it asks and those it is asked."""
    calls = routes_of(site.app).calls
    return len(calls._open) + len(calls._relayed)


class Site:
    """One of the apps, with its backplane.

    Args:
        name: of the node.
        backplane: joins it.
        options: for ``DaebusWebSocket``.
    """

    def __init__(self, name: str, backplane: Any, **options: Any) -> None:
        self.name = name
        self.backplane = backplane
        self.app = app = Daebus("site")
        app.attach(DaebusHttp(port=0))
        self.ws = app.attach(DaebusWebSocket(**options))
        app.attach(backplane)
        self.ws.socket("who")(lambda req: req.client_id)

        @self.ws.socket("echo")
        def echo(req: WebSocketRequest) -> Any:
            return req.data

    def client(self, room: str | None = None, user: str | None = None) -> Visitor:
        """Return a client that is in a room, and is a user; use it as a context manager."""
        return Visitor(self, room, user)


class Visitor:
    """A client of a site.

    Attributes:
        id: of the client.
        site: where it is.
        client: what it does.
    """

    def __init__(self, site: Site, room: str | None, user: str | None) -> None:
        self.site = site
        self.client: AppClient = site.app.test_client()
        self._room, self._user = room, user
        self.id = ""

    def __enter__(self) -> Visitor:
        self.client.__enter__()
        self.id = self.client.request("who")
        if self._room is not None:
            assert self.site.ws.join(self.id, self._room)
        if self._user is not None:
            assert self.site.ws.identify(self.id, self._user)
        return self

    def __exit__(self, *exc: Any) -> None:
        self.client.__exit__(*exc)

    def received(self, message_type: str = "broadcast") -> list[Any]:
        """Return the data of all messages that came before now.

        What another site has sent is here by now if that site has handed it over, and this one has
        carried out what came after it.
        """
        self.client.send("echo", "now")
        found: list[Any] = []
        while True:
            message = self.client.receive()
            if message["type"] == "response" and message["data"] == "now":
                return found
            if message["type"] == message_type:
                found.append(message["data"])


@contextmanager
def cluster(
    *names: str, plane: Any = None, url: str | None = None, **options: Any
) -> Iterator[list[Site]]:
    """Run several sites that know each other.

    Args:
        names: of the nodes.
        plane: options for all backplanes.
        url: of a Redis that joins them; None for a ``MemoryBackplane``.
        options: for all ``DaebusWebSocket``.
    """
    with ExitStack() as stack:
        sites: list[Site] = []
        for name in names:
            joined = sites[0].backplane if sites else None
            more = plane or {}
            site = Site(
                name,
                MemoryBackplane(joined, node=name, **more)
                if url is None
                else DaebusRedis(url, node=name, **more),
                **options,
            )
            site.app.start()
            stack.callback(site.app.stop, timeout=5)
            sites.append(site)
        assert eventually(
            lambda: {len(node_of(site.app).peers()) for site in sites} == {len(names) - 1}
        )
        yield sites
