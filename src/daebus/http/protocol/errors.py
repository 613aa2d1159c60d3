"""The one shape that all errors have: a status, and a JSON object of text and code."""

from __future__ import annotations

import json

from werkzeug.http import HTTP_STATUS_CODES

__all__ = ["error_body", "status_code_name", "status_line"]


def error_body(text: str, code: str, traceback: str | None = None) -> bytes:
    """Return the JSON body of an error.

    Args:
        text: for people.
        code: stable identifier for programs.
        traceback: for the programmer, in a field of its own; None for none.
    """
    body = {"error": text, "code": code}
    if traceback is not None:
        body["traceback"] = traceback
    return json.dumps(body).encode()


def status_line(status: int) -> str:
    """Return a status with its reason phrase, such as ``404 Not Found``."""
    return f"{status} {HTTP_STATUS_CODES.get(status, 'Unknown')}"


def status_code_name(status: int) -> str:
    """Return the code of an error that has none of its own, such as ``not_found``."""
    return HTTP_STATUS_CODES.get(status, "error").lower().replace(" ", "_")
