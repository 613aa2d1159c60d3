"""The opening handshake, as values."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence

import pytest

from daebus.origins import Origins
from daebus.server.handoff import Refusal, Upgrade
from daebus.websocket.protocol.codec import TEXT, Codec
from daebus.websocket.protocol.handshake import Accepted, Pages, negotiate
from tests.support.peer import KEY, accept_key

HOST = "127.0.0.1:8080"
OWN = Pages(Origins((), "origins"))


def pages(origins: Sequence[str], *, own: bool = True) -> Pages:
    return Pages(Origins(origins, "origins"), own)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


class Asker:
    """Asks for an upgrade; what is None is left out."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def upgrade(
        self,
        changes: Mapping[str, str | None] | None = None,
        *,
        more: Sequence[tuple[str, str]] = (),
        method: str = "GET",
        http_version: str = "1.1",
    ) -> Upgrade:
        fields: dict[str, str | None] = {
            "host": HOST,
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-key": KEY,
            "sec-websocket-version": "13",
            **(changes or {}),
        }
        headers = tuple((name, value) for name, value in fields.items() if value is not None)
        return Upgrade(
            sock=self._sock,
            method=method,
            path="/",
            target="/?q=1",
            http_version=http_version,
            headers=headers + tuple(more),
            early=b"",
            remote_address="127.0.0.1",
            port=8080,
            request=lambda: None,
        )

    def accepted(
        self,
        changes: Mapping[str, str | None] | None = None,
        *,
        more: Sequence[tuple[str, str]] = (),
        origins: Sequence[str] = (),
        deflate: bool = False,
        subprotocols: Sequence[str] = (),
    ) -> Accepted:
        answer = negotiate(
            self.upgrade(changes, more=more),
            pages=pages(origins),
            deflate=deflate,
            subprotocols=subprotocols,
        )
        assert isinstance(answer, Accepted), answer
        return answer

    def refused(self, upgrade: Upgrade) -> Refusal:
        answer = negotiate(upgrade, pages=OWN, deflate=False)
        assert isinstance(answer, Refusal), answer
        return answer


@pytest.fixture
def ask(sock: socket.socket) -> Asker:
    return Asker(sock)


def headers(response: bytes) -> list[tuple[str, str]]:
    head, end, rest = response.partition(b"\r\n\r\n")
    assert (end, rest) == (b"\r\n\r\n", b"")
    first, *lines = head.decode("ascii").split("\r\n")
    assert first.startswith("HTTP/1.1 101 ")
    pairs = [line.split(": ", 1) for line in lines]
    return [(name.lower(), value) for name, value in pairs]


def test_the_response(ask: Asker) -> None:
    accepted = ask.accepted()
    found = headers(accepted.response)
    assert dict(found).items() >= {
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", accept_key()),
    }
    names = [name for name, _ in found]
    assert len(set(names)) == len(names)
    assert not {"sec-websocket-extensions", "sec-websocket-protocol"} & set(names)
    assert list(accepted.extensions) == []
    assert accepted.subprotocol is None


def test_the_key_of_the_rfc(ask: Asker) -> None:
    accepted = ask.accepted({"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert dict(headers(accepted.response))["sec-websocket-accept"] == (
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"upgrade": "WebSocket"},
        {"upgrade": "WEBSOCKET"},
        {"connection": "upgrade"},
        {"connection": "keep-alive, Upgrade"},
        {"connection": "keep-alive,UPGRADE"},
        {"user-agent": "x", "cookie": "a=b"},
    ],
)
def test_spellings_that_are_fine(ask: Asker, changes: dict[str, str]) -> None:
    ask.accepted(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"upgrade": None},
        {"upgrade": "h2c"},
        {"upgrade": "websocket, h2c"},
        {"connection": None},
        {"connection": "keep-alive"},
        {"connection": "Upgraded"},
        {"sec-websocket-key": None},
        {"sec-websocket-key": ""},
        {"sec-websocket-key": "short"},
        {"sec-websocket-key": "AAAA"},
        {"sec-websocket-key": "A" * 44},
        {"sec-websocket-key": "*" * 24},
        {"sec-websocket-version": None},
    ],
)
def test_no_handshake(ask: Asker, changes: dict[str, str | None]) -> None:
    refusal = ask.refused(ask.upgrade(changes))
    assert (refusal.status, refusal.code) == (400, "bad_handshake")
    assert refusal.text.startswith("this is not a WebSocket handshake: ")
    assert refusal.text.isprintable()
    assert len(refusal.text) < 300


