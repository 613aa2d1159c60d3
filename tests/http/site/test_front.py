"""An app without a page says what it is, to those who are on its machine."""

from __future__ import annotations

from typing import Any

import pytest

from daebus import Daebus, DaebusHttp, DaebusWebSocket
from tests.support.fixture_types import OpenRaw


def bare(name: str = "hello", *, debug: bool = False, **options: Any) -> Daebus:
    app = Daebus(name, debug=debug)
    app.attach(DaebusHttp(port=0, **options))
    return app


def test_an_app_without_a_page_says_what_runs_here(raw: OpenRaw) -> None:
    app = bare("<hello>")
    app.attach(DaebusWebSocket())
    with app:
        client = raw(app)
        answer = client.get("/")
        assert answer.status == 200
        assert answer.header("content-type") == "text/html; charset=utf-8"
        assert answer.header("cache-control") == "no-store"
        page = answer.body.decode()
        assert "<title>&lt;hello&gt;</title>" in page
        assert "takes WebSockets" in page
        assert "docs/" in page
        assert "<hello>" not in page
        assert client.get("/", method="HEAD").status == 200
        assert client.get("/other").status == 404
        assert client.get("/", method="POST").status == 404
        for header in ("Via: 1.1 x", "X-Forwarded-For: 127.0.0.1", "Forwarded: for=1.2.3.4"):
            assert client.get("/", header).status == 404
        client.sock.close()
        app.stop()


def test_those_elsewhere_get_404_unless_the_app_is_in_debug(raw: OpenRaw) -> None:
    for debug in (False, True):
        with bare(debug=debug, trusted_proxies=["127.0.0.1"]) as app:
            client = raw(app)
            status = client.get("/", "X-Forwarded-For: 203.0.113.9").status
            assert status == (200 if debug else 404)
            client.sock.close()


@pytest.mark.parametrize("what", ["route", "static", "mount", "error handler"])
def test_it_is_in_nobodys_way(raw: OpenRaw, what: str, tmp_path: Any) -> None:
    app = bare(**({"static": tmp_path} if what == "static" else {}))
    if what == "route":
        app.route("/other")(lambda req: "other")
    elif what == "mount":
        app.http.mount("/old", lambda environ, start_response: [])
    elif what == "error handler":
        app.error_handler(404)(lambda req, exc: ("mine", 404))
    with app:
        client = raw(app)
        answer = client.get("/")
        assert answer.status == 404
        assert (answer.body == b"mine") == (what == "error handler")
        client.sock.close()
