"""Random bytes that begin like valid ones: HTTP requests, WebSocket frames, TLS records."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from typing import Any

from tests.support.peer import upgrade_request

__all__ = ["cuts", "frames", "mutate", "records", "requests", "upgrade"]

_ODD = (
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"=", b'"', b"%"),
    *(b"%2e%2e/", b"%00", b"..", b"\xff", b"\xc3", b"\x80", b"[", b"]", b"{", b"0x", b"-1", b"+1"),
    *(b"18446744073709551616", b"99999999999999999999999", b"chunked", b"close", b"\r\n "),
)

_TARGETS = (
    *(b"/hello", b"/stream", b"/items/7", b"/items/99999999999999999999", b"/data", b"/form"),
    *(
        b"/json",
        b"/_daebus/health",
        b"/nothing",
        b"*",
        b"//",
        b"/%2e%2e/hello",
        b"/hello?a=1&a=%zz",
    ),
    *(b"http://127.0.0.1/hello", b"/" + b"a" * 9000, b"/hello#x", b"", b"/\xc3\xa9"),
)
_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"DELETE", b"CONNECT", b"get", b"G" * 300)
_VERSIONS = (b"HTTP/1.1",) * 8 + (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ", b"", b"HTP/1.1")
_HEADERS = (
    *(b"Connection: close", b"Connection: keep-alive, upgrade", b"Expect: 100-continue"),
    *(b"Upgrade: websocket", b"Upgrade: h2c", b"Transfer-Encoding: gzip, chunked", b"TE: trailers"),
    *(b"Content-Length: 5", b"Content-Length: 5, 5", b"Transfer-Encoding: chunked"),
    *(b'Cookie: a=b; c="d', b"Accept-Encoding: gzip", b"Range: bytes=0-", b"X: " + b"y" * 9000),
    *(b"Origin: https://example.com", b"Origin: null", b"Access-Control-Request-Method: PUT"),
    *(b"X-Forwarded-For: 1.2.3.4, ::1, x", b"X-Forwarded-Host: a,b"),
    *(b'Forwarded: for="[::1]:1"', b"X-Forwarded-Proto: x"),
    *(b"Content-Type: application/json", b"Content-Type: application/x-www-form-urlencoded"),
    *(
        b"Content-Type: multipart/form-data; boundary=b",
        b"Authorization: Basic \xff",
        b"X",
        b" x: y",
    ),
    *(b"Host: xn--" + b"a" * 300, b"Host: a b", b"If-None-Match: *", b"Sec-WebSocket-Version: 99"),
)
_BODIES = (
    b"",
    b"hello",
    b'{"a":1}',
    b"[" * 3000,
    b"a=1&b=%ff&" * 50,
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\ndata\r\n--b--\r\n',
    b"x" * 100_000,
)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Change a few places, or none."""
    for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((0, 1, 1, 2, 8, 100)))
        kind = rng.randrange(5)
        if kind == 0:
            new = rng.randbytes(rng.choice((1, 1, 2, 8, 200)))
        elif kind == 1:
            new = rng.choice(_ODD)
        elif kind == 2:
            new = data[at:to] * rng.choice((0, 2, 3, 50))
        elif kind == 3:
            new = bytes(byte ^ (1 << rng.randrange(8)) for byte in data[at:to])
        else:
            new, to = b"", rng.choice((to, len(data)))
        data = (data[:at] + new + data[to:])[: 1 << 18]
    return data


def cuts(rng: random.Random, data: bytes) -> Iterator[bytes]:
    """Cut bytes into parts; a long one into no more than some hundred."""
    least = 1 + len(data) // 300
    sizes = (len(data) or 1, rng.randint(least, least + 20), rng.randint(least, 1000 + least))
    size = rng.choice(sizes)
    for start in range(0, len(data), size):
        yield data[start : start + size]


def _chunked(rng: random.Random, body: bytes) -> bytes:
    parts = []
    for part in cuts(rng, body[:5000]):
        extension = rng.choice((b"", b"", b";a=b", b";" + b"x" * 300, b" "))
        size = rng.choice((b"%x", b"%X", b"0%x", b"000000000000000%x", b"+%x")) % len(part)
        parts.append(size + extension + b"\r\n" + part + b"\r\n")
    return b"".join(parts) + rng.choice((b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"0\r\n", b"-1\r\n"))


def _request(rng: random.Random) -> bytes:
    headers = [rng.choice(_HEADERS) for _ in range(rng.choice((0, 0, 1, 2, 5, 150)))]
    if rng.random() < 0.95:
        headers.insert(0, b"Host: 127.0.0.1")
    body = rng.choice(_BODIES)
    way = rng.randrange(4)
    if way == 0:
        headers.append(b"Content-Length: %d" % (len(body) + rng.choice((0, 0, 0, -1, 1, 1 << 40))))
    elif way == 1:
        headers.append(b"Transfer-Encoding: chunked")
        body = _chunked(rng, body)
    elif way == 2:
        body = b""
    line = b" ".join((rng.choice(_METHODS), rng.choice(_TARGETS), rng.choice(_VERSIONS)))
    end = rng.choice((b"\r\n",) * 8 + (b"\n",))
    return end.join([line, *headers, b"", body])


def requests(rng: random.Random) -> bytes:
    """Return a few requests in a row."""
    blank = rng.choice((b"",) * 8 + (b"\r\n" * 20, b"\r\n" * 20_000))
    asked = b"".join(mutate(rng, _request(rng)) for _ in range(rng.choice((1, 1, 2, 5, 30))))
    return blank + asked


