"""The part of ``DaebusWebSocket`` that decides who may come in, for how long, and how much."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from ...errors import DuplicateHandlerError, name_of
from ..admission.authentication import expiry
from ..messages.ratelimit import Rate
from .context import Section

__all__ = ["Access", "Authenticate"]

Authenticate = TypeVar("Authenticate", bound=Callable[[Any], Any])


class Access(Section):
    """Identities and rates."""

    def authenticate(self, check: Authenticate) -> Authenticate:
        """Decorate the function that says who a client is, before it is let in.

        It gets the ``UpgradeRequest`` (headers, cookies, query, address) and returns an
        identity, which is any object: ``req.identity`` of all the client's messages. ``None``
        and ``False`` refuse with 401, so a guest needs an identity too, such as
        ``"guest"``. ``Reject`` refuses in words of your own, and any other exception is
        logged and refuses with 500. It is asked for each WebSocket, raw ones included.

        An identity with ``expires_at``, an attribute or key, in Unix seconds or as a
        datetime with its time zone, ends the connection then, with 4401; see ``renew``.

        It may be async; then it has ``authenticate_timeout`` seconds.

        Raises:
            DuplicateHandlerError: there is one already.

        Threads:
            It runs in the client's own, with a place among ``max_clients`` taken: a slow
            one holds up nobody else. Nothing interrupts a sync one, so what it calls
            needs a timeout.
        """
        known = self._context.settings.authenticate
        if known is not None:
            raise DuplicateHandlerError(
                f"there is an authenticate function already: {name_of(known)}; call it from "
                f"{name_of(check)}"
            )
        self._context.settings.authenticate = check
        return check

    def get_identity(self, client_id: str) -> Any:
        """Return who that client is: what ``authenticate`` returned, or ``renew`` was given.

        Returns:
            None if it is not connected, or nobody asks clients who they are.
        """
        link = self._context.link(client_id)
        return None if link is None else link.identity

    def renew(self, client_id: str, identity: Any) -> bool:
        """Give a client another identity, such as one that expires later.

        Args:
            client_id: whom.
            identity: ``req.identity`` from now on; its ``expires_at`` is the new end of the
                connection, and without one there is none. The rooms stay as they are.

        Returns:
            False if the client is not connected, or its time was over just now.

        Raises:
            TypeError: ``None`` or ``False``, which are no identities, or an ``expires_at``
                that is no time.
            ValueError: an ``expires_at`` without a time zone.

        Threads:
            Any; never waits.
        """
        self._context.check_fork()
        if identity is None or identity is False:
            raise TypeError(
                f"{identity} is no identity; to send a client away write "
                f"req.websocket.close(4401, 'logged out')"
            )
        expires = expiry(identity)
        link = self._context.link(client_id)
        return link is not None and link.renew(identity, expires)

    def enable_rate_limiting(self, max_messages: int = 60, window_seconds: float = 60) -> None:
        """Limit how many messages each client may send, of all types together.

        Each client has ``max_messages`` to spend, and what it spent comes back within
        ``window_seconds``, evenly. A message beyond that is answered with an error of code
        ``rate_limited`` and ``retry_after``, in seconds; with more than ``max_strikes`` of
        these within a minute the client is closed with 1008. Messages that are no JSON,
        binary or of an unknown type count too; those of raw connections do not.

        Args:
            max_messages: at least 1.
            window_seconds: greater than 0.

        Raises:
            ValueError: an argument makes no sense.

        Threads:
            Any, at any time; clients that are connected begin with all of it.
        """
        if max_messages < 1:
            raise ValueError(f"max_messages must be at least 1, not {max_messages!r}")
        if not 0 < window_seconds < math.inf:
            raise ValueError(f"window_seconds must be greater than 0, not {window_seconds!r}")
        self._context.dispatcher.rate = Rate(max_messages, window_seconds)

    def disable_rate_limiting(self) -> None:
        """Let clients send as much as they like again; rates of single types stay."""
        self._context.dispatcher.rate = None
