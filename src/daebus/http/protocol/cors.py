"""Which pages of other sites may read the answers (the CORS protocol of the Fetch standard).

Pure: from headers to headers. Nothing here keeps a request away from a view; it tells
browsers what their pages may see.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...origins import Origins

__all__ = ["Cors"]

Headers = list[tuple[str, str]]

# What a page may do where nothing else is said; browsers never ask for HEAD.
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
HEADERS = ("Authorization", "Content-Type")
# Seconds for which a browser need not ask again: Chromium keeps no answer for longer
# than two hours, and a change here should show sooner.
MAX_AGE = 600

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_OPTIONS = (
    "allowed_origins",
    "allowed_methods",
    "allowed_headers",
    "expose_headers",
    "allow_credentials",
    "max_age",
)


class Cors:
    """The policy of one port.

    Args:
        options: ``allowed_origins``, which must be there: ``"*"`` or a list such as
            ``["https://example.com"]``, see ``Origins``; ``allowed_methods`` and
            ``allowed_headers``: ``"*"`` or a list; ``expose_headers``: a list;
            ``allow_credentials``: whether pages may send cookies; ``max_age``: seconds for
            which a browser may keep the answer to a preflight.

    Raises:
        ValueError: an option is unknown or invalid; the message says what to type.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        if not isinstance(options, Mapping):
            raise ValueError(
                f"cors must be a dict, not {options!r}; write "
                f'cors={{"allowed_origins": ["https://example.com"]}}'
            )
        for name in options:
            if name not in _OPTIONS:
                close = difflib.get_close_matches(str(name), _OPTIONS, 1, 0.4) or _OPTIONS
                raise ValueError(f"cors has no option {name!r}; write {' or '.join(close)}")
        if "allowed_origins" not in options:
            raise ValueError(
                "cors must say which pages; write "
                'cors={"allowed_origins": ["https://example.com"]} or "*"'
            )
        named = _names(options, "allowed_origins", (), None, "https://example.com")
        origins = Origins(named, "allowed_origins")
        methods = _names(options, "allowed_methods", METHODS, _TOKEN, "GET")
        headers = _names(options, "allowed_headers", HEADERS, _TOKEN, "Content-Type")
        exposed = _names(options, "expose_headers", (), _TOKEN, "X-Total")
        credentials = options.get("allow_credentials", False)
        if not isinstance(credentials, bool):
            raise ValueError(f"allow_credentials must be True or False, not {credentials!r}")
        max_age = options.get("max_age", MAX_AGE)
        if isinstance(max_age, bool) or not isinstance(max_age, int) or max_age < 0:
            raise ValueError(f"max_age must be a number of whole seconds, not {max_age!r}")
        if credentials and origins.any:
            raise ValueError(
                "allow_credentials with allowed_origins '*' would let every site act in the "
                'user\'s name; name the pages: allowed_origins=["https://example.com"]'
            )
        if credentials and "*" in exposed:
            raise ValueError(
                "with allow_credentials browsers take '*' in expose_headers for a name; "
                'write the names: expose_headers=["X-Total"]'
            )
        self._origins = origins
        self._methods = methods
        self._headers = headers
        self._exposed = exposed
        self._credentials = credentials
        self._max_age = max_age

    @property
    def allows_cookies(self) -> bool:
        """True if pages may send cookies."""
        return self._credentials

    def is_allowed(self, origin: str) -> bool:
        """Return whether the page may read answers."""
        return self._origins.allow(origin)

    def preflight(self, origin: str, method: str, headers: str | None) -> Headers | None:
        """Return the headers of the answer to a preflight.

        Args:
            origin: of the page.
            method: that it wants to use.
            headers: that it wants to send, as it named them; None for none.

        Returns:
            None if the page may not.
        """
        if not self.is_allowed(origin):
            return None
        # Never a "*": with credentials it is no wildcard, and it never covers Authorization.
        methods = method if "*" in self._methods else ", ".join(self._methods)
        names = (headers or "") if "*" in self._headers else ", ".join(self._headers)
        found = [*self._about(origin), ("Access-Control-Allow-Methods", methods)]
        if names:
            found.append(("Access-Control-Allow-Headers", names))
        found.append(("Access-Control-Max-Age", str(self._max_age)))
        found.append(
            (
                "Vary",
                "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
            )
        )
        return found

    def add(self, headers: Headers, origin: str | None) -> Headers:
        """Return the headers of an answer, CORS headers included.

        An answer that has its own is left alone.

        Args:
            headers: of the answer.
            origin: of the page; None if the request names none.
        """
        names = {name.lower() for name, _ in headers}
        if "access-control-allow-origin" in names:
            return headers
        found = list(headers)
        if not self._origins.any and not _varies(headers):
            found.append(("Vary", "Origin"))  # caches must not mix up the pages
        if origin is not None and self.is_allowed(origin):
            found += self._about(origin)
            if self._exposed:
                found.append(("Access-Control-Expose-Headers", ", ".join(self._exposed)))
        return found

    def _about(self, origin: str) -> Headers:
        found = [("Access-Control-Allow-Origin", "*" if self._origins.any else origin)]
        if self._credentials:
            found.append(("Access-Control-Allow-Credentials", "true"))
        return found


def _varies(headers: Headers) -> bool:
    values = [value.lower() for name, value in headers if name.lower() == "vary"]
    parts = {part.strip() for value in values for part in value.split(",")}
    return "origin" in parts or "*" in parts


def _names(
    options: Mapping[str, Any],
    option: str,
    default: Sequence[str],
    grammar: re.Pattern[str] | None,
    example: str,
) -> tuple[str, ...]:
    """Return an option that is a list of names, or ``"*"``.

    Args:
        options: all of them.
        option: name of the one.
        default: if it is not there.
        grammar: of each name; None leaves them unchecked.
        example: of a name.

    Raises:
        ValueError: it is anything else.
    """
    value = options.get(option, default)
    if value == "*":
        return ("*",)
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | set | frozenset):
        proper = isinstance(value, str) and (grammar is None or grammar.fullmatch(value))
        shown = [value] if proper else [example]
        raise ValueError(f"{option} must be a list of names, not {value!r}; write {option}={shown}")
    for name in value:
        if (
            grammar is not None
            and name != "*"
            and not (isinstance(name, str) and grammar.fullmatch(name))
        ):
            raise ValueError(f"{option} holds {name!r}; write it like {example!r}")
    return tuple(value)
