"""``Daebus.wsgi``: the app inside somebody else's threaded server.

Rules of this module:

1. Nothing starts before the first request: a server may fork after the import.
2. A WebSocket runs in the thread of its request, which is given back unchanged: name,
   context variables, the server's own socket.
3. If a server cannot do something, each client is told, and it is logged once. So is what
   works in part alone.
"""

from __future__ import annotations

import contextvars
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from .http.hosted import (
    answer_check,
    answer_topics,
    borrow,
    find_greenlets,
    refuse,
    wants_check,
    wants_topics,
    wants_websocket,
)
from .http.serving.topics import TopicPages
from .interrupts.stack import check_outside
from .server.handoff import DRAINING, STOPPING, Checked, Handshake, Refusal, Upgrade
from .server.threads.minder import Minder
from .server.threads.safelog import get_logger
from .server.threads.track import lent
from .waits import until

__all__ = ["Doorkeeper", "GuestApp", "WsgiAdapter"]

logger = get_logger("daebus")

# Seconds between two checks whether gunicorn wants its worker to end.
_WORKER_POLL = 0.25

# How far a message goes in an app of several processes that nothing joins.
_APART = (
    "and each knows its own clients alone: no broadcast, room or client id reaches those of "
    "another; join them with app.attach(DaebusRedis('redis://127.0.0.1:6379/0')), or"
)
_SEVERAL = (
    f"the server runs several processes, {_APART} run one process with more threads, such as "
    f"gunicorn --workers 1 --threads 100"
)
_SHARED = f"reuse_port=True shares the port with other processes, {_APART} leave out reuse_port"

Answer = Callable[[dict[str, Any], Any], Iterable[bytes]]
Judge = Callable[[dict[str, Any]], Refusal | None]


class GuestApp(Protocol):
    """The part of an app that ``WsgiAdapter`` uses."""

    @property
    def name(self) -> str:
        """Its name, for logs."""

    def start_as_guest(self) -> bool:
        """Start without listening, unless that was done; return False once stopped."""


class Doorkeeper(Protocol):
    """The part of the WebSocket side that ``WsgiAdapter`` uses."""

    def admit(self, upgrade: Upgrade) -> Refusal | Callable[[], None]:
        """Take over a connection, or return a refusal; see ``UpgradeHandler``."""

    def check(self, handshake: Handshake) -> Checked:
        """Judge a handshake, and open nothing; see ``UpgradeHandler``."""

    def begin_stop(self) -> None:
        """Say goodbye to all clients."""