@pytest.mark.parametrize(
    ("name", "value"),
    [("sec-websocket-key", KEY), ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")],
)
def test_a_second_key(ask: Asker, name: str, value: str) -> None:
    refusal = ask.refused(ask.upgrade(more=[(name, value)]))
    assert (refusal.status, refusal.code) == (400, "bad_handshake")


@pytest.mark.parametrize("version", ["8", "7", "0", "12", "14", "013", "1_3", "+13", "13, 8", ""])
def test_other_versions(ask: Asker, version: str) -> None:
    refusal = ask.refused(ask.upgrade({"sec-websocket-version": version}))
    assert (refusal.status, refusal.code) == (426, "unsupported_version")
    assert ("Sec-WebSocket-Version", "13") in refusal.headers


def test_two_versions(ask: Asker) -> None:
    refusal = ask.refused(ask.upgrade(more=[("sec-websocket-version", "13")]))
    assert refusal.status == 426


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "get", "CONNECT"])
def test_other_methods(ask: Asker, method: str) -> None:
    refusal = ask.refused(ask.upgrade(method=method))
    assert (refusal.status, refusal.code) == (405, "method_not_allowed")
    assert ("Allow", "GET") in refusal.headers


def test_what_the_client_sent_does_not_come_back_raw(ask: Asker) -> None:
    refusal = ask.refused(ask.upgrade({"upgrade": "x\r\nSet-Cookie: a=b"}))
    assert refusal.status == 400
    assert "\n" not in refusal.text
    refusal = ask.refused(ask.upgrade({"upgrade": "y" * 8000}))
    assert len(refusal.text) < 300


# --- origins ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, HOST),
        (None, None),
        ("http://127.0.0.1:8080", HOST),
        ("https://127.0.0.1:8080", HOST),  # a proxy ended TLS
        ("http://example.com", "example.com"),
        ("http://example.com", "example.com:80"),
        ("http://example.com:80", "example.com"),
        ("https://example.com", "example.com:443"),
        ("https://example.com", "example.com"),
        ("http://EXAMPLE.com", "example.COM"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://[::1]", "[::1]"),
    ],
)
def test_the_same_origin_passes(origin: str | None, host: str | None) -> None:
    assert OWN.allow(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "example.com"),
        ("http://example.com.evil.example", "example.com"),
        ("http://evil-example.com", "example.com"),
        ("http://example.com:8081", "example.com:8080"),
        ("http://example.com", "example.com:8080"),
        ("http://example.com:8080", "example.com"),
        ("https://example.com", "example.com:80"),
        ("http://example.com", None),
        ("null", "example.com"),
        ("null", "null"),
        ("", "example.com"),
        ("", ""),
        ("example.com", "example.com"),
        ("//example.com", "example.com"),
        ("file://", ""),
        ("file://example.com", "example.com"),
        ("ftp://example.com", "example.com"),
        ("http://", ""),
        ("http://example.com@evil.example", "example.com"),
        ("http://example.com:port", "example.com"),
        ("http://example.com:99999", "example.com"),
        ("http://[::1", "[::1]"),
        ("http://[::2]", "[::1]"),
        ("http://localhost:8080", "127.0.0.1:8080"),
    ],
)
def test_other_origins_do_not(origin: str, host: str | None) -> None:
    assert not OWN.allow(origin, host)


@pytest.mark.parametrize(
    ("origin", "allowed", "passes"),
    [
        ("https://a.example", ["https://a.example"], True),
        ("https://A.example", ["https://a.EXAMPLE/"], True),
        ("https://b.example", ["https://a.example", "https://b.example"], True),
        ("https://a.example:444", ["https://a.example"], False),
        ("http://a.example", ["https://a.example"], False),
        ("https://a.example.b", ["https://a.example"], False),
        ("http://127.0.0.1:8080", ["https://a.example"], True),  # its own
        ("https://a.example", [], False),
        ("https://a.example", ["*"], True),
        ("null", ["*"], True),
        ("null", ["null"], True),
        ("null", ["https://a.example"], False),
        (None, [], True),
    ],
)
def test_a_list_of_origins(origin: str | None, allowed: list[str], passes: bool) -> None:
    assert pages(allowed).allow(origin, HOST) is passes


def test_own_origin_can_be_kept_out() -> None:
    others = pages(["https://a.example"], own=False)
    assert not others.allow("http://127.0.0.1:8080", HOST)
    assert others.allow("https://a.example", HOST)
    assert others.allow(None, HOST)


