"""Requests that two programs could read differently, and what becomes of them.

Each raw request is followed by another one on the same connection. ``(400,)`` means: it
is refused, the connection closes, and the other one is never answered; ``(200, 200)``
means that both are served. The same bytes go to waitress, a server that has had its
share of such bugs and repaired them: where it differs, the table says why.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from daebus import Daebus, Request
from tests.support.raw import Answer, Raw, make

AFTER = b"GET /after HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

# The servers outlive the tests.
pytestmark = pytest.mark.leaves_thread

REFUSED, SERVED = (400,), (200, 200)


@dataclass
class Case:
    """One raw request.

    Attributes:
        name: of the test.
        data: what is sent, before ``AFTER``.
        answers: the statuses that must come.
        body: what the view must have got, where it is served.
    """

    name: str
    data: bytes
    answers: tuple[int, ...] = REFUSED
    body: str = ""


def get(*lines: str, first: str = "GET / HTTP/1.1", host: str = "Host: x") -> bytes:
    return "\r\n".join([first, *([host] if host else []), *lines, "", ""]).encode("latin-1")


def post(*lines: str, body: str = "") -> bytes:
    return get(*lines, first="POST / HTTP/1.1") + body.encode("latin-1")


def chunked(body: str) -> bytes:
    return post("Transfer-Encoding: chunked", body=body)


CASES = [
    # --- lengths that contradict each other
    Case("cl and te", post("Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\n")),
    Case("te and cl", post("Transfer-Encoding: chunked", "Content-Length: 5", body="0\r\n\r\n")),
    Case("two cl", post("Content-Length: 3", "Content-Length: 4", body="abcd")),
    Case("the same cl twice", post("Content-Length: 3", "Content-Length: 3", body="abc")),
    Case("cl as a list", post("Content-Length: 3, 3", body="abc")),
    Case("cl plus", post("Content-Length: +3", body="abc")),
    Case("cl minus", post("Content-Length: -3", body="abc")),
    Case("cl hex", post("Content-Length: 0x3", body="abc")),
    Case("cl underscore", post("Content-Length: 1_0", body="abcdefghij")),
    Case("cl float", post("Content-Length: 3.0", body="abc")),
    Case("cl exponent", post("Content-Length: 1e1", body="abc")),
    Case("cl empty", post("Content-Length:", body="")),
    Case("cl inner blank", post("Content-Length: 1 0", body="a")),
    Case("cl digits of another script", post("Content-Length: \xb2", body="ab")),
    Case("cl vertical tab", post("Content-Length: \x0b3", body="abc")),
    Case("cl absurd", post("Content-Length: " + "9" * 40, body="abc")),
    Case("cl over the limit", post("Content-Length: 99999999999", body="abc"), (413,)),
    Case("cl zeros in front", post("Content-Length: 0003", body="abc"), SERVED, "abc"),
    Case("cl blanks around", post("Content-Length: \t 3 \t", body="abc"), SERVED, "abc"),
    Case("cl on a get", get("Content-Length: 3") + b"abc", SERVED, "abc"),
    # --- transfer encodings
    Case("te other", post("Transfer-Encoding: gzip", body="0\r\n\r\n")),
    Case("te list", post("Transfer-Encoding: gzip, chunked", body="0\r\n\r\n")),
    Case("te twice", post(*["Transfer-Encoding: chunked"] * 2, body="0\r\n\r\n")),
    Case("te chunked twice", post("Transfer-Encoding: chunked, chunked", body="0\r\n\r\n")),
    Case("te identity", post("Transfer-Encoding: identity", body="0\r\n\r\n")),
    Case("te empty", post("Transfer-Encoding:", body="0\r\n\r\n")),
    Case("te quoted", post('Transfer-Encoding: "chunked"', body="0\r\n\r\n")),
    Case("te parameter", post("Transfer-Encoding: chunked;q=1", body="0\r\n\r\n")),
    Case("te vertical tab", post("Transfer-Encoding: \x0bchunked", body="0\r\n\r\n")),
    Case("te case", post("Transfer-Encoding: ChunKed", body="1\r\na\r\n0\r\n\r\n"), SERVED, "a"),
    Case(
        "te in http/1.0",
        get("Transfer-Encoding: chunked", first="POST / HTTP/1.0") + b"0\r\n\r\n",
    ),
    Case("te underscore", get("Transfer_Encoding: chunked"), SERVED),
    Case("te blank before colon", post("Transfer-Encoding : chunked", body="0\r\n\r\n")),
    # --- chunks
    Case("chunks", chunked("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), SERVED, "abcde"),
    Case("chunk extension", chunked("3;a=b\r\nabc\r\n0;c\r\n\r\n"), SERVED, "abc"),
    Case("chunk trailer", chunked("1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"), SERVED, "a"),
    Case("chunk size hex", chunked("A\r\n0123456789\r\n0\r\n\r\n"), SERVED, "0123456789"),
    Case("chunk size 0x", chunked("0x1\r\na\r\n0\r\n\r\n")),
    Case("chunk size plus", chunked("+1\r\na\r\n0\r\n\r\n")),
    Case("chunk size minus", chunked("-1\r\na\r\n0\r\n\r\n")),
    Case("chunk size empty", chunked("\r\na\r\n0\r\n\r\n")),
    Case("chunk size underscore", chunked("1_0\r\n" + "a" * 16 + "\r\n0\r\n\r\n")),
    Case("chunk size blank in front", chunked(" 1\r\na\r\n0\r\n\r\n")),
    Case("chunk size no hex", chunked("g\r\na\r\n0\r\n\r\n")),
    Case("chunk size absurd", chunked("f" * 30 + "\r\na\r\n0\r\n\r\n")),
    Case("chunk size over the limit", chunked("fffffffff\r\na"), (413,)),
    Case("chunk size bare lf", chunked("1\na\r\n0\r\n\r\n")),
    Case("chunk extension bare lf", chunked("1;a\n\r\na\r\n0\r\n\r\n")),
    Case("chunk extension nul", chunked("1;\0\r\na\r\n0\r\n\r\n")),
    Case("chunk extension endless", chunked("1;" + "a" * 5000 + "\r\na\r\n0\r\n\r\n")),
    Case("chunk longer than said", chunked("1\r\nab\r\n0\r\n\r\n")),
    Case("chunk end lf", chunked("1\r\na\n0\r\n\r\n")),
    Case("chunk end cr", chunked("1\r\na\rX0\r\n\r\n")),
    Case("trailer without colon", chunked("1\r\na\r\n0\r\nbroken\r\n\r\n")),
    Case("trailer bare lf", chunked("1\r\na\r\n0\r\nA: b\n\r\n\r\n")),
    # --- lines
    Case("bare lf everywhere", b"GET / HTTP/1.1\nHost: x\n\n"),
    Case("bare lf after the request line", b"GET / HTTP/1.1\nHost: x\r\n\r\n"),
    Case("bare lf in a header", get("A: b\nC: d")),
    Case("bare cr in a header", get("A: b\rC: d")),
    Case("bare cr at the end of a value", get("A: b\r")),
    Case("nul in a value", get("A: b\0c")),
    Case("nul in a name", get("A\0: b")),
    Case("nul in the target", get(first="GET /\0 HTTP/1.1")),
    Case("control character in a value", get("A: b\x01c")),
    Case("delete in a value", get("A: b\x7fc")),
    Case("folded line", get("A: b", " c")),
    Case("folded line with a tab", get("A: b", "\tc: d")),
    Case("folded first line", get(" A: b", host="")),
    Case("blank before the colon", get("A : b")),
    Case("tab before the colon", get("A\t: b")),
    Case("no colon", get("broken")),
    Case("empty name", get(": b")),
    Case("name with a blank", get("A B: c")),
    Case("name with brackets", get("A(B): c")),
    Case("name in latin-1", get("\xc4: c")),
    Case("name with a slash", get("A/B: c")),
    Case("empty value", get("A:"), SERVED),
    Case("value in latin-1", get("A: \xfc"), SERVED),
    Case("value with a tab", get("A: b\tc"), SERVED),
    Case("empty line before", b"\r\n" + get(), SERVED),
    Case("bare lf before", b"\n" + get()),
    # --- request lines
    Case("method in lower case", get(first="get / HTTP/1.1"), (501,)),
    Case("method unknown", get(first="BREW / HTTP/1.1"), (405, 200)),
    Case("method with a bracket", get(first="GE(T / HTTP/1.1")),
    Case("method in latin-1", get(first="G\xcbT / HTTP/1.1")),
    Case("no method", get(first=" / HTTP/1.1")),
    Case("connect", get(first="CONNECT x:1 HTTP/1.1"), (501,)),
    Case("no version", b"GET /\r\n\r\n"),
    Case("version 0.9", get(first="GET / HTTP/0.9"), (505,)),
    Case("version 2", get(first="GET / HTTP/2.0"), (505,)),
    Case("version 1.2", get(first="GET / HTTP/1.2"), (505,)),
    Case("version 1.10", get(first="GET / HTTP/1.10")),
    Case("version in lower case", get(first="GET / http/1.1")),
    Case("version without a dot", get(first="GET / HTTP/11")),
    Case("version of another protocol", get(first="GET / ICY/1.1")),
    Case("blank behind", get(first="GET / HTTP/1.1 ")),
    Case("two blanks", get(first="GET  / HTTP/1.1")),
    Case("tab between", get(first="GET\t/ HTTP/1.1")),
    Case("vertical tab between", get(first="GET\x0b/ HTTP/1.1")),
    Case("blank in the target", get(first="GET /a b HTTP/1.1")),
    Case("target in latin-1", get(first="GET /\xfc HTTP/1.1")),
    Case("target relative", get(first="GET a HTTP/1.1")),
    Case("target empty", get(first="GET  HTTP/1.1")),
    Case("target with a fragment", get(first="GET /#a HTTP/1.1")),
    Case("target star", get(first="GET * HTTP/1.1")),
    Case("target of another scheme", get(first="GET ftp://x/ HTTP/1.1")),
    Case("target without a host", get(first="GET http:/// HTTP/1.1")),
    Case("target with a user", get(first="GET http://a@x/ HTTP/1.1")),
    Case("target absolute", get(first="GET http://x/ HTTP/1.1"), SERVED),
    Case("prior knowledge of http/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505,)),
    Case("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    # --- hosts
    Case("no host", get(host="")),
    Case("two hosts", get("Host: x")),
    Case("two different hosts", get("Host: y")),
    Case("host as a list", get(host="Host: x, y")),
    Case("host with a comma", get(host="Host: x,y"), SERVED),
    Case("host with a slash", get(host="Host: x/y")),
    Case("host with a user", get(host="Host: a@x")),
    Case("host with a blank", get(host="Host: x y")),
    Case("host with a bad port", get(host="Host: x:y")),
    Case("host with a port", get(host="Host: x:80"), SERVED),
    Case("host with a port beyond all", get(host="Host: x:65536")),
    Case("host with the last port", get(host="Host: x:65535"), SERVED),
    Case("host that is no address", get(host="Host: [1:::2]")),
    Case("host with a zone", get(host="Host: [fe80::1%eth0]")),
    Case("host in broken punycode", get(host="Host: xn--a")),
    Case("host in punycode", get(host="Host: xn--bcher-kva.example"), SERVED),
    Case("target with a port beyond all", get(first="GET http://x:65536/ HTTP/1.1")),
    Case("host of six", get(host="Host: [::1]:80"), SERVED),
    # --- expectations
    Case("expect nonsense", get("Expect: miracles"), (417,)),
]

# What waitress answers where it differs, and why we do not. () is: it waits for more.
SERVED_BY_WAITRESS = {
    "cl and te": "it drops the length, as RFC 9112 6.3 allows; the RFC prefers an error",
    "te and cl": "it drops the length, as RFC 9112 6.3 allows; the RFC prefers an error",
    "te twice": "it ignores a repeated chunked; RFC 9112 6.1 forbids sending it",
    "te chunked twice": "it ignores a repeated chunked; RFC 9112 6.1 forbids sending it",
    "chunk extension bare lf": "it does not look into extensions (RFC 9112 7.1.1)",
    "chunk extension endless": "it bounds them by the head's limit of 256 KiB, we by 256 bytes",
    "trailer without colon": "it drops trailers unread (RFC 9112 7.1.2 wants field lines)",
    "trailer bare lf": "it drops trailers unread (RFC 9112 7.1.2 wants field lines)",
    "nul in the target": "it takes any byte but a blank there (RFC 3986 2)",
    "folded line": "it unfolds, as RFC 9112 5.2 allows; we reject, which it allows too",
    "folded line with a tab": "it unfolds, as RFC 9112 5.2 allows; we reject, which it allows too",
    "bare lf before": "it strips any line end in front (RFC 9112 2.2 speaks of CR LF)",
    "blank behind": "it strips the request line (RFC 9112 3: the version ends it)",
    "target relative": "it takes any path (RFC 9112 3.2: four forms)",
    "target with a fragment": "it cuts the fragment off (RFC 9112 3.2: there is none)",
    "target star": "it takes * for any method (RFC 9112 3.2.4: OPTIONS alone)",
    "target of another scheme": "it takes any scheme",
    "target without a host": "it takes an empty authority (RFC 9110 4.2.1: an error)",
    "target with a user": "it takes user information (RFC 9110 4.2.4: a sign of deceit)",
    "no host": "it leaves the Host header to the app (RFC 9112 3.2: 400)",
    "two hosts": "it leaves the Host header to the app (RFC 9112 3.2: 400)",
    "two different hosts": "it joins them with a comma (RFC 9112 3.2: 400)",
    "host as a list": "it leaves the Host header to the app (RFC 9112 3.2: 400)",
    "host with a slash": "it leaves the Host header to the app (RFC 9112 3.2: 400)",
    "host with a user": "it leaves the Host header to the app (RFC 9112 3.2: 400)",
    "host with a blank": "it leaves the Host header to the app (RFC 9112 3.2: 400)",
    "host with a bad port": "it leaves the Host header to the app (RFC 9112 3.2: 400)",
    "host with a port beyond all": "it leaves the Host header to the app, whose URLs break",
    "host that is no address": "it leaves the Host header to the app, whose URLs break",
    "host with a zone": "it leaves the Host header to the app (RFC 6874 is for one machine)",
    "host in broken punycode": "it leaves the Host header to the app, whose URLs break",
    "target with a port beyond all": "it looks at the path alone",
    "expect nonsense": "it ignores other expectations; RFC 9110 10.1.1 allows 417",
}
ANSWERED_BY_WAITRESS = {
    "cl absurd": ((413,), "a number for it, only too large; 40 digits are no length to us"),
    "te other": ((501,), "RFC 9112 6.1 names 501 for codings not understood; both refuse"),
    "te list": ((501,), "RFC 9112 6.1 names 501 for codings not understood; both refuse"),
    "te identity": ((501,), "RFC 9112 6.1 names 501 for codings not understood; both refuse"),
    "te quoted": ((501,), "RFC 9112 6.1 names 501 for codings not understood; both refuse"),
    "te parameter": ((501,), "RFC 9112 6.1 names 501 for codings not understood; both refuse"),
    "te empty": ((200, 400), "it takes the body for the next request, and stumbles there"),
    "te in http/1.0": ((200,), "it ignores the header and closes; RFC 9112 6.1: faulty framing"),
    "chunk size absurd": ((), "it waits for so many bytes; we count 15 digits at most"),
    "chunk size over the limit": ((), "it waits until the limit is really exceeded"),
    "method in lower case": ((400,), "another status for the same refusal"),
    "connect": ((405, 200), "it lets the app decide"),
    "no version": ((200,), "it speaks HTTP/0.9, and closes"),
    "version 0.9": ((200,), "it takes unknown versions for HTTP/1.0, and closes"),
    "version 2": ((200,), "it takes unknown versions for HTTP/1.0, and closes"),
    "version 1.2": ((200,), "it takes unknown versions for HTTP/1.0, and closes"),
    "prior knowledge of http/2": ((405,), "it takes unknown versions for HTTP/1.0, and closes"),
}

SERVER = """
import json, sys
from waitress.server import create_server

