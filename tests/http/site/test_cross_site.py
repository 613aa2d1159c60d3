"""Pages of other sites change nothing in the user's name, unless the app wants it so."""

from __future__ import annotations

from typing import Any

import pytest

from daebus import Blueprint, Daebus, DaebusHttp, Request
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.raw import Raw

OTHER = "https://evil.example"
PAGE = "https://page.example"
SITE = "Sec-Fetch-Site: "
COOKIE = "Cookie: session=1"


def build(serve: Serve, **options: Any) -> tuple[Daebus, list[str]]:
    """Make an app; the list holds what hooks, views and mounted apps were asked."""
    app = serve(**options)
    asked: list[str] = []

    @app.before_request
    def hook(req: Request) -> None:
        asked.append(req.method)

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app.route("/view", methods=methods)(lambda req: "view")
    app.route("/open/<int:n>", methods=methods, cross_site=True)(lambda req, n: "open")

    def mounted(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"mounted"]

    app.mount("/mounted", mounted)
    app.start()
    return app, asked


@pytest.fixture
def client(serve: Serve, raw: OpenRaw) -> Raw:
    return raw(build(serve)[0])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 200),  # a program
        ((SITE + "same-origin", "Origin: http://x"), 200),
        ((SITE + "same-origin",), 200),
        ((SITE + "none",), 200),
        ((SITE + "cross-site", f"Origin: {OTHER}"), 403),
        ((SITE + "cross-site",), 403),
        ((SITE + "same-site", "Origin: http://x:81"), 403),
        ((SITE + "cross-site", "Origin: http://x"), 403),  # the first counts
        ((SITE + "same-origin", SITE + "cross-site"), 403),
        ((SITE + "nonsense",), 403),
        (("Origin: http://x",), 200),  # an older browser, or an address that is not secure
        (("Origin: https://x",), 200),  # a proxy ended TLS
        (("Origin: http://x:81",), 403),
        ((f"Origin: {OTHER}",), 403),
        (("Origin: null",), 403),
        (("Origin: nonsense",), 403),
    ],
)
@pytest.mark.parametrize("path", ["/view", "/mounted/x", "/nope"])
def test_what_the_browser_says_decides(
    client: Raw, headers: tuple[str, ...], status: int, path: str
) -> None:
    answer = client.post(path, b"", *headers)
    assert answer.status == (404 if path == "/nope" and status == 200 else status)
    if status == 403:
        assert answer.code == "cross_site_request"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_every_method_that_changes_something_is_refused(client: Raw, method: str) -> None:
    assert client.post("/view", b"", SITE + "cross-site", method=method).status == 403


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_methods_that_change_nothing_pass(client: Raw, method: str) -> None:
    answer = client.get("/view", SITE + "cross-site", f"Origin: {OTHER}", method=method)
    assert answer.status == 200


def test_nobody_sees_what_is_refused(serve: Serve, raw: OpenRaw) -> None:
    app, asked = build(serve)
    assert raw(app).post("/view", b"", SITE + "cross-site").status == 403
    assert asked == []


def test_a_view_may_take_them(client: Raw) -> None:
    headers = (SITE + "cross-site", f"Origin: {OTHER}", COOKIE)
    assert client.post("/open/1", b"", *headers).body == b"open"
    assert client.post("/open/x", b"", *headers).status == 403
    assert client.post("/mounted/open/1", b"", *headers).status == 403


def test_a_blueprint_may_have_such_a_view(serve: Serve, raw: OpenRaw) -> None:
    notes = Blueprint("notes", url_prefix="/notes")
    notes.route("/hook", methods=["POST"], cross_site=True)(lambda req: "hook")
    app = serve()
    app.register(notes)
    app.start()
    assert raw(app).post("/notes/hook", b"", SITE + "cross-site").body == b"hook"


def test_the_whole_component_may_take_them(serve: Serve, raw: OpenRaw) -> None:
    client = raw(build(serve, cross_site_requests="allow")[0])
    for path in ("/view", "/mounted/x"):
        assert client.post(path, b"", SITE + "cross-site", f"Origin: {OTHER}").status == 200


@pytest.mark.parametrize(
    ("cors", "origin", "cookie", "status"),
    [
        ({"allowed_origins": [PAGE]}, PAGE, False, 200),
        ({"allowed_origins": [PAGE]}, PAGE, True, 403),
        ({"allowed_origins": [PAGE], "allow_credentials": True}, PAGE, True, 200),
        ({"allowed_origins": [PAGE], "allow_credentials": True}, OTHER, False, 403),
        ({"allowed_origins": "*"}, OTHER, False, 200),
        ({"allowed_origins": "*"}, OTHER, True, 403),
    ],
)
def test_cors_may_name_the_page(
    serve: Serve, raw: OpenRaw, cors: dict[str, Any], origin: str, cookie: bool, status: int
) -> None:
    client = raw(build(serve, cors=cors)[0])
    headers = [SITE + "cross-site", f"Origin: {origin}", *([COOKIE] if cookie else [])]
    assert client.post("/view", b"", *headers).status == status


def test_behind_a_proxy_the_forwarded_host_is_compared(serve: Serve, raw: OpenRaw) -> None:
    app, _ = build(serve, trusted_proxies=["127.0.0.1"], allowed_hosts=["page.example"])
    client = raw(app)
    forwarded = "X-Forwarded-Host: page.example"
    assert client.post("/view", b"", forwarded, f"Origin: {PAGE}").status == 200
    assert client.post("/view", b"", forwarded, "Origin: http://x").status == 403


def test_a_refusal_is_logged_with_what_to_type(
    client: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    client.post("/view", b"", SITE + "cross-site", f"Origin: {OTHER}")
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        f"refused a POST of a page from '{OTHER}' at the host 'x'; if that page is yours, name it "
        "in DaebusHttp(cors=...), or write @app.route(..., cross_site=True) for pages of all sites",
    )


def test_a_page_that_does_not_say_which_it_is_is_logged_as_well(
    client: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    client.post("/view", b"", SITE + "cross-site")
    assert "a POST of a page from 'another site' at the host 'x'" in caplog.text


def test_the_argument_is_checked() -> None:
    with pytest.raises(ValueError, match="'refuse' or 'allow', not 'yes'"):
        DaebusHttp(cross_site_requests="yes")  # type: ignore[arg-type]  # that is the mistake
