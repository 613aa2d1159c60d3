"""Client ids: random or chosen by the app, and unique among connected clients."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable

from ...checks.arguments import MAX_NAME
from ...server.handoff import STOPPING, Refusal
from ...server.threads.safelog import get_logger
from ...waits import monotonic, until
from ..connection.connection import Connection
from ..connection.link import Link
from ..settings import IdGenerator, OnDuplicate

__all__ = ["ClientIds"]

logger = get_logger("daebus.websocket")

_RETRY = (("Retry-After", "5"),)
_TAKEN = Refusal(409, "duplicate_client", "a client with this id is connected", _RETRY)
_OVERTAKEN = Refusal(409, "replaced", "a newer connection with this id has come")
_BUSY = Refusal(
    503, "client_busy", "the older connection with this id is still in its handler", _RETRY
)


class ClientIds:
    """The ids in use: from before the handshake is answered until the last hook has run.

    So a client that returns with its old id is never announced before the hooks of its old
    connection have run.

    Args:
        on_duplicate: what becomes of a client whose id is in use.
        timeout: seconds that one which replaces another waits for the end of that.

    Attributes:
        prefix: gives what every id begins with, so that other processes know whose client it is.

    Threads:
        Any; ``take`` waits for the app's generator and for a connection that is replaced,
        without the lock.
    """

    def __init__(self, on_duplicate: OnDuplicate, timeout: float) -> None:
        self._on_duplicate = on_duplicate
        self._timeout = timeout
        self.prefix: Callable[[], str] = str
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._used: dict[str, Link] = {}  # guarded by: _lock
        self._heirs: dict[str, Link] = {}  # guarded by: _lock; the newest that waits for an id
        self._stopped = False  # guarded by: _lock

    def take(
        self, connection: Connection, link: Link, generator: IdGenerator | None
    ) -> str | Refusal:
        """Return an id for a new connection; it is in use until it is released.

        The app's generator chooses the id if what it returns is valid and, with ``"rename"``,
        not in use. Otherwise the client gets a random one: that is better than refusing it.

        Args:
            connection: what the generator sees.
            link: of that connection.
            generator: None for random ids.
        """
        client_id = None if generator is None else self._ask(generator, connection)
        while client_id is None or not self._reserve(client_id, link):
            if client_id is not None:
                if self._on_duplicate == "refuse":
                    return _TAKEN
                if self._on_duplicate == "replace":
                    refusal = self._replace(client_id, link)
                    return client_id if refusal is None else refusal
                logger.warning(
                    "client id %r is in use; a client from %s gets a random one",
                    client_id,
                    connection.remote_address,
                )
            client_id = self.prefix() + secrets.token_hex(16)
        return client_id

    def release(self, link: Link) -> None:
        """Free the id of a connection for other clients."""
        with self._lock:
            if self._used.get(link.client_id) is link:
                del self._used[link.client_id]
                self._freed.notify_all()

    def stop(self) -> None:
        """Refuse those that wait for an id."""
        with self._lock:
            self._stopped = True
            self._freed.notify_all()

    def _reserve(self, client_id: str, link: Link) -> bool:
        with self._lock:
            return self._reserve_locked(client_id, link)

    def _reserve_locked(self, client_id: str, link: Link) -> bool:
        assert self._lock.locked()
        if client_id in self._used:
            return False
        self._used[client_id] = link
        return True

    def _replace(self, client_id: str, link: Link) -> Refusal | None:
        """End the connection that has an id, and take that; of several the newest gets it."""
        deadline = monotonic() + self._timeout
        with self._lock:
            if self._reserve_locked(client_id, link):
                return None
            old = self._used[client_id]
            self._heirs[client_id] = link
            self._freed.notify_all()  # an older heir gives up
        logger.info("client %s has come again; its older connection is closed", client_id)
        old.evict()
        with self._lock:
            self._freed.wait_for(
                lambda: (
                    self._stopped
                    or self._used.get(client_id) is not old
                    or self._heirs.get(client_id) is not link
                ),
                until(deadline),
            )
            if self._heirs.get(client_id) is not link:
                return _OVERTAKEN
            del self._heirs[client_id]
            if self._stopped:
                return STOPPING
            if self._reserve_locked(client_id, link):
                return None
            return _BUSY if self._used[client_id] is old else _OVERTAKEN

    def _ask(self, generator: IdGenerator, connection: Connection) -> str | None:
        try:
            client_id = generator(connection, connection.path)
        except BaseException:  # which must not cost the client its connection
            logger.exception("the client id generator failed; the client gets a random id")
            return None
        # Ids appear in logs and in names of threads.
        if (
            isinstance(client_id, str)
            and 0 < len(client_id) <= MAX_NAME
            and client_id.isprintable()
        ):
            return self.prefix() + client_id
        logger.warning(
            "the client id generator returned %.100r; an id is a string of 1 to %d printable "
            "characters; the client gets a random one",
            client_id,
            MAX_NAME,
        )
        return None
