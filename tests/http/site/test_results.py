"""The short way of a plain answer leads to the same place as Werkzeug's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.wrappers import Response

from daebus.data.encoder import PLAIN
from daebus.http.site.results import to_response

Change = Callable[[Response], object]


def leave(response: Response) -> None:
    """Change nothing."""


def drop_length(response: Response) -> None:
    del response.headers["Content-Length"]


CHANGES: dict[str, Change] = {
    "nothing": leave,
    "status": lambda r: setattr(r, "status_code", 404),
    "no content": lambda r: setattr(r, "status_code", 204),
    "not modified": lambda r: setattr(r, "status_code", 304),
    "reason": lambda r: setattr(r, "status", "200 Fine"),
    "header": lambda r: r.headers.add("X-Two", "2"),
    "cookie": lambda r: r.set_cookie("a", "1"),
    "location": lambda r: r.headers.set("location", "/grüße"),
    "content location": lambda r: r.headers.set("Content-Location", "/x"),
    "data": lambda r: r.set_data("anew"),
    "text": lambda r: setattr(r, "response", ["ä"]),
    "parts": lambda r: setattr(r, "response", [b"a", b"b"]),
    "iterator": lambda r: setattr(r, "response", iter([b"a", b"b"])),
    "no length": drop_length,
}


def answer(response: Response, method: str) -> tuple[str, list[tuple[str, str]], bytes, int]:
    """Call a response; return status, headers, body and how often it was closed."""
    closed: list[None] = []
    response.call_on_close(lambda: closed.append(None))
    said: list[Any] = []
    environ = {
        "REQUEST_METHOD": method,
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "x",
        "PATH_INFO": "/",
        "SCRIPT_NAME": "",
    }
    body = response(environ, lambda *args: said.extend(args))  # type: ignore[arg-type]
    data = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    return said[0], sorted(said[1]), data, len(closed)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_view_s_result_is_answered_as_werkzeug_would(name: str, method: str) -> None:
    ours = to_response({"a": "ä"}, PLAIN)
    theirs = Response('{"a":"ä"}', 200, content_type="application/json")
    for response in (ours, theirs):
        CHANGES[name](response)
    assert answer(ours, method) == answer(theirs, method)
