"""The body of a request that is looked at before all of the body has come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, NoReturn

from werkzeug.exceptions import ClientDisconnected, HTTPException, abort

from ...interrupts.stack import check_outside, interrupted
from ...server.conn import Conn
from ...server.sockets.transport import NOSIGNAL, RECV_SIZE, wait_for
from ...waits import monotonic
from ..protocol.heads import BadRequest, Head
from ..protocol.limits import Limits
from ..site.router import RECEIVE
from .keepalive import KeepAlive

__all__ = ["ComingBody", "say_continue"]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ComingBody:
    """A large body that nobody asked for yet; the first who reads it waits for all of it.

    It is ``wsgi.input`` of its request. What waits for the client steps aside, so that a slow
    one holds no worker.

    Args:
        client: owned by who answers the request.
        head: of the request.
        limits: of the connection.

    Attributes:
        unfinished: a part of it has not been read, so nothing that follows can be.

    Threads:
        One at a time.
    """

    def __init__(self, client: Conn, head: Head, limits: Limits) -> None:
        self.unfinished = True
        self._client = client
        self._head = head
        self._limits = limits
        self._file: IO[bytes] | None = None
        self._size = 0
        self._problem: HTTPException | None = None  # why the rest of it will never be read
        self._worker: threading.Thread | None = None
        self._reader: int | None = None  # the thread that waits for the rest of it
        self._step_aside: Callable[[], bool] = lambda: True

    def enter(self, environ: dict[str, Any], step_aside: Callable[[], bool]) -> None:
        """Make it the body of a request that the calling thread answers.

        Args:
            environ: of the request; ``RECEIVE`` in there waits for the body.
            step_aside: lets another worker take the place of this one; False if it cannot.
        """
        self._worker = threading.current_thread()
        self._step_aside = step_aside
        environ[RECEIVE] = self.receive
        if self._head.length is None:
            del environ["CONTENT_LENGTH"]  # not known before it is there

    def receive(self) -> int:
        """Wait until all of it is there, and return its size in bytes.

        Raises:
            werkzeug.exceptions.HTTPException: it is malformed or too large, did not come in
                time, or cannot be stored; the connection ends with the answer.
            StateError: called by something that interrupted this very thread.
        """
        if self._problem is not None:
            raise self._problem.with_traceback(None)
        if self._file is None:
            me, what = threading.get_ident(), "reading the body of a request"
            if self._reader == me:
                raise interrupted(what)
            check_outside(what)
            self._reader = me
            try:
                self._receive()
            except HTTPException as exc:
                self._problem = exc
                self._client.state.parser.close()
                raise
            finally:
                self._reader = None
        return self._size

    def _receive(self) -> None:
        kept: KeepAlive = self._client.state
        parser = kept.parser
        if parser.wants_continue:
            parser.wants_continue = False
            if not say_continue(self._client):
                raise ClientDisconnected
        data = b""
        while True:
            try:
                request = parser.feed(data)
            except BadRequest as exc:
                abort(exc.status, exc.text)
            if request is not None:
                self._file, self._size = request.body, request.size
                self.unfinished = False
                return
            data = self._read(kept.deadline(self._limits))

    def _read(self, deadline: float) -> bytes:
        """Return what the client sends next."""
        while True:
            if monotonic() >= deadline:
                _late()
            try:
                data = self._client.sock.recv(RECV_SIZE)
            except BlockingIOError:
                if threading.current_thread() is self._worker and not self._step_aside():
                    abort(503, "too many bodies come slowly")
                if not wait_for(self._client.sock.fileno(), deadline - monotonic()):
                    _late()
                continue
            except OSError:
                data = b""
            if not data:
                raise ClientDisconnected
            return data

    # --- a file, for who reads it -------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.receive()
        return getattr(self._file, name)

    def __iter__(self) -> Iterator[bytes]:
        self.receive()
        assert self._file is not None
        return iter(self._file)

    def close(self) -> None:
        """Drop what has come of it."""
        if self._file is not None:
            self._file.close()
        else:
            self._client.state.parser.close()


def _late() -> NoReturn:
    abort(408, "the request did not come in time")


def say_continue(client: Conn) -> bool:
    """Ask for the body; return False if the connection is broken."""
    try:
        return client.sock.send(_CONTINUE, NOSIGNAL) == len(_CONTINUE)
    except BlockingIOError:
        return True  # it sends the body after a while all the same
    except OSError:
        return False
