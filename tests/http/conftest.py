"""Apps and raw connections for the HTTP tests; all are gone when a test ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from daebus import Daebus
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import Raw, make


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Make apps with HTTP alone; keyword arguments go to ``DaebusHttp``."""
    apps: list[Daebus] = []

    def new(**options: Any) -> Daebus:
        apps.append(make(**options))
        return apps[-1]

    yield new
    for app in apps:
        app.stop(timeout=5)


@pytest.fixture
def raw() -> Iterator[OpenRaw]:
    """Open raw connections to an app."""
    opened: list[Raw] = []

    def open_one(app: Daebus, port: int | None = None) -> Raw:
        opened.append(Raw(app, port))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.sock.close()
