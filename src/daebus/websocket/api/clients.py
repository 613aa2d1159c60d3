"""The methods of ``DaebusWebSocket`` about connected clients: facts, ids, disconnecting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...checks.functions import check_function
from ...errors import NoClientError
from ..clients.metadata import KEYS, ClientMetadata, describe
from ..connection.connection import Connection
from ..messages.activity import current
from ..protocol.codec import close_frame
from ..stats import Stats, WebSocketStats
from .context import Section

__all__ = ["Clients"]


class Clients(Section):
    """Connected clients, from any thread."""

    def get_clients(self) -> list[str]:
        """Return the ids of all connected clients, in order of arrival.

        With a backplane ``cluster.get_clients()`` asks the other processes too.
        """
        hub = self._context.hub
        return [] if hub is None else [link.client_id for link in hub.registry.snapshot()]

    def get_client_count(self) -> int:
        """Return how many clients are connected."""
        hub = self._context.hub
        return 0 if hub is None else len(hub.registry)

    def is_client_connected(self, client_id: str) -> bool:
        """Tell whether a client with that id is connected."""
        return self._context.link(client_id) is not None

    def get_client_metadata(self, client_id: str) -> ClientMetadata | None:
        """Return the facts about a client as a new dict; None if it is not connected.

        Keys: ``client_id``, ``user`` (as identified, or None), ``path``, ``remote_address``,
        ``secure`` (TLS), ``user_agent``, ``subprotocol``, ``connected_at`` and
        ``last_activity`` (the last byte received), both moments of ``time.time()``;
        ``messages_in``, ``messages_out``, ``bytes_in``, ``bytes_out``, ``dropped``,
        ``queued_bytes``, ``queued_messages``; ``round_trip``, seconds that the last ping
        took, None before the first (a client that talks is not pinged); and the entries of
        ``set_client_metadata``.

        Threads:
            Any; never waits.
        """
        link = self._context.link(client_id)
        return None if link is None else describe(link)

    def set_client_metadata(self, client_id: str, /, **values: Any) -> bool:
        """Note entries about a client, for ``get_client_metadata`` and filters.

        Args:
            client_id: the client.
            values: up to 100 for one client; a later value replaces an earlier one of that name.

        Returns:
            False if the client is not connected.

        Raises:
            ValueError: daebus itself fills an entry of that name, or there are too many.

        Threads:
            Any; never waits.
        """
        self._context.check_fork()
        taken = sorted(values.keys() & set(KEYS))
        if taken:
            raise ValueError(
                f"{taken[0]!r} is filled by daebus; write "
                f"set_client_metadata(client_id, my_{taken[0]}=...)"
            )
        link = self._context.link(client_id)
        if link is None:
            return False
        link.note(values)
        return True

    def get_clients_by_filter(
        self, filter_func: Callable[[str, ClientMetadata], object]
    ) -> list[str]:
        """Return the ids of the clients for which a function returns true, in order of arrival.

        Args:
            filter_func: called with each client id and its metadata, in this thread; its
                exceptions are not caught.

        Raises:
            TypeError: it cannot be called with these two, or is async.

        Threads:
            Any; no lock is held while the function runs.
        """
        check_function("a filter", filter_func, ("client_id", "metadata"), kinds=("plain",))
        hub = self._context.hub
        return [
            link.client_id
            for link in (() if hub is None else hub.registry.snapshot())
            if filter_func(link.client_id, describe(link))
        ]

    @property
    def session(self) -> dict[str, Any]:
        """The dict of the client whose message is being handled, as ``req.session``.

        Hooks have it too, from ``on_connect`` to ``on_disconnect``.

        Raises:
            NoClientError: used outside of a handler or hook.
        """
        activity = current.get(None)
        if activity is None:
            raise NoClientError(
                "session was used outside of a handler or hook, so it belongs to no client; "
                "to note something from elsewhere write set_client_metadata(client_id, name=...)"
            )
        return activity.link.session

    def set_client_id_generator(
        self, generator_func: Callable[[Connection, str], str] | None
    ) -> None:
        """Set a function that chooses the ids of new clients.

        It is called with the connection, which has no id yet, and the path, before the
        handshake is answered. If it raises, or its id is not a string of 1 to 128 printable
        characters, that is logged and the client gets a random id. An id is in use until the
        ``on_disconnect`` hooks of its client have run; ``on_duplicate`` says what becomes of
        another client with that id. Choose ids that a client cannot claim for another one, such
        as the name in its ``identity``: with ``"replace"`` it would throw that one out.

        Args:
            generator_func: returns an id; not async. None for random ids again.

        Raises:
            TypeError: it cannot be called with these two, or is async.

        Threads:
            Any. The function is called in the threads of the clients, several at once.
        """
        if generator_func is not None:
            check_function(
                "a client id generator", generator_func, ("websocket", "path"), kinds=("plain",)
            )
        self._context.settings.client_id = generator_func

    def disconnect_client(self, client_id: str, code: int = 1000, reason: str = "") -> bool:
        """Close the connection of a client; what was sent before still arrives.

        The client has ``close_timeout`` to answer, then it is cut. It stops counting as
        connected at once.

        Args:
            client_id: the client.
            code: 1000, 1001, 1008, 1011 or 3000 to 4999, among others.
            reason: 123 bytes of UTF-8 at most; a longer text is cut.

        Returns:
            False if the client is not connected. For a client of another process: whether it was
                handed to that.

        Raises:
            ValueError: the code must not be sent.

        Threads:
            Any; never waits.
        """
        self._context.check_fork()
        close_frame(code, reason)  # a wrong code raises even if the client is not connected
        link = self._context.link(client_id)
        if link is not None:
            return link.shut(code, reason, "server")
        return bool(self._context.order("close", client_id, code=code, reason=reason))

    def disconnect_all_clients(self, code: int = 1000, reason: str = "") -> int:
        """Close the connections of all clients of this process; new ones may connect.

        Args:
            code: as for ``disconnect_client``.
            reason: as for ``disconnect_client``.

        Returns:
            How many clients were connected.

        Raises:
            ValueError: the code must not be sent.

        Threads:
            Any; never waits.
        """
        self._context.check_fork()
        close_frame(code, reason)
        hub = self._context.hub
        links = () if hub is None else hub.registry.snapshot()
        return sum(link.shut(code, reason, "server") for link in links)

    def stats(self) -> WebSocketStats:
        """Return counts since the start; they are 0 while the app does not run, but for topics.

        Keys: ``connections``, ``connections_total``, ``messages_in``, ``messages_out``,
        ``bytes_in``, ``bytes_out``, ``dropped``, ``queued_bytes``, ``queued_messages``,
        ``lost_notices`` (notices of slow clients and handlers, dropped when too many came),
        ``slow_consumers``, ``disconnects`` (by reason), ``refused`` (by code), ``errors``
        (by code), ``handlers`` (by type: ``count``, ``seconds``, ``buckets`` by upper bound
        in seconds), ``topics`` (by name: ``kind``, ``epoch``, ``offset`` of the newest message
        or change, ``entries`` and ``bytes`` that are kept, ``subscribers``, ``watchers`` that
        are no WebSockets, ``gaps`` that readers were told of, ``persist_error``) and ``json``
        (the package in use).

        Threads:
            Any; takes the lock of each connection briefly.
        """
        hub, topics = self._context.hub, self._context.topics.describe()
        if hub is None:
            return Stats().report(topics=topics)
        return hub.stats.report(len(hub.registry), topics)
