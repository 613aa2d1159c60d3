"""Several requests on one connection, and how bodies are framed in both directions."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from daebus import Daebus, Request
from daebus.http.component import serving_of
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import server_of
from tests.support.waiting import eventually


@pytest.fixture
def app(serve: Serve) -> Daebus:
    app = serve()

    @app.route("/hello")
    def hello(req: Request) -> Any:
        return {"n": req.args.get("n")}

    @app.route("/echo", methods=["POST"])
    def echo(req: Request) -> Any:
        return req.get_data()

    @app.route("/ignore", methods=["POST"])
    def ignore(req: Request) -> Any:
        return "ignored"

    @app.route("/parts")
    def parts(req: Request) -> Any:
        return (part for part in ("a", "", "bc", "d" * 100_000))

    @app.route("/nothing")
    def nothing(req: Request) -> Any:
        def empty() -> Iterator[str]:
            yield from ()

        return empty()

    @app.route("/big")
    def big(req: Request) -> Any:
        return bytes(8 << 20)

    app.start()
    return app


def test_keep_alive(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    for number in range(50):
        answer = client.get(f"/hello?n={number}")
        assert answer.json == {"n": str(number)}
        assert answer.header("connection") is None
    last = client.get("/hello", "Connection: close")
    assert last.header("connection") == "close"
    assert client.ended()


def test_pipelined_requests_are_answered_in_order(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    request = "".join(f"GET /hello?n={n} HTTP/1.1\r\nHost: x\r\n\r\n" for n in range(200))
    client.send(request)
    assert [client.answer().json["n"] for _ in range(200)] == [str(n) for n in range(200)]


def test_pipelined_requests_with_bodies_cut_anywhere(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    stream = (
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        b"\r\nPOST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nde\n\r\n0002 \t;q\r\n\r\n\r\n0\r\nTrailer: t\r\n\r\n"
        b"GET /hello?n=z HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    for byte in stream:
        client.send(bytes((byte,)))
    assert client.answer().body == b"abc"
    assert client.answer().body == b"de\n\r\n"
    assert client.answer().json == {"n": "z"}


def test_a_pipelining_client_does_not_starve_others(serve: Serve, raw: OpenRaw) -> None:
    app = serve(workers=1)
    inside, gate = threading.Event(), threading.Event()
    order: list[str] = []

    @app.route("/<name>")
    def view(req: Request, name: str) -> Any:
        order.append(name)
        if len(order) == 1:
            inside.set()
            assert gate.wait(5)
        return name

    app.start()
    greedy, other = raw(app), raw(app)
    greedy.send("".join(f"GET /g{n} HTTP/1.1\r\nHost: x\r\n\r\n" for n in range(5)))
    assert inside.wait(5)
    other.ask("/other")
    server = server_of(app)
    assert eventually(lambda: server._pool.busy)
    gate.set()
    assert other.answer().body == b"other"
    assert [greedy.answer().body for _ in range(5)] == [b"g%d" % n for n in range(5)]
    assert order[1] == "other"


def test_http_1_0(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    client.send("GET /hello HTTP/1.0\r\n\r\n")
    answer = client.answer()
    assert (answer.status, answer.header("connection")) == (200, "close")
    assert client.ended()
    client = raw(app)
    for _ in range(2):
        client.send("GET /hello HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        assert client.answer().header("connection") == "keep-alive"
    client.send("GET /parts HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    answer = client.answer()  # without chunks the end of the connection is its end
    assert answer.header("connection") == "close"
    assert answer.body == b"abc" + b"d" * 100_000


def test_head(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    length = client.get("/hello").header("content-length")
    assert client.get("/hello", method="HEAD").header("content-length") == length
    for path in ("/parts", "/nope", "/echo", "/big"):
        client.get(path, method="HEAD")
    assert client.get("/hello").status == 200  # nothing came behind those heads


def test_chunks_of_a_streamed_response(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    answer = client.get("/parts")
    assert answer.header("transfer-encoding") == "chunked"
    assert client.chunks == [b"a", b"bc", b"d" * 100_000]
    assert client.get("/nothing").body == b""
    assert client.get("/hello").status == 200


def test_a_stream_flows_as_it_is_produced(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    steps = [threading.Semaphore(0) for _ in range(3)]

    @app.route("/")
    def view(req: Request) -> Any:
        def parts() -> Iterator[str]:
            for number, step in enumerate(steps):
                assert step.acquire(timeout=5)
                yield str(number)

        return parts()

    app.start()
    client = raw(app)
    client.ask("/")
    for number, step in enumerate(steps):
        step.release()
        if number == 0:
            client.head()
        assert client.chunk() == b"%d" % number  # before the next one may be made
    assert client.chunk() == b""


def test_a_stream_ends_when_the_client_leaves(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    closed = threading.Event()

    @app.route("/")
    def view(req: Request) -> Any:
        def endless() -> Iterator[str]:
            try:
                while True:
                    yield "x" * 1000
            finally:
                closed.set()

        return endless()

    app.start()
    client = raw(app)
    client.ask("/")
    assert client.head().status == 200
    client.sock.close()
    assert closed.wait(5)


def test_a_stream_that_is_not_read_is_cut(serve: Serve, raw: OpenRaw) -> None:
    app = serve(write_timeout=0.05)
    closed = threading.Event()

    @app.route("/")
    def view(req: Request) -> Any:
        def endless() -> Iterator[str]:
            try:
                while True:
                    yield "x" * 100_000
            finally:
                closed.set()

        return endless()

    app.start()
    client = raw(app)
    client.ask("/")
    assert closed.wait(5)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_stream_that_fails_does_not_look_complete(
    serve: Serve, raw: OpenRaw, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    app = serve()

    @app.route("/")
    def view(req: Request) -> Any:
        def parts() -> Iterator[str]:
            yield "begun"
            raise SystemExit(1)

        return parts()

    app.start()
    client = raw(app)
    with caplog.at_level(logging.ERROR, "daebus.http"):
        client.ask("/", version=version)
        assert client.head().status == 200
        rest = client.rest()
    assert rest == (b"5\r\nbegun\r\n" if version == "1.1" else b"begun")
    assert b"Traceback" not in rest
    assert raw(app).get("/nope").status == 404


def test_a_stream_that_fails_at_once_is_500(
    serve: Serve, raw: OpenRaw, caplog: pytest.LogCaptureFixture
) -> None:
    app = serve()

    @app.route("/")
    def view(req: Request) -> Any:
        def parts() -> Iterator[str]:
            if req.method == "GET":
                raise ValueError("secret")
            yield ""

        return parts()

    app.start()
    client = raw(app)
    with caplog.at_level(logging.CRITICAL, "daebus.http"):
        answer = client.get("/")
    assert (answer.status, answer.code) == (500, "internal_server_error")
    assert client.ended()


def test_a_body_that_is_not_read_does_not_disturb(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    for size in (1, 1000, 300_000):
        assert client.post("/ignore", bytes(size)).body == b"ignored"
        assert client.get("/hello").status == 200
    for size in (1, 1000):  # a larger one for nobody is not even received
        assert client.post("/nope", bytes(size)).status == 404
    assert client.get("/hello").status == 200


def test_bodies_of_all_sizes_arrive_whole(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    for size in (0, 1, 65535, 65536, 65537, 5_000_000):
        body = bytes(n % 251 for n in range(min(size, 70_000))) + bytes(max(0, size - 70_000))
        assert client.post("/echo", body).body == body


def test_a_chunked_body_has_a_length_for_the_view(serve: Serve, raw: OpenRaw) -> None:
    app = serve()

    @app.route("/", methods=["POST"])
    def view(req: Request) -> Any:
        return {"length": req.content_length, "te": req.headers.get("Transfer-Encoding")}

    app.start()
    client = raw(app)
    client.send(
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
    )
    assert client.answer().json == {"length": 5, "te": None}


def test_expect_100_continue(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    client.send(
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n"
    )
    assert client.answer().status == 100
    client.send("abc")
    assert client.answer().body == b"abc"
    # A body that comes at once needs no permission.
    client.send(
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"
    )
    assert client.answer().body == b"abc"
    # HTTP/1.0 knows no such thing.
    client.send("POST /echo HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
    assert client.answer().body == b"abc"


def test_a_refused_expectation_gets_no_100(serve: Serve, raw: OpenRaw) -> None:
    app = serve(max_body=10)
    app.start()
    client = raw(app)
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n")
    assert client.answer().status == 413
    assert client.ended()


def test_a_large_answer_to_a_slow_reader_holds_no_worker(serve: Serve, raw: OpenRaw) -> None:
    app = serve(workers=1)
    app.route("/big")(lambda req: bytes(8 << 20))
    app.route("/hello")(lambda req: "hello")
    app.start()
    slow = raw(app)
    slow.ask("/big")
    slow.ask("/hello")
    assert slow.head().status == 200
    for _ in range(3):
        assert raw(app).get("/hello").body == b"hello"  # the only worker is free
    assert slow.exactly(8 << 20) == bytes(8 << 20)
    assert slow.answer().body == b"hello"


def test_a_client_that_closes_its_side_still_gets_the_answer(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    client.ask("/big")
    client.sock.shutdown(socket.SHUT_WR)
    assert len(client.answer().body) == 8 << 20
    assert client.ended()


# --- what a WSGI app may do wrong ---------------------------------------------------


class Wrong:
    """A WSGI result that says when it is closed."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self.parts = parts
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def wsgi(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Daebus]:
    def start(wsgi: Any) -> Daebus:
        app = serve()
        monkeypatch.setattr(serving_of(app.http), "answer", wsgi)
        app.start()
        return app

    return start


