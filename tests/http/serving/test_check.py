"""``GET /_daebus/check``: would this client be let in?"""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import quote

import pytest

from daebus import Daebus, DaebusHttp, DaebusWebSocket, Reject, UpgradeRequest
from tests.support.fixture_types import Connect, MakeApp, OpenRaw, Serve
from tests.support.inside import hub_of
from tests.support.peer import Peer
from tests.support.raw import Answer

CHECK = "/_daebus/check"


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.code


def test_it_opens_nothing_and_the_connection_goes_on(app: Daebus, raw: OpenRaw) -> None:
    app.websocket.on_connect(lambda client_id: pytest.fail("nobody has connected"))
    app.start()
    client = raw(app)
    for _ in range(3):
        answer = client.get(CHECK)
        assert (answer.status, answer.header("content-length")) == (204, None)
        assert answer.header("cache-control") == "no-store"
        assert answer.header("daebus-version") is None
    assert client.get(CHECK, method="HEAD").status == 204
    assert client.get("/_daebus/health").status == 200
    assert app.websocket.get_clients() == []
    assert app.websocket.stats()["connections_total"] == 0


def test_it_comes_in_turn_with_other_requests(app: Daebus, raw: OpenRaw) -> None:
    app.route("/view")(lambda req: "seen")
    app.start()
    client = raw(app)
    for target in ("/view", CHECK, "/view", CHECK, CHECK, "/_daebus/health", "/view"):
        client.ask(target)
    assert [client.answer().status for _ in range(7)] == [200, 204, 200, 204, 204, 200, 200]


def test_it_tells_the_version(raw: OpenRaw) -> None:
    app = Daebus("test", version="7")
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket(path="/ws"))
    app.start()
    client = raw(app)
    for target in (CHECK, f"{CHECK}?path=/ws"):
        assert client.get(target).header("daebus-version") == "7"
    app.stop()


