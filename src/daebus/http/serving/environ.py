"""Build the WSGI environment of a request (PEP 3333)."""

from __future__ import annotations

import functools
import sys
from typing import IO, Any
from urllib.parse import unquote_to_bytes

from ..protocol.forwarded import Seen
from ..protocol.heads import Head
from .writes import FileBody

__all__ = ["add_forwarded", "add_request", "common_environ", "split_target"]


def common_environ(host: str, port: int, scheme: str) -> dict[str, Any]:
    """Build the part that all requests to one listener share.

    A Unix socket has neither host nor port, and PEP 3333 wants both.
    """
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileBody,
        "SCRIPT_NAME": "",
        "SERVER_SOFTWARE": "daebus",
        "SERVER_NAME": host or "localhost",
        "SERVER_PORT": str(port or (443 if scheme == "https" else 80)),
    }


def split_target(head: Head) -> tuple[str, str]:
    """Return path, still encoded, and query of the target (RFC 9112 section 3.2)."""
    target = head.target
    if head.authority is not None:
        target = target.partition("//")[2][len(head.authority) :]
    path, _, query = target.partition("?")
    return path or "/", query


def add_request(environ: dict[str, Any], head: Head, body: IO[bytes], size: int) -> None:
    """Add the headers, target and body of one request.

    Args:
        environ: what all requests of the connection share; changed.
        head: of the request.
        body: whole.
        size: bytes of it.
    """
    path, query = split_target(head)
    environ["wsgi.input"] = body
    environ["REQUEST_METHOD"] = head.method
    environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
    environ["QUERY_STRING"] = query
    environ["REQUEST_URI"] = environ["RAW_URI"] = head.target
    environ["SERVER_PROTOCOL"] = "HTTP/1.1" if head.version == "1.1" else "HTTP/1.0"
    for name, value in head.headers:
        key = _environ_key(name)
        if key in environ:
            value = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + value
        elif not key:
            continue
        environ[key] = value
    if head.length is None:
        environ["CONTENT_LENGTH"] = str(size)
        del environ["HTTP_TRANSFER_ENCODING"]
    if head.authority is not None:
        environ["HTTP_HOST"] = head.authority


def add_forwarded(environ: dict[str, Any], seen: Seen) -> None:
    """Describe the client behind a trusted proxy; the proxy's headers stay."""
    if environ["REMOTE_ADDR"] != seen.remote_address:
        environ["REMOTE_ADDR"] = seen.remote_address
        environ.pop("REMOTE_PORT", None)
    if seen.scheme is not None:
        environ["wsgi.url_scheme"] = seen.scheme
    if seen.host is not None:
        environ["HTTP_HOST"] = seen.host
    if seen.prefix:
        environ["SCRIPT_NAME"] = unquote_to_bytes(seen.prefix).decode("latin-1")


@functools.lru_cache(maxsize=256)
def _environ_key(name: str) -> str:
    """Return the WSGI name of a header; empty if it must not be passed on.

    ``X_Real-Ip`` would become what ``X-Real-Ip`` does, so a client could forge it.
    """
    if "_" in name:
        return ""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key
