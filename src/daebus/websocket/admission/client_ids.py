"""Client ids: random or chosen by the app, and unique among connected clients."""

from __future__ import annotations

import secrets
import threading

from ...arguments import MAX_NAME
from ...server.threads.safelog import get_logger
from ..connection.connection import Connection
from ..settings import IdGenerator

__all__ = ["ClientIds"]

logger = get_logger("daebus.websocket")


class ClientIds:
    """The ids in use: from before the handshake is answered until the last hook has run.

    So a client that returns with its old id is never announced before the hooks of its old
    connection have run.

    Threads:
        Any; ``take`` waits for the app's generator, without the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: set[str] = set()  # guarded by: _lock

    def take(self, connection: Connection, generator: IdGenerator | None) -> str:
        """Return an id for a new connection; it is in use until it is released.

        The app's generator chooses the id if what it returns is valid and not in use. Otherwise
        the client gets a random one: that is better than refusing it.
        """
        client_id = None if generator is None else self._ask(generator, connection)
        while client_id is None or not self._reserve(client_id):
            if client_id is not None:
                logger.warning(
                    "client id %r is in use; a client from %s gets a random one",
                    client_id,
                    connection.remote_address,
                )
            client_id = secrets.token_hex(16)
        return client_id

    def release(self, client_id: str) -> None:
        """Free an id for other clients."""
        with self._lock:
            self._used.discard(client_id)

    def _reserve(self, client_id: str) -> bool:
        with self._lock:
            if client_id in self._used:
                return False
            self._used.add(client_id)
            return True

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
            return client_id
        logger.warning(
            "the client id generator returned %.100r; an id is a string of 1 to %d printable "
            "characters; the client gets a random one",
            client_id,
            MAX_NAME,
        )
        return None
