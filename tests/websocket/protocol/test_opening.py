"""Headers, query and cookies of the upgrade request."""

from __future__ import annotations

import pytest

from daebus.websocket.protocol.opening import pack, parse_cookies, parse_query, unpack


def test_headers_come_out_as_they_were_packed() -> None:
    headers = unpack(pack([("host", "x"), ("x-a", "1:2"), ("cookie", "a=1"), ("x-a", ""),
                           ("cookie", "b=2"), ("x-umlaut", "\xfc")]))  # fmt: skip
    assert dict(headers) == {
        "host": "x", "x-a": "1:2, ", "cookie": "a=1; b=2", "x-umlaut": "\xfc"
    }  # fmt: skip
    assert headers["HOST"] == "x"
    assert "Host" in headers
    assert "nope" not in headers
    assert headers.get("X-A") == "1:2, "
    assert headers.getlist("X-A") == ["1:2", ""]
    assert headers.getlist("nope") == []
    assert len(headers) == 4
    assert repr(headers).startswith("Headers({'host': 'x'")


def test_without_any_header_there_is_none() -> None:
    assert dict(unpack(pack([]))) == {}


def test_a_query_has_the_first_value_of_each_name() -> None:
    query = parse_query("a=1&b=&a=2&c=%C3%BC+x&d=%ff")
    assert dict(query) == {"a": "1", "b": "", "c": "ü x", "d": "\ufffd"}
    assert query.getlist("a") == ["1", "2"]
    assert query.get("nope") is None


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ('a="x y"; b=2;c=; d', {"a": "x y", "b": "2", "c": ""}),
        ("a=1; a=2", {"a": "1"}),
        ("=1; ;;", {}),
        ("a=b=c", {"a": "b=c"}),
        ("a=\xc3\xbc", {"a": "ü"}),
    ],
)
def test_cookies_are_read_leniently(header: str, cookies: dict[str, str]) -> None:
    assert parse_cookies(header) == cookies
