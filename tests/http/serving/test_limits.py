"""Limits in size, time and number, and the answers when they are reached."""

from __future__ import annotations

import logging
import math
import resource
import socket
import threading
import time
from typing import Any

import pytest

from daebus import Daebus, Request
from daebus.http.protocol.parser import Parser
from daebus.http.serving import serving
from daebus.server.sockets.transport import SMALL_READ
from tests.support.fixture_types import MakeApp, OpenRaw, Serve
from tests.support.raw import Raw, server_of
from tests.support.waiting import eventually


class Gate:
    """A view that waits, and says when somebody is inside."""

    def __init__(self, app: Daebus, path: str = "/gate") -> None:
        self.inside = threading.Semaphore(0)
        self.open = threading.Event()
        app.route(path)(self.view)

    def view(self, req: Request) -> Any:
        self.inside.release()
        assert self.open.wait(10)
        return "through"

    def wait(self) -> None:
        assert self.inside.acquire(timeout=5)


@pytest.fixture
def app(serve: Serve) -> Daebus:
    app = serve(max_body=1000, max_line=200, max_headers=5, max_head=600)

    @app.route("/", methods=["GET", "POST"])
    def view(req: Request) -> Any:
        return {"size": len(req.get_data())}

    app.start()
    return app


def refused(client: Raw, status: int, code: str) -> None:
    answer = client.answer()
    assert (answer.status, answer.code, answer.header("connection")) == (status, code, "close")
    assert client.ended()


# --- sizes --------------------------------------------------------------------------


def test_a_body_at_the_limit(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    assert client.post("/", bytes(1000)).json == {"size": 1000}
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"3e8\r\n" + bytes(1000) + b"\r\n0\r\n\r\n")
    assert client.answer().json == {"size": 1000}


