"""What a trusted proxy says counts, what anybody else says does not."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daebus import Daebus, DaebusHttp, Request, WebSocketRequest
from daebus.http.protocol.forwarded import MAX_HOPS, Seen, TrustedProxies
from tests.support.fixture_types import Connect, MakeApp, OpenRaw, Serve
from tests.support.peer import Answer, Peer, upgrade_request

PROXIES = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48", "unix"])

FOR, PROTO, HOST, PORT = (f"x-forwarded-{name}" for name in ("for", "proto", "host", "port"))
CLIENT = "203.0.113.9"

Fields = list[tuple[str, str]]


def look(
    *fields: tuple[str, str], peer: str = "127.0.0.1", host: str = "inner:8080"
) -> Seen | None:
    return PROXIES.look(peer, [("host", host), *fields])


@pytest.mark.parametrize("peer", ["192.0.2.1", "11.0.0.1", "127.0.0.2", "::1", "fe80::1%eth0"])
def test_a_stranger_is_not_believed(peer: str) -> None:
    assert look((FOR, CLIENT), (PROTO, "https"), ("forwarded", "for=1.2.3.4"), peer=peer) is None


def test_the_peer_of_a_socket_file_must_be_trusted_too() -> None:
    assert look((FOR, CLIENT), peer="") == Seen(CLIENT)
    assert TrustedProxies(["0.0.0.0/0"]).look("", [(FOR, CLIENT)]) is None


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.255.0.1", "2001:db8:1::7", ""])
def test_a_proxy_that_says_nothing(peer: str) -> None:
    assert look(peer=peer) is None


@pytest.mark.parametrize(
    ("value", "remote"),
    [
        (CLIENT, CLIENT),
        (f" {CLIENT}\t", CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        ("2001:db8::9", "2001:db8::9"),
        ("2001:DB8:0::9", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("[2001:db8::9]:4711", "2001:db8::9"),
        ("::ffff:203.0.113.9", CLIENT),
        # From the right, past what is trusted; what stands left of the first stranger is hearsay.
        (f"{CLIENT}, 10.0.0.1", CLIENT),
        (f"{CLIENT},10.0.0.1,10.0.0.2", CLIENT),
        (f"{CLIENT}, 2001:db8:1::1", CLIENT),
        (f"{CLIENT}, ::ffff:10.0.0.1", CLIENT),
        (f"1.1.1.1, {CLIENT}", CLIENT),
        (f"127.0.0.1, {CLIENT}", CLIENT),
        (f"1.1.1.1, {CLIENT}, 10.0.0.1", CLIENT),
        (f"junk, {CLIENT}", CLIENT),
        (f'for="junk, {CLIENT}', CLIENT),
        (f"{CLIENT}, , ,", CLIENT),
        # All of them trusted: the first one asked.
        ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
        # What cannot be read ends the list at the last that could.
        (f"{CLIENT}, junk", "127.0.0.1"),
        (f"{CLIENT}, unknown, 10.0.0.1", "10.0.0.1"),
        (f"{CLIENT}, 10.0.0.256, 10.0.0.1", "10.0.0.1"),
        (f"{CLIENT}, 010.0.0.1", "127.0.0.1"),
        (f"{CLIENT}, 10.0.0.1:port", "127.0.0.1"),
        (f"{CLIENT}, [10.0.0.1", "127.0.0.1"),
        (f"{CLIENT}, fe80::1%eth0", "127.0.0.1"),
        (f"{CLIENT}, <script>", "127.0.0.1"),
        ("", "127.0.0.1"),
        (",", "127.0.0.1"),
        (", ".join([CLIENT] + ["10.0.0.1"] * (MAX_HOPS - 1)), CLIENT),
        (", ".join([CLIENT] + ["10.0.0.1"] * MAX_HOPS), "10.0.0.1"),
    ],
)
def test_x_forwarded_for(value: str, remote: str) -> None:
    assert look((FOR, value)) == Seen(remote)


def test_several_lines_are_one_list() -> None:
    assert look((FOR, f"1.1.1.1, {CLIENT}"), (FOR, "10.0.0.1")) == Seen(CLIENT)


@pytest.mark.parametrize(
    ("fields", "scheme", "host"),
    [
        ([(PROTO, "https")], "https", None),
        ([(PROTO, "HTTP")], "http", None),
        ([(PROTO, "wss")], "https", None),
        ([(PROTO, "ws")], "http", None),
        ([(PROTO, "http, https")], "https", None),
        ([(PROTO, "https"), (PROTO, "http")], "http", None),
        ([(PROTO, "gopher")], None, None),
        ([(PROTO, "https,")], None, None),
        ([(HOST, "example.com")], None, "example.com"),
        ([(HOST, "example.com:8443")], None, "example.com:8443"),
        ([(HOST, "[2001:db8::1]:8443")], None, "[2001:db8::1]:8443"),
        ([(HOST, "evil.example, example.com")], None, "example.com"),
        ([(HOST, "example.com"), (PORT, "8443")], None, "example.com:8443"),
        ([(HOST, "[::1]"), (PORT, "8443")], None, "[::1]:8443"),
        ([(HOST, "example.com"), (PORT, "443"), (PROTO, "https")], "https", "example.com"),
        ([(HOST, "example.com"), (PORT, "80"), (PROTO, "http")], "http", "example.com"),
        ([(HOST, "example.com"), (PORT, "80"), (PROTO, "https")], "https", "example.com:80"),
        ([(HOST, "example.com:1"), (PORT, "2")], None, "example.com:1"),
        ([(HOST, "example.com"), (PORT, "0")], None, "example.com"),
        ([(HOST, "example.com"), (PORT, "65536")], None, "example.com"),
        ([(HOST, "example.com"), (PORT, "+1")], None, "example.com"),
        ([(HOST, "example.com:0")], None, None),
        ([(HOST, "example.com:65536")], None, None),
        ([(HOST, "[1:::2]")], None, None),
        ([(HOST, "xn--a")], None, None),
        ([(HOST, "")], None, None),
        ([(HOST, "a/b")], None, None),
        ([(HOST, "a b")], None, None),
        ([(HOST, "user@example.com")], None, None),
        ([(HOST, "a..b")], None, None),
        ([(HOST, "x" * 64)], None, None),
        ([(HOST, "x." * 200)], None, None),
        ([(HOST, "<script>")], None, None),
        ([(PORT, "8443")], None, "inner:8080"),  # the Host header has one
    ],
)
def test_scheme_and_host(fields: Fields, scheme: str | None, host: str | None) -> None:
    assert look(*fields) == Seen("127.0.0.1", scheme, host)


def test_a_port_for_the_host_header() -> None:
    assert look((PORT, "8443"), host="example.com") == Seen("127.0.0.1", None, "example.com:8443")
    seen = PROXIES.look("127.0.0.1", [("host", "other"), (PORT, "1")], "example.com")
    assert seen == Seen("127.0.0.1", None, "example.com:1")


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("for=203.0.113.9", Seen(CLIENT)),
        ('For="203.0.113.9:4711"', Seen(CLIENT)),
        ('for="[2001:db8::9]:4711"', Seen("2001:db8::9")),
        ('for="[2001:db8::9]:_port"', Seen("2001:db8::9")),
        ('for="203\\.0.113.9"', Seen(CLIENT)),
        (
            "by=10.0.0.1;for=203.0.113.9;PROTO=https;host=example.com",
            Seen(CLIENT, "https", "example.com"),
        ),
        ('for=203.0.113.9 ; host="example.com:8443"', Seen(CLIENT, None, "example.com:8443")),
        ("for=1.1.1.1, for=203.0.113.9", Seen(CLIENT)),
        # The words of the proxy that the client reached.
        (
            "for=203.0.113.9;proto=https;host=example.com, for=10.0.0.1;proto=http;host=inner",
            Seen(CLIENT, "https", "example.com"),
        ),
        ("for=203.0.113.9, for=10.0.0.1;proto=https;host=a", Seen(CLIENT, "https", "a")),
        ("for=1.1.1.1;proto=http;host=evil, for=203.0.113.9;proto=https", Seen(CLIENT, "https")),
        # A client that hides, or is hidden.
        ("for=_hidden;proto=https;host=a", Seen("127.0.0.1", "https", "a")),
        ("for=203.0.113.9, for=unknown, for=10.0.0.1", Seen("10.0.0.1")),
        ("proto=https", Seen("127.0.0.1", "https")),
        # What a client sends cannot change how the proxy's own element is read.
        ('for="1.1.1.1, for=203.0.113.9', Seen(CLIENT)),
        ('"\\, for=203.0.113.9', Seen(CLIENT)),
        (';;=,"", for=203.0.113.9', Seen(CLIENT)),
        ('for="10.0.0.1", x="a, for=203.0.113.9;y="b', Seen("127.0.0.1")),
        # Commas and semicolons in quotes are text.
        ('for=203.0.113.9;x="a, for=1.1.1.1;b"', Seen(CLIENT)),
        ("for=203.0.113.9, ,", Seen(CLIENT)),
        ("for=1.1.1.1;for=203.0.113.9", Seen("127.0.0.1")),
        ("for=203.0.113.9;", Seen("127.0.0.1")),
        ("203.0.113.9", Seen("127.0.0.1")),
        ("for=2001:db8::9", Seen("127.0.0.1")),  # needs quotes and brackets
        ("for =203.0.113.9", Seen("127.0.0.1")),
        ('proto=gopher;host="a/b";for=203.0.113.9', Seen(CLIENT)),
        ("host=a/b;for=203.0.113.9", Seen("127.0.0.1")),
        ("", Seen("127.0.0.1")),
        (", ".join(["for=203.0.113.9"] + ["for=10.0.0.1"] * (MAX_HOPS - 1)), Seen(CLIENT)),
        (", ".join(["for=203.0.113.9"] + ["for=10.0.0.1"] * MAX_HOPS), Seen("10.0.0.1")),
    ],
)
def test_forwarded(value: str, seen: Seen) -> None:
    assert look(("forwarded", value)) == seen


def test_forwarded_counts_where_there_is_no_x_forwarded_for() -> None:
    assert look(("forwarded", "for=1.1.1.1;host=a"), (FOR, CLIENT)) == Seen(CLIENT)
    assert look(("forwarded", f"for={CLIENT};proto=https"), (PROTO, "http"), (HOST, "x")) == Seen(
        CLIENT, "https"
    )


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ("127.0.0.1", r"write trusted_proxies=\['127.0.0.1'\]"),
        (["localhost"], "not 'localhost'"),
        (["*"], r"not '\*'"),
        (["10.0.0.1/8"], "has host bits set"),
        ([None], r"not \[None\]"),
    ],
)
def test_proxies_that_are_none(entries: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        DaebusHttp(trusted_proxies=entries)


# --- properties ---------------------------------------------------------------------

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))
PIECES = st.lists(
    st.sampled_from(
        [*'for="\\;,=[]: ', "for=", "10.0.0.1", "203.0.113.9", "proto=https", "host=a", "::1", "_x"]
    )
).map("".join)
ADDRESSES = st.ip_addresses()


@given(st.lists(st.tuples(st.sampled_from([FOR, PROTO, HOST, PORT, "forwarded"]), TEXT | PIECES)))
def test_nothing_breaks_it(fields: Fields) -> None:
    seen = look(*fields)
    assert (seen is None) == (not fields)
    assert look(*fields, peer="192.0.2.1") is None
    if seen is not None:
        ip_address(seen.remote_address)
        assert seen.scheme in (None, "http", "https")
        assert seen.host is None or seen.host.isascii()


@given(TEXT | PIECES, ADDRESSES.filter(lambda a: not PROXIES._includes(a)))
def test_a_client_cannot_choose_its_address(lie: str, client: Any) -> None:
    real = str(getattr(client, "ipv4_mapped", None) or client)
    if PROXIES._includes(ip_address(real)):
        return
    node = f'"[{client}]"' if client.version == 6 else str(client)
    assert look((FOR, f"{lie}, {client}")) == Seen(real)
    assert look(("forwarded", f"{lie}, for={node}")) == Seen(real)
    assert look((FOR, f"{lie}, {client}"), ("forwarded", lie)) == Seen(real)


# --- with a server around it --------------------------------------------------------


def answers(app: Daebus) -> None:
    @app.route("/me")
    def me(req: Request) -> dict[str, Any]:
        return {
            "remote": req.remote_addr,
            "port": req.environ.get("REMOTE_PORT"),
            "scheme": req.scheme,
            "host": req.host,
            "root": req.url_root,
            "header": req.headers.get("X-Forwarded-For"),
        }


SAYS = (f"X-Forwarded-For: {CLIENT}", "X-Forwarded-Proto: https", "X-Forwarded-Host: example.com")


def test_a_view_sees_the_client(serve: Serve, raw: OpenRaw) -> None:
    app = serve(trusted_proxies=["127.0.0.0/8"], allowed_hosts=["example.com"])
    answers(app)
    app.start()
    connection = raw(app)
    assert connection.get("/me", *SAYS).json == {
        "remote": CLIENT,
        "port": None,
        "scheme": "https",
        "host": "example.com",
        "root": "https://example.com/",
        "header": CLIENT,
    }
    # The next request of the connection is another client's.
    plain = connection.get("/me").json
    assert (plain["remote"], plain["root"]) == ("127.0.0.1", "http://x/")
    assert plain["port"] == str(connection.sock.getsockname()[1])


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8", "unix")])
def test_a_view_does_not_believe_a_stranger(
    serve: Serve, raw: OpenRaw, trusted: tuple[str, ...]
) -> None:
    app = serve(trusted_proxies=trusted)
    answers(app)
    app.start()
    seen = raw(app).get("/me", *SAYS).json
    assert (seen["remote"], seen["root"], seen["header"]) == ("127.0.0.1", "http://x/", CLIENT)


def test_a_proxy_on_a_socket_file(make_app: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    app = make_app(http={"unix": path, "trusted_proxies": ["unix"]})
    answers(app)
    app.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))
        head = "\r\n".join(["GET /me HTTP/1.1", "Host: x", *SAYS, "", ""])
        assert Peer(sock).ask(head.encode()).json["remote"] == CLIENT


def upgrade(app: Daebus, connect: Connect, **headers: str) -> Peer | Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    peer = Peer(connect(app.http.port))
    answer = peer.ask(upgrade_request("/", fields))
    return peer if answer.status == 101 else answer


def test_a_websocket_sees_the_client(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(http={"trusted_proxies": ["127.0.0.1"]})

    @app.socket("me")
    def me(req: WebSocketRequest) -> list[Any]:
        return [req.websocket.remote_address, req.websocket.secure]

    app.start()
    for value, seen in [
        (f"for={CLIENT}", [CLIENT, False]),
        (f"for={CLIENT};proto=https", [CLIENT, True]),
        ("nonsense", ["127.0.0.1", False]),
    ]:
        peer = upgrade(app, connect, Forwarded=value)
        assert isinstance(peer, Peer)
        peer.say("me")
        assert peer.message()["data"] == seen


@pytest.mark.parametrize(
    ("trusted", "origin", "enters"),
    [
        (["127.0.0.1"], "https://example.com", True),
        (["127.0.0.1"], "http://127.0.0.1", False),
        (["127.0.0.1"], "https://evil.example", False),
        ([], "https://example.com", False),
        ([], "http://127.0.0.1", True),
    ],
)
def test_the_origin_is_compared_with_the_host_that_the_proxy_names(
    make_app: MakeApp,
    connect: Connect,
    trusted: list[str],
    origin: str,
    enters: bool,
) -> None:
    app = make_app(http={"trusted_proxies": trusted, "allowed_hosts": ["example.com"]})
    app.start()
    result = upgrade(
        app, connect, Origin=origin, X_Forwarded_Host="example.com", X_Forwarded_Proto="https"
    )
    if enters:
        assert isinstance(result, Peer)
    else:
        assert isinstance(result, Answer)
        assert (result.status, result.json["code"]) == (403, "origin_not_allowed")


# --- the prefix ----------------------------------------------------------------------

PREFIX = "x-forwarded-prefix"


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        ("/app", "/app"),
        ("/app/", "/app"),
        (" /a/b%20c ", "/a/b%20c"),
        ("/evil, /app", "/app"),
        ("/", ""),
        ("", ""),
        ("app", ""),
        ("//evil.example", ""),
        ("/a//b", ""),
        ("/a/../b", ""),
        ("/a/%2e%2e/b", ""),
        ("/a%2fb", ""),
        ("/a?b", ""),
        ("/a b", ""),
        ("http://evil.example/a", ""),
    ],
)
def test_the_prefix_is_a_path(value: str, prefix: str) -> None:
    assert look((PREFIX, value)) == Seen("127.0.0.1", prefix=prefix)
    assert look((PREFIX, value), ("forwarded", f"for={CLIENT}")) == Seen(CLIENT, prefix=prefix)
    assert look((PREFIX, value), peer="192.0.2.1") is None


def test_links_and_redirects_begin_with_the_prefix(
    serve: Serve, raw: OpenRaw, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "index.html").write_text("sub")

    def mounted(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [environ["SCRIPT_NAME"].encode("latin-1")]

    app = serve(trusted_proxies=["127.0.0.1"], static=tmp_path)
    app.route("/folder/")(lambda req: req.root_path + req.path)
    app.mount("/old", mounted)
    app.start()
    client = raw(app)
    behind = "X-Forwarded-Prefix: /gr%C3%BCn"
    assert client.get("/folder/", behind).body.decode() == "/grün/folder/"
    assert client.get("/folder", behind).header("location") == "http://x/gr%C3%BCn/folder/"
    assert client.get("/folder").header("location") == "http://x/folder/"
    assert client.get("/sub", behind).header("location") == "/gr%C3%BCn/sub/"
    assert client.get("/old/x", behind).body.decode() == "/grün/old"
    stranger = serve()
    stranger.route("/")(lambda req: f"[{req.root_path}]")
    stranger.start()
    assert raw(stranger).get("/", behind).body == b"[]"
