"""From an HTTP request to a WebSocket, or to a refusal that says why."""

from __future__ import annotations

import gc
import queue
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from daebus import Connection, Daebus, DaebusHttp, DaebusWebSocket
from daebus.http.protocol.heads import Head
from daebus.server.conn import Conn
from daebus.server.handoff import Upgrade
from tests.support.fixture_types import Connect, MakeApp
from tests.support.peer import (
    PING,
    PONG,
    TEXT,
    Answer,
    Peer,
    accept_key,
    envelope,
    frame,
    upgrade_request,
)
from tests.support.waiting import eventually


def ask(sock: socket.socket, request: bytes) -> Answer:
    """Send a request that is refused: the answer is JSON and the last on its connection."""
    peer = Peer(sock)
    answer = peer.ask(request)
    assert set(answer.json) == {"error", "code"}
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert peer.ended()
    return answer


# --- accepted -----------------------------------------------------------------------


def test_the_answer_is_that_of_the_rfc(app: Daebus, connect: Connect) -> None:
    app.start()
    answer = Peer(connect(app.http.port)).ask(upgrade_request())
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == accept_key()
    assert answer.headers["upgrade"].lower() == "websocket"
    assert answer.headers["connection"].lower() == "upgrade"
    assert "sec-websocket-extensions" not in answer.headers
    assert "sec-websocket-protocol" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "UPGRADE"},
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
        {"Sec-WebSocket-Protocol": "chat, superchat"},
        {"X-Long": "x" * 4000},
    ],
    ids=lambda headers: "".join(headers),
)
def test_what_browsers_vary_is_accepted(
    app: Daebus, connect: Connect, headers: dict[str, str | None]
) -> None:
    app.start()
    peer = Peer(connect(app.http.port))
    assert peer.ask(upgrade_request(headers=headers)).status == 101
    peer.say("echo", 1)
    assert peer.message()["data"] == 1


def test_frames_behind_the_request_in_one_segment_are_not_lost(
    app: Daebus, connect: Connect
) -> None:
    app.start()
    behind = envelope("echo", "one") + frame(PING, b"are you there") + envelope("echo", "two")
    peer = Peer.joined(connect(app.http.port), behind=behind)
    frames = [peer.frame() for _ in range(3)]
    assert (PONG, b"are you there") in frames
    texts = [payload.decode() for opcode, payload in frames if opcode == TEXT]
    assert texts == [f'{{"type":"response","data":"{word}"}}' for word in ("one", "two")]


def test_half_a_frame_behind_the_request_is_completed_later(app: Daebus, connect: Connect) -> None:
    app.start()
    whole = envelope("echo", "x" * 1000)
    peer = Peer.joined(connect(app.http.port), behind=whole[:500])
    peer.sock.sendall(whole[500:])
    assert peer.message()["data"] == "x" * 1000


@pytest.mark.parametrize("offset", [0, 1, 2], ids=["before", "within", "behind"])
def test_a_request_cut_at_the_line_ends_is_accepted(
    app: Daebus, connect: Connect, offset: int
) -> None:
    app.route("/page")(lambda req: "a page")
    app.start()
    sock, other = connect(app.http.port), Peer(connect(app.http.port))
    request = upgrade_request()
    start = 0
    for line_end in re.finditer(b"\r\n(?!\r\n|$)", request):
        cut = line_end.start() + offset
        sock.sendall(request[start:cut])
        start = cut
        # Once this one is answered, the piece has been looked at.
        assert other.ask(b"GET /page HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").status == 200
    assert Peer(sock).ask(request[start:]).status == 101


def test_a_connection_that_served_http_before_can_be_upgraded(
    app: Daebus, connect: Connect
) -> None:
    app.route("/page")(lambda req: "a page")
    app.start()
    peer = Peer(connect(app.http.port))
    answer = peer.ask(b"GET /page HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"a page")
    assert peer.ask(upgrade_request() + envelope("echo", "same socket")).status == 101
    assert peer.message()["data"] == "same socket"


# --- refused ------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["8", "0", "14", "+13", "013", "13, 8", "x"])
def test_another_version_is_told_ours(app: Daebus, connect: Connect, version: str) -> None:
    app.start()
    answer = ask(
        connect(app.http.port), upgrade_request(headers={"Sec-WebSocket-Version": version})
    )
    assert answer.status == 426
    assert answer.headers["sec-websocket-version"] == "13"
    assert answer.json["code"] == "unsupported_version"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": "not base64 at all!!!!!!=="},
        {"Sec-WebSocket-Version": None},
        {"Connection": None},
        {"Connection": "keep-alive"},
        {"Content-Length": "5"},
        {"Sec-WebSocket-Protocol": '"'},
        {"Host": None},
    ],
    ids=repr,
)
def test_a_broken_handshake_is_a_bad_request(
    app: Daebus, connect: Connect, headers: dict[str, str | None]
) -> None:
    app.start()
    assert ask(connect(app.http.port), upgrade_request(headers=headers)).status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS", "BREW"])
