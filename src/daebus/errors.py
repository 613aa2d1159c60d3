"""Every exception that daebus raises on purpose.

::

    DaebusError
    ├── AttachError (RuntimeError)         components in the wrong order, or twice
    ├── DuplicateHandlerError (ValueError) a second handler for one type, route or path
    ├── StateError (RuntimeError)          the app is in the wrong state for this call
    │   └── ForkedError                    the app was started in the parent process
    ├── AddressInUseError (OSError)        the port or the socket file is taken
    ├── NoClientError (LookupError)        send() outside of a handler
    ├── RoomLimitError (ValueError)        join() of a client already in max_rooms rooms
    ├── StateLimitError (ValueError)       a state topic would have too many keys or bytes
    ├── PersistError (OSError)             the file of persist= cannot be used
    ├── EncodeError (ValueError)           data that JSON cannot carry
    ├── TooLargeError (ValueError)         a message beyond max_frame of the backplane
    ├── BackplaneError (ConnectionError)   a required backplane that is away
    ├── ConnectionClosed (ConnectionError) recv() on a connection that has ended
    ├── ClientGone (ConnectionError)       call() to a client that is not connected
    ├── CallTimeout (TimeoutError)         call() that was not answered in time
    ├── CallError                          call() that was answered with an error
    ├── Refused (ConnectionError)          the server does not let a client in
    ├── Disconnected (ConnectionError)     a client has no connection, or lost it
    ├── RequestError                       a client's request that was answered with an error
    ├── ClientError                        raised *by handlers*: the text goes to the client
    │   └── Cancelled                      req.check() of a request that should end
    └── Reject                             raised *by authenticate*: the text goes to the client

Rules: a message says what happened, with the value, then what to type. Only
``ClientError`` and ``Reject`` texts ever travel to a client.
"""

from __future__ import annotations

import http
import re
from collections.abc import Mapping
from typing import Any

__all__ = [
    "AddressInUseError",
    "AttachError",
    "BackplaneError",
    "CallError",
    "CallTimeout",
    "Cancelled",
    "ClientError",
    "ClientGone",
    "ConnectionClosed",
    "DaebusError",
    "Disconnected",
    "DuplicateHandlerError",
    "EncodeError",
    "ForkedError",
    "NoClientError",
    "PersistError",
    "Refused",
    "Reject",
    "RequestError",
    "RoomLimitError",
    "StateError",
    "StateLimitError",
    "TooLargeError",
]


class DaebusError(Exception):
    """Base of every exception of this library."""


class AttachError(DaebusError, RuntimeError):
    """A component is missing, attached twice or attached in the wrong order."""


class DuplicateHandlerError(DaebusError, ValueError):
    """A message type, route or path already has a handler."""


class StateError(DaebusError, RuntimeError):
    """The call does not fit the state of the app, such as starting it twice."""


class ForkedError(StateError):
    """This process is a fork of the one that started the app.

    Threads do not survive ``fork``, so the copy of the app in the child is dead.
    """


class AddressInUseError(DaebusError, OSError):
    """Another program listens on the address already (``errno`` is ``EADDRINUSE``)."""


class NoClientError(DaebusError, LookupError):
    """``send()`` was called outside of a handler or hook."""


class RoomLimitError(DaebusError, ValueError):
    """The client is in ``max_rooms`` rooms already."""


class StateLimitError(DaebusError, ValueError):
    """A state topic would have more keys or bytes than it may; nothing was changed."""


class PersistError(DaebusError, OSError):
    """The file of ``persist=`` cannot be used: another process has it, or it is no such file."""


class EncodeError(DaebusError, ValueError):
    """The data has no JSON form: NaN, an unknown class, a circular reference."""


class TooLargeError(DaebusError, ValueError):
    """A message is larger than ``max_frame`` of the backplane allows; it was sent nowhere."""


class BackplaneError(DaebusError, ConnectionError):
    """The backplane is away, and what was asked for does not go without it."""


