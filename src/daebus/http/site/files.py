"""A static folder, with ETags and ranges by Werkzeug."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from werkzeug.exceptions import NotFound, RequestedRangeNotSatisfiable
from werkzeug.security import safe_join
from werkzeug.utils import redirect, send_from_directory
from werkzeug.wrappers import Response

__all__ = ["StaticFolder"]

# A name with a dot before it, or a file by a second path, with which a guard would not reckon.
# What is in ``.well-known`` is meant to be public (RFC 8615).
_HIDDEN = re.compile(r"//|/\.(?!(?<=^/\.)well-known/)")

_LAST_BYTES = re.compile(r"bytes=-0*[1-9][0-9]*", re.IGNORECASE)
_ONE_RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})", re.IGNORECASE)


class StaticFolder:
    """Files that are served where no route matches.

    Args:
        folder: paths cannot lead out of it; symbolic links in it are followed, and files and
            folders whose names begin with a dot are not served, ``.well-known`` apart.
    """

    def __init__(self, folder: str) -> None:
        self._folder = str(Path(folder).resolve())

    def find(self, path: str, environ: dict[str, Any]) -> Response:
        """Return a file, a part of it, or 304 if it has not changed.

        Args:
            path: of the request, decoded, with a slash before it; with one at its end it is the
                folder's ``index.html``, to which one without leads.
            environ: of a GET or HEAD.

        Raises:
            werkzeug.exceptions.NotFound: there is no such file here.
            werkzeug.exceptions.RequestedRangeNotSatisfiable: the file is shorter.
        """
        if not path.startswith("/") or _HIDDEN.search(path):
            raise NotFound
        path = path[1:]
        try:
            return self._send(path, environ)
        except NotFound:
            if not path.endswith("/") and self._is_folder(path):
                return _redirect(environ, path)
            raise

    def _send(self, path: str, environ: dict[str, Any]) -> Response:
        if not path or path.endswith("/"):
            path += "index.html"
        wanted = environ.get("HTTP_RANGE")
        if not wanted:
            return send_from_directory(self._folder, path, environ)
        whole = {key: value for key, value in environ.items() if key != "HTTP_RANGE"}
        # Werkzeug answers 416 to several ranges and to what it cannot read. A client that
        # sends these takes the whole file too (RFC 9110 section 14.2); HEAD has no ranges.
        if environ["REQUEST_METHOD"] != "GET" or not _ONE_RANGE.fullmatch(wanted):
            return send_from_directory(self._folder, path, whole)
        # It also sends a part of what the client has already; 304 is right (section 13.2.2).
        if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ:
            unchanged = send_from_directory(self._folder, path, whole)
            if unchanged.status_code == 304:
                return unchanged
            unchanged.close()
        try:
            return send_from_directory(self._folder, path, environ)
        except RequestedRangeNotSatisfiable:
            # More bytes from the end than there are: all of them (section 14.1.2).
            if not _LAST_BYTES.fullmatch(wanted):
                raise
            return send_from_directory(self._folder, path, whole)

    def _is_folder(self, path: str) -> bool:
        """Tell whether a path lacks nothing but the slash that makes it a folder's."""
        index = safe_join(self._folder, path, "index.html")
        return index is not None and os.path.isfile(index)


def _redirect(environ: dict[str, Any], path: str) -> Response:
    """Lead to the same path with a slash, against which links of the page are read."""
    location = f"{quote(environ.get('SCRIPT_NAME', '').encode('latin-1'))}/{quote(path)}/"
    query = environ.get("QUERY_STRING")
    return redirect(f"{location}?{query}" if query else location, 308)
