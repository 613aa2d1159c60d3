"""A threaded HTTP and WebSocket server to start inside the program you already have.

The public names, imported from where they live; docs/api.rst describes each. Everything is below
this module, which nothing of the package imports. ``daebus.testing`` is public as well.

The client is imported when one of its names is first asked for: a server needs none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .app import AppStats, Daebus
from .blueprint import Blueprint
from .errors import (
    AddressInUseError,
    AttachError,
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
)
from .http.component import DaebusHttp
from .http.serving.upgrade import UpgradeRequest
from .http.site.request import Request
from .tasks.registry import TasksStats, TaskStats
from .tasks.task import StopToken
from .websocket.clients.metadata import ClientMetadata
from .websocket.component import DaebusWebSocket
from .websocket.connection.connection import Connection
from .websocket.connection.events import DisconnectInfo, SlowConsumerInfo, SlowHandlerInfo
from .websocket.connection.sent import SendResult
from .websocket.messages.request import WebSocketRequest
from .websocket.stats import HandlerStats, WebSocketStats
from .websocket.topics.feed import TopicStats
from .websocket.topics.state import State
from .websocket.topics.topic import Publication, Topic

if TYPE_CHECKING:
    from .client.client import Client
    from .client.message import Message
    from .client.session import ClientStatus
    from .client.state import ClientState
    from .client.subscriptions import Gap
    from .client.topic import ClientTopic

__all__ = [
    "AddressInUseError",
    "AppStats",
    "AttachError",
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
    "Connection",
    "ConnectionClosed",
    "Daebus",
    "DaebusError",
    "DaebusHttp",
    "DaebusWebSocket",
    "SendResult",
    "DisconnectInfo",
    "Disconnected",
    "DuplicateHandlerError",
    "EncodeError",
    "ForkedError",
    "Gap",
    "HandlerStats",
    "Message",
    "NoClientError",
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
    "Topic",
    "TopicStats",
    "UpgradeRequest",
    "WebSocketRequest",
    "WebSocketStats",
    "__version__",
]

__version__ = "0.1.0"

# The module of each name of the client.
_LATER = {
    "Client": "client",
    "ClientState": "state",
    "ClientStatus": "session",
    "ClientTopic": "topic",
    "Gap": "subscriptions",
    "Message": "message",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".client.{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value
