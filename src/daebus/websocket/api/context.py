"""What the parts of ``DaebusWebSocket`` stand on: its settings, and the hub while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ForkedError
from ..hub import Hub
from ..settings import Settings

if TYPE_CHECKING:
    from ...app import Daebus

__all__ = ["Context"]


class Context:
    """Base of ``Decorators``, ``Sending``, ``Calls`` and ``Clients``: the component."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Daebus | None = None
        self._hub: Hub | None = None  # while the app runs

    def _check_fork(self) -> None:
        if self._hub is None and self._app is not None and self._app.forked:
            raise ForkedError(
                "this process was forked after the app was started, so the app has no threads "
                "here; send from the parent, or start an app of its own in the child"
            )
