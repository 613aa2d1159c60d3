"""Turn what a view or hook returned or raised into a response."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any, cast

from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from ...data.encoder import Encoder
from ...data.forms import NoFormError
from ...errors import EncodeError
from ..protocol.errors import error_body, status_code_name

__all__ = ["exception_response", "json_error", "keep_headers", "to_response"]

# Headers that belong to a status, whatever the body.
_KEPT = ("Allow", "WWW-Authenticate", "Retry-After", "Content-Range")

# Headers that Werkzeug completes; an answer with one does not take the shortcut.
_COMPLETED = frozenset(("location", "content-location"))


def _encode(value: Any, encoder: Encoder) -> bytes:
    try:
        return encoder.dumps(value)
    except EncodeError as exc:
        raise EncodeError(f"what the view returned cannot be sent: {exc}") from exc.__cause__


class _Body:
    """The body of a response in one piece; closing it closes the response."""

    __slots__ = ("_response",)

    def __init__(self, response: Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._response.response)  # type: ignore[arg-type]  # Werkzeug's has str too

    def close(self) -> None:
        """Close the response."""
        self._response.close()


class _Plain(Response):
    """A response with a shortcut for a 200 whose body is one piece.

    Werkzeug copies the headers of every answer, completes some, and wraps the body
    twice, which changes nothing here and costs a tenth of a small request.
    """

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body, headers = self.response, self.headers
        if (
            self.status != "200 OK"
            or environ["REQUEST_METHOD"] == "HEAD"
            or type(body) is not list
            or len(body) != 1
            or type(body[0]) is not bytes
            or not _COMPLETED.isdisjoint(name.lower() for name, _ in headers)
            or "content-length" not in headers
        ):
            return super().__call__(environ, start_response)
        start_response("200 OK", headers.to_wsgi_list())
        return _Body(self)


def to_response(result: Any, encoder: Encoder, status: Any = 200) -> Response:
    """Turn what a view returned into a response.

    Args:
        result: a body, ``(body, status)``, ``(body, status, headers)`` or a response.
        encoder: makes JSON of a body that is an object or a list, or becomes one.
        status: where the result names none.

    Raises:
        TypeError: the result cannot be sent.
        EncodeError: something in it has no JSON form.
    """
    headers: Any = None
    empty = False
    if isinstance(result, tuple):
        if len(result) == 2:
            result, status = result
        elif len(result) == 3:
            result, status, headers = result
        else:
            raise TypeError(
                "a view returns a body, (body, status) or (body, status, headers), not a tuple of "
                f"{len(result)}"
            )
        empty = result is None and status != 200
    if isinstance(result, Response):
        return result
    if isinstance(result, dict | list):
        kind, result = "application/json", _encode(result, encoder)
    elif isinstance(result, str):
        kind = "text/html; charset=utf-8"
    elif isinstance(result, bytes):
        kind = "application/octet-stream"
    elif inspect.isgenerator(result):
        kind = "text/plain; charset=utf-8"
    elif empty:
        kind, result = "text/html; charset=utf-8", b""
    elif _becomes_json(result, encoder):
        kind, result = "application/json", _encode(result, encoder)
    else:
        raise TypeError(
            f"a view returns dict, list, str, bytes, a generator, a tuple with a status, a "
            f"Response, or what becomes an object or a list in JSON; not {type(result).__name__}"
        )
    response = _Plain(result, status, headers, content_type=kind if headers is None else None)
    if headers is not None and "content-type" not in Headers(headers):
        response.headers["Content-Type"] = kind
    return response


def _becomes_json(result: Any, encoder: Encoder) -> bool:
    """Tell whether something is an object or a list in JSON: a dataclass, a model, an array."""
    if result is None or isinstance(result, int | float):
        return False
    try:
        return isinstance(encoder.form(result), dict | list)
    except NoFormError:
        return False


def exception_response(exc: HTTPException) -> Response:
    """Return the answer for one of Werkzeug's exceptions; an error is JSON."""
    if exc.response is not None:
        return cast(Response, exc.response)  # the view's own: abort(response)
    own = exc.get_response()
    if own.status_code < 400:  # a redirect
        return own
    response = json_error(own.status_code, exc.description or exc.name)
    keep_headers(response, exc)
    return response


def keep_headers(response: Response, exc: HTTPException) -> None:
    """Add the headers that belong to the status of an exception, such as ``Allow``."""
    own = exc.get_response()
    for name in _KEPT:
        if name in own.headers:
            response.headers.setdefault(name, own.headers[name])


def json_error(status: int, text: str, code: str = "", *, traceback: str | None = None) -> Response:
    """Return an error as JSON, in the shape that all errors have."""
    body = error_body(text, code or status_code_name(status), traceback)
    return Response(body, status, mimetype="application/json")
