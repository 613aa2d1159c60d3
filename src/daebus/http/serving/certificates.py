"""Make the TLS context of a port from the arguments of ``DaebusHttp``."""

from __future__ import annotations

import ssl
from pathlib import Path

__all__ = ["choose_context"]

_HOW = "write ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)"


def choose_context(
    certfile: str | Path | None, keyfile: str | Path | None, ssl_context: ssl.SSLContext | None
) -> ssl.SSLContext | None:
    """Return the context that was given, or a new one; None without TLS.

    Raises:
        ValueError: the arguments conflict or do not work; the message says what to write.
    """
    if ssl_context is not None:
        if certfile is not None or keyfile is not None:
            raise ValueError(
                "certfile and keyfile, or ssl_context: not both; a context of your own loads "
                "them with ssl_context.load_cert_chain(certfile, keyfile)"
            )
        if not isinstance(ssl_context, ssl.SSLContext):
            raise ValueError(f"ssl_context must be an ssl.SSLContext, not {ssl_context!r}; {_HOW}")
        if ssl_context.protocol == ssl.PROTOCOL_TLS_CLIENT:
            raise ValueError(f"ssl_context must be one for servers, not for clients; {_HOW}")
        return ssl_context
    if certfile is None:
        if keyfile is not None:
            raise ValueError("keyfile needs a certificate; name that too, as certfile")
        return None
    return _load(certfile, keyfile)


def _load(certfile: str | Path, keyfile: str | Path | None) -> ssl.SSLContext:
    for name, path in (("certfile", certfile), ("keyfile", keyfile)):
        if path is not None and not Path(path).is_file():
            raise ValueError(f"{name} must be a PEM file, and there is none at {str(path)!r}")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certfile, keyfile, password=_ask_nobody)
    except _Encrypted:
        raise ValueError(
            f"the key in {str(keyfile or certfile)!r} is encrypted; load it into a context of "
            "your own, with its password, and give that as ssl_context"
        ) from None
    except OSError as exc:  # ssl.SSLError is one; so is a file that must not be read
        if keyfile is None:
            text = f"certfile {str(certfile)!r} must hold a certificate and its private key; name "
            text += "the key as keyfile if it has a file of its own"
        else:
            text = f"certfile {str(certfile)!r} and keyfile {str(keyfile)!r} must hold a "
            text += "certificate and its private key, in PEM form"
        raise ValueError(f"{text}: {exc}") from exc
    return context


class _Encrypted(Exception):
    """The key needs a password."""


def _ask_nobody() -> str:
    """Raise, in place of OpenSSL's question on the terminal, which may have no reader."""
    raise _Encrypted