@pytest.mark.parametrize(
    ("parts", "body", "ends"),
    [([b"abc"], b"abc", False), ([b"ab", b"cde"], b"abc", False), ([b"a"], b"a", True)],
)
def test_content_length_is_kept(
    wsgi: Callable[[Any], Daebus],
    raw: OpenRaw,
    caplog: pytest.LogCaptureFixture,
    parts: list[bytes],
    body: bytes,
    ends: bool,
) -> None:
    result = Wrong(parts)

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "3")])
        return result

    app = wsgi(application)
    client = raw(app)
    with caplog.at_level(logging.CRITICAL, "daebus.http"):
        client.ask("/")
        client.head()
        assert client.exactly(len(body)) == body
        if ends:
            assert client.ended()
        else:
            client.get("/", method="HEAD")
    assert result.closed.wait(5)


def test_the_write_callable(wsgi: Callable[[Any], Daebus], raw: OpenRaw) -> None:
    def application(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("Connection", "close"), ("Transfer-Encoding", "x")])
        write(b"a")
        return [b"b"]

    client = raw(wsgi(application))
    answer = client.get("/")
    assert (answer.body, answer.header("connection")) == (b"ab", "close")
    assert client.ended()


def test_an_app_that_answers_nothing_is_500(
    wsgi: Callable[[Any], Daebus], raw: OpenRaw, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL, "daebus.http"):
        client = raw(wsgi(lambda environ, start_response: []))
        assert client.get("/").status == 500
