"""The text of a stream of events, and the ids in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daebus.http.protocol import events


def test_an_event_is_what_a_page_reads() -> None:
    assert events.event("alarm", b'{"a":1}', "alarms=Zk3f9Q.7") == (
        b'event: alarm\ndata: {"a":1}\nid: alarms=Zk3f9Q.7\n\n'
    )
    assert events.event("state", b"{}", None) == b"event: state\ndata: {}\n\n"


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\r\nid: 7", ""])
def test_a_type_that_breaks_a_line_is_left_out(name: str) -> None:
    assert events.event(name, b"{}", None) == b"data: {}\n\n"


@pytest.mark.parametrize("breaks", [b"\n", b"\r", b"\r\n"])
def test_data_of_several_lines_stays_one_event(breaks: bytes) -> None:
    assert events.event("x", b"1" + breaks + b"2", None) == b"event: x\ndata: 1\ndata: 2\n\n"


def test_the_hint_is_in_milliseconds() -> None:
    assert events.retry(2.5) == b"retry: 2500\n\n"


epochs = st.from_regex(r"[A-Za-z0-9]{6}(-[0-9]{1,3})?", fullmatch=True)
positions = st.dictionaries(
    st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20),
    st.tuples(epochs, st.integers(0, 2**53 - 1)),
    min_size=1,
    max_size=5,
)


@given(positions)
def test_an_id_comes_back_as_it_was_sent(known: dict[str, tuple[str, int]]) -> None:
    text = events.event_id((name, epoch, offset) for name, (epoch, offset) in known.items())
    assert text.isascii()
    assert text.isprintable()
    assert events.parse_id(text) == known


@pytest.mark.parametrize("text", ["7", "a=", "a=b", "a=b.", "a=b.x", "a=b.1,", "=b.1", "a=b.-1"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not the id of an event"):
        events.parse_id(text)