def test_a_body_over_the_limit_is_not_read(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
    refused(client, 413, "request_entity_too_large")
    client = raw(app)
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999999999\r\n\r\n")
    refused(client, 413, "request_entity_too_large")


def test_chunks_over_the_limit(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"3e8\r\n" + bytes(1000) + b"\r\n1\r\n")
    refused(client, 413, "request_entity_too_large")


def test_a_client_that_sends_on_still_reads_the_413(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 800000\r\n\r\n")
    client.send(bytes(800_000))
    refused(client, 413, "request_entity_too_large")


def test_a_body_of_known_length_is_read_in_large_pieces(
    serve: Serve, raw: OpenRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    begun, go_on = threading.Event(), threading.Event()
    feed = Parser.feed

    def watched(self: Parser, data: bytes) -> Any:
        sizes.append(len(data))
        found = feed(self, data)
        begun.set()
        assert go_on.wait(5)
        return found

    monkeypatch.setattr(Parser, "feed", watched)
    app = serve()
    app.route("/", methods=["POST"])(lambda req: {"size": len(req.get_data())})
    app.start()
    client = raw(app)
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50001\r\n\r\na")
    assert begun.wait(5)
    client.send(b"b" * 50_000)  # all there before it is asked for
    go_on.set()
    assert client.answer().json == {"size": 50_001}
    assert max(sizes) > SMALL_READ


def test_heads_at_the_limit(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    assert client.get("/?" + "a" * (200 - len("GET /? HTTP/1.1"))).status == 200
    assert client.get("/", "X: " + "a" * 197).status == 200
    assert client.get("/", *(f"X{n}: 1" for n in range(4))).status == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ("GET /" + "a" * 200 + " HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        ("GET /" + "a" * 200, 414),
        ("G" * 201, 414),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: " + "a" * 199 + "\r\n\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: x\r\n" + "X: 1\r\n" * 5 + "\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: x\r\n" + ("X: " + "a" * 150 + "\r\n") * 4 + "\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: x\r\n" + ("X: " + "a" * 150 + "\r\n") * 4, 431),
    ],
)
def test_heads_over_the_limit(app: Daebus, raw: OpenRaw, data: str, status: int) -> None:
    client = raw(app)
    client.send(data)
    refused(
        client,
        status,
        {414: "request_uri_too_long", 431: "request_header_fields_too_large"}[status],
    )


# --- time ---------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["", "G", "GET / HTTP/1.1\r\n", "\r\n"])
def test_a_head_that_does_not_come(serve: Serve, raw: OpenRaw, data: str) -> None:
    app = serve(head_timeout=0.1)
    app.start()
    client = raw(app)
    began = time.monotonic()
    client.send(data)
    refused(client, 408, "request_timeout")
    assert time.monotonic() - began > 0.05


def test_the_head_has_one_deadline_however_it_drips(serve: Serve, raw: OpenRaw) -> None:
    app = serve(head_timeout=0.2)
    app.start()
    client = raw(app)
    client.sock.settimeout(0.02)
    deadline = time.monotonic() + 5
    client.send("GET / HTTP/1.1\r\nX: ")
    answer = b""
    while not answer and time.monotonic() < deadline:
        client.send("a")
        try:
            answer = client.sock.recv(65536)
        except TimeoutError:
            continue
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed_without_a_word(serve: Serve, raw: OpenRaw) -> None:
    app = serve(idle_timeout=0.1)
    app.start()
    client = raw(app)
    assert client.get("/nothing").status == 404
    assert client.ended()
    client = raw(app)
    assert client.get("/nothing").status == 404
    client.send("\r\n")  # an empty line is no request
    assert client.ended()


@pytest.mark.parametrize("behind", [True, False])
def test_the_second_head_has_a_deadline_of_its_own(
    serve: Serve, raw: OpenRaw, behind: bool
) -> None:
    app = serve(idle_timeout=30, head_timeout=0.1)
    app.start()
    client = raw(app)
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n" + ("GET /" if behind else ""))
    assert client.answer().status == 200
    if not behind:
        client.send("GET /")
    refused(client, 408, "request_timeout")


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    "limits", [{"head_timeout": 0.1}, {"body_timeout": 0.1, "head_timeout": 30}]
)
def test_a_body_that_does_not_come(
    serve: Serve, raw: OpenRaw, framing: str, limits: dict[str, float]
) -> None:
    app = serve(**limits)
    app.route("/", methods=["POST"])(lambda req: "")
    app.start()
    client = raw(app)
    client.send(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n")
    refused(client, 408, "request_timeout")


def test_a_body_at_the_least_rate_is_waited_for(serve: Serve, raw: OpenRaw) -> None:
    app = serve(head_timeout=0.1, min_rate=1000.0)
    app.route("/", methods=["POST"])(lambda req: {"size": len(req.get_data())})
    app.start()
    client = raw(app)
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1002\r\n\r\n" + "x" * 1001)
    client.sock.settimeout(0.3)  # longer than the grace
    with pytest.raises(TimeoutError):
        client.sock.recv(1)
    client.sock.settimeout(5)
    client.send("x")
    assert client.answer().json == {"size": 1002}


def test_an_answer_that_is_not_taken_is_cut(serve: Serve, raw: OpenRaw) -> None:
    app = serve(write_timeout=0.1, min_rate=1e12)
    app.route("/")(lambda req: bytes(16 << 20))
    app.start()
    client = raw(app)
    client.ask("/")
    server = server_of(app)
    assert client.head().status == 200
    assert eventually(lambda: not server._acceptor._clients)
    with pytest.raises((EOFError, ConnectionError)):
        client.exactly(16 << 20)


# --- numbers ------------------------------------------------------------------------


def test_503_when_pool_and_queue_are_full(serve: Serve, raw: OpenRaw) -> None:
    app = serve(workers=2, backlog=3)
    gate = Gate(app)
    app.start()
    working = [raw(app) for _ in range(2)]
    for client in working:
        client.ask("/gate")
        gate.wait()
    waiting = [raw(app) for _ in range(3)]
    server = server_of(app)
    for client in waiting:
        client.ask("/gate")
    assert eventually(lambda: len(server._pool._jobs) == 3)
    late = raw(app)
    late.ask("/gate")
    answer = late.answer()
    assert (answer.status, answer.code) == (503, "overloaded")
    assert answer.header("retry-after") == "1"
    assert late.ended()
    gate.open.set()
    for client in working + waiting:
        assert client.answer().body == b"through"


def test_a_thread_that_cannot_be_started_is_a_503(
    serve: Serve, raw: OpenRaw, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = serve()
    app.route("/")(lambda req: "served")
    app.start()
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name.startswith("daebus-http"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch, caplog.at_level(logging.CRITICAL, "daebus.server"):
        patch.setattr(threading.Thread, "start", fail)
        client = raw(app)
        client.ask("/")
        answer = client.answer()
        assert (answer.status, answer.code) == (503, "overloaded")
        assert client.ended()
    assert raw(app).get("/").body == b"served"


def test_more_connections_than_allowed_are_answered(serve: Serve, raw: OpenRaw) -> None:
    app = serve(max_connections=3)
    app.route("/")(lambda req: "served")
    app.start()
    held = [raw(app) for _ in range(3)]
    assert held[0].get("/").status == 200  # all three have been accepted by now
    extra = raw(app)
    answer = extra.answer()
    assert (answer.status, answer.code) == (503, "overloaded")
    assert answer.json["error"] == "too many connections"
    assert extra.ended()
    for client in held:
        assert client.get("/").status == 200
    held[0].sock.close()
    extra.sock.close()

    def admitted() -> bool:  # the server learns a moment later that one has left
        try:
            return raw(app).get("/").status == 200
        except (EOFError, OSError):
            return False

    assert eventually(admitted)


def test_refused_connections_do_not_pile_up(serve: Serve, raw: OpenRaw) -> None:
    app = serve(max_connections=1)
    app.start()
    first = raw(app)
    assert first.get("/nothing").status == 404
    for _ in range(300):  # none of them closes its side
        assert raw(app).answer().status == 503
    server = server_of(app)
    assert len(server._acceptor._clients) <= 130
    assert first.get("/nothing").status == 404


def test_the_host_keeps_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, expected in ((1024, 864), (100, 50), (resource.RLIM_INFINITY, math.inf)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, soft=soft: (soft, soft))
        assert serving._possible_descriptors() == expected


# --- on another port ----------------------------------------------------------------


def test_a_port_for_websockets_alone_answers_426(make_app: MakeApp, raw: OpenRaw) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    app = make_app(port=port)
    app.start()
    client = raw(app, port)
    answer = client.get("/")
    assert (answer.status, answer.code) == (426, "upgrade_required")
    assert answer.header("upgrade") == "websocket"
    assert client.ended()
