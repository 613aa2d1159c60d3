"""Every check of a request to upgrade, the cheap ones first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...server.handoff import Refusal, Upgrade
from ...server.threads.loop import LoopThread
from ...server.threads.safelog import get_logger
from ..clients.registry import Registry
from ..protocol.handshake import WRONG_ORIGIN, Accepted, negotiate
from ..settings import RawCall, Settings
from .authentication import Authenticator, Known
from .per_address import PerAddressLimit

__all__ = ["RETRY", "Admission", "Admitted", "Route"]

logger = get_logger("daebus.websocket")

RETRY = (("Retry-After", "5"),)


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
    """A client that may come in, with a place that the caller must give back."""

    accepted: Accepted
    known: Known
    route: Route


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

    def judge(self, upgrade: Upgrade) -> Admitted | Refusal:
        """Check an upgrade; take a place for the client if it may come in.

        Threads:
            The thread that will be the connection's; waits for ``authenticate``.
        """
        settings = self._settings
        route = self._route(upgrade.path)
        if route is None:
            return Refusal(404, "not_found", "there is no WebSocket at this path")
        accepted = negotiate(
            upgrade,
            pages=settings.pages,
            deflate=settings.deflate,
            subprotocols=settings.subprotocols,
        )
        if isinstance(accepted, Refusal):
            if accepted.code == WRONG_ORIGIN:
                _tell_of_origin(upgrade)
            return accepted
        if not self._registry.reserve():
            return Refusal(503, "too_many_clients", "too many clients", RETRY)
        if not self._per_address.enter(upgrade.remote_address):
            self._registry.cancel()
            return Refusal(
                429, "too_many_from_address", "too many clients from this address", RETRY
            )
        # After the place is taken, so that at most ``max_clients`` are asked at once.
        known = self._authenticator.ask(settings.authenticate, upgrade)
        if isinstance(known, Refusal):
            self.cancel(upgrade.remote_address)
            return known
        return Admitted(accepted, known, route)

    def cancel(self, address: str) -> None:
        """Give back the place of a client whose connection did not open."""
        self._registry.cancel()
        self._per_address.leave(address)

    def left(self, address: str) -> None:
        """Count a client of that address out: it has left the registry."""
        self._per_address.leave(address)

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


def _tell_of_origin(upgrade: Upgrade) -> None:
    origin = upgrade.header("origin")
    logger.warning(
        "refused a WebSocket of a page from %.200r to the host %.200r; if that page is yours, "
        "write DaebusWebSocket(origins=[%.200r])",
        origin,
        upgrade.host,
        origin,
    )