def app(environ, start_response):
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/after":
        body = b"after"
    known = environ["REQUEST_METHOD"] in ("GET", "POST")
    start_response("200 OK" if known else "405 X", [("Content-Length", str(len(body)))])
    return [body]

server = create_server(app, host="127.0.0.1", port=0, threads=2, max_request_body_size=1 << 24)
print(server.effective_port, flush=True)
server.run()
"""


@pytest.fixture(scope="module")
def app() -> Iterator[Daebus]:
    app = make(allowed_hosts="*")

    @app.route("/", methods=["GET", "POST"])
    def view(req: Request) -> Any:
        return req.get_data()

    @app.route("/after")
    def after(req: Request) -> Any:
        return b"after"

    app.start()
    yield app
    app.stop()


@pytest.fixture(scope="module")
def waitress() -> Iterator[int]:
    pytest.importorskip("waitress", reason="waitress is not installed")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.terminate()
    process.communicate()


def answers_of(client: Raw, data: bytes) -> list[Answer]:
    """Send the bytes and ``AFTER``, and read every answer until the server closes."""
    client.send(data + AFTER)
    found = []
    while True:
        try:
            found.append(client.answer())
        except EOFError:
            assert client.buffer == b""
            return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_we_answer(app: Daebus, case: Case) -> None:
    with Raw(app) as client:
        found = answers_of(client, case.data)
    assert tuple(answer.status for answer in found) == case.answers
    if len(case.answers) == 1:
        (answer,) = found
        assert answer.header("connection") == "close"
        assert set(json.loads(answer.body)) == {"error", "code"}
    else:
        assert found[1].body == b"after"
        if case.answers[0] == 200:
            assert found[0].body.decode() == case.body


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_waitress_answers(waitress: int, case: Case) -> None:
    if case.name in SERVED_BY_WAITRESS:
        expected: tuple[int, ...] = SERVED
    else:
        expected = ANSWERED_BY_WAITRESS.get(case.name, (case.answers, ""))[0]
    found = b""
    with socket.create_connection(("127.0.0.1", waitress), timeout=5) as sock:
        sock.sendall(case.data + AFTER)
        if not expected:
            sock.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            while data := sock.recv(65536):
                found += data
    statuses = re.findall(rb"HTTP/1\.[01] (\d{3}) ", found)
    assert tuple(int(status) for status in statuses) == expected


def test_the_table_is_complete() -> None:
    names = {case.name for case in CASES}
    assert len(names) == len(CASES) >= 60
    assert set(SERVED_BY_WAITRESS) | set(ANSWERED_BY_WAITRESS) <= names
    # Whatever waitress refuses, we refuse: it is never the stricter one.
    refused = {case.name for case in CASES if case.answers != SERVED}
    assert set(SERVED_BY_WAITRESS) <= refused
    assert set(ANSWERED_BY_WAITRESS) <= refused
