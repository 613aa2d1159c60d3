"""``Client``: what a program has of a server that is somewhere else."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

from .. import fork
from ..checks.annotations import checked
from ..checks.arguments import check_message_type, header_text, seconds
from ..checks.functions import check_function
from ..errors import ForkedError, StateError
from ..interrupts.stack import check_outside
from ..waits import lock_timeout, monotonic, until
from .callbacks import Callbacks
from .message import Message, encode
from .queues import Ended, Inbox, Queue
from .requests import Requests
from .router import Router
from .sender import Sender, listed
from .session import Session, Settings, Status, copy_of
from .state import ClientState, StateFeed
from .subscriptions import Subscriptions, position_in
from .topic import ClientTopic, TopicFeed
from .wire import address_of, header_name, header_value

__all__ = ["Client"]

F = TypeVar("F", bound=Callable[..., Any])


class Client:
    """A connection to an app, which comes back when it was lost.

    Use it as a context manager; nothing runs before that. Two threads at most, both daemons:
    ``daebus-client-NAME`` and, once a function was registered,
    ``daebus-client-NAME-callbacks``, which calls it; one more while a long request leaves.

    Args:
        url: of the server, ``http://host:8080/``; its path is that of the WebSocket.
            ``unix:/run/app.sock`` for a socket file.
        token: sent as ``Authorization: Bearer``. A function is called for one, and again once
            the server answers 401, or closes with 4401.
        headers: more headers of the request.
        timeout: seconds for connecting and for each request, unless it has its own.
        reconnect: come back after the connection was lost.
        heartbeat: seconds of silence after which the server is asked whether it is there.
        heartbeat_timeout: seconds for its answer; then the connection counts as lost.
        ssl_context: for ``https``; None for that of the system.
        name: of its threads; None for host and port.

    Raises:
        TypeError: an argument is of another type; the message names it.
        ValueError: the URL is none, or a number of seconds is too small.

    Threads:
        Every method may be called by any thread. In a forked child all of them but ``close``
        raise ``ForkedError``, if the client had connected before.
    """

    @checked
    def __init__(
        self,
        url: str,
        *,
        token: str | Callable[[], str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        reconnect: bool = True,
        heartbeat: float = 25.0,
        heartbeat_timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(token, str | None):
            check_function("a token function", token, (), kinds=("plain",))
        address = address_of(url)
        self._settings = Settings(
            address,
            {
                header_name(name): header_value(name, value)
                for name, value in (headers or {}).items()
            },
            header_value("the token", token) if isinstance(token, str) else token,
            seconds("timeout", timeout),
            reconnect,
            seconds("heartbeat", heartbeat),
            seconds("heartbeat_timeout", heartbeat_timeout),
            ssl_context,
            header_text("name", name) or address.label,
        )
        self._inbox = Inbox()
        self._requests = Requests()
        self._subscriptions = Subscriptions(self._requests)
        self._callbacks = Callbacks(
            self._settings.name, self._inbox, lambda text: self._sender.send(text)
        )
        self._messages: Queue[Message] = Queue(self._inbox)
        self._router = Router(self._requests, self._subscriptions, self._callbacks, self._messages)
        self._inbox.drop = self._router.drop
        self._session = Session(
            self._settings, self._router, self._requests, self._subscriptions, self._inbox
        )
        self._router.on_goodbye = self._session.farewell
        self._sender = Sender(self._session, self._requests, self._inbox, self._messages)
        self._lock = threading.Lock()
        self._began = False  # guarded by: _lock
        self._forked = False
        self._watch = _Watch(self)

    # --- from the beginning to the end

    def connect(self) -> Client:
        """Connect, as the beginning of a ``with`` does, and return the client.

        A port that is closed, and a server that says 429 or 503, are tried again for ``timeout``
        seconds, unless ``reconnect`` is False.

        Raises:
            Refused: the server does not let the client in.
            Disconnected: there was no connection in time.
            StateError: it was connected before.
        """
        self._check_fork()
        check_outside("client.connect()")
        with self._lock:
            began, self._began = self._began, True
        if began:
            raise StateError("a client connects once; make a new one: daebus.Client(url)")
        fork.remember(self._watch)
        try:
            self._callbacks.start()
            self._session.start()
            self._session.wait_first()
        except BaseException:
            self.close(1.0)  # a token function may still run
            raise
        return self

    def __enter__(self) -> Client:
        return self.connect()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self, timeout: float = 5.0) -> bool:
        """End the connection and the threads; nothing connects any more.

        Requests that wait raise ``Disconnected``, loops over messages end.

        Args:
            timeout: seconds at most.

        Returns:
            False if a thread is still busy, such as one in a function of yours.

        Threads:
            Any, a function that the client calls included; waits for the threads.
        """
        if self._forked:
            return True
        deadline = monotonic() + lock_timeout(timeout)
        check_outside("client.close()")
        fork.forget(self._watch)
        with self._lock:
            began, self._began = self._began, True
        ended = self._session.close(deadline) if began else True
        if not began:
            self._subscriptions.end(None)
        self._messages.end()
        self._callbacks.end()
        return self._callbacks.join(until(deadline)) and ended

    @property
    def status(self) -> Status:
        """``connecting``, ``open``, ``waiting`` for the next attempt, ``refused`` or ``closed``.

        A client that has not connected yet is ``closed``.
        """
        return "closed" if self._forked else self._session.status.status

    def on_status(self, function: F) -> F:
        """Have a function called with a ``ClientStatus`` at each change; a decorator.

        Raises:
            TypeError: it is no function of one argument.
        """
        self._check_fork()
        check_function("an on_status function", function, ("status",), kinds=("plain",))
        self._router.add_status(function)
        return function

    # --- requests and sends

    def request(
        self,
        message_type: str,
        data: Any = ...,
        *,
        timeout: float | None = None,
        repeat: bool = False,
        on_progress: Callable[[Any], object] | None = None,
        cancel: threading.Event | None = None,
    ) -> Any:
        """Send a message and wait for the answer; without data it has none.

        It waits for a connection first, if there is none. Of a generator it returns the first
        item.

        Args:
            message_type: chooses the handler.
            data: what JSON can carry.
            timeout: seconds for all of it; None for the client's own timeout.
            repeat: send it again if the connection is lost before the answer. Say so where it
                does no harm that the server acts twice.
            on_progress: called with the data of each ``progress`` message.
            cancel: gives the request up once it is set; the server is told.

        Returns:
            The data of the answer.

        Raises:
            RequestError: the answer is an error; its code is ``cancelled`` if it was given up.
            Disconnected: the connection was lost before the answer; ``sent`` says whether the
                server may have got the message.
            Refused: the server does not let the client in any more.
            TimeoutError: there was no answer in time; the server is told.
            EncodeError: the data has no JSON form.

        Threads:
            Any; ``on_progress`` is called by the same one.
        """
        self._check_running()
        check_message_type(message_type)
        wait = self._settings.timeout if timeout is None else timeout
        return self._sender.request(
            message_type, data, wait, repeat=repeat, on_progress=on_progress, cancel=cancel
        )

    def send(self, message_type: str, data: Any = ...) -> None:
        """Send a message without waiting for an answer; without data it has none.

        Nothing is queued: without a connection it raises.

        Raises:
            Disconnected: there is no connection; ``sent`` says whether it was lost in the middle.
            Refused: the server does not let the client in any more.
            EncodeError: the data has no JSON form.
        """
        self._check_running()
        check_message_type(message_type)
        self._sender.send(encode(message_type, data))

    # --- messages

    def receive(self, message_type: str | None = None, timeout: float | None = None) -> Message:
        """Wait for the next message that no function of yours takes.

        Args:
            message_type: wait for a message of that type; keep others for later calls.
            timeout: seconds; None for the client's own timeout.

        Raises:
            TimeoutError: none came in time; the text lists those that wait.
            Disconnected, Refused: the client has ended, and nothing is left.
        """
        self._check_running()
        if message_type is not None:
            check_message_type(message_type)
        wait = self._settings.timeout if timeout is None else timeout
        self._router.ask(message_type)
        try:
            if message_type is None:
                return self._messages.take(lock_timeout(wait))
            self._inbox.begin_wait()
            try:
                return self._messages.take(
                    lock_timeout(wait), lambda message: message.type == message_type
                )
            finally:
                self._inbox.end_wait()
        except TimeoutError:
            raise TimeoutError(
                f"no {message_type or 'message'} came within {wait:g} s; {listed(self._messages)}"
            ) from None
        except Ended:
            raise copy_of(self._session.problem) from None

    def __iter__(self) -> Iterator[Message]:
        """Yield the messages that no function of yours takes, until the client is closed.

        Raises:
            Disconnected, Refused: the client has ended, and was not closed.
        """
        self._check_running()
        self._router.ask(None)
        while True:
            try:
                message = self._messages.take()
            except Ended:
                problem = self._session.problem
                if problem is None or getattr(problem, "code", None) == 1000:
                    return
                raise copy_of(problem) from None
            yield message

    def on(self, message_type: str) -> Callable[[F], F]:
        """Have a function called with the messages of a type; a decorator.

        It is called as ``function(data)``, or as ``function(data, message)`` if it takes both.
        Such messages reach neither ``receive`` nor loops, those of topics included.

        Args:
            message_type: ``"*"`` for all that have no function of their own.

        Raises:
            TypeError: it is no such function.
        """
        self._check_fork()
        _check_decorator("on", message_type)

        def register(function: F) -> F:
            self._callbacks.add(message_type, function)
            return function

        return register

    def handle(self, message_type: str) -> Callable[[F], F]:
        """Have a function answer the questions of ``call()`` of a type; a decorator.

        What it returns is the answer; a ``ClientError`` that it raises is sent as an error.

        Raises:
            DuplicateHandlerError: there is one.
            TypeError: it is no function of one argument, or of ``data`` and ``message``.
        """
        self._check_fork()
        _check_decorator("handle", message_type)

        def register(function: F) -> F:
            self._callbacks.add_handler(message_type, function)
            return function

        return register

    # --- topics

    def topic(
        self, name: str, *, last: int | None = None, since: Mapping[str, Any] | None = None
    ) -> ClientTopic:
        """Subscribe to a topic, and again after each reconnect, from where it was.

        Args:
            name: of the topic.
            last: how many of the latest messages come first.
            since: where to go on, a ``position`` that was stored.

        Raises:
            StateError: this client has a topic of that name.
            ValueError: ``since`` is no position.
        """
        self._check_fork()
        _check_topic("topic", name)
        position = position_in(since) if isinstance(since, Mapping) else None
        if since is not None and position is None:
            raise ValueError(
                f"since is a position of this topic, not {since!r:.100}; write since=None, or "
                f"what its position was"
            )
        feed = TopicFeed(
            name,
            Queue(self._inbox),
            self._callbacks,
            last=last,
            since=position,
            timeout=self._settings.timeout,
        )
        self._subscriptions.add(feed)
        return ClientTopic(feed, self._subscriptions.remove, self._check_fork)

    def state(self, name: str) -> ClientState:
        """Subscribe to a state; it is a mapping that is kept current.

        Raises:
            StateError: this client has a topic of that name.
        """
        self._check_fork()
        _check_topic("state", name)
        feed = StateFeed(name, self._callbacks, timeout=self._settings.timeout)
        self._subscriptions.add(feed)
        return ClientState(feed, self._subscriptions.remove, self._check_fork)

    # --- inside

    def _check_fork(self) -> None:
        if self._forked:
            raise ForkedError(
                "this process is a fork of the one in which the client connected; make a new "
                "client here: daebus.Client(url)"
            )

    def _check_running(self) -> None:
        self._check_fork()
        if not self._began:  # unguarded: one look
            raise StateError(
                "the client is not connected; write: with daebus.Client(url) as client"
            )


class _Watch:
    """What is told of forks and of the exit."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def after_fork(self) -> None:
        """Mark the copy in the child: its threads are gone, its socket is the parent's."""
        self._client._forked = True
        self._client._session.after_fork()

    def before_exit(self) -> None:
        """Say goodbye to the server."""
        self._client.close(1.0)


def _check_decorator(name: str, message_type: object) -> None:
    if not isinstance(message_type, str):
        raise TypeError(
            f"a message type is a string, not {message_type!r:.100}; "
            f"write @client.{name}('my_type') above the function"
        )


def _check_topic(method: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(
            f"the name of a topic is a text, not {name!r:.100}; write client.{method}('my_name')"
        )
