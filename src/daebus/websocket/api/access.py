"""The methods of ``DaebusWebSocket`` for identities and for rates of messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from ...checks.annotations import checked
from ...checks.functions import check_function
from ...errors import DuplicateHandlerError, name_of
from ...interrupts.stack import check_outside
from ..admission.authentication import expiry
from ..messages.ratelimit import Per, Rate, check_per
from ..messages.shared_rate import shared
from .context import Section

__all__ = ["Access", "Authenticate"]

Authenticate = TypeVar("Authenticate", bound=Callable[[Any], Any])


class Access(Section):
    """Identities and rates."""

    @checked
    def authenticate(self, check: Authenticate) -> Authenticate:
        """Decorate the function that says who a client is, before it is let in.

        It gets the ``UpgradeRequest`` (headers, cookies, query, address) and returns an
        identity, which is any object: ``req.identity`` of all the client's messages. ``None``
        and ``False`` refuse with 401, so a guest needs an identity too, such as
        ``"guest"``. Raise ``Reject`` to refuse with a text of your own; any other exception
        is logged and refuses with 500. It is called for every WebSocket, raw ones included.

        If the identity has ``expires_at`` (an attribute or key, in Unix seconds or as a
        datetime with a time zone), the connection ends then, with 4401; see ``renew``.

        It may be async; then it may take ``authenticate_timeout`` seconds.

        Raises:
            DuplicateHandlerError: there is one already.

        Threads:
            It runs in the client's own thread, after a place among ``max_clients`` is taken:
                a slow check delays no other client. A sync one is never interrupted, so what it
                calls needs a timeout.
        """
        check_function("an authenticate function", check, ("req",))
        settings = self._context.settings
        check_outside("registering an authenticate function", settings.lock)
        with settings.lock:
            known = settings.authenticate
            if known is None:
                settings.authenticate = check
        if known is not None:
            raise DuplicateHandlerError(
                f"there is an authenticate function already: {name_of(known)}; call it from "
                f"{name_of(check)}"
            )
        return check

    def get_identity(self, client_id: str) -> Any:
        """Return a client's identity: what ``authenticate`` returned or ``renew`` was given.

        Also of a client that reads topics over HTTP, by the id that ``on_subscribe`` gets.

        Returns:
            None if the client is not connected, or there is no ``authenticate`` function.
        """
        link = self._context.link(client_id)
        if link is not None:
            return link.identity
        hub = self._context.hub
        return None if hub is None else hub.visits.identity(client_id)

    def renew(self, client_id: str, identity: Any) -> bool:
        """Give a client another identity, such as one that expires later.

        Args:
            client_id: the client.
            identity: ``req.identity`` from now on; the connection ends at its ``expires_at``,
                if it has one. The client stays in its rooms.

        Returns:
            False if the client is not connected, or its identity expired just now.

        Raises:
            TypeError: the identity is ``None`` or ``False``, or its ``expires_at`` is neither
                a number nor a datetime.
            ValueError: its ``expires_at`` has no time zone.

        Threads:
            Any; never waits.
        """
        self._context.check_fork()
        if identity is None or identity is False:
            raise TypeError(
                f"{identity} is not an identity; to end the connection write "
                f"req.websocket.close(4401, 'logged out')"
            )
        expires = expiry(identity)
        link = self._context.link(client_id)
        return link is not None and link.renew(identity, expires)

    @checked
    def enable_rate_limiting(
        self, max_messages: int = 60, window_seconds: float = 60, *, per: Per = "client"
    ) -> None:
        """Limit how many messages each client may send, of all types together.

        A client may send ``max_messages`` at once, and gets them back evenly within
        ``window_seconds``. A message beyond that is answered with an error of code
        ``rate_limited`` and ``retry_after``, in seconds; after more than ``max_strikes`` of
        these within a minute the client is closed with 1008. Messages that are not JSON,
        are binary or of an unknown type count too; those of raw connections do not.

        Args:
            max_messages: at least 1.
            window_seconds: greater than 0.
            per: ``"user"`` or ``"address"`` counts those of several connections together, as
                with ``DaebusWebSocket.socket``.

        Raises:
            ValueError: an argument is out of range.

        Threads:
            Any, at any time; connected clients begin with the whole ``max_messages``.
        """
        if max_messages < 1:
            raise ValueError(f"max_messages must be at least 1, not {max_messages!r}")
        if not 0 < window_seconds < math.inf:
            raise ValueError(f"window_seconds must be greater than 0, not {window_seconds!r}")
        check_per(per)
        self._context.dispatcher.rate = shared(Rate(max_messages, window_seconds, per))

    def disable_rate_limiting(self) -> None:
        """Lift the limit of all messages; rates of single message types stay."""
        self._context.dispatcher.rate = None
