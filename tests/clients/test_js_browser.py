"""The browser client in Chromium, with real servers that freeze, die and refuse."""

from __future__ import annotations

import base64
import queue
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daebus import ClientError, Daebus, DaebusHttp, DaebusWebSocket, UpgradeRequest
from tests.support.child import Child
from tests.support.fixture_types import MakeApp
from tests.support.relay import Relay

pytestmark = pytest.mark.slow

PAGE = """<!doctype html>
<title>client</title>
<link rel="icon" href="data:,">
<script type="module">
import { Daebus, DaebusError } from "/_daebus/client.js";
window.DaebusError = DaebusError;
window.told = [];
window.shown = [];
window.outcome = (promise) => promise.then(
    (value) => ({ value }),
    ({ name, code, sent, message }) => ({ name, code, sent, message }),
);
window.begin = (options = {}, url = "/") => {
    const client = new Daebus(url, { minDelay: 50, ...options });
    client.onstatus = (event) => told.push(event);
    window.client = client;
};
window.ready = true;
addEventListener("pageshow", (event) => shown.push(event.persisted));
</script>
"""

# As impatient as tests are.
QUICK = {"heartbeat": 300, "heartbeatTimeout": 300, "timeout": 2000}

CHILD = """
import sys
from daebus import Daebus, DaebusHttp, DaebusWebSocket

app = Daebus("child")
app.attach(DaebusHttp(port={port}))
app.attach(DaebusWebSocket())
app.socket("echo")(lambda req: req.data)
app.socket("never")(lambda req: req.cancelled.wait(60) and None)
app.route("/")(lambda req: {page!r})
app.start()
print("up", flush=True)
sys.stdin.read()
"""