def upgrade(rng: random.Random) -> bytes:
    """Return a handshake; often with compression, sometimes not quite right."""
    offers = (
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=9; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=99, x-other; a=b",
    )
    offer = rng.choice((None, *offers))
    request = upgrade_request("/", {"Sec-WebSocket-Extensions": offer})
    return mutate(rng, request) if rng.random() < 0.1 else request


def _data(rng: random.Random) -> Any:
    kind = rng.randrange(8)
    if kind == 0:
        return "x" * rng.choice((0, 1, 125, 126, 1000, 65_000, 70_000))
    if kind == 1:
        return rng.choice((0, -1, 1e308, 10**50, True, None, "\ud800", "\0", "é\u2028"))
    if kind == 2:
        return {str(number): number for number in range(rng.choice((1, 1000)))}
    return [rng.choice((1, "a", None))] * rng.choice((0, 1, 100))


def _message(rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        depth = rng.choice((10, 99, 101, 300, 3000, 20_000))
        return b'{"type":"echo","data":' + b"[" * depth + b"1" + b"]" * depth + b"}"
    message: dict[Any, Any] = {"data": _data(rng)}
    kinds: tuple[Any, ...] = (
        "echo",
        "echo",
        "pool",
        "async",
        "cancel",
        "response",
        "error",
        "",
        "no",
        5,
        None,
        [],
    )
    message["type"] = rng.choice(kinds)
    if rng.random() < 0.5:
        message["id"] = rng.choice((1, "a", "x" * 5000, None, [], 1.5, -1, True))
    text = json.dumps(message).encode()
    return mutate(rng, text) if rng.random() < 0.4 else text


def _frame(rng: random.Random, opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Build a frame; one in twenty tells a lie."""
    first, size, masked = opcode | (0x80 if fin else 0), len(payload), 0x80
    if rng.random() < 0.05:
        first ^= 1 << rng.randrange(8)
    if rng.random() < 0.02:
        size = rng.choice((0, 1, 125, 126, 65_536, 1 << 31, (1 << 63) - 1, (1 << 64) - 1))
    if rng.random() < 0.02:
        masked = 0
    form = rng.choice((0, 0, 0, 0, 0, 0, 1, 2))  # lengths in a longer form than they need
    if size > 65_535 or form == 2:
        head = bytes((first, masked | 127)) + size.to_bytes(8, "big")
    elif size > 125 or form == 1:
        head = bytes((first, masked | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, masked | size))
    if not masked:
        return head + payload
    mask = rng.randbytes(4)
    pad = (mask * (len(payload) // 4 + 1))[: len(payload)]
    covered = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return head + mask + covered.to_bytes(len(payload), "big")


def _deflated(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.2:
        data = b" " * rng.choice((60_000, 70_000, 5_000_000))
    deflate = zlib.compressobj(wbits=-12)
    packed = (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    return mutate(rng, packed) if rng.random() < 0.2 else packed


def _one(rng: random.Random, deflate: bool) -> bytes:
    """Return one message or control frame, whole or in fragments."""
    kind = rng.random()
    if kind < 0.15:
        data = rng.randbytes(rng.choice((0, 1, 125, 126)))
        return _frame(rng, rng.choice((9, 9, 10, 10, 11)), data) * rng.choice((1, 1, 100, 3000))
    if kind < 0.17:
        code = rng.choice((1000, 1001, 1005, 1006, 4000, 0, 65_535)).to_bytes(2, "big")
        return _frame(rng, 8, rng.choice((b"", b"\3", code, code + b"why", code + b"\xff")))
    payload = _message(rng) if rng.random() < 0.9 else rng.randbytes(rng.choice((1, 500, 70_000)))
    opcode = rng.choice((1, 1, 1, 1, 1, 2, 3))
    if deflate and rng.random() < 0.7:
        payload, opcode = _deflated(rng, payload), opcode | 0x40
    if kind < 0.6:
        return _frame(rng, opcode, payload)
    parts = [b"", *cuts(rng, payload), b""]
    made = [_frame(rng, opcode if n == 0 else 0, part, fin=False) for n, part in enumerate(parts)]
    if rng.random() < 0.3:
        made.insert(rng.randrange(len(made)), _frame(rng, 9, b"between"))
    return b"".join(made) + (_frame(rng, 0, b"") if rng.random() < 0.9 else b"")


def frames(rng: random.Random, *, deflate: bool) -> bytes:
    """Return frames in a row: most valid, some not."""
    return b"".join(_one(rng, deflate) for _ in range(rng.choice((1, 3, 10, 40))))


def records(rng: random.Random, hello: bytes) -> bytes:
    """Return TLS records that begin as a client's first does."""
    kind = rng.randrange(4)
    if kind == 0:
        return mutate(rng, hello)
    if kind == 1:  # headers of records, and too little or too much behind them
        types = (20, 21, 22, 23, 24, 255)
        made = []
        for _ in range(rng.choice((1, 10, 500))):
            size = rng.choice((0, 1, 16_384, 65_535))
            head = bytes((rng.choice(types), 3, rng.randrange(5))) + size.to_bytes(2, "big")
            made.append(head + rng.randbytes(rng.choice((0, 1, 50))))
        return b"".join(made)
    return hello[: rng.randrange(len(hello))] + rng.randbytes(rng.choice((0, 1, 1000)))
