"""The access log has a line for each request, whoever answers it, and none that is forged."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixture_types import Connect, MakeApp, OpenRaw, Serve
from tests.support.logs import records
from tests.support.peer import Peer, upgrade_request
from tests.support.waiting import eventually

COMMON = re.compile(
    r'(\S+) - - \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] ("(?:[^"\\]|\\.)*" \S+ \S+)'
)


@pytest.fixture
def log() -> Iterator[Any]:
    """Wait for lines of the log: ``log(2)`` returns two, as (client, the rest)."""
    with records(logging.INFO) as found:

        def lines(number: int) -> list[tuple[str, str]]:
            def matches() -> list[re.Match[str]]:
                return [match for text in found.texts if (match := COMMON.fullmatch(text))]

            assert eventually(lambda: len(matches()) >= number), found.texts
            assert len(matches()) == number
            for match in matches():
                told = time.mktime(time.strptime(match[2][:20], "%d/%b/%Y:%H:%M:%S"))
                assert abs(time.time() - told) < 60
            return [(match[1], match[3]) for match in matches()]

        yield lines


def test_every_request_has_a_line(
    make_app: MakeApp, raw: OpenRaw, connect: Connect, log: Any, tmp_path: Path
) -> None:
    (tmp_path / "file.txt").write_text("x" * 70000)
    app = make_app(http={"access_log": True, "static": tmp_path}, path="/ws")
    app.route("/")(lambda req: "hello")
    app.route("/lines")(lambda req: (str(i) for i in range(12)))
    app.route("/fail")(lambda req: 1 / 0)
    app.route("/bad")(lambda req: ("x", 200, {"X": "a\nb"}))
    app.route("/none")(lambda req: (None, 204))
    app.start()
    client = raw(app)
    for target, method in (
        ("/?q=1", "GET"),
        ("/", "HEAD"),
        ("/lines", "GET"),
        ("/none", "GET"),
        ("/fail", "GET"),
        ("/file.txt", "GET"),
        ("/nothing%0a%22", "GET"),
        ('/there?is="', "GET"),
        ("/_daebus/health", "GET"),
    ):
        client.get(target, method=method)
    client.get("/lines", version="1.0")
    raw(app).get("/bad")
    expected = [
        '"GET /?q=1 HTTP/1.1" 200 5',
        '"HEAD / HTTP/1.1" 200 -',
        '"GET /lines HTTP/1.1" 200 14',
        '"GET /none HTTP/1.1" 204 -',
        '"GET /fail HTTP/1.1" 500 61',
        '"GET /file.txt HTTP/1.1" 200 70000',
        '"GET /nothing%0a%22 HTTP/1.1" 404 ',
        '"GET /there?is=\\" HTTP/1.1" 404 ',
        '"GET /_daebus/health HTTP/1.1" 200 16',
        '"GET /lines HTTP/1.0" 200 14',
        '"GET /bad HTTP/1.1" 500 61',
    ]
    told = log(len(expected))
    assert {peer for peer, _ in told} == {"127.0.0.1"}
    for (_, line), start in zip(told, expected, strict=True):
        assert line.startswith(start), line
    with raw(app) as refused:
        refused.send("GET / HTTP/1.1\r\nHost: x\r\nbroken\x1b[2J\r\n\r\n")
        refused.answer()
    with raw(app) as stranger:
        stranger.send("GET /mine HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        stranger.answer()
    peer = Peer.joined(connect(app.http.port), path="/ws")
    assert Peer(connect(app.http.port)).ask(upgrade_request("/other")).status == 404
    lines = [line for _, line in log(len(expected) + 4)[len(expected) :]]
    assert re.fullmatch(r'"-" 400 \d+', lines[0])
    assert re.fullmatch(r'"GET /mine HTTP/1\.1" 421 \d+', lines[1])
    assert lines[2] == '"GET /ws HTTP/1.1" 101 -'
    assert re.fullmatch(r'"GET /other HTTP/1\.1" 404 \d+', lines[3])
    peer.sock.close()


def test_the_client_is_whom_a_trusted_proxy_names(serve: Serve, raw: OpenRaw, log: Any) -> None:
    app = serve(access_log=True, trusted_proxies=["127.0.0.1"])
    app.route("/")(lambda req: "hello")
    app.start()
    client = raw(app)
    for name in ("203.0.113.9", 'evil\\"'):
        client.get("/", f"X-Forwarded-For: {name}")
    client.get("/_daebus/health", "X-Forwarded-For: 203.0.113.9")
    peers = [peer for peer, _ in log(3)]
    assert peers == ["203.0.113.9", "127.0.0.1", "203.0.113.9"]


def test_it_is_off_unless_it_is_asked_for(serve: Serve, raw: OpenRaw, log: Any) -> None:
    app = serve()

    app.route("/")(lambda req: "hello")
    app.start()
    assert raw(app).get("/").body == b"hello"
    log(0)


def test_a_log_that_nobody_shows_is_told(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def warnings() -> int:
        return sum("basicConfig(level=logging.INFO)" in text for text in caplog.messages)

    with serve(access_log=True):
        assert warnings() == 1
    caplog.clear()
    with caplog.at_level(logging.INFO, "daebus"), serve(access_log=True):
        assert warnings() == 0
