"""What daebus answers itself waits neither for workers nor for user code."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from daebus import Request
from tests.http.serving.test_limits import Gate
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import server_of
from tests.support.waiting import eventually

HEALTH = "/_daebus/health"


def test_the_health_check_waits_for_no_view(serve: Serve, raw: OpenRaw) -> None:
    app = serve(workers=2, backlog=1)
    gate = Gate(app)
    app.start()
    busy = [raw(app) for _ in range(3)]
    for client in busy[:2]:
        client.ask("/gate")
        gate.wait()
    busy[2].ask("/gate")
    assert eventually(lambda: server_of(app)._pool.busy)
    assert raw(app).get("/gate").status == 503  # nobody else is served
    balancer = raw(app)
    for _ in range(5):
        began = time.monotonic()
        assert balancer.get(HEALTH).json == {"status": "ok"}
        assert time.monotonic() - began < 0.1
    gate.open.set()
    for client in busy:
        assert client.answer().body == b"through"


def test_the_health_check_waits_for_no_endless_stream(serve: Serve, raw: OpenRaw) -> None:
    app = serve(workers=2)
    end = threading.Event()
    streaming = threading.Semaphore(0)

    @app.route("/endless")
    def endless(req: Request) -> Iterator[str]:
        while not end.is_set():
            streaming.release()
            yield "x" * 100
            end.wait(0.01)

    app.start()
    for _ in range(2):
        raw(app).ask("/endless")
        assert streaming.acquire(timeout=5)
    began = time.monotonic()
    assert raw(app).get(HEALTH).status == 200
    assert time.monotonic() - began < 0.1
    end.set()


def test_it_runs_no_code_of_the_program(serve: Serve, raw: OpenRaw) -> None:
    app = serve(cors={"allowed_origins": ["*"]})
    called = []

    @app.before_request
    def before(req: Request) -> None:
        called.append("before")

    @app.after_request
    def after(req: Request, response: Any) -> None:
        called.append("after")

    app.start()
    threads = {thread.name for thread in threading.enumerate()}
    answer = raw(app).get(HEALTH, "Origin: http://other")
    assert (answer.status, answer.body) == (200, b'{"status": "ok"}')
    assert raw(app).get(HEALTH, "Origin: http://other", method="OPTIONS").status == 200
    assert called == []
    assert {thread.name for thread in threading.enumerate()} == threads  # no worker


def test_requests_in_one_go(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.route("/")(lambda req: "view")
    app.start()
    client = raw(app)
    one = f"GET {HEALTH} HTTP/1.1\r\nHost: x\r\n\r\n"
    client.send(one * 3 + "GET / HTTP/1.1\r\nHost: x\r\n\r\n" + one)
    bodies = [client.answer().body for _ in range(5)]
    assert bodies == [b'{"status": "ok"}'] * 3 + [b"view", b'{"status": "ok"}']
    client = raw(app)
    client.send(one * 100)  # more than anybody needs: it is cut off
    answers = [client.answer() for _ in range(16)]
    assert [answer.header("connection") for answer in answers] == [None] * 15 + ["close"]
    assert client.ended()


def test_kept_open_or_not(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.start()
    old = raw(app)
    assert old.get(HEALTH, "Connection: keep-alive", version="1.0").status == 200
    assert old.get(HEALTH, version="1.0").header("connection") == "close"
    assert old.ended()
    client = raw(app)
    assert client.get(HEALTH, method="HEAD").header("content-length") == "16"
    assert client.get(f"http://x{HEALTH}?a=b").status == 200
    assert client.get(HEALTH.replace("a", "%61")).status == 200
    assert client.post(HEALTH, b"x" * 100).status == 405
    assert client.get(HEALTH, "Connection: close").status == 200
    assert client.ended()