def test_refused_origin(ask: Asker) -> None:
    upgrade = ask.upgrade({"origin": "http://evil.example"})
    refusal = ask.refused(upgrade)
    assert (refusal.status, refusal.code) == (403, "origin_not_allowed")
    assert isinstance(negotiate(upgrade, pages=pages(["*"]), deflate=False), Accepted)


# --- subprotocols and compression ---------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "supported", "chosen"),
    [
        ("b, a", ["a", "b"], "a"),  # the server's preference
        ("b", ["a", "b"], "b"),
        ("c", ["a", "b"], None),
        ("a", [], None),
        (None, ["a"], None),
        ("A", ["a"], None),
        ("daebus", [], "daebus"),  # what our own clients offer needs no argument
        ("daebus, daebus.token.YQ", ["a"], "daebus"),
        ("daebus, a", ["a"], "a"),
        ("daebus.token.YQ", [], None),
    ],
)
def test_subprotocols(
    ask: Asker, offered: str | None, supported: list[str], chosen: str | None
) -> None:
    accepted = ask.accepted({"sec-websocket-protocol": offered}, subprotocols=supported)
    assert accepted.subprotocol == chosen
    assert dict(headers(accepted.response)).get("sec-websocket-protocol") == chosen


def test_subprotocols_in_several_headers(ask: Asker) -> None:
    more = [("sec-websocket-protocol", "a"), ("sec-websocket-protocol", "b")]
    assert ask.accepted(more=more, subprotocols=["b"]).subprotocol == "b"


DEFLATE = "sec-websocket-extensions"


def parameters(accepted: Accepted) -> set[str]:
    value = dict(headers(accepted.response))[DEFLATE]
    name, *found = [part.strip() for part in value.split(";")]
    assert name == "permessage-deflate"
    return set(found)


@pytest.mark.parametrize(
    ("offer", "client_bits"),
    [
        ("permessage-deflate", 15),
        ("permessage-deflate; client_max_window_bits", 12),
        ("permessage-deflate; client_max_window_bits=10", 10),
        ("permessage-deflate; server_max_window_bits=10; client_no_context_takeover", 15),
        ("x-unknown, permessage-deflate", 15),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", 15),
    ],
)
def test_compression(ask: Asker, offer: str, client_bits: int) -> None:
    accepted = ask.accepted({DEFLATE: offer}, deflate=True)
    found = parameters(accepted)
    # No context is kept: a broadcast is compressed once for all.
    assert {"server_no_context_takeover", "client_no_context_takeover"} <= found
    assert (f"client_max_window_bits={client_bits}" in found) is (client_bits < 15)
    assert len(accepted.extensions) == 1
    codec = Codec(max_message_size=100, max_fragments=1, extensions=accepted.extensions)
    assert codec.compress(TEXT, b"x" * 50)[0] == 0xC1


def test_a_smaller_window_is_respected(ask: Asker) -> None:
    accepted = ask.accepted({DEFLATE: "permessage-deflate; server_max_window_bits=9"}, deflate=True)
    assert "server_max_window_bits=9" in parameters(accepted)


@pytest.mark.parametrize(
    "offer",
    [
        None,
        "x-unknown",
        "permessage-deflate; unknown=1",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    ],
)
def test_offers_that_are_declined(ask: Asker, offer: str | None) -> None:
    accepted = ask.accepted({DEFLATE: offer}, deflate=True)
    assert list(accepted.extensions) == []
    assert DEFLATE not in dict(headers(accepted.response))


def test_compression_is_off_by_default(ask: Asker) -> None:
    accepted = ask.accepted({DEFLATE: "permessage-deflate; client_max_window_bits"})
    assert list(accepted.extensions) == []
    assert DEFLATE not in dict(headers(accepted.response))


@pytest.mark.parametrize("value", [",,;", "permessage-deflate; =", "a b", "é", '"'])
@pytest.mark.parametrize("name", [DEFLATE, "sec-websocket-protocol"])
def test_headers_that_cannot_be_parsed(ask: Asker, name: str, value: str) -> None:
    upgrade = ask.upgrade({name: value})
    answer = negotiate(upgrade, pages=OWN, deflate=True, subprotocols=["a"])
    assert isinstance(answer, Refusal)
    assert (answer.status, answer.code) == (400, "bad_handshake")


def test_each_connection_has_its_own_extensions(ask: Asker) -> None:
    one, other = (ask.accepted({DEFLATE: "permessage-deflate"}, deflate=True) for _ in range(2))
    assert one.extensions[0] is not other.extensions[0]
