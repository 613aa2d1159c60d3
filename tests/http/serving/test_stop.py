"""What the end of the app does to requests."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from daebus import Daebus, Request
from daebus.http.serving import exchange
from tests.http.serving.test_limits import Gate
from tests.support.fixture_types import MakeApp, OpenRaw, Serve
from tests.support.raw import server_of
from tests.support.waiting import eventually


def stopping(app: Daebus, timeout: float = 5.0) -> threading.Thread:
    """Stop the app in a thread, and return when the port is closed."""
    server = server_of(app)
    thread = threading.Thread(target=app.stop, args=(timeout,))
    thread.start()
    assert eventually(lambda: server.socket.fileno() == -1)
    return thread


def test_a_request_in_flight_is_finished(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    gate = Gate(app)
    app.start()
    port = app.http.port
    client = raw(app)
    client.ask("/gate")
    gate.wait()
    thread = stopping(app)
    with pytest.raises(ConnectionRefusedError):
        raw(app, port)
    gate.open.set()
    answer = client.answer()
    assert (answer.body, answer.header("connection")) == (b"through", "close")
    assert client.ended()
    thread.join(5)
    assert not thread.is_alive()


def test_idle_and_unfinished_connections_are_closed(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.start()
    silent, half, idle = raw(app), raw(app), raw(app)
    half.send("GET / HTTP/1.1\r\nHo")
    assert idle.get("/nothing").status == 404
    began = time.monotonic()
    app.stop()
    assert time.monotonic() - began < 3
    for client in (silent, half, idle):
        assert client.ended()


def test_open_connections_hear_that_the_app_stops(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    gate = Gate(app)
    app.route("/")(lambda req: "served")
    app.start()
    busy, balancer, page, half = raw(app), raw(app), raw(app), raw(app)
    for client in (balancer, page):
        assert client.get("/_daebus/health").json == {"status": "ok"}
    half.send("GET / HTTP/1.1\r\nHo")
    busy.ask("/gate")
    gate.wait()
    thread = stopping(app)
    half.send("st: x\r\n\r\n")
    page.ask("/")
    balancer.ask("/_daebus/health")
    for client in (balancer, page, half):
        answer = client.answer()
        assert (answer.status, answer.code) == (503, "stopping")
        assert answer.header("retry-after") == "5"
        assert answer.header("connection") == "close"
        assert client.ended()
    gate.open.set()
    assert busy.answer().body == b"through"
    thread.join(5)
    assert not thread.is_alive()


def test_a_worker_that_waited_for_the_next_request_refuses_it(
    serve: Serve, raw: OpenRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "NEXT_REQUEST", 5.0)  # the worker reads, not the acceptor
    app = serve()
    gate = Gate(app)
    app.route("/")(lambda req: "served")
    app.start()
    busy, page = raw(app), raw(app)
    busy.ask("/gate")
    gate.wait()
    assert page.get("/").body == b"served"
    thread = stopping(app)
    page.ask("/")
    answer = page.answer()
    assert (answer.status, answer.code) == (503, "stopping")
    gate.open.set()
    assert busy.answer().body == b"through"
    busy.sock.close()
    thread.join(5)
    assert not thread.is_alive()


def test_websockets_are_refused_while_requests_are_finished(
    make_app: MakeApp, raw: OpenRaw
) -> None:
    app = make_app()
    gate = Gate(app)
    app.start()
    busy, late = raw(app), raw(app)
    assert late.get("/nope").status == 404
    busy.ask("/gate")
    gate.wait()
    thread = stopping(app)
    late.ask("/", "Connection: Upgrade", "Upgrade: websocket")
    answer = late.answer()
    assert (answer.status, answer.code) == (503, "stopping")
    gate.open.set()
    thread.join(5)


def test_an_answer_that_is_being_taken_is_finished(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.route("/")(lambda req: bytes(16 << 20))
    app.start()
    client = raw(app)
    client.ask("/")
    assert client.head().status == 200
    thread = stopping(app)
    assert len(client.exactly(16 << 20)) == 16 << 20
    assert client.ended()
    thread.join(5)
    assert not thread.is_alive()


def test_an_answer_that_nobody_takes_is_cut_at_the_deadline(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.route("/")(lambda req: bytes(16 << 20))
    app.start()
    client = raw(app)
    client.ask("/")
    assert client.head().status == 200
    began = time.monotonic()
    assert app.stop(timeout=1.5) == []
    assert time.monotonic() - began < 3
    with pytest.raises((EOFError, ConnectionError)):
        client.exactly(16 << 20)


def test_a_stream_is_cut_at_the_deadline(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    closed = threading.Event()

    @app.route("/")
    def view(req: Request) -> Any:
        def endless() -> Any:
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
    assert app.stop(timeout=1.5) == []
    assert closed.is_set()


@pytest.mark.leaves_thread
def test_a_view_that_does_not_end_is_reported(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    gate = Gate(app)
    app.start()
    client = raw(app)
    client.ask("/gate")
    gate.wait()
    began = time.monotonic()
    left = app.stop(timeout=1.0)
    assert time.monotonic() - began < 3
    assert left == ["daebus-http-1"]
    assert client.ended()
    gate.open.set()
    assert eventually(lambda: not any(t.name in left for t in threading.enumerate()))


def test_requests_that_wait_for_a_worker_are_answered(serve: Serve, raw: OpenRaw) -> None:
    app = serve(workers=1)
    gate = Gate(app)
    app.start()
    first, second = raw(app), raw(app)
    first.ask("/gate")
    gate.wait()
    second.ask("/gate")
    server = server_of(app)
    assert eventually(lambda: server._pool.busy)
    thread = stopping(app)
    gate.open.set()
    assert first.answer().body == b"through"
    assert second.answer().body == b"through"
    thread.join(5)
    assert not thread.is_alive()


def test_a_view_may_stop_the_app(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.route("/")(lambda req: {"left": app.stop()})
    app.start()
    client = raw(app)
    assert client.get("/").json == {"left": []}
    assert client.ended()
    assert app.wait(5)


def test_start_after_stop(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.route("/")(lambda req: "served")
    for _ in range(3):
        app.start()
        assert raw(app).get("/").body == b"served"
        app.stop()
