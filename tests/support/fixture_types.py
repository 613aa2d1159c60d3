"""Types of the fixtures that many tests share."""

from __future__ import annotations

import socket
from collections.abc import Callable

from daebus import Daebus
from tests.support.raw import Raw

__all__ = ["Connect", "MakeApp", "OpenRaw", "Serve"]

# ``make_app`` makes apps with both components, ``serve`` apps with HTTP alone.
MakeApp = Callable[..., Daebus]
Serve = Callable[..., Daebus]

# ``connect`` opens a socket to a port, ``raw`` a connection to an app.
Connect = Callable[[int | None], socket.socket]
OpenRaw = Callable[..., Raw]
