"""Another server, seen from a WSGI environment: its socket, and how to take it over.

WSGI has no means to say that a connection no longer speaks HTTP, so each server needs what
it happens to understand. Servers that lack such a thing are refused with the reason.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from ..server.handoff import Checked, Handshake, Refusal, Upgrade
from ..server.sockets.transport import RECV_SIZE
from .protocol.errors import error_body, status_line
from .serving.topics import TopicPages
from .serving.upgrade import BAD_TARGET, UpgradeRequest, checked_target
from .site.own import CHECK, OwnAnswer, check_answer

__all__ = [
    "Borrowed",
    "answer_check",
    "answer_topics",
    "borrow",
    "find_greenlets",
    "refuse",
    "wants_check",
    "wants_topics",
    "wants_websocket",
]

_ADVICE = "use a threaded one, such as gunicorn --worker-class gthread --threads 100"

# PEP 3333 leaves these to the server, and some refuse an app that sends one.
_HOP_BY_HOP = frozenset(("connection", "upgrade"))


def wants_websocket(environ: dict[str, Any]) -> bool:
    """Return whether a request asks for a WebSocket."""
    wishes = environ.get("HTTP_UPGRADE")
    return (
        wishes is not None
        and environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        and "websocket" in {wish.strip().lower() for wish in wishes.split(",")}
    )


def wants_check(environ: dict[str, Any]) -> bool:
    """Return whether a client asks if it would be let in."""
    return environ["PATH_INFO"] == CHECK and (
        environ["REQUEST_METHOD"] in ("GET", "HEAD") or _is_preflight(environ)
    )


def _is_preflight(environ: dict[str, Any]) -> bool:
    return (
        environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
    )


def answer_check(
    environ: dict[str, Any], start_response: Any, check: Callable[[Handshake], Checked]
) -> Iterable[bytes]:
    """Answer a client that asks if it would be let in."""
    target = checked_target(environ.get("QUERY_STRING", ""))
    checked = Checked(BAD_TARGET) if target is None else check(_asked(environ, target))
    answer = check_answer(checked)
    start_response(status_line(answer.status), list(answer.headers))
    return [answer.body]


def wants_topics(environ: dict[str, Any], topics: TopicPages) -> bool:
    """Return whether a request is for topics."""
    return topics.owns(_path_and_query(environ)[0])


def answer_topics(
    environ: dict[str, Any], start_response: Any, topics: TopicPages
) -> Iterable[bytes]:
    """Answer a request for topics; a stream is refused, as the server has the socket."""
    method = environ["REQUEST_METHOD"]
    answer = topics.answer(_describe(environ), method, *_path_and_query(environ))
    assert isinstance(answer, OwnAnswer)
    start_response(status_line(answer.status), list(answer.headers))
    return [] if method == "HEAD" else [answer.body]


def _path_and_query(environ: dict[str, Any]) -> tuple[str, str]:
    path = quote((environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"]).encode("latin-1"))
    return path, environ.get("QUERY_STRING", "")


def _asked(environ: dict[str, Any], target: str) -> Handshake:
    """Describe the upgrade that a client asks about."""
    path, _, query = target.partition("?")
    decoded = unquote_to_bytes(path).decode("latin-1")
    asked = {
        **environ,
        "REQUEST_METHOD": "OPTIONS" if _is_preflight(environ) else "GET",
        "PATH_INFO": decoded,
        "QUERY_STRING": query,
        "RAW_URI": target,
        "REQUEST_URI": target,
    }
    return _describe(asked)


def refuse(refusal: Refusal, start_response: Any) -> Iterable[bytes]:
    """Answer with a refusal, as JSON."""
    body = error_body(refusal.text, refusal.code, refusal.traceback)
    start_response(
        status_line(refusal.status),
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            *(pair for pair in refusal.headers if pair[0].lower() not in _HOP_BY_HOP),
        ],
    )
    return [body]


def find_greenlets(environ: dict[str, Any]) -> str | None:
    """Return why a server of greenlets cannot run an app; None for a server of threads."""
    sock = environ.get("gunicorn.socket")
    name = type(sock).__module__.partition(".")[0]
    if "eventlet.input" in environ:
        name = "eventlet"
    elif environ.get("SERVER_SOFTWARE", "").startswith("gevent"):
        name = "gevent"
    if name not in ("eventlet", "gevent"):
        return None
    return f"daebus needs threads, and this server runs {name} greenlets; {_ADVICE}"


class Borrowed:
    """The connection of a request, on loan from its server.

    Args:
        environ: of the request.
        sock: the server's socket.
        farewell: makes the exception on which the server leaves the connection alone.
    """

    def __init__(
        self, environ: dict[str, Any], sock: socket.socket, farewell: Callable[[], Exception]
    ) -> None:
        self._environ = environ
        self._sock = sock
        self._farewell = farewell

    def upgrade(self) -> Upgrade:
        """Describe what the client asks for.

        The socket in it is a duplicate, so that its connection may close what it owns.

        Raises:
            OSError: there is no descriptor left.
        """
        environ = self._environ
        sock = socket.socket(fileno=os.dup(self._sock.fileno()))
        with contextlib.suppress(OSError):  # not a TCP socket
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _describe(environ).upgrade(sock, self._read_ahead())

    def part(self) -> Exception:
        """End the connection; return what to raise so that the server leaves it alone."""
        with contextlib.suppress(OSError):  # gone already
            self._sock.shutdown(socket.SHUT_RDWR)
        return self._farewell()

    def _read_ahead(self) -> bytes:
        """Take the bytes that the server has read beyond the head of the request."""
        stream = self._environ["wsgi.input"]
        unreader = getattr(getattr(stream, "reader", None), "unreader", None)
        if unreader is not None:  # gunicorn
            return bytes(unreader.buf.getvalue())
        if not isinstance(stream, io.BufferedReader):
            return b""
        # Werkzeug: what is in the buffer or, if nothing is, on the socket.
        timeout = self._sock.gettimeout()
        self._sock.settimeout(0)
        try:
            return stream.read1(RECV_SIZE)
        except OSError:  # the client has left
            return b""
        finally:
            self._sock.settimeout(timeout)


def borrow(environ: dict[str, Any]) -> Borrowed | str:
    """Return the connection of a request, or why this server cannot lend it."""
    farewell: Callable[[], Exception]
    if "werkzeug.socket" in environ:
        # For its server a client that has dropped the connection: nothing is written.
        sock, farewell = environ["werkzeug.socket"], ConnectionAbortedError
    elif "gunicorn.socket" in environ:
        # Taken for the end of the requests on the connection; nothing is written, and
        # the access log has no line for it.
        sock, farewell = environ["gunicorn.socket"], StopIteration
    else:
        return f"this server does not share its sockets, so it has no WebSockets; {_ADVICE}"
    if not environ["wsgi.multithread"]:
        return f"this server has one thread, which one WebSocket would occupy; {_ADVICE}"
    if isinstance(sock, ssl.SSLSocket):
        return "this server speaks TLS, through which daebus has no WebSockets; end TLS in a proxy"
    return Borrowed(environ, sock, farewell)


def _describe(environ: dict[str, Any]) -> Handshake:
    port = environ.get("SERVER_PORT", "")
    return Handshake(
        method=environ["REQUEST_METHOD"],
        path=environ["PATH_INFO"].encode("latin-1").decode(errors="replace") or "/",
        target=_target(environ),
        http_version="1.1",
        headers=tuple(_headers(environ)),
        remote_address=environ.get("REMOTE_ADDR", ""),
        port=int(port) if port.isdecimal() else 0,
        request=lambda: UpgradeRequest({**environ, "wsgi.input": io.BytesIO()}),
        secure=environ["wsgi.url_scheme"] == "https",  # a proxy ends TLS, and was trusted
    )


def _target(environ: dict[str, Any]) -> str:
    """Return the target as it was sent, or rebuild it if the server does not tell."""
    target: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if target:
        return target
    path, query = _path_and_query(environ)
    return f"{path}?{query}" if query else path


def _headers(environ: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield key[5:].lower().replace("_", "-"), value