def test_only_get_upgrades(app: Daebus, connect: Connect, method: str) -> None:
    app.start()
    answer = Peer(connect(app.http.port)).ask(
        upgrade_request(headers={"Content-Length": "0"}, method=method)
    )
    assert answer.status == 405
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        (None, "127.0.0.1", 101),
        ("http://127.0.0.1", "127.0.0.1", 101),
        ("http://app.example:8080", "app.example:8080", 101),
        ("https://app.example", "app.example", 101),
        ("HTTP://APP.example", "app.EXAMPLE", 101),
        ("http://app.example:80", "app.example", 101),
        ("http://[::1]:8080", "[::1]:8080", 101),
        ("http://elsewhere.example", "app.example", 403),
        ("http://app.example:8081", "app.example:8080", 403),
        ("http://app.example.elsewhere.example", "app.example", 403),
        ("http://elsewhere.example/app.example", "app.example", 403),
        ("http://app.example@elsewhere.example", "app.example", 403),
        ("null", "app.example", 403),
        ("", "app.example", 403),
        ("app.example", "app.example", 403),
        ("file://", "app.example", 403),
        ("http://app.example:x", "app.example", 403),
    ],
)
def test_by_default_pages_of_this_host_and_programs_may_connect(
    make_app: MakeApp,
    connect: Connect,
    origin: str | None,
    host: str,
    status: int,
) -> None:
    app = make_app(http={"allowed_hosts": ["app.example"]})
    app.start()
    answer = Peer(connect(app.http.port)).ask(
        upgrade_request(headers={"Origin": origin, "Host": host})
    )
    assert answer.status == status
    if status == 403:
        assert answer.json["code"] == "origin_not_allowed"


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        ("*", "http://elsewhere.example", 101),
        ("*", "null", 101),
        (["https://one.example", "https://two.example"], "https://two.example", 101),
        (["https://one.example"], "https://ONE.example", 101),
        (["https://one.example/"], "https://one.example", 101),
        (["https://one.example"], None, 101),
        (["https://one.example"], "https://two.example", 403),
        (["https://one.example"], "http://one.example", 403),
        (["https://one.example"], "https://one.example.two.example", 403),
        (["https://*.example"], "https://one.example", 101),
        (["https://one.example"], "http://elsewhere", 403),
        (["https://one.example"], "http://127.0.0.1", 101),
        ([], "http://127.0.0.1", 101),
    ],
)
def test_origins_opens_the_door_to_other_pages(
    make_app: MakeApp,
    connect: Connect,
    origins: list[str] | str,
    origin: str | None,
    status: int,
) -> None:
    app = make_app(origins=origins)
    app.start()
    answer = Peer(connect(app.http.port)).ask(upgrade_request(headers={"Origin": origin}))
    assert answer.status == status


