"""What the tests use of trustme, made with the program ``openssl`` where that does not install."""

from __future__ import annotations

import ipaddress
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

__all__ = ["CA", "Issued", "Pem"]

_DAYS = "3"
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]


class Pem:
    """One or more blocks of a PEM file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def bytes(self) -> bytes:
        return self._data

    def write_to_path(self, path: Path | str) -> None:
        Path(path).write_bytes(self._data)


class Issued:
    """A key, and the certificate for it."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self.cert_chain_pems = [Pem(certificate)]
        self.private_key_pem = Pem(key)
        self.private_key_and_cert_chain_pem = Pem(key + certificate)

    def configure_cert(self, context: ssl.SSLContext) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.private_key_and_cert_chain_pem.bytes())
            file.flush()
            context.load_cert_chain(file.name)


class CA:
    """An authority of its own."""

    def __init__(self) -> None:
        self._certificate, self._key = _request(
            ["-subj", "/O=tests/CN=authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        )
        self.cert_pem = Pem(self._certificate)

    def issue_cert(self, *names: str) -> Issued:
        alternatives = ",".join(f"{_kind(name)}:{name}" for name in names)
        with tempfile.TemporaryDirectory() as folder:
            signer, key = Path(folder, "ca"), Path(folder, "ca-key")
            signer.write_bytes(self._certificate)
            key.write_bytes(self._key)
            extensions = [f"subjectAltName={alternatives}", "basicConstraints=critical,CA:FALSE"]
            options = ["-subj", "/O=tests/CN=issued", "-CA", str(signer), "-CAkey", str(key)]
            for extension in extensions:
                options += ["-addext", extension]
            return Issued(*_request(options))

    def configure_trust(self, context: ssl.SSLContext) -> None:
        context.load_verify_locations(cadata=self._certificate.decode())


def _kind(name: str) -> str:
    if "@" in name:
        return "email"
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "DNS"
    return "IP"


def _request(options: list[str]) -> tuple[bytes, bytes]:
    """Return a certificate and its key."""
    if not shutil.which("openssl"):
        pytest.skip("neither trustme nor the program openssl is installed")
    with tempfile.TemporaryDirectory() as folder:
        out, key = Path(folder, "out"), Path(folder, "key")
        subprocess.run(
            ["openssl", "req", "-x509", *_KEY, "-days", _DAYS, "-out", str(out)]
            + ["-keyout", str(key), *options],
            check=True,
            capture_output=True,
        )
        return out.read_bytes(), key.read_bytes()
