"""What programs are told of nodes and of the backplane. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypedDict

__all__ = ["BackplaneEvent", "BackplaneInfo", "BackplaneStats", "IDLE", "NodeInfo"]

BackplaneEvent = Literal["down", "up", "gap", "node_up", "node_down"]


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node of the app.

    Attributes:
        name: client ids of that node begin with it and a dot.
        clients: how many it had at its last beat.
        seconds: how long it has run, at its last beat.
        version: of the program there; None if it has none.
        suspect: it was not heard for a while, and may be gone.
        own: it is this process.
    """

    name: str
    clients: int
    seconds: float
    version: str | None = None
    suspect: bool = False
    own: bool = False


@dataclass(frozen=True, slots=True)
class BackplaneInfo:
    """What happened; the second argument of ``on_backplane`` hooks that take two.

    Attributes:
        node: the name of the other node with ``node_up``, ``node_down`` and ``gap``; our own with
            the others.
        missed: with ``gap``: how many of its frames did not arrive.
        seconds: with ``up``: how long it was down; with ``node_down``: how long that node was
            silent.
        reason: with ``node_down``: ``bye``, ``silent`` or ``replaced``, by another process of the
            same name; otherwise empty.
    """

    node: str
    missed: int = 0
    seconds: float = 0.0
    reason: str = ""


class BackplaneStats(TypedDict):
    """What ``stats()["backplane"]`` says.

    ``up``: whether it works; ``nodes``: how many there are, this one included; ``missed``: frames
    of others that did not arrive here; ``lost_out``: own ones that were dropped before they were
    sent; ``deaf_resets``: how often the receiving connection was made anew because nothing came;
    ``unsigned``: frames that were refused for their signature; ``reconnects``: connections that
    were made anew; ``queued_bytes``: what waits to be sent. All of it is false or 0 while the app
    does not run.
    """

    up: bool
    nodes: int
    missed: int
    lost_out: int
    deaf_resets: int
    unsigned: int
    reconnects: int
    queued_bytes: int


IDLE: Final = BackplaneStats(
    up=False,
    nodes=0,
    missed=0,
    lost_out=0,
    deaf_resets=0,
    unsigned=0,
    reconnects=0,
    queued_bytes=0,
)
