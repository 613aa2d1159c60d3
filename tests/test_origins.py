"""Origins and hosts are compared by what they mean, and typed ones are refused with advice."""

from __future__ import annotations

import pytest

from daebus import DaebusHttp, DaebusWebSocket
from daebus.origins import Hosts, Origins, parse_origin, split_host


@pytest.mark.parametrize(
    ("entry", "origin"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("https://example.com", "https://example.com:443"),
        ("http://example.com:80/", "http://example.com"),
        ("HTTPS://Example.COM/", "https://example.com"),
        (" https://example.com ", "https://example.com"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
        ("http://my_host", "http://my_host"),
        ("https://*.example.com", "https://a.example.com"),
        ("https://*.example.com", "https://a.b.example.com"),
        ("https://*.example.com:8443", "https://a.example.com:8443"),
        ("null", "null"),
        ("file://", "file://"),
        ("app://", "app://"),
        ("app://.", "app://."),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("*", "https://whoever.example"),
    ],
)
def test_what_is_meant_matches(entry: str, origin: str) -> None:
    assert Origins([entry], "origins").allow(origin)


@pytest.mark.parametrize(
    ("entry", "origin"),
    [
        ("https://example.com", "http://example.com"),
        ("https://example.com", "https://example.com:8443"),
        ("https://example.com", "https://example.com.evil.example"),
        ("https://example.com", "https://a.example.com"),
        ("https://example.com", "https://example.com/"),
        ("https://example.com", "https://example.com@evil.example"),
        ("https://example.com", "https://example.com\\.evil.example"),
        ("https://example.com", "https://example.com:443443"),
        ("https://*.example.com", "https://example.com"),
        ("https://*.example.com", "https://evilexample.com"),
        ("https://*.example.com", "http://a.example.com"),
        ("https://*.example.com", "https://a.example.com:8443"),
        ("https://*.example.com", "https://a.example.com.evil.example"),
        ("file://", "null"),
        ("null", "file://"),
        ("null", ""),
        ("app://", "app://name"),
        ("app://name", "app://"),
        ("https://example.com", "https://[1:::2]"),
        ("https://example.com", "nonsense"),
    ],
)
def test_others_do_not(entry: str, origin: str) -> None:
    assert not Origins([entry], "origins").allow(origin)


@pytest.mark.parametrize(
    ("entry", "advice"),
    [
        ("example.com", "write it like 'https://example.com'"),
        ("example.com/app", "write it like 'https://example.com'"),
        ("localhost:8080", "write it like 'http://localhost:8080'"),
        ("192.168.0.7", "write it like 'http://192.168.0.7'"),
        ("https://example.com/app", "write it like 'https://example.com'"),
        ("https://example.com?x", "write it like 'https://example.com'"),
        ("https://me@example.com/", "write it like"),
        ("https://example.com:0", "write it like 'https://example.com:8080'"),
        ("https://example.com:99999", "write it like"),
        ("https://example.com:*", "write it like 'https://*.example.com'"),
        ("https://*", "write it like 'https://*.example.com'"),
        ("https://a.*.com", "write it like 'https://*.example.com'"),
        ("https://a*.example.com", "write it like 'https://*.example.com'"),
        ("https://", "write it like 'https://example.com:8080'"),
        ("https://[::1", "write it like"),
        ("wss://example.com", "the origin is the page's; write it like 'https://example.com'"),
        ("app://name/index.html", "write it like 'app://name'"),
        ("file:///x", "write it like 'file://'"),
        ("", "write it like 'https://example.com'"),
        ("https:example.com", "write it like 'https://example.com'"),
        ("http:/localhost:8080", "write it like 'http://localhost:8080'"),
        ("//example.com/app", "write it like 'https://example.com'"),
        ("*.example.com", "write it like 'https://*.example.com'"),
        ("mailto:me", "write it like 'https://example.com'"),
        ("::1", "write it like 'http://[::1]'"),
        ("http://::1", "write it like 'http://[::1]'"),
        ("wss://::1/ws", "write it like 'https://[::1]'"),
    ],
)
def test_what_is_no_origin_is_refused_with_what_to_type(entry: object, advice: str) -> None:
    for make in (
        lambda: DaebusWebSocket(origins=[entry]),  # type: ignore[list-item]  # that is the mistake
        lambda: DaebusHttp(cors={"allowed_origins": [entry]}),
    ):
        with pytest.raises(ValueError, match="origins holds") as caught:
            make()
        assert advice in str(caught.value)
        assert repr(entry) in str(caught.value)
    *_, better, _ = str(caught.value).split("'")
    DaebusWebSocket(origins=[better])  # to type what it says helps


def test_what_is_no_text_is_no_origin() -> None:
    with pytest.raises(TypeError, match=r"origins must be a list, each a string .* not \[5\]"):
        DaebusWebSocket(origins=[5])  # type: ignore[list-item]  # that is the mistake
    with pytest.raises(ValueError, match="origins holds 5"):
        DaebusHttp(cors={"allowed_origins": [5]})


def test_both_sides_read_origins_alike() -> None:
    """One parser: what the one takes the other takes too."""
    for entry in (
        "https://example.com:443/",
        "https://*.example.com",
        "file://",
        "null",
        "app://x",
    ):
        DaebusWebSocket(origins=[entry])
        DaebusHttp(cors={"allowed_origins": [entry], "allow_credentials": True})


def test_origin_is_written_as_browsers_do() -> None:
    for text in ("https://example.com", "http://[::1]:8080", "null", "file://", "app://name"):
        assert str(parse_origin(text)) == text
    assert str(parse_origin("HTTP://Example.com:80")) == "http://example.com"


@pytest.mark.parametrize(
    ("text", "name", "port"),
    [
        ("example.com", "example.com", None),
        ("Example.COM:8080", "example.com", 8080),
        ("example.com.", "example.com", None),
        ("[0:0::1]:80", "[::1]", 80),
        ("example.com:", "example.com", None),
        ("", "", None),
    ],
)
def test_host_is_split(text: str, name: str, port: int | None) -> None:
    assert split_host(text) == (name, port)


@pytest.mark.parametrize("text", ["a:b", "[::1", "a/b", "a@b", "x:65536", "a b", "a" * 300])
def test_what_is_no_host_is_seen(text: str) -> None:
    assert split_host(text) is None


@pytest.mark.parametrize(
    ("entry", "host", "allowed"),
    [
        ("example.com", "example.com", True),
        ("Example.COM.", "EXAMPLE.com.:8080", True),
        ("example.com", "a.example.com", False),
        ("example.com", "example.com.evil.example", False),
        ("example.com", "evilexample.com", False),
        (".example.com", "a.example.com:80", True),
        (".example.com", "a.b.example.com", True),
        (".example.com", "example.com", False),
        (".example.com", ".example.com", False),
        (".example.com", "evilexample.com", False),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("my_host", "my_host:8000", True),
        ("example.com", "127.0.0.1:8080", True),
        ("example.com", "[::1]:8080", True),
        ("example.com", "127.0.0.1.evil.example", False),
        ("example.com", "300.0.0.1", False),
        ("example.com", "evil.example1", False),
        ("example.com", "", True),
        ("*", "whatever.example", True),
    ],
)
def test_hosts(entry: str, host: str, allowed: bool) -> None:
    assert Hosts([entry], "allowed_hosts").allow(host) is allowed


@pytest.mark.parametrize(
    ("entry", "advice"),
    [
        ("https://example.com/", "write 'example.com'"),
        ("example.com:8080", "write 'example.com'"),
        ("*.example.com", "write '.example.com'"),
        ("https://*.example.com", "write '.example.com'"),
        ("", "write it like 'example.com'"),
        ("a b", "write it like 'example.com'"),
        ("*.*", "write it like 'example.com'"),
        (5, "write it like 'example.com'"),
        ("::1", "write '[::1]'"),
        ("http://::1/app", "write '[::1]'"),
    ],
)
def test_what_is_no_host_is_refused_with_what_to_type(entry: object, advice: str) -> None:
    with pytest.raises(ValueError, match="allowed_hosts holds") as caught:
        Hosts([entry], "allowed_hosts")
    assert advice in str(caught.value)