class ConnectionClosed(DaebusError, ConnectionError):
    """The WebSocket connection has ended; nothing more can be received.

    Args:
        code: close code of RFC 6455 section 7.4; 1006 if none was received.
        reason: the peer's text, or an empty string.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"connection closed with code {code}" + (f": {reason}" if reason else ""))
        self.code = code
        self.reason = reason


class ClientGone(DaebusError, ConnectionError):
    """The client is not connected, or left before it answered a ``call()``.

    Args:
        client_id: the client that was asked.
    """

    def __init__(self, client_id: str) -> None:
        super().__init__(f"client {client_id} is not connected")
        self.client_id = client_id


class CallTimeout(DaebusError, TimeoutError):
    """The client did not answer a ``call()`` in time; a late answer is dropped."""


class CallError(DaebusError):
    """The client answered a ``call()`` with an error, or it cannot be asked.

    Args:
        text: the client's text, ``data["error"]`` of its answer.
        code: ``data["code"]`` of its answer, ``call_error`` if it has none; or, without
            any answer, ``too_many_calls`` or ``raw_path``.
        data: the whole data of its answer.
    """

    def __init__(self, text: str, code: str, data: object = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.data = data


class Refused(DaebusError, ConnectionError):
    """The server did not let the client in.

    Args:
        status: HTTP status of the answer.
        code: the stable identifier in its JSON, such as ``origin_not_allowed``; empty if it
            has none.
        text: the error in its JSON, else the whole body.
        retry_after: seconds after which the server wants to be asked again; None if it
            does not say.
    """

    def __init__(
        self, status: int, code: str, text: str, *, retry_after: float | None = None
    ) -> None:
        super().__init__(f"refused with {status} {code}: {text}")
        self.status = status
        self.code = code
        self.text = text
        self.retry_after = retry_after


class Disconnected(DaebusError, ConnectionError):
    """The client has no connection, or lost it before there was an answer.

    Args:
        text: what happened.
        code: close code of the connection; 1006 if there was no close frame, 4900 if the
            server answered no heartbeat, None if there was no connection.
        reason: the text of the close frame.
        sent: the message had left, so the server may have acted on it.
    """

    def __init__(
        self, text: str, *, code: int | None = None, reason: str = "", sent: bool = False
    ) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason
        self.sent = sent


class RequestError(DaebusError):
    """The server answered a request with an error.

    Args:
        data: the whole data of the answer.

    Attributes:
        text: its ``data["error"]``.
        code: its ``data["code"]``.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        super().__init__(f"{data.get('code')}: {data.get('error')}")
        self.data = dict(data)
        self.text = str(data.get("error"))
        self.code = str(data.get("code"))


class ClientError(DaebusError):
    """Raise this in a handler to answer the client with an error of your own.

    Args:
        text: the text that the client gets, in ``data["error"]``.
        code: a stable identifier for programs, in ``data["code"]``.
        data: more fields of the error's data, such as ``{"retry_after": 2.5}``; text,
            code and message type stay what they are.

    Raises:
        TypeError: text or code is not a string, or the data is not a dict.
    """

    def __init__(
        self, text: str, code: str = "client_error", data: Mapping[str, object] | None = None
    ) -> None:
        if not isinstance(text, str):
            raise TypeError(
                f"the text of a ClientError is a string, not {text!r:.100}; "
                f"write ClientError('what went wrong', data={{...}})"
            )
        if not isinstance(code, str):
            raise TypeError(
                f"the code of a ClientError is a string, not {code!r:.100}; "
                f"write ClientError(text, 'my_code')"
            )
        if data is not None and not isinstance(data, Mapping):
            raise TypeError(
                f"the data of a ClientError is a dict, not {data!r:.100}; "
                f"write data={{'detail': ...}}"
            )
        super().__init__(text)
        self.text = text
        self.code = code
        self.data = {} if data is None else dict(data)


class Cancelled(ClientError):
    """The request that is being handled should end; raised by ``req.check()``.

    The client gets the code ``cancelled``, or ``timeout`` if the handler's time is over.
    """


class Reject(DaebusError):
    """Raise this in the ``authenticate`` function to refuse a client with a text of your own.

    The client gets it as an HTTP answer, ``{"error": text, "code": code}``. A page cannot
    read that: its browser only reports that the connection failed.

    Args:
        status: HTTP status, 400 to 599.
        text: the text that the client gets.
        code: a stable identifier for programs; None takes the name of the status, such
            as ``unauthorized``.
        headers: more headers of the answer, such as ``{"WWW-Authenticate": "Basic"}``.

    Raises:
        TypeError: text, code or a header is not a string.
        ValueError: the status is not one of an error, or a header cannot be sent.
    """

    def __init__(
        self,
        status: int,
        text: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(text, str):
            raise TypeError(
                f"the text of a Reject is a string, not {text!r}; write Reject(403, 'no')"
            )
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise ValueError(f"a refusal has a status from 400 to 599, not {status!r}; write 403")
        if code is not None and not isinstance(code, str):
            raise TypeError(f"the code of a Reject is a string, not {code!r}; write code='banned'")
        if headers is not None and not isinstance(headers, Mapping):
            raise TypeError(
                f"the headers of a Reject are a dict, not {headers!r:.100}; "
                f"write headers={{'WWW-Authenticate': 'Basic'}}"
            )
        fields = tuple((headers or {}).items())
        for name, value in fields:
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
                raise ValueError(f"{name!r} is not a header for a refusal; leave it out")
            given: object = value
            if not isinstance(given, str):
                better = repr(f"{value!s:.100}")
                raise TypeError(f"the value of {name} is a string, not {value!r}; write {better}")
            if not _HEADER_VALUE.fullmatch(value):
                raise ValueError(f"the value of {name} cannot be sent: {value!r}")
        super().__init__(text)
        self.status = status
        self.text = text
        self.code = _status_name(status) if code is None else code
        self.headers = fields


# RFC 9110 section 5: a line break in a value would be a header, or an answer, of its own.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# The server itself sets these headers.
_OWN_HEADERS = frozenset(
    ("connection", "content-length", "content-type", "date", "transfer-encoding")
)


def _status_name(status: int) -> str:
    try:
        return http.HTTPStatus(status).name.lower()
    except ValueError:  # a status without a name
        return "rejected"


def name_of(function: object) -> str:
    """Return the name of a function for a message: module and name, if it has them."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module}.{name}" if module and name else name or repr(function)
