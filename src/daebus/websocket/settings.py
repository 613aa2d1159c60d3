"""The settings of the component: arguments, hooks and raw handlers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, Literal

from ..checks.functions import Ask
from .connection.connection import Connection
from .connection.limits import Limits
from .protocol.handshake import Pages
from .protocol.patterns import Pattern, Patterns

__all__ = ["Check", "HookCall", "IdGenerator", "OnDuplicate", "RawCall", "Settings"]

Check = Callable[[Any], Any]
IdGenerator = Callable[[Connection, str], object]

OnDuplicate = Literal["rename", "replace", "refuse"]

HookCall = Callable[[str, Any], object]
RawCall = Callable[Concatenate[Connection, ...], object]  # and the parameters of its path
PresenceCheck = tuple[Callable[[str], object], Callable[[str, str, bool], object]]


@dataclass
class Settings:
    """All settings; raw handlers and hooks may be added while the hub runs.

    Attributes:
        lock: held while one of those is added of which there may be one.
    """

    limits: Limits
    max_clients: int
    max_clients_per_ip: int | None
    max_rooms: int
    max_topics: int
    pages: Pages
    deflate: bool
    path: Pattern | None
    subprotocols: Sequence[str]
    stack_size: int | None
    affinity: frozenset[int] | None
    background_workers: int
    background_queue: int
    main_timeout: float
    on_duplicate: OnDuplicate = "rename"
    client_id: IdGenerator | None = None
    authenticate: Check | None = None
    raw: Patterns[RawCall] = field(default_factory=Patterns)
    on_join: list[Ask] = field(default_factory=list)  # which rooms, and the hook to ask
    on_presence: list[PresenceCheck] = field(default_factory=list)
    on_connect: list[HookCall] = field(default_factory=list)
    on_disconnect: list[HookCall] = field(default_factory=list)
    on_slow_consumer: list[HookCall] = field(default_factory=list)
    on_slow_handler: list[HookCall] = field(default_factory=list)
    on_backplane: list[HookCall] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
