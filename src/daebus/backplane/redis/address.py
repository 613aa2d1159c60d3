"""The address of a server, as its URL says it. Pure.

No error and no ``repr`` holds the URL or a part of it that could be of a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["Address", "read_url"]

_EXAMPLE = "write 'redis://user:password@127.0.0.1:6379/0'"

# What a URL may say of TLS, in the words of redis-py, whose URLs people have already.
_TLS = ("ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile")
_TLS_MORE = ("ssl_check_hostname", "ssl_password")
_REQUIREMENTS = ("none", "optional", "required")


@dataclass(frozen=True)
class Address:
    """Where a server is, and how to be let in.

    Attributes:
        host: name or address; of a Unix socket empty.
        port: of TCP.
        path: of a Unix socket, or empty.
        db: number of the database.
        tls: the connection is encrypted.
        username: None for the default user.
        password: None for none.
        options: arguments of redis-py for TLS.
    """

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    db: int = 0
    tls: bool = False
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def at(self, host: str, port: int) -> Address:
        """Return the address of another server of the same cluster."""
        return replace(self, host=host, port=port)


def read_url(url: object) -> Address:
    """Return what a URL says.

    Raises:
        TypeError: it is not a string.
        ValueError: it is no URL of a server, or has options that are unknown.
    """
    if not isinstance(url, str):
        raise TypeError(f"the URL of Redis is a string, not {type(url).__name__}; {_EXAMPLE}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        username, password = parts.username, parts.password
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:  # its text may hold a part of the password
        raise ValueError(
            "the URL of Redis cannot be read; escape what is special in its password, as "
            f"urllib.parse.quote(password, safe='') does; {_EXAMPLE}"
        ) from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(
            f"the URL of Redis begins with redis://, rediss:// (TLS) or unix://; {_EXAMPLE}"
        )
    unix, tls = parts.scheme == "unix", parts.scheme == "rediss"
    if unix and not parts.path.strip("/"):
        raise ValueError("the URL of a Unix socket has its path; write 'unix:///run/redis.sock'")
    if port == 0:
        raise ValueError(f"the URL of Redis has a port from 1 to 65535, not 0; {_EXAMPLE}")
    if parts.fragment:
        raise ValueError(
            "the URL of Redis holds a #; escape what is special in its password, as "
            "urllib.parse.quote(password, safe='') does"
        )
    number = query.pop("db", None)
    if number is None:
        number = "" if unix else parts.path.strip("/")
    return Address(
        host="" if unix else unquote(host or "localhost"),
        port=6379 if port is None else port,
        path=unquote(parts.path) if unix else "",
        db=_database(number),
        tls=tls,
        username=unquote(username) if username else None,
        password=unquote(password) if password else None,
        options=_options(query, tls=tls),
    )


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError(
            "the URL of Redis ends with the number of a database, such as /0; escape what is "
            "special in its password, as urllib.parse.quote(password, safe='') does"
        )
    return int(text)


def _options(query: dict[str, str], *, tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in query.items():
        known = (*_TLS, *_TLS_MORE) if tls else ()
        if name not in known:
            also = ", ".join(("db", *known))
            raise ValueError(
                f"the URL of Redis has an option that is not known here; leave it out (known: "
                f"{also})"
            )
        if name == "ssl_check_hostname":
            options[name] = value.lower() not in ("", "0", "f", "false", "n", "no")
        elif name == "ssl_cert_reqs" and value not in _REQUIREMENTS:
            raise ValueError(
                f"ssl_cert_reqs in the URL of Redis is one of {', '.join(_REQUIREMENTS)}; write "
                f"ssl_cert_reqs=required"
            )
        else:
            options[name] = value
    return options
