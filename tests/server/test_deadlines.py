"""Deadlines of many connections."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import cast

from daebus.server.conn import Conn
from daebus.server.deadlines import Deadlines


def late_at(moment: float) -> Conn:
    return cast(Conn, SimpleNamespace(deadline=moment, alarm=math.inf))


def test_a_crowd_is_late_a_few_at_a_time() -> None:
    deadlines = Deadlines()
    clients = [late_at(1.0) for _ in range(100)]
    for client in [*clients, late_at(2.0)]:
        deadlines.note(client)
    first = deadlines.due(1.5, 64)
    assert len(first) == 64
    assert deadlines.next() == 1.0  # at once
    assert [*first, *deadlines.due(1.5, 64)] == clients
    assert deadlines.next() == 2.0
    assert deadlines.due(1.5, 64) == []