class WsgiAdapter:
    """Answers the requests of another server with an app.

    Args:
        app: started at the first request.
    """

    def __init__(self, app: GuestApp) -> None:
        self._app = app
        self._answer: Answer | None = None  # while the app runs, and after that
        self._judge: Judge | None = None
        self._up = False
        self._hub: Doorkeeper | None = None
        self._apart = False  # nothing joins it with the app in other processes
        self._topics: TopicPages | None = None
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._inside: set[int] = set()  # guarded by: _lock; threads that answer a request
        self._closed: Refusal | None = None  # guarded by: _lock; why all requests are refused
        self._told: set[str] = set()  # guarded by: _lock

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request; see PEP 3333."""
        check_outside("app.wsgi", self._lock)
        if not self._up:
            problem = find_greenlets(environ)
            if problem is not None:
                return self._cannot(problem, start_response)
            if not self._app.start_as_guest():
                return refuse(STOPPING, start_response)
            if self._apart and environ.get("wsgi.multiprocess"):
                self._warn(_SEVERAL)
        assert self._judge is not None
        refusal = self._judge(environ)
        if refusal is not None:
            return refuse(refusal, start_response)
        closed = self._closed  # unguarded: one look, to be had again under the lock
        if closed is not None:
            return refuse(closed, start_response)
        if wants_websocket(environ):
            return self._upgrade(environ, start_response)
        me = threading.get_ident()
        with self._lock:
            if self._closed is not None:
                return refuse(self._closed, start_response)
            self._inside.add(me)
        try:
            assert self._answer is not None
            with lent("http"):
                if self._hub is not None and wants_check(environ):
                    return answer_check(environ, start_response, self._hub.check)
                topics = self._topics
                if topics is not None and wants_topics(environ, topics):
                    return answer_topics(environ, start_response, topics)
                return self._answer(environ, start_response)
        finally:
            with self._lock:
                self._inside.discard(me)
                self._left.notify_all()

    def _cannot(self, problem: str, start_response: Any) -> Iterable[bytes]:
        if self._is_news(problem):
            logger.error("%s: %s", self._app.name, problem)
        return refuse(Refusal(501, "not_implemented", problem), start_response)

    def warn_of_shared_port(self) -> None:
        """Say that the processes that listen on the port know nothing of each other."""
        self._warn(_SHARED)

    def _warn(self, problem: str) -> None:
        if self._is_news(problem):
            logger.warning("%s: %s", self._app.name, problem)

    def _is_news(self, problem: str) -> bool:
        with self._lock:
            known = problem in self._told
            self._told.add(problem)
        return not known

    # --- WebSockets -------------------------------------------------------------

    def _upgrade(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Run a WebSocket in this thread until it has ended, or refuse it."""
        hub = self._hub
        if hub is None:
            text = "there are no WebSockets on this server"
            return refuse(Refusal(501, "not_implemented", text), start_response)
        if (
            environ.get("CONTENT_LENGTH", "") not in ("", "0")
            or "HTTP_TRANSFER_ENCODING" in environ
        ):
            text = "a WebSocket handshake has no body"
            return refuse(Refusal(400, "bad_request", text), start_response)
        borrowed = borrow(environ)
        if isinstance(borrowed, str):
            return self._cannot(borrowed, start_response)
        try:
            upgrade = borrowed.upgrade()
        except OSError as exc:
            logger.warning("refused a client, as no descriptor is left: %s", exc)
            text = "the server is overloaded"
            return refuse(Refusal(503, "overloaded", text, (("Retry-After", "1"),)), start_response)
        try:
            admitted = hub.admit(upgrade)
        except BaseException:
            upgrade.sock.close()
            raise
        if isinstance(admitted, Refusal):
            upgrade.sock.close()
            return refuse(admitted, start_response)
        del upgrade  # not kept as long as the connection lives
        with lent("ws"):
            contextvars.copy_context().run(admitted)
        raise borrowed.part()

    # --- beginning and end ------------------------------------------------------

    def begin(
        self,
        answer: Answer,
        judge: Judge,
        hub: Doorkeeper | None,
        topics: TopicPages | None,
        minder: Minder,
        *,
        apart: bool,
    ) -> None:
        """Take requests from now on, until the process ends or the app is stopped.

        Args:
            answer: answers one request, see PEP 3333.
            judge: says why a request may not come in, before anything else.
            hub: takes the WebSockets; None without a WebSocket component.
            topics: answers requests for topics; None if there are none.
            minder: of the app.
            apart: it has clients, and nothing that joins it with the app in other processes.
        """
        self._answer = answer
        self._judge = judge
        self._hub = hub
        self._apart = apart
        self._topics = topics
        with self._lock:
            self._closed = None
        self._up = True
        # gunicorn joins its threads before the functions that run at exit, so WebSockets
        # would delay the end of a worker until it is killed. The handler of SIGTERM is a
        # method of the worker.
        worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if hub is not None and getattr(worker, "alive", None) is True:
            _say_goodbye_with(worker, hub, minder)

    def leave(self) -> None:
        """Refuse new requests from now on, as the app is about to stop."""
        with self._lock:
            self._closed = self._closed or DRAINING

    def begin_stop(self) -> None:
        """Refuse new requests from now on."""
        self._up = False
        with self._lock:
            self._closed = STOPPING

    def finish_stop(self, deadline: float) -> list[threading.Thread]:
        """Wait for the requests in flight; return the threads that still answer one."""
        me = threading.get_ident()
        with self._lock:
            self._left.wait_for(lambda: not self._inside - {me}, until(deadline))
            busy = self._inside - {me}
        return [thread for thread in threading.enumerate() if thread.ident in busy]


def _say_goodbye_with(worker: Any, hub: Doorkeeper, minder: Minder) -> None:
    """Send the clients a close frame once gunicorn wants its worker to end."""
    if worker.alive:
        minder.call_later(_WORKER_POLL, lambda: _say_goodbye_with(worker, hub, minder))
    else:
        hub.begin_stop()
