"""The request that a view gets: Werkzeug's, with limits for forms and uploads."""

from __future__ import annotations

import json
import re
from io import BytesIO
from typing import IO, Any, NoReturn, cast

from werkzeug.exceptions import (
    BadRequest,
    RequestEntityTooLarge,
    ServiceUnavailable,
    UnsupportedMediaType,
)
from werkzeug.formparser import FormDataParser
from werkzeug.wrappers import Request as WerkzeugRequest
from werkzeug.wrappers import Response

from ...data.depth import nests
from ...server.threads.safelog import get_logger
from .spool import Spool, Upload

__all__ = ["JsonReader", "Request", "close_uploads_with", "spool_to"]

logger = get_logger("daebus.http")

# Limits of forms: bytes of fields that are not files, and number of fields and files. A megabyte
# of empty fields would take a second to parse, and a hundred megabytes.
MAX_FORM_MEMORY = 1 << 20
MAX_FORM_PARTS = 1000

# Bytes of an uploaded file that stay in memory; the whole of a larger one goes to a file
# without a name. A descriptor each: 32 of them fit into a body of 16 MiB.
MAX_MEMORY_FILE = 512 << 10


_URLENCODED = "application/x-www-form-urlencoded"
_FORMS = (_URLENCODED, "multipart/form-data")

# How an object or a list of JSON begins, and hardly the name of a field.
_JSON = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\{\s*["}]|\[\s*[\]\[{"\d-])')


class FormParser(FormDataParser):
    """Werkzeug's, which would take a malformed form for one without fields.

    Its limits are for ``multipart/form-data`` alone; here they are for the other kind too.
    """

    def parse(
        self,
        stream: IO[bytes],
        mimetype: str,
        content_length: int | None,
        options: dict[str, str] | None = None,
    ) -> Any:
        """Return stream, fields and files.

        Raises:
            werkzeug.exceptions.BadRequest: the form is malformed; answered 400.
            werkzeug.exceptions.RequestEntityTooLarge: it exceeds a limit; answered 413.
            werkzeug.exceptions.ServiceUnavailable: a file cannot be stored; answered 503.
        """
        try:
            if mimetype == _URLENCODED:
                stream = self._bounded(stream, content_length)
            return super().parse(stream, mimetype, content_length, options)
        except ValueError:
            raise BadRequest("the form is malformed") from None
        except OSError as exc:
            logger.debug("cannot store an upload: %s", exc)
            raise ServiceUnavailable("the server cannot store the file") from exc

    def _bounded(self, stream: IO[bytes], content_length: int | None) -> IO[bytes]:
        """Read a form whose fields stand in a row, before it is taken apart."""
        size, fields = self.max_form_memory_size, self.max_form_parts
        assert size is not None, "the class of requests sets it"
        assert fields is not None, "the class of requests sets it"
        body = None if (content_length or 0) > size else stream.read()
        if body is None or len(body) > size:
            raise RequestEntityTooLarge(f"the form is larger than {size} bytes")
        if body.count(b"&") >= fields:
            raise RequestEntityTooLarge(f"the form has more than {fields} fields")
        return BytesIO(body)


class JsonReader:
    """What Werkzeug takes for the ``json`` module: it takes what a message may hold, no more.

    Args:
        max_depth: levels of arrays and objects.
    """

    def __init__(self, max_depth: int) -> None:
        self._max_depth = max_depth

    def loads(self, data: str | bytes) -> Any:
        """Decode a body.

        Raises:
            werkzeug.exceptions.BadRequest: it is nested too deep; answered 400.
            ValueError: it is not JSON; the text says why.
        """
        if isinstance(data, bytes):
            try:
                data = data.decode(json.detect_encoding(data), "surrogatepass")
            except UnicodeDecodeError:
                raise ValueError("it is not UTF-8") from None
        if nests(data, self._max_depth):
            raise BadRequest(f"the body is nested deeper than {self._max_depth} levels")
        try:
            return json.loads(data, parse_constant=_no_constant)
        except json.JSONDecodeError as exc:
            raise ValueError(f"{exc.msg} at {exc.pos}" if data else "it is empty") from None
        except ValueError:
            raise ValueError("a number is too long, or NaN or Infinity") from None
        except RecursionError:  # of a view that is deep in calls itself
            raise BadRequest("the body is nested too deep") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class Request(WerkzeugRequest):
    """An HTTP request: Werkzeug's, and ``payload``."""

    max_form_memory_size = MAX_FORM_MEMORY
    max_form_parts = MAX_FORM_PARTS
    form_data_parser_class = FormParser
    _uploads: tuple[IO[bytes], ...] = ()  # files of a form; ``close`` closes them
    _spool: Spool | None = None  # where these go

    @property
    def payload(self) -> Any:
        """The body as plain data, by its content type; without a body, the query.

        JSON is any value; a form and the query are dicts of strings. Of a field that comes
        several times this is the first; ``req.form.getlist(name)`` and
        ``req.args.getlist(name)`` have all.

        Raises:
            werkzeug.exceptions.BadRequest: the body claims to be JSON and is not; answered 400.
            werkzeug.exceptions.UnsupportedMediaType: the content type is neither that of JSON
                nor that of a form, or the body is JSON and claims to be a form; answered 415.
        """
        if self.is_json:
            try:
                return self.json_module.loads(self.get_data())
            except ValueError as exc:
                raise BadRequest(f"the body is not JSON: {exc}") from None
        length = self.content_length
        if self.mimetype in _FORMS and length != 0:
            fields = self.form.to_dict()
            if self.mimetype == _URLENCODED and _JSON.match(next(iter(fields), "").encode()):
                raise self._mistyped()
            return fields
        if length != 0:
            body = self.get_data()
            if _JSON.match(body):
                raise self._mistyped()
            if body:
                raise UnsupportedMediaType(
                    f"the content type of the body is {self._type()}, neither JSON nor a form; a "
                    f"view reads it with req.get_data(), and the query with req.args"
                )
        return self.args.to_dict()

    def _mistyped(self) -> UnsupportedMediaType:
        return UnsupportedMediaType(
            f"the body looks like JSON, and its content type is {self._type()}; send it with "
            f"Content-Type: application/json"
        )

    def _type(self) -> str:
        return repr(self.mimetype[:100]) if self.mimetype else "missing"

    def make_form_data_parser(self) -> FormDataParser:
        """Return Werkzeug's parser, which stores uploads in files of ours."""
        parser = super().make_form_data_parser()
        parser.stream_factory = self._new_upload
        parser.silent = False
        return parser

    def close(self) -> None:
        """Close the uploads, also those of a form that was refused half-way."""
        for upload in self._uploads:
            upload.close()

    def _new_upload(self, *args: object, **options: object) -> IO[bytes]:
        spool = self._spool
        assert spool is not None, "the router gives a request its spool"
        upload = cast(IO[bytes], Upload(spool, MAX_MEMORY_FILE))
        self._uploads = (*self._uploads, upload)
        return upload


def spool_to(request: Request, spool: Spool) -> None:
    """Have the uploads of a request go to a spool; for the router, not for users."""
    request._spool = spool


def close_uploads_with(response: Response, request: Request) -> None:
    """Have the uploads of a request closed when its response is."""
    if request._uploads:
        response.direct_passthrough = False  # else Werkzeug does not call what is set here
        response.call_on_close(request.close)