def test_own_pages_can_be_kept_out(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(origins=["https://one.example"], own_origin=False)
    app.start()
    for origin, status in (("http://127.0.0.1", 403), ("https://one.example", 101), (None, 101)):
        answer = Peer(connect(app.http.port)).ask(upgrade_request(headers={"Origin": origin}))
        assert answer.status == status


def test_a_refused_page_is_logged_with_what_to_type(
    app: Daebus, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    app.start()
    ask(connect(app.http.port), upgrade_request(headers={"Origin": "https://one.example"}))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "refused a WebSocket of a page from 'https://one.example' to the host '127.0.0.1'; "
        "if that page is yours, write DaebusWebSocket(origins=['https://one.example'])"
    ]


def test_a_plain_string_of_origins_is_refused_with_what_to_type() -> None:
    with pytest.raises(ValueError, match=r"origins=\['https://one\.example'\]"):
        DaebusWebSocket(origins="https://one.example")


# --- how many -----------------------------------------------------------------------


def test_above_max_clients_the_answer_is_503_until_one_leaves(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app(max_clients=2)
    left = threading.Event()
    app.websocket.on_disconnect(lambda client_id: left.set())
    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(2)]
    answer = ask(connect(app.http.port), upgrade_request())
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json["code"] == "too_many_clients"
    peers[0].close()
    assert left.wait(5)
    Peer.joined(connect(app.http.port))


def test_a_burst_cannot_pass_max_clients(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_clients=5)
    app.start()
    socks = [connect(app.http.port) for _ in range(20)]
    together = threading.Barrier(len(socks))

    def rush(sock: socket.socket) -> int:
        together.wait(5)
        return Peer(sock).ask(upgrade_request()).status

    with ThreadPoolExecutor(len(socks)) as pool:
        statuses = list(pool.map(rush, socks))
    assert sorted(statuses) == [101] * 5 + [503] * 15


# --- paths, subprotocols, ports -----------------------------------------------------


def test_a_configured_path_is_the_only_one(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(path="/ws")
    app.socket("echo")(lambda req: req.data)
    app.start()
    peer = Peer.joined(connect(app.http.port), "/ws?token=1")
    peer.say("echo", 1)
    assert peer.message()["data"] == 1
    for path in ("/", "/ws/", "/other"):
        answer = ask(connect(app.http.port), upgrade_request(path))
        assert answer.status == 404
        assert answer.json["code"] == "not_found"


def test_a_path_without_a_slash_is_refused_with_what_to_type() -> None:
    with pytest.raises(ValueError, match="write path='/ws'"):
        DaebusWebSocket(path="ws")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [("v1, v2", "v2"), ("v1", "v1"), ("v3", None), (None, None), ("v3, v1", "v1")],
)
def test_the_preferred_subprotocol_is_chosen(
    make_app: MakeApp, connect: Connect, offered: str | None, chosen: str | None
) -> None:
    app = make_app(subprotocols=["v2", "v1"])
    seen = queue.Queue[str | None]()

    @app.websocket.raw("/")
    def raw(ws: Connection) -> None:
        seen.put(ws.subprotocol)

    app.start()
    headers = {"Sec-WebSocket-Protocol": offered}
    answer = Peer(connect(app.http.port)).ask(upgrade_request(headers=headers))
    assert answer.status == 101
    assert answer.headers.get("sec-websocket-protocol") == chosen
    assert seen.get(timeout=5) == chosen


def test_an_app_without_websockets_says_so(connect: Connect) -> None:
    app = Daebus("pages only")
    app.attach(DaebusHttp(port=0))
    with app:
        answer = ask(connect(app.http.port), upgrade_request())
    assert answer.status == 501
    assert answer.json["code"] == "not_implemented"


def test_another_port_opens_a_second_listener_for_websockets_alone(
    make_app: MakeApp, connect: Connect
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    app = make_app(port=free)
    app.socket("echo")(lambda req: req.data)
    app.route("/page")(lambda req: "a page")
    app.start()
    assert app.websocket.port == free != app.http.port

    peer = Peer.joined(connect(app.websocket.port))
    peer.say("echo", "second listener")
    assert peer.message()["data"] == "second listener"

    page = b"GET /page HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert Peer(connect(app.http.port)).ask(page).body == b"a page"
    assert ask(connect(app.websocket.port), page).status == 426
    answer = ask(connect(app.http.port), upgrade_request())
    assert answer.status == 404
    assert str(free) in answer.json["error"]

    peer.close()
    ports = (free, app.http.port)
    app.stop()
    for port in ports:
        with pytest.raises(OSError, match=r"refused"):
            connect(port)


def test_port_zero_takes_a_free_second_port(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(port=0)
    app.socket("echo")(lambda req: req.data)
    app.start()
    assert app.websocket.port not in (0, None, app.http.port)
    with app.test_client() as client:
        assert client.request("echo", 1) == 1


def test_the_port_of_http_is_no_second_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    app = Daebus("same port twice")
    app.attach(DaebusHttp(port=free))
    app.attach(DaebusWebSocket(port=free))
    app.socket("echo")(lambda req: req.data)
    app.route("/page")(lambda req: "a page")
    with app, app.test_client() as client:
        assert client.request("echo", 1) == 1
        assert app.websocket.port == app.http.port == free


def test_nothing_of_the_handshake_is_kept_while_the_connection_lives(
    make_app: MakeApp, connect: Connect
) -> None:
    def parts() -> list[object]:
        gc.collect()
        return [part for part in gc.get_objects() if isinstance(part, Conn | Head | Upgrade)]

    before = parts()  # of other tests, which may be kept for a report
    known = {id(part) for part in before}
    # Where the request came behind the connection, its deadline is forgotten when it is due.
    app = make_app(http={"head_timeout": 0.3})
    app.socket("echo")(lambda req: req.data)
    app.start()
    peer = Peer.joined(connect(app.http.port))
    peer.say("echo", 1)
    assert peer.message()["data"] == 1
    assert eventually(lambda: not [part for part in parts() if id(part) not in known])
    peer.close()
