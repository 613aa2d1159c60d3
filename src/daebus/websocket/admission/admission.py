"""Every check of a request to upgrade, the cheap ones first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...server.handoff import Handshake, Refusal
from ...server.threads.loop import LoopThread
from ...server.threads.safelog import get_logger
from ..clients.registry import Registry
from ..protocol.handshake import (
    WRONG_ORIGIN,
    Accepted,
    negotiate,
    referring_origin,
    wrong_origin,
)
from ..settings import RawCall, Settings
from .authentication import Authenticator, Known
from .per_address import PerAddressLimit

__all__ = ["RETRY", "Admission", "Admitted", "Route"]

logger = get_logger("daebus.websocket")

RETRY = (("Retry-After", "5"),)
_NO_PATH = Refusal(404, "not_found", "there is no WebSocket at this path")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a path leads.

    Attributes:
        path_params: of a path with parameters.
        raw: the raw handler; None for JSON messages.
        pattern: the raw handler's path as registered; "" for JSON messages.
    """

    path_params: Mapping[str, Any]
    raw: RawCall | None = None
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A client that may come in, with a place that the caller must give back.

    Attributes:
        accepted: the answer to its handshake.
        known: who it is.
        route: where its path leads.
        place: what it is counted as, for its address.
    """

    accepted: Accepted
    known: Known
    route: Route
    place: object


class Admission:
    """Accepts or refuses upgrades, and takes their places.

    Args:
        settings: of the component.
        registry: has the places.
        loop: for an async ``authenticate``.
        debug: send a client the traceback of what ``authenticate`` raised.
    """

    def __init__(
        self, settings: Settings, registry: Registry, loop: LoopThread, *, debug: bool
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._per_address = PerAddressLimit(settings.max_clients_per_ip)
        self._authenticator = Authenticator(loop, settings.limits.authenticate_timeout, debug=debug)

    def judge(self, handshake: Handshake) -> Admitted | Refusal:
        """Check an upgrade; take a place for the client if it may come in.

        Threads:
            The thread that will be the connection's; waits for ``authenticate``.
        """
        settings = self._settings
        route = self._route(handshake.path)
        if route is None:
            return _NO_PATH
        accepted = negotiate(
            handshake,
            pages=settings.pages,
            deflate=settings.deflate,
            subprotocols=settings.subprotocols,
        )
        if isinstance(accepted, Refusal):
            if accepted is WRONG_ORIGIN:
                _tell_of_origin(handshake)
            return accepted
        seat = self._seat(handshake)
        return seat if isinstance(seat, Refusal) else Admitted(accepted, seat[0], route, seat[1])

    def check(self, handshake: Handshake) -> Refusal | None:
        """Judge a request as if it were an upgrade, and let nobody in.

        It need not be a handshake, as pages cannot make it look like one.

        Threads:
            One that may wait for ``authenticate``.
        """
        if self._route(handshake.path) is None:
            return _NO_PATH
        refusal = wrong_origin(handshake, self._settings.pages, referring_origin(handshake))
        if refusal is not None:
            _tell_of_origin(handshake)
            return refusal
        seat = self._seat(handshake)
        if isinstance(seat, Refusal):
            return seat
        self.cancel(handshake.remote_address, seat[1])
        return None

    def visit(self, handshake: Handshake) -> tuple[Known, object] | Refusal:
        """Judge a request for something else than a connection as if it were an upgrade.

        Returns:
            Who the client is, and what it is counted as, for its address; to be given back by
                ``left``.

        Threads:
            One that may wait for ``authenticate``.
        """
        refusal = wrong_origin(handshake, self._settings.pages, referring_origin(handshake))
        if refusal is not None:
            _tell_of_origin(handshake)
            return refusal
        seat = self._seat(handshake)
        if not isinstance(seat, Refusal):
            self._registry.cancel()
        return seat

    def readable(self, handshake: Handshake) -> tuple[tuple[str, str], ...]:
        """Return the headers with which a page of another place may read the answer.

        It may if it may connect, and with cookies, as a WebSocket sends them too.
        """
        origin = handshake.header("origin")
        if origin is None or not self._settings.pages.allow(origin, handshake.host):
            return ()
        return (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Expose-Headers", "ETag, Retry-After, Daebus-Version"),
            ("Vary", "Origin"),
        )

    def _seat(self, handshake: Handshake) -> tuple[Known, object] | Refusal:
        """Take a place, and ask the program who the client is; return both."""
        if not self._registry.reserve():
            return Refusal(503, "too_many_clients", "too many clients", RETRY)
        place = object()
        if not self._per_address.enter(handshake.remote_address, place):
            self._registry.cancel()
            return Refusal(
                429, "too_many_from_address", "too many clients from this address", RETRY
            )
        # After the place is taken, so that at most ``max_clients`` are asked at once.
        known = self._authenticator.ask(self._settings.authenticate, handshake)
        if isinstance(known, Refusal):
            self.cancel(handshake.remote_address, place)
            return known
        return known, place

    def cancel(self, address: str, place: object) -> None:
        """Give back the place of a client whose connection did not open."""
        self._registry.cancel()
        self._per_address.leave(address, place)

    def left(self, address: str, place: object) -> None:
        """Count a client of that address out, unless that was done: it has left the registry."""
        self._per_address.leave(address, place)

    def stop(self) -> None:
        """Refuse all clients from now on."""
        self._authenticator.stop()

    def _route(self, path: str) -> Route | None:
        """Return where a path leads, None if nowhere."""
        settings = self._settings
        found = settings.raw.find(path)
        if found is not None:
            pattern, handler, parameters = found
            return Route(parameters, handler, pattern.text)
        if settings.path is not None:
            matched = settings.path.match(path)
            return None if matched is None else Route(matched)
        # A misspelt raw path must not end at somebody else's handlers.
        return None if settings.raw.claims(path) else Route({})


def _tell_of_origin(handshake: Handshake) -> None:
    origin = handshake.header("origin") or referring_origin(handshake)
    logger.warning(
        "refused a WebSocket of a page from %.200r to the host %.200r; if that page is yours, "
        "write DaebusWebSocket(origins=[%.200r])",
        origin,
        handshake.host,
        origin,
    )
