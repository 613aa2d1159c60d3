"""The pictures of the design are what the source says today."""

from __future__ import annotations

import itertools
import re
import runpy
from typing import Any

import pytest

from tests.support.documents import ROOT, table

DOCS = ROOT / "docs"
DRAWN: dict[str, Any] = runpy.run_path(str(DOCS / "draw_house.py"))


@pytest.mark.parametrize("name", ["house", "threads"])
def test_the_committed_picture_is_the_one_drawn_now(name: str) -> None:
    committed = (DOCS / f"{name}.svg").read_text()
    assert committed == DRAWN[name](), "draw it again: make pictures"


def test_every_module_is_in_the_house() -> None:
    rooms = DRAWN["read_rooms"]()
    drawn = {f"{room}/{name}".lstrip("/") for room in rooms for name in rooms[room].modules}
    paths = (ROOT / "src" / "daebus").rglob("*.py")
    names = {path.relative_to(ROOT / "src" / "daebus").with_suffix("").as_posix() for path in paths}
    assert drawn == {name for name in names if not name.endswith("__init__")}


def test_the_threads_are_those_of_the_table() -> None:
    rows = table(DOCS / "design.rst", "Threads")
    documented = [(name, " ".join(count.split())) for name, count, *_ in rows]
    assert [(thread.name, thread.count) for thread in DRAWN["THREADS"]] == documented


def test_nothing_is_drawn_over_something_else() -> None:
    places = {(thread.column, thread.row) for thread in (*DRAWN["THREADS"], DRAWN["HOST"])}
    assert len(places) == len(DRAWN["THREADS"]) + 1


def test_texts_can_be_read() -> None:
    papers = {DRAWN["PAPER"], *(paper for paper, _ in DRAWN["TINTS"].values())}
    for ink, paper in itertools.product((DRAWN["INK"], DRAWN["SOFT"]), papers):
        assert contrast(ink, paper) >= 4.5
    for paper, ink in DRAWN["TINTS"].values():
        assert contrast(ink, paper) >= 4.5
        assert contrast(ink, DRAWN["PAPER"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours as WCAG 2 defines it."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part, 16) / 255 for part in re.findall("[0-9a-f]{2}", colour)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
