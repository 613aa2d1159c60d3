"""Paths with parameters find what they would find among views."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from daebus.websocket.protocol.patterns import Pattern, Patterns

RULES = [
    "/",
    "/fixed",
    "/device/<name>",
    "/device/<int:number>",
    "/device/new",
    "/device/<name>/log",
    "/rack/<int:rack>-<slot>",
    "/scale/<float:factor>",
    "/id/<uuid:ident>",
    "/files/<path:rest>",
    "/files/<path:rest>/raw",
    "/über/<wort>",
]
PATHS = [
    "/",
    "/fixed",
    "/fixed/",
    "/device/x",
    "/device/7",
    "/device/new",
    "/device/x/log",
    "/device/x/y",
    "/device/",
    "/device",
    "/device/a b%",
    "/rack/3-left",
    "/rack/x-left",
    "/scale/1.5",
    "/scale/1",
    "/id/12345678-1234-5678-1234-567812345678",
    "/files/a/b/c",
    "/files/a/raw",
    "/files//a",
    "/über/größe",
    "/other",
]


def ours() -> Patterns[str]:
    patterns = Patterns[str]()
    for rule in RULES:
        assert patterns.add(Pattern(rule), rule) is None
    return patterns


@pytest.mark.parametrize("path", PATHS)
def test_a_path_finds_what_it_would_find_among_views(path: str) -> None:
    theirs: tuple[Any, Any] | None
    try:
        rules = Map([Rule(rule, endpoint=rule) for rule in RULES], merge_slashes=False)
        theirs = rules.bind("x").match(path)
    except HTTPException:
        theirs = None
    found = ours().find(path)
    assert (found and (found[1], found[2])) == (theirs and (theirs[0], dict(theirs[1])))


def test_parameters_are_converted() -> None:
    found = ours().find(f"/id/{uuid.UUID(int=5)}")
    assert found is not None
    assert found[2] == {"ident": uuid.UUID(int=5)}


def test_two_patterns_for_the_same_paths_are_one_too_many() -> None:
    patterns = Patterns[int]()
    first = Pattern("/device/<name>")
    assert patterns.add(first, 1) is None
    assert patterns.add(Pattern("/device/<other>"), 2) is first
    assert patterns.add(Pattern("/device/<int:other>"), 2) is None


@pytest.mark.parametrize(
    ("pattern", "path", "claimed"),
    [
        ("/device/<name>", "/device", True),
        ("/device/<name>", "/device/", True),
        ("/device/<name>", "/device/a/b", True),
        ("/device/<name>", "/devices", False),
        ("/log", "/log/x", True),
        ("/log", "/logs", False),
        ("/dev-<n>", "/dev-", True),
        ("/dev-<n>", "/dev", False),
        ("/<room>", "/a/b", False),
        ("/", "/a", False),
    ],
)
def test_what_begins_with_the_fixed_part_is_claimed(pattern: str, path: str, claimed: bool) -> None:
    patterns = Patterns[int]()
    patterns.add(Pattern(pattern), 1)
    assert patterns.claims(path) is claimed


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("/<int:a>/<a>", "write <a2>, or one of int, float, uuid, string, path"),
        ("/<date:day>", "write <day2>, or one of int, float, uuid, string, path"),
        ("/<int:>", "write <name> or <int:n>"),
        ("/<a", "write <name> or <int:n>"),
        ("/<a>.<b>.<c>", "split it in the handler"),
        ("/<path:a>/x/<path:b>", "split it in the handler"),
    ],
)
def test_a_malformed_pattern_says_what_to_write(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match="path") as caught:
        Pattern(text)
    assert str(caught.value).endswith(advice)


@pytest.mark.parametrize("text", ["/<a>.<b>", "/<path:a>/<b>", "/<path:a>/x/<b>.<c>"])
@pytest.mark.parametrize("crumb", [".", "a/", "a.", "/"])
def test_no_path_takes_long_to_match(text: str, crumb: str) -> None:
    path = "/" + crumb * (8192 // len(crumb)) + "/"
    started = time.perf_counter()
    Pattern(text).match(path)
    assert time.perf_counter() - started < 1
