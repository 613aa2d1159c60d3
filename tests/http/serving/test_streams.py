"""Streams whose client leaves between two parts, and statuses that have no body."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from daebus import Daebus, Request
from daebus.http.serving import hangup as presence
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import Raw, server_of
from tests.support.waiting import eventually


class Stream:
    """Parts that are made one by one, when they are asked for."""

    def __init__(self) -> None:
        self.step = threading.Semaphore(0)
        self.made = 0
        self.ended = False
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        while self.step.acquire(timeout=10) and not self.ended:
            self.made += 1
            yield b"%d" % self.made

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def client(
    serve: Serve, raw: OpenRaw, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Raw]:
    monkeypatch.setattr(presence, "PAUSE", 0.0)
    app = serve()

    def write(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [])
        try:
            for part in stream:
                write(part)
        finally:
            stream.close()
        return []

    def iterate(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return stream

    def sized(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "1000")])
        return stream

    for path, wsgi_app in (("/write", write), ("/iterate", iterate), ("/sized", sized)):
        app.mount(path, wsgi_app)
    app.start()
    yield raw(app)
    stream.ended = True
    stream.step.release()


@pytest.mark.parametrize("path", ["/iterate", "/write", "/sized"])
def test_a_client_that_left_is_seen_at_the_next_part(
    client: Raw, stream: Stream, path: str
) -> None:
    client.ask(path)
    stream.step.release()
    assert client.head().status == 200
    if path == "/sized":
        assert client.exactly(1) == b"1"
    else:
        assert client.chunk() == b"1"
    client.sock.close()
    stream.step.release()
    # No third part is asked for: the second, which the kernel still took, is enough.
    assert stream.closed.wait(5)
    assert stream.made <= 2


def test_a_client_that_only_sends_no_more_gets_all(client: Raw, stream: Stream) -> None:
    client.ask("/iterate", "Connection: close")
    client.sock.shutdown(socket.SHUT_WR)
    for number in range(1, 6):
        stream.step.release()
        if number == 1:
            assert client.head().status == 200
        assert client.chunk() == b"%d" % number
    assert not stream.closed.is_set()


def test_a_pipelining_client_that_left(client: Raw, stream: Stream) -> None:
    client.ask("/iterate")
    client.ask("/nope")
    stream.step.release()
    assert client.head().status == 200
    assert client.chunk() == b"1"
    client.sock.close()
    stream.step.release()
    assert stream.closed.wait(5)


def test_a_205_has_no_body(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.route("/reset")(lambda req: ("body", 205))
    app.route("/stream")(lambda req: ((part for part in "ab"), 205))
    app.start()
    client = raw(app)
    for path in ("/reset", "/stream", "/reset"):
        answer = client.get(path)
        assert (answer.status, answer.header("content-length")) == (205, "0")
        assert answer.body == b""


@pytest.mark.parametrize("status", [100, 101, 103, 199])
def test_a_status_that_ends_nothing_is_a_500(
    serve: Serve, raw: OpenRaw, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    app = serve()

    @app.route("/")
    def view(req: Request) -> Any:
        return "", status

    app.start()
    client = raw(app)
    with caplog.at_level(logging.ERROR, "daebus.http"):
        answer = client.get("/")
    assert (answer.status, answer.code) == (500, "internal_server_error")
    assert "is not a final status" in caplog.text


# --- streams and the pool -----------------------------------------------------------


def slow_readers(app: Daebus, number: int, raw: OpenRaw) -> list[Raw]:
    """Ask for that many streams, and read none."""
    clients = []
    for _ in range(number):
        client = raw(app)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.ask("/large")
        clients.append(client)
    return clients


def test_slow_readers_of_streams_hold_no_worker(serve: Serve, raw: OpenRaw) -> None:
    app = serve(workers=2)
    app.route("/")(lambda req: "quick")

    @app.route("/large")
    def large(req: Request) -> Iterator[str]:
        for _ in range(1000):
            yield "x" * 100_000

    app.start()
    pool = server_of(app)._pool
    clients = slow_readers(app, 6, raw)
    assert eventually(lambda: len(pool._aside) == 6)
    began = time.monotonic()
    assert [raw(app).get("/").body for _ in range(5)] == [b"quick"] * 5
    assert time.monotonic() - began < 1
    for client in clients:
        client.sock.close()
    assert eventually(lambda: not pool._aside)
    assert raw(app).get("/").body == b"quick"
    assert eventually(lambda: len(pool._threads) <= 2)


@pytest.mark.slow
def test_endless_streams_hold_no_worker_either(serve: Serve, raw: OpenRaw) -> None:
    app = serve(workers=1)
    end, began = threading.Event(), threading.Semaphore(0)
    app.route("/")(lambda req: "quick")

    @app.route("/endless")
    def endless(req: Request) -> Iterator[str]:
        yield "x"
        began.release()
        while not end.wait(0.05):
            yield "x"

    app.start()
    clients = [raw(app) for _ in range(3)]
    for client in clients:
        client.ask("/endless")
    for _ in clients:
        assert began.acquire(timeout=10)
    assert raw(app).get("/").body == b"quick"
    end.set()
    for client in clients:
        assert set(client.answer().body) == set(b"x")


@pytest.mark.parametrize("together", [True, False])
def test_streams_that_wait_for_something_hold_no_worker(
    serve: Serve, raw: OpenRaw, together: bool
) -> None:
    app = serve(workers=2)
    end = threading.Event()
    app.route("/")(lambda req: "quick")

    @app.route("/events")
    def events(req: Request) -> Iterator[str]:
        yield "x"
        end.wait(30)
        yield "y"

    app.start()
    clients = [raw(app) for _ in range(12)]
    for client in clients:  # some are in the backlog when the first part is made, or none
        client.ask("/events")
        if not together:
            assert client.head().status == 200
            assert client.chunk() == b"x"
    assert [raw(app).get("/").body for _ in range(5)] == [b"quick"] * 5
    end.set()
    for client in clients:
        if together:
            assert client.answer().body == b"xy"
        else:
            assert client.chunk() == b"y"
    pool = server_of(app)._pool
    assert eventually(lambda: not pool._aside and len(pool._threads) <= 2)


def test_a_worker_is_left_when_there_are_too_many_streams(
    serve: Serve, raw: OpenRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = serve(workers=2)
    end = threading.Event()
    app.route("/")(lambda req: "quick")

    @app.route("/events")
    def events(req: Request) -> Iterator[str]:
        yield "x"
        end.wait(30)
        yield "y"

    app.start()
    monkeypatch.setattr(server_of(app)._pool, "_max_aside", 3)
    clients = [raw(app) for _ in range(4)]
    for client in clients:
        client.ask("/events")
        assert client.head().status == 200
        assert client.chunk() == b"x"
    assert raw(app).get("/").body == b"quick"
    last = raw(app)
    last.ask("/events")
    assert last.rest().endswith(b"1\r\nx\r\n")  # it is cut behind the first part
    assert raw(app).get("/").body == b"quick"
    end.set()
    for client in clients:
        assert client.chunk() == b"y"


def test_more_slow_streams_than_there_may_be_are_cut(
    serve: Serve, raw: OpenRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = serve(workers=1)
    app.route("/")(lambda req: "quick")

    @app.route("/large")
    def large(req: Request) -> Iterator[str]:
        for _ in range(1000):
            yield "x" * 100_000

    app.start()
    pool = server_of(app)._pool
    monkeypatch.setattr(pool, "_max_aside", 2)
    slow_readers(app, 2, raw)
    assert eventually(lambda: len(pool._aside) == 2)
    slow_readers(app, 1, raw)
    assert raw(app).get("/").body == b"quick"
    assert len(pool._aside) == 2
