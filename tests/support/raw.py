"""A client that sends what it is told, byte for byte, and reads answers strictly."""

from __future__ import annotations

import json
import socket
from typing import Any

from daebus import Daebus, DaebusHttp
from daebus.http.component import serving_of
from daebus.http.serving.server import HttpServer


class Answer:
    """One response."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def header(self, name: str) -> str | None:
        """The value of a header that comes once at most."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} comes {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        assert self.header("content-type") == "application/json"
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error, which has the one shape that all errors have."""
        assert set(self.json) == {"error", "code"}
        assert b"Traceback" not in self.body
        return str(self.json["code"])


class Raw:
    """One connection; every wait takes at most 5 s."""

    def __init__(self, app: Daebus | None, port: int | None = None) -> None:
        if port is None:
            assert app is not None
            port = app.http.port
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.buffer = b""
        self.chunks: list[bytes] = []

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, data: bytes | str) -> None:
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def get(self, target: str, *headers: str, method: str = "GET", version: str = "1.1") -> Answer:
        """Send a request without a body and return the answer."""
        self.ask(target, *headers, method=method, version=version)
        return self.answer(head_only=method == "HEAD")

    def ask(self, target: str, *headers: str, method: str = "GET", version: str = "1.1") -> None:
        lines = [f"{method} {target} HTTP/{version}", "Host: x", *headers]
        self.send("\r\n".join(lines) + "\r\n\r\n")

    def post(self, target: str, body: bytes, *headers: str, method: str = "POST") -> Answer:
        lines = [f"{method} {target} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return self.answer()

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"the server closed; it had sent {self.buffer[:200]!r}")
        self.buffer += data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self._more()
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self._more()
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def head(self) -> Answer:
        """Read status line and headers."""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [line.partition(": ") for line in lines]
        return Answer(int(status), [(name.lower(), value) for name, _, value in pairs], b"")

    def answer(self, *, head_only: bool = False) -> Answer:
        """Read one whole response, however its length is told."""
        answer = self.head()
        if head_only or answer.status in (204, 304) or answer.status < 200:
            return answer
        length = answer.header("content-length")
        if answer.header("transfer-encoding") == "chunked":
            assert length is None
            self.chunks = []
            while chunk := self.chunk():
                self.chunks.append(chunk)
            answer.body = b"".join(self.chunks)
        elif length is not None:
            answer.body = self.exactly(int(length))
        else:
            assert answer.header("connection") == "close"
            answer.body = self.rest()
        return answer

    def chunk(self) -> bytes:
        """Read one chunk; empty for the last."""
        data = self.exactly(int(self._until(b"\r\n"), 16))
        assert self.exactly(2) == b"\r\n"
        return data

    def rest(self) -> bytes:
        """Read until the server has closed its side; a reset fails the test."""
        while data := self.sock.recv(65536):
            self.buffer += data
        found, self.buffer = self.buffer, b""
        return found

    def ended(self) -> bool:
        """Tell whether the server closes and sends nothing more before."""
        return self.rest() == b""


def make(**options: Any) -> Daebus:
    """Return an app with HTTP alone on a free port, not started."""
    app = Daebus("test")
    app.attach(DaebusHttp(port=0, **options))
    return app


def server_of(app: Daebus) -> HttpServer:
    """Return the server of an app that runs."""
    server = serving_of(app.http).server
    assert server is not None
    return server
