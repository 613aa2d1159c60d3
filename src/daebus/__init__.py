"""A threaded HTTP and WebSocket server to start inside the program you already have.

The public names, imported from where they live; docs/api.rst describes each. Everything is below
this module, which nothing of the package imports. ``daebus.testing`` is public as well.

The client is imported when one of its names is first asked for: a server needs none of it. So is
what joins several processes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .app import AppStats, Daebus
from .backplane.protocol import Backplane, BackplaneCounters, BackplaneOptions
from .blueprint import Blueprint
from .errors import (
    AddressInUseError,
    AttachError,
    BackplaneError,
    CallError,
    CallTimeout,
    Cancelled,
    ClientError,
    ClientGone,
    ConnectionClosed,
    DaebusError,
    Disconnected,
    DuplicateHandlerError,
    EncodeError,
    ForkedError,
    NoClientError,
    PersistError,
    Refused,
    Reject,
    RequestError,
    RoomLimitError,
    StateError,
    StateLimitError,
    TooLargeError,
)
from .http.component import DaebusHttp
from .http.serving.upgrade import UpgradeRequest
from .http.site.request import Request
from .tasks.registry import TasksStats, TaskStats
from .tasks.task import StopToken
from .websocket.api.cluster import Cluster
from .websocket.clients.metadata import ClientMetadata
from .websocket.cluster.info import BackplaneInfo, BackplaneStats, NodeInfo
from .websocket.cluster.queries import Answers, ClusterList
from .websocket.component import DaebusWebSocket
from .websocket.connection.connection import Connection
from .websocket.connection.events import DisconnectInfo, SlowConsumerInfo, SlowHandlerInfo
from .websocket.connection.sent import SendResult
from .websocket.messages.request import WebSocketRequest
from .websocket.stats import HandlerStats, WebSocketStats
from .websocket.topics.live import TopicStats
from .websocket.topics.state import State
from .websocket.topics.topic import Publication, Topic

if TYPE_CHECKING:
    from .backplane.memory import MemoryBackplane
    from .backplane.redis.component import DaebusRedis
    from .client.client import Client
    from .client.message import Message
    from .client.session import ClientStatus
    from .client.state import ClientState
    from .client.subscriptions import Gap
    from .client.topic import ClientTopic
    from .emitter.emitter import Emitter
    from .emitter.topics import EmittedState, EmittedTopic

__all__ = [
    "AddressInUseError",
    "Answers",
    "AppStats",
    "AttachError",
    "Backplane",
    "BackplaneCounters",
    "BackplaneError",
    "BackplaneInfo",
    "BackplaneOptions",
    "BackplaneStats",
    "Blueprint",
    "CallError",
    "CallTimeout",
    "Cancelled",
    "Client",
    "ClientError",
    "ClientGone",
    "ClientMetadata",
    "ClientState",
    "ClientStatus",
    "ClientTopic",
    "Cluster",
    "ClusterList",
    "Connection",
    "ConnectionClosed",
    "Daebus",
    "DaebusError",
    "DaebusHttp",
    "DaebusRedis",
    "DaebusWebSocket",
    "SendResult",
    "DisconnectInfo",
    "Disconnected",
    "DuplicateHandlerError",
    "EmittedState",
    "EmittedTopic",
    "Emitter",
    "EncodeError",
    "ForkedError",
    "Gap",
    "HandlerStats",
    "MemoryBackplane",
    "Message",
    "NoClientError",
    "NodeInfo",
    "PersistError",
    "Publication",
    "Refused",
    "Reject",
    "Request",
    "RequestError",
    "RoomLimitError",
    "StopToken",
    "SlowConsumerInfo",
    "SlowHandlerInfo",
    "State",
    "StateError",
    "StateLimitError",
    "TaskStats",
    "TasksStats",
    "TooLargeError",
    "Topic",
    "TopicStats",
    "UpgradeRequest",
    "WebSocketRequest",
    "WebSocketStats",
    "__version__",
]

__version__ = "0.1.0"

# The module of each name that not every server needs.
_LATER = {
    "Client": "client.client",
    "ClientState": "client.state",
    "ClientStatus": "client.session",
    "ClientTopic": "client.topic",
    "DaebusRedis": "backplane.redis.component",
    "EmittedState": "emitter.topics",
    "EmittedTopic": "emitter.topics",
    "Emitter": "emitter.emitter",
    "Gap": "client.subscriptions",
    "MemoryBackplane": "backplane.memory",
    "Message": "client.message",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value