class Tab:
    """A page in which the client is ready."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        page.goto(url)
        page.wait_for_function("() => window.ready")

    def begin(self, url: str = "/", **options: Any) -> Tab:
        self.page.evaluate("([options, url]) => begin(options, url)", [{**QUICK, **options}, url])
        return self

    def wait(self, status: str) -> Any:
        """Wait for a status, and return what was told of it at last."""
        self.page.wait_for_function("status => client.status === status", arg=status)
        return self.page.evaluate(
            "status => told.findLast((event) => event.status === status)", status
        )

    def saw(self, status: str, **fields: Any) -> Any:
        """Wait until something was told, whatever came after it."""
        wanted = {"status": status, **fields}
        self.page.wait_for_function(
            "wanted => told.some((event) => Object.keys(wanted)"
            ".every((key) => event[key] === wanted[key]))",
            arg=wanted,
        )

    def request(self, kind: str, data: Any = None, **options: Any) -> Any:
        return self.page.evaluate(
            "([type, data, options]) => outcome(client.request(type, data, options))",
            [kind, data, options],
        )


OpenTab = Callable[..., Tab]


@pytest.fixture
def tab(browser: Any) -> Iterator[OpenTab]:
    """Open tabs; whatever a page raises fails the test."""
    errors: list[str] = []
    pages: list[Any] = []

    def open_tab(port: int | None, page: Any = None) -> Tab:
        made = page or browser.new_page()
        made.set_default_timeout(8000)
        pages.append(made)
        made.on("pageerror", lambda error: errors.append(str(error)))
        return Tab(made, f"http://127.0.0.1:{port}/")

    yield open_tab
    for page in pages:
        page.close()
    assert errors == []


@pytest.fixture
def serve_page(make_app: MakeApp) -> MakeApp:
    """Make apps that serve the page and echo."""

    def make(**options: Any) -> Daebus:
        app = make_app(**options)
        app.route("/")(lambda req: PAGE)
        app.route("/other")(lambda req: "<title>other</title>")
        app.socket("echo")(lambda req: req.data)
        return app

    return make


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture
def start_child(child: Callable[..., Child]) -> Callable[[int], Child]:
    """Start a server in a process of its own, on that port."""

    def start(port: int) -> Child:
        started = child(CHILD.format(port=port, page=PAGE), preamble="")
        assert started.line() == "up"
        return started

    return start


# --- as it should be ------------------------------------------------------------------


def test_a_page_and_its_server_talk(serve_page: MakeApp, tab: OpenTab) -> None:
    app = serve_page()
    left: queue.Queue[str] = queue.Queue()
    stopped: queue.Queue[bool] = queue.Queue()

    @app.socket("count")
    def count(req: Any) -> Any:
        for number in range(req.data["to"]):
            req.progress(number)
            yield number

    @app.socket("fail")
    def fail(req: Any) -> Any:
        raise ClientError("not today", code="closed")

    @app.socket("wait")
    def wait(req: Any) -> Any:
        stopped.put(req.cancelled.wait(20))

    app.websocket.on_disconnect(left.put)
    app.start()
    page = tab(app.http.port).begin()
    page.wait("open")
    assert page.request("echo", {"a": "ü🐋"}) == {"value": {"a": "ü🐋"}}
    refused = page.request("fail")
    assert (refused["name"], refused["code"], refused["message"]) == (
        "DaebusError",
        "closed",
        "not today",
    )
    items = page.page.evaluate(
        """async () => {
            const items = [], progress = [];
            const onItem = (item) => items.push(item);
            const onProgress = ({ done }) => progress.push(done);
            items.push(await client.request("count", { to: 3 }, { onItem, onProgress }));
            await client.request("echo");
            return [items.sort(), progress];
        }"""
    )
    assert items == [[0, 1, 2], [0, 1, 2]]
    aborted = page.page.evaluate(
        """async () => {
            const abort = new AbortController();
            const waiting = outcome(client.request("wait", null, { signal: abort.signal }));
            await client.send("echo");
            abort.abort();
            return await waiting;
        }"""
    )
    assert aborted["name"] == "AbortError"
    assert stopped.get(timeout=5) is True
    (client_id,) = app.websocket.get_clients()
    page.page.evaluate(
        """() => {
            window.news = [];
            client.on("news", (data) => news.push(data));
            client.handle("confirm", async (question) => question.length);
        }"""
    )
    app.websocket.broadcast_to_all({"storm": True}, message_type="news")
    page.page.wait_for_function("() => news.length")
    assert page.page.evaluate("news") == [{"storm": True}]
    assert app.websocket.call(client_id, "confirm", "sure?", timeout=5) == 5
    page.page.evaluate("client.close()")
    assert left.get(timeout=5) == client_id
    assert page.page.evaluate("client.status") == "closed"


def test_it_sends_a_token_and_a_new_one_when_that_has_expired(
    serve_page: MakeApp, tab: OpenTab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    app = serve_page()
    seen: list[str | None] = []

    @app.websocket.authenticate
    def authenticate(req: UpgradeRequest) -> Any:
        seen.append(req.token)
        if req.token == "t-zwei-✓":
            return {"name": "Ada", "expires_at": time.time() + 0.5}
        return "Bob" if req.token == "t-drei" else None

    app.socket("who")(lambda req: [str(req.identity), req.websocket.subprotocol])
    app.start()
    page = tab(app.http.port)
    begin = """tokens => begin({ token: async () => tokens.shift() })"""
    page.page.evaluate(begin, ["t-zwei-✓", "t-drei"])
    page.page.wait_for_function("() => told.filter(({ status }) => status === 'open').length === 2")
    assert page.request("who") == {"value": ["Bob", "daebus"]}
    assert seen == ["t-zwei-✓", "t-drei"]
    seen.clear()
    page.page.evaluate(f"client.close(); ({begin})(['t-eins', 't-drei'])")
    page.wait("open")
    assert seen == ["t-eins", "t-eins", "t-drei"]  # the second time by the check
    encoded = base64.urlsafe_b64encode("t-zwei-✓".encode()).decode().rstrip("=")
    assert not re.search(f"t-eins|t-zwei|t-drei|{encoded}", caplog.text)


# --- a server that is in trouble ------------------------------------------------------


def test_a_frozen_server_is_seen_and_comes_back(
    start_child: Callable[[int], Child], tab: OpenTab
) -> None:
    port = free_port()
    server = start_child(port)
    page = tab(port).begin(timeout=500)
    page.wait("open")
    page.page.evaluate("window.cut = outcome(client.request('never', null, { timeout: 60000 })), 0")
    server.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        page.saw("waiting", code=4900)
        assert time.monotonic() - began < 5
        cut = page.page.evaluate("cut")
        assert (cut["code"], cut["sent"]) == ("disconnected", True)
        assert page.page.evaluate("client.send('echo')") is False
        page.saw("waiting", code=1006)  # and attempts that hang are given up
    finally:
        server.send_signal(signal.SIGCONT)
    page.wait("open")
    assert page.request("echo", 7) == {"value": 7}


def test_a_server_that_is_killed_is_there_again_after_its_restart(
    start_child: Callable[[int], Child], tab: OpenTab
) -> None:
    port = free_port()
    server = start_child(port)
    one, two = tab(port).begin(), tab(port).begin()
    for page in (one, two):
        page.wait("open")
    server.send_signal(signal.SIGKILL)
    for page in (one, two):
        page.saw("waiting", code=1006)
    waiting = "window.waits = outcome(client.request('echo', 9, { timeout: 30000 })), 0"
    one.page.evaluate(waiting)
    start_child(port)
    for page in (one, two):
        page.wait("open")
    assert one.page.evaluate("waits") == {"value": 9}
    two.page.close()
    assert one.request("echo", 1) == {"value": 1}


def test_a_connection_that_is_half_open_is_replaced(serve_page: MakeApp, tab: OpenTab) -> None:
    app = serve_page()
    app.start()
    with Relay(app.http.port) as relay:
        page = tab(relay.port).begin()
        page.wait("open")
        relay.stop_forwarding()
        page.saw("waiting", code=4900)
        page.wait("open")
        assert page.request("echo", 1) == {"value": 1}


def test_an_app_that_stops_is_left_and_found_again(serve_page: MakeApp, tab: OpenTab) -> None:
    app = serve_page()
    app.start()
    port = app.http.port
    page = tab(port).begin()
    page.wait("open")
    app.stop()
    page.saw("waiting", code=1001)
    again = Daebus("again")
    again.attach(DaebusHttp(port=port))
    again.attach(DaebusWebSocket())
    with again:
        page.wait("open")


# --- refusals -------------------------------------------------------------------------


def test_401_is_final(serve_page: MakeApp, tab: OpenTab) -> None:
    app = serve_page()
    app.websocket.authenticate(lambda req: None)
    app.start()
    told = tab(app.http.port).begin().wait("refused")
    assert (told["code"], told["reason"]) == (401, "unauthorized")
    assert app.websocket.stats()["refused"] == {"unauthorized": 1}  # a check is no attempt


def test_403_is_final(serve_page: MakeApp, tab: OpenTab) -> None:
    app = serve_page(own_origin=False)
    app.start()
    told = tab(app.http.port).begin().wait("refused")
    assert (told["code"], told["reason"]) == (403, "origin_not_allowed")
    assert "origins" in told["text"]


def test_421_is_final(serve_page: MakeApp, tab: OpenTab) -> None:
    app = serve_page()
    app.start()
    with Relay(app.http.port) as relay:
        page = tab(relay.port)
        relay.host = b"evil.example"
        told = page.begin().wait("refused")
        assert (told["code"], told["reason"]) == (421, "misdirected_host")


@pytest.mark.parametrize(
    ("limits", "code", "reason"),
    [
        ({"max_clients_per_ip": 1}, 429, "too_many_from_address"),
        ({"max_clients": 1}, 503, "too_many_clients"),
    ],
)
def test_429_and_503_are_tried_again(
    serve_page: MakeApp, tab: OpenTab, limits: Any, code: int, reason: str
) -> None:
    app = serve_page(**limits)
    app.start()
    first, second = tab(app.http.port).begin(), tab(app.http.port)
    first.wait("open")
    second.begin()
    told = second.wait("waiting")
    assert (told["code"], told["reason"]) == (code, reason)
    assert told["retryIn"] >= 1000  # what Retry-After says, and not the back-off
    first.page.evaluate("client.close()")
    second.wait("open")


def test_a_page_of_another_place_learns_why_too(serve_page: MakeApp, tab: OpenTab) -> None:
    home, app = serve_page(), serve_page(origins="*")
    app.websocket.authenticate(lambda req: "Ada" if req.token == "t" else None)
    for one in (home, app):
        one.start()
    url = f"http://127.0.0.1:{app.http.port}/live?room=4"
    page = tab(home.http.port)
    told = page.begin(url, token="wrong").wait("refused")
    assert (told["code"], told["reason"]) == (401, "unauthorized")
    page.begin(url, token="t").wait("open")


# --- the page -------------------------------------------------------------------------

HIDE = """state => {
    Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_page_asks_nothing_and_looks_at_once_when_it_is_shown(
    serve_page: MakeApp, tab: OpenTab
) -> None:
    app = serve_page()
    app.start()
    with Relay(app.http.port) as relay:
        page = tab(relay.port).begin()
        page.wait("open")
        page.page.evaluate(HIDE, "hidden")
        relay.stop_forwarding()
        page.page.wait_for_timeout(1500)  # more than heartbeat and timeout
        assert page.page.evaluate("client.status") == "open"
        page.page.evaluate(HIDE, "visible")
        page.saw("waiting", code=4900)
        page.wait("open")
        page.page.evaluate(HIDE, "hidden")
        app.stop()
        page.saw("paused", code=1001)
        app.start()
        page.page.wait_for_timeout(500)
        assert page.page.evaluate("client.status") == "paused"


def test_a_page_that_was_frozen_finds_its_way_back(serve_page: MakeApp, tab: OpenTab) -> None:
    app = serve_page()
    app.start()
    with Relay(app.http.port) as relay:
        page = tab(relay.port).begin()
        page.wait("open")
        devtools = page.page.context.new_cdp_session(page.page)
        devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
        relay.stop_forwarding()
        time.sleep(1.5)  # in which the page has no time
        devtools.send("Page.setWebLifecycleState", {"state": "active"})
        page.saw("waiting", code=4900)
        page.wait("open")


def test_off_line_is_looked_into_and_on_line_connects_at_once(
    serve_page: MakeApp, tab: OpenTab
) -> None:
    app = serve_page()
    app.start()
    with Relay(app.http.port) as relay:
        page = tab(relay.port).begin(heartbeat=60_000, minDelay=600_000, maxDelay=600_000)
        page.wait("open")
        relay.stop_forwarding()
        page.page.context.set_offline(True)
        page.wait("waiting")  # long before the heartbeat
        page.page.evaluate("told.length = 0")
        page.page.context.set_offline(False)
        page.wait("open")  # long before the end of the pause
        assert page.page.evaluate("told.map(({ status }) => status)") == ["connecting", "open"]


def test_a_page_is_kept_for_the_way_back_and_returns(serve_page: MakeApp, browser: Any) -> None:
    app = serve_page()
    app.start()
    own = browser.browser_type.launch(
        executable_path="/usr/bin/chromium",
        args=["--no-sandbox", "--disable-gpu"],
        ignore_default_args=["--disable-back-forward-cache"],
    )
    try:
        page = Tab(own.new_page(), f"http://127.0.0.1:{app.http.port}/").begin()
        page.wait("open")
        page.page.goto(f"http://127.0.0.1:{app.http.port}/other")
        page.page.go_back(wait_until="commit")
        page.wait("open")
        assert page.page.evaluate("shown") == [False, True]  # it is the same page
        told = page.page.evaluate("told.map(({ status }) => status)")
        assert told == ["open", "paused", "connecting", "open"]
        assert page.request("echo", 1) == {"value": 1}
    finally:
        own.close()


# --- topics ---------------------------------------------------------------------------


def test_a_page_misses_nothing_while_its_path_is_broken(serve_page: MakeApp, tab: OpenTab) -> None:
    app = serve_page()
    websocket: Any = app.websocket
    log, boiler = websocket.topic("log"), websocket.state("boiler")
    app.start()
    boiler.update({"celsius": 20.0, "pump": True})
    with Relay(app.http.port) as relay:
        page = tab(relay.port).begin()
        page.page.evaluate(
            """() => {
                window.lines = [];
                window.gaps = [];
                window.log = client.topic("log", {
                    onmessage: (data) => lines.push(data), ongap: (gap) => gaps.push(gap.reason),
                });
                window.boiler = client.state("boiler");
            }"""
        )
        page.page.wait_for_function("() => log.synced && boiler.synced")
        for number in range(3):
            log.publish(number)
        page.page.wait_for_function("() => lines.length === 3")
        relay.stop_forwarding()
        for number in range(3, 6):
            log.publish(number)
        boiler["celsius"] = 21.0
        del boiler["pump"]
        page.saw("waiting", code=4900)
        page.page.wait_for_function("() => log.synced && boiler.synced")
        log.publish(6)
        page.page.wait_for_function("() => lines.length === 7")
        assert page.page.evaluate("[lines, gaps, boiler.values]") == [
            list(range(7)),
            [],
            {"celsius": 21.0},
        ]
        log.clear()
        page.page.wait_for_function("() => gaps.length")
        assert page.page.evaluate("gaps") == ["epoch"]
