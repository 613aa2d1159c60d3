"""What pages of other sites are told: the rules by themselves, and over a socket."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from werkzeug.wrappers import Response

from daebus import DaebusHttp, Request
from daebus.http.protocol.cors import Cors
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import Answer, Raw

PAGE = "https://page.example"
OTHER = "https://other.example:8443"


def allowed(answer: Answer) -> dict[str, str]:
    """Return the headers of the protocol."""
    prefix = "access-control-"
    found = [(k.removeprefix(prefix), v) for k, v in answer.headers if k.startswith(prefix)]
    assert len(dict(found)) == len(found)
    return dict(found)


# --- the rules ----------------------------------------------------------------------


def test_a_listed_origin_is_named_and_another_hears_nothing() -> None:
    cors = Cors({"allowed_origins": [PAGE, "http://[::1]:8080", "null"]})
    about = [("Vary", "Origin"), ("Access-Control-Allow-Origin", PAGE)]
    assert cors.add([("X", "1")], PAGE) == [("X", "1"), *about]
    assert cors.add([], "null")[1] == ("Access-Control-Allow-Origin", "null")
    for origin in (OTHER, PAGE + ".evil.example", PAGE + ":444", "http://page.example", "", None):
        assert cors.add([], origin) == [("Vary", "Origin")]
        assert not cors.preflight(origin or "", "GET", None)


def test_origins_are_compared_without_case() -> None:
    cors = Cors({"allowed_origins": ["HTTPS://Page.Example:443/"]})
    assert ("Access-Control-Allow-Origin", PAGE) in cors.add([], PAGE)


def test_all_origins_are_a_star() -> None:
    for origins in ("*", ["*"], [PAGE, "*"]):
        cors = Cors({"allowed_origins": origins, "expose_headers": ["X-A", "X-B"]})
        assert cors.add([], OTHER) == [
            ("Access-Control-Allow-Origin", "*"),
            ("Access-Control-Expose-Headers", "X-A, X-B"),
        ]
        assert cors.add([], None) == []


def test_credentials_go_with_a_named_origin_alone() -> None:
    cors = Cors({"allowed_origins": [PAGE], "allow_credentials": True})
    assert ("Access-Control-Allow-Credentials", "true") in cors.add([], PAGE)
    assert cors.add([], OTHER) == [("Vary", "Origin")]
    preflight = cors.preflight(PAGE, "PUT", "X-A")
    assert preflight is not None
    assert ("Access-Control-Allow-Credentials", "true") in preflight


def test_wildcards_of_a_preflight_are_spelled_out() -> None:
    # With credentials "*" is a name like any other, and never stands for Authorization.
    cors = Cors(
        {
            "allowed_origins": [PAGE],
            "allowed_methods": "*",
            "allowed_headers": ["*"],
            "allow_credentials": True,
        }
    )
    found = dict(cors.preflight(PAGE, "PURGE", "authorization,x-a") or [])
    assert found["Access-Control-Allow-Methods"] == "PURGE"
    assert found["Access-Control-Allow-Headers"] == "authorization,x-a"
    assert "Access-Control-Allow-Headers" not in dict(cors.preflight(PAGE, "GET", None) or [])


@pytest.mark.parametrize("vary", ["Origin", "Accept, origin", "*"])
def test_an_answer_that_varies_already(vary: str) -> None:
    cors = Cors({"allowed_origins": [PAGE]})
    assert cors.add([("vary", vary)], None) == [("vary", vary)]


def test_an_answer_with_a_policy_of_its_own_is_left_alone() -> None:
    own = [("access-control-allow-origin", "*")]
    assert Cors({"allowed_origins": [PAGE]}).add(own, PAGE) == own


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([PAGE], r'write cors=\{"allowed_origins"'),
        (None, r'write cors=\{"allowed_origins"'),
        ({}, r'write cors=\{"allowed_origins"'),
        ({"origins": "*"}, "no option 'origins'; write allowed_origins"),
        ({"allow_origins": "*"}, "no option 'allow_origins'; write allowed_origins"),
        ({"allowed_origins": "*", "maxage": 1}, "no option 'maxage'; write max_age"),
        ({1: 2}, "no option 1; write allowed_origins or"),
        ({"allowed_origins": PAGE}, rf"write allowed_origins=\['{PAGE}'\]"),
        ({"allowed_origins": 5}, r"write allowed_origins=\['https://example.com'\]"),
        ({"allowed_origins": None}, "must be a list of names, not None"),
        ({"allowed_origins": [PAGE + "/path"]}, f"has no path; write it like '{PAGE}'"),
        ({"allowed_origins": ["page.example"]}, "write it like 'https://page.example'"),
        ({"allowed_origins": [b"x"]}, "allowed_origins holds b'x'"),
        ({"allowed_origins": ["https://*.example\r\n"]}, "allowed_origins holds"),
        ({"allowed_origins": "*", "allowed_methods": "GET"}, r"write allowed_methods=\['GET'\]"),
        ({"allowed_origins": "*", "allowed_methods": ["GET POST"]}, "holds 'GET POST'"),
        ({"allowed_origins": "*", "allowed_headers": ["X: 1"]}, "holds 'X: 1'"),
        ({"allowed_origins": "*", "expose_headers": ["X\r\nY"]}, "expose_headers holds"),
        ({"allowed_origins": "*", "max_age": "60"}, "max_age must be a number of whole seconds"),
        ({"allowed_origins": "*", "max_age": -1}, "not -1"),
        ({"allowed_origins": "*", "max_age": True}, "not True"),
        ({"allowed_origins": [PAGE], "allow_credentials": "yes"}, "True or False, not 'yes'"),
        ({"allowed_origins": "*", "allow_credentials": True}, "name the pages"),
        (
            {"allowed_origins": [PAGE], "allow_credentials": True, "expose_headers": "*"},
            "write the names",
        ),
    ],
)
def test_options_that_make_no_sense(options: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Cors(options)
    if options is not None:
        with pytest.raises(ValueError, match=text):
            DaebusHttp(cors=options)


# --- over a socket ------------------------------------------------------------------


@pytest.fixture
def client(serve: Serve, raw: OpenRaw, tmp_path: Path) -> Raw:
    (tmp_path / "file.txt").write_text("file")
    app = serve(
        static=tmp_path,
        cors={
            "allowed_origins": [PAGE, OTHER],
            "allowed_methods": ["GET", "PUT"],
            "allowed_headers": ["X-Key"],
            "expose_headers": ["X-Total"],
            "allow_credentials": True,
            "max_age": 60,
        },
    )

    @app.route("/view", methods=["GET", "PUT", "OPTIONS"])
    def view(req: Request) -> Any:
        return req.method, 200, {"Vary": "Accept"}

    @app.route("/stream")
    def stream(req: Request) -> Any:
        return (part for part in "ab")

    @app.route("/fails")
    def fails(req: Request) -> Any:
        raise ValueError

    @app.route("/own")
    def own(req: Request) -> Any:
        return Response("own", headers={"Access-Control-Allow-Origin": "https://own.example"})

    @app.before_request
    def guard(req: Request) -> Any:
        return ({"error": "no key"}, 401) if req.path == "/guarded" else None

    def legacy(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "6")])
        return [b"legacy"]

    app.mount("/old", legacy)
    app.start()
    return raw(app)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/view", 200),
        ("/stream", 200),
        ("/file.txt", 200),
        ("/nope", 404),
        ("/fails", 500),
        ("/guarded", 401),
        ("/old/x", 200),
    ],
)
def test_every_answer_tells_the_page(
    client: Raw, caplog: pytest.LogCaptureFixture, path: str, status: int
) -> None:
    with caplog.at_level(logging.CRITICAL, "daebus.http"):
        answer = client.get(path, f"Origin: {PAGE}")
    assert answer.status == status
    assert allowed(answer) == {
        "allow-origin": PAGE,
        "allow-credentials": "true",
        "expose-headers": "X-Total",
    }
    assert "Origin" in [value for name, value in answer.headers if name == "vary"]
    with caplog.at_level(logging.CRITICAL, "daebus.http"):
        for headers in ([], ["Origin: https://evil.example"], [f"Origin: {PAGE}", "Origin: x"]):
            answer = client.get(path, *headers)
            assert allowed(answer) == {}
            assert answer.status == status
            assert "Origin" in [value for name, value in answer.headers if name == "vary"]


def test_a_405_tells_the_page_too(client: Raw) -> None:
    answer = client.post("/view", b"", f"Origin: {PAGE}")
    assert (answer.status, allowed(answer)["allow-origin"]) == (405, PAGE)


@pytest.mark.parametrize("path", ["/view", "/nope", "/guarded", "/old/x", "*"])
def test_a_preflight(client: Raw, path: str) -> None:
    asks = ("Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-key")
    answer = client.get(path, f"Origin: {OTHER}", *asks, method="OPTIONS")
    assert answer.status == 204
    assert allowed(answer) == {
        "allow-origin": OTHER,
        "allow-credentials": "true",
        "allow-methods": "GET, PUT",
        "allow-headers": "X-Key",
        "max-age": "60",
    }
    assert (answer.header("vary") or "").startswith("Origin, ")
    answer = client.get(path, "Origin: https://evil.example", *asks, method="OPTIONS")
    assert (answer.status, answer.code) == (403, "origin_not_allowed")
    assert (allowed(answer), answer.header("vary")) == ({}, "Origin")


def test_a_refused_page_is_logged_with_what_to_type(
    client: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    asks = ("Origin: https://evil.example", "Access-Control-Request-Method: PUT")
    assert client.get("/view", *asks, method="OPTIONS").status == 403
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        "refused a page from 'https://evil.example' at the host 'x'; if that page is yours, write "
        "DaebusHttp(cors={'allowed_origins': ['https://evil.example']})",
    )


def test_options_that_are_no_preflight_reach_the_view(client: Raw) -> None:
    answer = client.get("/view", f"Origin: {PAGE}", method="OPTIONS")
    assert (answer.body, allowed(answer)["allow-origin"]) == (b"OPTIONS", PAGE)
    answer = client.get("/view", "Access-Control-Request-Method: PUT", method="OPTIONS")
    assert answer.body == b"OPTIONS"


def test_a_view_with_a_policy_of_its_own(client: Raw) -> None:
    assert allowed(client.get("/own", f"Origin: {PAGE}")) == {"allow-origin": "https://own.example"}


def test_without_cors_nothing_is_said(serve: Serve, raw: OpenRaw) -> None:
    app = serve()
    app.route("/")(lambda req: "")
    app.start()
    answer = raw(app).get("/", f"Origin: {PAGE}")
    assert (allowed(answer), answer.header("vary")) == ({}, None)
