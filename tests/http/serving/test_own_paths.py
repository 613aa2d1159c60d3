"""What daebus answers itself waits neither for workers nor for user code."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import create_environ, run_wsgi_app

import daebus
from daebus import Daebus, DaebusHttp, Request
from daebus.http.site.own import OwnPaths, _client
from tests.http.serving.test_limits import Gate
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import server_of
from tests.support.waiting import eventually

HEALTH = "/_daebus/health"
BROWSER = Path(daebus.__file__).parent / "browser"


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


CLIENT = "/_daebus/client.js"


def test_the_browser_client_is_served_and_not_sent_twice(
    serve: Serve, raw: OpenRaw, tmp_path: Path
) -> None:
    (tmp_path / "_daebus").mkdir()
    (tmp_path / "_daebus" / "client.js").write_text("not this one")
    app = serve(static=tmp_path)
    app.before_request(lambda req: ("no", 403))
    app.start()
    client = raw(app)
    answer = client.get(CLIENT)
    assert answer.status == 200
    assert answer.body == (BROWSER / "client.js").read_bytes()
    assert answer.header("content-type") == "text/javascript; charset=utf-8"
    assert answer.header("cache-control") == "no-cache"
    assert answer.header("access-control-allow-origin") == "*"
    etag = answer.header("etag")
    assert etag is not None
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = client.get(f"{CLIENT}?v=2", f"If-None-Match: {known}")
        assert (again.status, again.body, again.header("etag")) == (304, b"", etag)
        assert again.header("content-length") is None
    assert client.get(CLIENT, 'If-None-Match: "other"').status == 200
    head = client.get(CLIENT, method="HEAD")
    assert head.header("content-length") == str(len(answer.body))
    assert client.post(CLIENT, b"").code == "method_not_allowed"
    assert client.get(HEALTH, "If-None-Match: *").status == 200  # of what is not kept


def test_the_browser_client_inside_another_server() -> None:
    app = Daebus("guest")
    app.attach(DaebusHttp(port=0))
    try:
        body, status, headers = run_wsgi_app(app.wsgi, create_environ(CLIENT))
        assert (status, b"".join(body)) == ("200 OK", (BROWSER / "client.js").read_bytes())
        known = {"If-None-Match": headers["ETag"]}
        body, status, _ = run_wsgi_app(app.wsgi, create_environ(CLIENT, headers=known))
        assert (status[:3], b"".join(body)) == ("304", b"")
    finally:
        app.stop()


def test_without_its_file_the_browser_client_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get_data(package: str, resource: str) -> bytes:
        raise FileNotFoundError(resource)

    monkeypatch.setattr("pkgutil.get_data", get_data)
    _client.cache_clear()
    try:
        answer = OwnPaths().answer(CLIENT, "GET")
    finally:
        _client.cache_clear()
    assert answer is not None
    assert (answer.status, b"is missing beside daebus" in answer.body) == (404, True)