def test_it_judges_host_path_and_origin(make_app: MakeApp, raw: OpenRaw) -> None:
    app = make_app(path="/ws/<name>", origins=["https://friend.example"])
    app.websocket.raw("/raw")(lambda connection: None)
    app.start()
    client = raw(app)
    assert code(client.get(CHECK)) == (404, "not_found")
    assert client.get(f"{CHECK}?path=%2Fws%2Fada").status == 204
    assert client.get(f"{CHECK}?path=/raw").status == 204
    stranger = client.get(f"{CHECK}?path=/raw", "Origin: https://evil.example")
    assert code(stranger) == (403, "origin_not_allowed")
    assert stranger.header("access-control-allow-origin") is None
    friend = client.get(f"{CHECK}?path=/raw", "Origin: https://friend.example")
    assert friend.status == 204
    assert friend.header("access-control-allow-origin") == "https://friend.example"
    assert friend.header("access-control-allow-credentials") == "true"
    own = client.get(f"{CHECK}?path=/raw", "Origin: http://x")
    assert own.status == 204
    client.send(f"GET {CHECK} HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert code(client.answer()) == (421, "misdirected_host")


@pytest.mark.parametrize("path", ["x", "", "/a b", "/%2e%2e/x", "/ü", "//x y", "/a%00"])
def test_what_cannot_be_asked_is_refused(app: Daebus, raw: OpenRaw, path: str) -> None:
    app.start()
    client = raw(app)
    if path:
        assert code(client.get(f"{CHECK}?path={quote(path)}")) == (400, "bad_request")
    assert client.get(f"{CHECK}?path=").status == 204  # no path at all
    assert client.get(f"{CHECK}?path=%2F%3Fa%3D1").status == 204


def test_it_asks_authenticate_as_an_upgrade_does(app: Daebus, raw: OpenRaw) -> None:
    @app.websocket.authenticate
    def check(req: Any) -> Any:
        assert (req.path, req.cookies["sid"]) == ("/live/ü", "abc")
        if req.args["token"] == "slow down":
            raise Reject(429, "wait", code="slow", headers={"Retry-After": "9"})
        return req.args["token"] or None

    app.start()
    client = raw(app)

    def ask(token: str) -> Answer:
        target = quote(f"/live/%C3%BC?token={quote(token)}", safe="")
        return client.get(f"{CHECK}?path={target}", "Cookie: sid=abc")

    assert ask("t").status == 204
    assert code(ask("")) == (401, "unauthorized")
    rejected = ask("slow down")
    assert code(rejected) == (429, "slow")
    assert rejected.header("retry-after") == "9"


def test_pages_of_other_places_may_ask_with_a_token_if_they_may_connect(
    make_app: MakeApp, raw: OpenRaw
) -> None:
    app = make_app(origins=["https://friend.example"])
    asked: list[str | None] = []

    @app.websocket.authenticate
    def check(req: UpgradeRequest) -> str | None:
        asked.append(req.token)
        return req.token

    app.start()
    client = raw(app)
    wish = ("Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization")
    for origin, allowed in (
        ("https://friend.example", "Authorization"),
        ("https://evil.example", None),
    ):
        answer = client.get(CHECK, f"Origin: {origin}", *wish, method="OPTIONS")
        assert answer.status == 204
        assert answer.header("access-control-allow-headers") == allowed
        assert answer.header("access-control-allow-origin") == (allowed and origin)
    assert asked == []  # the browser asks for itself
    assert client.get(CHECK, "Authorization: Bearer t-ada").status == 204
    assert asked == ["t-ada"]
    answer = client.get(CHECK, method="OPTIONS")
    assert (answer.status, answer.header("allow")) == (200, "GET, HEAD, OPTIONS")


def test_a_page_of_the_server_is_known_by_its_referrer(make_app: MakeApp, raw: OpenRaw) -> None:
    """Its browser sends ``Origin`` with the WebSocket, and none with the check."""
    app = make_app(own_origin=False, origins=["https://friend.example"])
    app.start()
    client = raw(app)
    for page, status in (("http://x/", 403), ("https://friend.example/a", 204), ("", 204)):
        assert client.get(CHECK, f"Referer: {page}").status == status
    both = client.get(CHECK, "Referer: http://x/", "Origin: https://friend.example")
    assert both.status == 204
    assert client.get(CHECK).status == 204  # a program


def test_it_takes_no_place_for_good(make_app: MakeApp, connect: Connect, raw: OpenRaw) -> None:
    app = make_app(max_clients=2, max_clients_per_ip=1)
    app.start()
    client = raw(app)
    for _ in range(5):
        assert client.get(CHECK).status == 204
    peer = Peer.joined(connect(app.http.port))
    full = client.get(CHECK)
    assert code(full) == (429, "too_many_from_address")
    assert full.header("retry-after") == "5"
    peer.close()


def test_a_full_server_says_so(make_app: MakeApp, connect: Connect, raw: OpenRaw) -> None:
    app = make_app(max_clients=1)
    app.start()
    Peer.joined(connect(app.http.port))
    answer = raw(app).get(CHECK)
    assert code(answer) == (503, "too_many_clients")
    assert answer.header("retry-after") == "5"


def test_a_slow_authenticate_holds_up_nobody(make_app: MakeApp, raw: OpenRaw) -> None:
    app = make_app(http={"workers": 1})
    asked, let_go = threading.Semaphore(0), threading.Event()

    @app.websocket.authenticate
    def check(req: Any) -> Any:
        asked.release()
        return let_go.wait(10)

    app.route("/view")(lambda req: threading.current_thread().name)
    app.start()
    waiting = [raw(app) for _ in range(3)]
    for client in waiting:
        client.ask(CHECK)
        assert asked.acquire(timeout=5)
    other = raw(app)
    assert other.get("/view").body.startswith(b"daebus-http-")
    assert other.get("/_daebus/health").status == 200
    assert hub_of(app).descriptors() == 3
    let_go.set()
    for client in waiting:
        assert client.answer().status == 204


def test_other_methods_and_servers_without_websockets(
    app: Daebus, serve: Serve, raw: OpenRaw
) -> None:
    app.start()
    answer = raw(app).get(CHECK, method="DELETE")
    assert code(answer) == (405, "method_not_allowed")
    alone = serve()
    alone.start()
    assert code(raw(alone).get(CHECK)) == (501, "not_implemented")


def test_where_websockets_have_a_port_of_their_own_it_is_there(
    make_app: MakeApp, raw: OpenRaw
) -> None:
    app = make_app(port=0)
    app.start()
    assert code(raw(app).get(CHECK)) == (404, "not_found")
    client = raw(app, app.websocket.port)
    assert client.get(CHECK).status == 204
    assert client.get(CHECK).status == 204
