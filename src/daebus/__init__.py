"""A threaded HTTP and WebSocket server to start inside the program you already have.

The public names, imported from where they live; docs/api.rst describes each. Everything is below
this module, which nothing of the package imports. ``daebus.testing`` is public as well.
"""

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
    DuplicateHandlerError,
    EncodeError,
    ForkedError,
    NoClientError,
    PersistError,
    Reject,
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

__all__ = [
    "AddressInUseError",
    "AppStats",
    "AttachError",
    "Blueprint",
    "CallError",
    "CallTimeout",
    "Cancelled",
    "ClientError",
    "ClientGone",
    "ClientMetadata",
    "Connection",
    "ConnectionClosed",
    "Daebus",
    "DaebusError",
    "DaebusHttp",
    "DaebusWebSocket",
    "SendResult",
    "DisconnectInfo",
    "DuplicateHandlerError",
    "EncodeError",
    "ForkedError",
    "HandlerStats",
    "NoClientError",
    "PersistError",
    "Publication",
    "Reject",
    "Request",
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
