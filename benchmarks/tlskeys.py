"""Records of TLS 1.3 that Python's own ``ssl`` never sends."""

import hmac
import re
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Keys:
    """Seals records of TLS 1.3 from the client's traffic secret, which Python can log."""

    def __init__(self, log: Path) -> None:
        found = re.search(r"^CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)$", log.read_text(), re.MULTILINE)
        assert found is not None
        self._secret = bytes.fromhex(found[1])
        self._derive()

    def _derive(self) -> None:
        long = len(self._secret) == 48  # AES-256 goes with SHA-384
        self._hash = "sha384" if long else "sha256"
        self._aead = AESGCM(self._expand(b"key", 32 if long else 16))
        self._iv = self._expand(b"iv", 12)
        self._number = 0

    def _expand(self, label: bytes, size: int) -> bytes:
        """HKDF-Expand-Label, RFC 8446 section 7.1; one block is enough."""
        label = b"tls13 " + label
        info = struct.pack(">HB", size, len(label)) + label + b"\0\x01"
        return hmac.digest(self._secret, info, self._hash)[:size]

    def record(self, data: bytes, kind: int) -> bytes:
        head = struct.pack(">BHH", 23, 0x0303, len(data) + 17)
        number = int.from_bytes(self._iv, "big") ^ self._number
        self._number += 1
        return head + self._aead.encrypt(number.to_bytes(12, "big"), data + bytes((kind,)), head)

    def update(self) -> bytes:
        """A KeyUpdate that asks for one in return; RFC 8446 section 4.6.3."""
        record = self.record(b"\x18\0\0\x01\x01", 22)
        self._secret = self._expand(b"traffic upd", len(self._secret))
        self._derive()
        return record
