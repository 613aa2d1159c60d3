"""The program's functions, and the one thread that calls them.

Rules of this module:

1. The thread begins with the first function, and not before the client connects.
2. What is called is chosen when a message comes, by the reader, which puts the call into a queue
   that counts for the inbox: a function that takes long slows the server, and starves no
   heartbeat before the inbox is full.
3. Whatever a function raises is logged, and the thread goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..checks.functions import check_function, signature_of, takes
from ..errors import ClientError, DaebusError, DuplicateHandlerError, EncodeError, name_of
from ..interrupts.stack import check_outside
from ..server.threads.safelog import get_logger
from .message import Message, encode, error
from .queues import Ended, Inbox, Queue

__all__ = ["Callbacks", "Function"]

logger = get_logger("daebus.client")

Function = Callable[..., Any]
Call = Callable[[], None]
_Adapted = Callable[[Message], Any]


class Callbacks:
    """The functions of one client.

    Args:
        name: of the client.
        inbox: what waits for a call counts there.
        reply: sends the answer to a question; may raise what it likes.
    """

    def __init__(self, name: str, inbox: Inbox, reply: Callable[[str], None]) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._calls: Queue[Call] = Queue(inbox)
        self._reply = reply
        # Replaced, never changed: the reader looks without a lock.
        self._functions: dict[str, tuple[_Adapted, ...]] = {}  # guarded by: _lock
        self._handlers: dict[str, tuple[Function, _Adapted]] = {}  # guarded by: _lock
        self._needed = False  # guarded by: _lock; there is a function
        self._started = False  # guarded by: _lock; the client has connected
        self._closing = False
        self._thread: threading.Thread | None = None  # guarded by: _lock

    def __bool__(self) -> bool:
        """True once there is a function."""
        return bool(self._functions or self._handlers)  # unguarded: one look

    def add(self, kind: str, function: Function) -> None:
        """Have a function called with messages of a type, or with all others: ``*``."""
        adapted = _adapt("a function for messages", function)
        check_outside("client.on()", self._lock)
        with self._lock:
            known = self._functions.get(kind, ())
            self._functions = {**self._functions, kind: (*known, adapted)}
        self.need()

    def add_handler(self, kind: str, function: Function) -> None:
        """Have a function answer questions of a type.

        Raises:
            DuplicateHandlerError: there is one.
        """
        adapted = _adapt("a function for questions", function)
        check_outside("client.handle()", self._lock)
        with self._lock:
            known = self._handlers.get(kind)
            if known is None:
                self._handlers = {**self._handlers, kind: (function, adapted)}
        if known is not None:
            raise DuplicateHandlerError(
                f"questions of type {kind!r} are answered already, by {name_of(known[0])}; "
                f"leave one of the two out"
            )
        self.need()

    def offer(self, message: Message, size: int, done: Call | None = None) -> bool:
        """Have a message's functions called; False if there are none.

        Args:
            message: what came.
            size: of its text.
            done: called behind them.
        """
        handler = self._handlers.get(message.type)  # unguarded: one look
        if handler is not None and message.id is not None:
            self._calls.put(lambda: self._answer(*handler, message), size)
            return True
        functions = self._functions  # unguarded: one look
        chosen = functions.get(message.type) or functions.get("*")
        if not chosen:
            return False

        def call() -> None:
            if self._closing:
                return
            for function in chosen:
                _call(function, message)
            if done is not None:
                done()

        self._calls.put(call, size)
        return True

    def later(self, function: Function, *arguments: object) -> None:
        """Have any function called in its turn; what it returns is nothing to anybody."""
        self._calls.put(lambda: _call(function, *arguments), 0)

    def need(self) -> None:
        """Note that there is a function; start the thread, once the client connects."""
        check_outside("a function of the client", self._lock)
        with self._lock:
            self._needed = True
            if not self._started or self._thread is not None:
                return
            thread = self._thread = threading.Thread(
                target=self._run, name=f"daebus-client-{self._name}-callbacks", daemon=True
            )
        thread.start()

    def start(self) -> None:
        """Note that the client connects."""
        with self._lock:
            self._started = True
            needed = self._needed
        if needed:
            self.need()

    def end(self) -> None:
        """Call nothing more for messages; what is to be told of the end is told."""
        self._closing = True
        self._calls.end()

    def join(self, timeout: float) -> bool:
        """Wait for the thread, unless it is the one that waits; True if it has ended."""
        thread = self._thread  # unguarded: set once
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                call = self._calls.take()
            except Ended:
                return
            call()
            del call  # and what it refers to, before the next one comes

    def _answer(self, handler: Function, adapted: _Adapted, message: Message) -> None:
        ident = message.id
        if ident is None or self._closing:
            return
        try:
            text = encode("response", adapted(message), ident)
        except ClientError as exc:
            text = error(exc, ident)
        except EncodeError as exc:
            logger.error(
                "%s answers a question with what cannot be sent: %s", name_of(handler), exc
            )
            text = error(ClientError("the answer has no JSON form", "handler_error"), ident)
        except BaseException:  # a SystemExit too: the thread has other calls to make
            logger.exception("%s raised for a question of the server", name_of(handler))
            text = error(ClientError("the handler failed", "handler_error"), ident)
        try:
            self._reply(text)
        except DaebusError as exc:
            logger.info("the answer of %s was not sent: %s", name_of(handler), exc)


def _adapt(what: str, function: Function) -> _Adapted:
    """Return what calls a function of ``data``, or of ``data`` and ``message``."""
    if takes(function, None) and not _names_message(function):
        check_function(what, function, ("data",), kinds=("plain",))
        adapted: _Adapted = lambda message: function(message.data)  # noqa: E731  # has a type
    else:
        check_function(what, function, ("data", "message"), kinds=("plain",))
        adapted = lambda message: function(message.data, message)  # noqa: E731  # likewise
    adapted.__qualname__ = name_of(function)
    return adapted


def _names_message(function: Function) -> bool:
    signature = signature_of(function)
    return signature is not None and "message" in list(signature.parameters)[1:]


def _call(function: Function, *arguments: object) -> None:
    try:
        function(*arguments)
    except BaseException:  # a SystemExit too: the thread has other calls to make
        logger.exception("%s raised, called by the client", name_of(function))
