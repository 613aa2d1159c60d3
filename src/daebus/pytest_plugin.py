"""The pytest fixture ``daebus_client``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .app import Daebus
    from .testing import AppClient

__all__ = ["daebus_client"]


@pytest.fixture
def daebus_client() -> Iterator[Callable[..., AppClient]]:
    """Make connected clients that are closed when the test ends.

    Write ``client = daebus_client(app)``. Takes the arguments of
    ``daebus.testing.AppClient``; several clients of one app share one server.
    """
    with contextlib.ExitStack() as stack:

        def connect(app: Daebus, path: str = "/", **options: Any) -> AppClient:
            return stack.enter_context(app.test_client(path, **options))

        yield connect
